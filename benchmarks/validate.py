"""Prove every analysis on the simulated mice, whose truth is known, and write docs/validation.md.

    python benchmarks/validate.py [--data_dir data/simulated] [--twins twins/simulated twins/surround]

Every analysis is run on the simulated animals themselves (their noiseless answers, so that what is judged is
stimulus, presentation and estimator alone), and on trained twins. What compare_truth.py finds is held against the
gates below. Runs the scripts of the analyses as a user would; finished predictions are not repeated.

reads   the default simulated mice (data/simulate.py), the twins
writes  WORK/animal/, WORK/<TWIN>/ for each twin, docs/validation.md and its figures
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from viv1t import cli, io

ROOT = Path(__file__).parents[1]
TWINS = "twins/simulated", "twins/surround"
BOTH = (
    "tuning_retinotopy/predict_noise.py {who}",
    "tuning_retinotopy/fit_aRFs.py",
    "tuning_retinotopy/estimate_retinotopy.py",
    "tuning_retinotopy/predict_noise.py {who} --gaze 10 0 --results_dir {run}/gaze",
    "tuning_retinotopy/fit_aRFs.py --output_dir {run}/gaze",
    "tuning_retinotopy/compare_gaze.py --others {run}/gaze",
    "tuning_direction/predict_gratings.py {who}",
    "tuning_direction/estimate_selectivity.py",
    "tuning_direction/compare_truth.py --data_dir {data}",
    "tuning_feedbackRF/predict_gratings.py {who}",
    "tuning_feedbackRF/estimate_size_tuning.py",
    "tuning_feedbackRF/predict_onset.py {who}",
    "tuning_feedbackRF/estimate_onset.py",
    "tuning_feedbackRF/compare_truth.py --data_dir {data}",
    "tuning_contextual_modulation/predict_gratings.py {who} --sizes own",
    "tuning_contextual_modulation/estimate_contextual_modulation.py",
    "tuning_contextual_modulation/compare_truth.py --data_dir {data}",
)
TWIN = (
    "predict.py --data_dir {data} --ds_tier live_main live_bonus final_main final_bonus",
    "evaluate.py --data_dir {data}",
    *BOTH,
    *(f"tuning_retinotopy/estimate_spatial_tuning.py --data_dir {{data}} --source {source}"
      for source in ("recording", "twin", "animal")),
    *(f"tuning_direction/estimate_selectivity.py --data_dir {{data}} --source {source}"
      for source in ("recording", "twin", "animal")),
    "tuning_direction/compare_recorded.py",
    "tuning_direction/compare_recorded.py --predicted animal",
    "tuning_direction/compare_truth.py --data_dir {data} --source recording",
)  # fmt: skip
TRUTH = "tuning_retinotopy/compare_truth.py --data_dir {data}"
ANY = float("inf")


@dataclass(frozen=True)
class Need:
    """One row of RUN/validation/<file>.csv, and where its value must lie."""

    file: str
    quantity: str
    statistic: str
    selection: str
    least: float = -ANY
    most: float = ANY


@dataclass(frozen=True)
class Gate:
    """A quantity with what is asked of the estimator alone (on the animal) and of a twin.

    recorded: the animal answers to recorded stimuli, which scripts of the twin's run show it.
    """

    title: str
    animal: Need | None
    twin: Need | None
    recorded: bool = False


def gate(title, file, quantity, statistic, animal=None, twin=None) -> Gate:
    """animal, twin: (selection of neurons, least, most)."""
    return Gate(title, *(asked and Need(file, quantity, statistic, *asked) for asked in (animal, twin)))


FIELDS, GRATINGS, WELL = "retinotopy", "direction_gratings", "well predicted"
CENTRE, WIDTH, AXIS, DIRECTION = (
    "centre (px)", "width (sd, deg)", "preferred axis (deg)", "preferred direction (deg)",
)  # fmt: skip
SIZES, CONTEXT = "feedbackRF", "contextual"
LAG, ITI = "corrected lag over feedback delay", "inverse tuning index"
CURVES = "tuning-curve correlation, noise-corrected"
GATES = (
    gate("field centre, median error (px)", FIELDS, CENTRE, "median error", ("accepted", 0, 0.3), (WELL, 0, 2)),
    gate("field centre within 1 px", FIELDS, CENTRE, "share within 1", ("accepted", 0.95, 1), (WELL,)),
    gate("field centre within 2 px", FIELDS, CENTRE, "share within 2", ("accepted", 0.99, 1), (WELL, 0.8, 1)),
    gate("neurons with a field", FIELDS, "field accepted", "share", ("driven", 0.98, 1), (WELL, 0.8, 1)),
    gate("undriven neurons with a field", FIELDS, "field accepted", "share", ("undriven", 0, 0.05), ("undriven",)),
    gate("width, rank correlation", FIELDS, WIDTH, "rank correlation", ("accepted", 0.6, 1), (WELL, 0.6, 1)),
    gate("width, median ratio to the truth", FIELDS, WIDTH, "median ratio", ("accepted", 0.75, 1.25), (WELL,)),
    gate("map of cortex, relative error", FIELDS, "map of cortex", "relative error", ("accepted", 0, 0.1),
         ("accepted", 0, 0.2)),
    gate("scatter around the map, error (deg)", FIELDS, "scatter (deg)", "error", ("accepted", -0.5, 0.5),
         ("accepted",)),
    gate("shift with the eye, slope on the truth", FIELDS, "fields, pupil moved by +10, +0 px",
         "slope of displacement on truth", ("accepted", 0.9, 1.1), ("accepted",)),
    gate("shift with the eye, angle to the truth (deg)", FIELDS, "fields, pupil moved by +10, +0 px",
         "angle to the truth (deg)", ("accepted", -5, 5), ("accepted", -25, 25)),
    gate("selectivity for dots, rank correlation", FIELDS, "ssi, twin", "rank correlation with animal", None,
         ("tuned", 0.7, 1)),
    gate("preferred axis, median error (deg)", GRATINGS, AXIS, "median error", ("responsive", 0, 2), (WELL, 0, 10)),
    gate("preferred axis within 10 deg", GRATINGS, AXIS, "share within 10", ("responsive", 0.9, 1), (WELL,)),
    gate("preferred axis within 22.5 deg", GRATINGS, AXIS, "share within 22.5", ("responsive",), (WELL, 0.8, 1)),
    gate("preferred direction, median error (deg)", GRATINGS, DIRECTION, "median error", ("responsive", 0, 2),
         (WELL,)),
    gate("preferred direction within 22.5 deg", GRATINGS, DIRECTION, "share within 22.5", ("responsive", 0.9, 1),
         (WELL,)),
    gate("preferred direction within 45 deg", GRATINGS, DIRECTION, "share within 45", ("responsive",),
         (WELL, 0.75, 1)),
    gate("direction selectivity (gDSI), rank correlation", GRATINGS, "gDSI", "Spearman", ("responsive", 0.95, 1),
         (WELL, 0.5, 1)),
    gate("orientation selectivity (gOSI), rank correlation", GRATINGS, "gOSI", "Spearman", ("responsive", 0.6, 1),
         (WELL, 0.5, 1)),
    gate("similarity of axes below 100 um, error", GRATINGS, "similarity of axes, pairs below 100 um",
         "estimated - true", ("responsive", -0.02, 0.02), (WELL, -0.1, 0.1)),
    gate("preferred size of the grating shown, median error (deg)", SIZES, "preferred size of the grating shown (deg)",
         "median error", ("responsive",), (WELL,)),
    gate("preferred size of the grating shown, within 10 deg", SIZES, "preferred size of the grating shown (deg)",
         "share within 10", ("responsive", 0.95, 1), (WELL, 0.7, 1)),
    gate("preferred size of own frequencies, within 10 deg", SIZES, "preferred size (deg)", "share within 10",
         ("responsive",), (WELL,)),
    gate("suppression index of the grating shown, rank correlation", SIZES, "suppression index of the grating shown",
         "Spearman", ("responsive", 0.7, 1), (WELL, 0.4, 1)),
    gate("suppression index with the strength of the surround", SIZES, "suppression index and surround strength",
         "Spearman", ("responsive", 0.7, 1), (WELL, 0.4, 1)),
    gate("inverse-tuned, sensitivity", SIZES, "inverse-tuned", "sensitivity", ("responsive", 0.65, 1), (WELL,)),
    gate("inverse-tuned, false positives", SIZES, "inverse-tuned", "false positives", ("responsive", 0, 0.05),
         (WELL,)),
    gate("rise with the grey disc, area under ROC", SIZES, "rise with the disc", "area under the ROC curve",
         ("responsive",), (WELL, 0.75, 1)),
    gate("inverse tuning index, median with feedback", SIZES, ITI, "median with feedback", ("responsive", 0.35, 1),
         (WELL,)),
    gate("inverse tuning index, median without", SIZES, ITI, "median without feedback", ("responsive", -1, 0.1),
         (WELL,)),
    gate("inverse onset over the delay of the feedback, slope", SIZES, LAG, "slope", ("responsive", 0.9, 1.1),
         (WELL, 0.5, 1.5)),
    gate("inverse onset, scatter around the slope (ms)", SIZES, f"{LAG} (ms)", "sd of residuals",
         ("responsive", 0, 25), (WELL,)),
    gate("inverse onset undefined", SIZES, "lag of the inverse response", "undefined share", ("responsive", 0, 0.02),
         (WELL,)),
    gate("CMI of the grating shown, rank correlation", CONTEXT, "CMI, contrast 1, of the grating shown", "Spearman",
         ("responsive", 0.8, 1), (WELL, 0.5, 1)),
    gate("CMI of own frequencies and size, rank correlation", CONTEXT, "CMI, contrast 1", "Spearman", ("responsive",),
         (WELL, 0.5, 1)),
    gate("CMI with the tuning of the surround, rank correlation", CONTEXT,
         "CMI, contrast 1, with the surround's tuning", "Spearman", ("responsive, with surround",),
         (f"{WELL}, with surround",)),
    gate("iso below centre where the disc fills", CONTEXT, "iso < centre, contrast 1", "share",
         ("responsive, with surround, disc fills", 0.95, 1), (f"{WELL}, with surround, disc fills", 0.8, 1)),
    gate("CMI of the grating shown, contrast 0.05", CONTEXT, "CMI, contrast 0.05, of the grating shown", "Spearman",
         ("responsive", 0.8, 1), (WELL,)),
    gate("contrast flip, precision", CONTEXT, "flips, tested, of the grating shown", "precision",
         ("responsive", 0.9, 1), (WELL, 0.7, 1)),
    gate("contrast flip, recall", CONTEXT, "flips, tested, of the grating shown", "recall", ("responsive", 0.9, 1),
         (WELL,)),
    gate("flips with labels of contrast exchanged", CONTEXT, "flips, labels of contrast exchanged", "share",
         ("responsive", 0, 0.05), (WELL,)),
    Gate("recorded Gabors, tuning curves, noise-corrected correlation",
         Need("tuning_comparison_animal", CURVES, "mean", "selective", 0.95, 1.05),
         Need("tuning_comparison_twin", CURVES, "mean", "selective", 0.7, 1.05), recorded=True),
    Gate("recorded Gabors, untuned neurons with p < 0.01",
         Need("direction_recording", "direction, p < 0.01", "share", "untuned", 0, 0.015), None, recorded=True),
)  # fmt: skip


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", default="data/simulated", help="simulated mice (default: data/simulated)")
    parser.add_argument("--twins", nargs="+", default=list(TWINS), metavar="RUN",
                        help=f"run folders of twins (default: {' '.join(TWINS)})")  # fmt: skip
    parser.add_argument("--work", default="runs/validation", help="folder of the results (default: runs/validation)")
    parser.add_argument("--to", default="docs/validation.md", help="page to write (default: docs/validation.md)")
    return parser


def main(args) -> None:
    work, data = Path(args.work).resolve(), Path(args.data_dir).resolve()
    twins = {Path(twin).name: Path(twin) for twin in args.twins}
    for name, twin in twins.items():
        if not (work / name).is_dir():
            shutil.copytree(twin, work / name)
    for command in (*BOTH, TRUTH):
        call(command, work / "animal", data, f"--animal --data_dir {data}")
    for name, command in product(twins, (*TWIN, TRUTH)):
        call(command, work / name, data)
    found = {run: read(work / run) for run in ("animal", *twins)}
    io.write_text(args.to, page(found, work))
    folder = Path(args.to).parent / "figures"
    folder.mkdir(exist_ok=True)
    for name, (figure, copy) in product(twins, FIGURES.items()):
        shutil.copyfile(work / name / "figures" / f"{figure}.png", folder / f"{copy}_{name}.png")
    lines = judge(found)
    missed = [line for line in lines if "**" in line]
    print(f"\n{args.to}: {len(missed)} of {len(lines)} lines with a miss", *missed, sep="\n")


def call(command: str, run_dir: Path, data: Path, who: str = "") -> None:
    words = command.format(run=run_dir, data=data, who=who).split()
    if "--output_dir" not in words:
        words[1:1] = ["--output_dir", str(run_dir)]
    print(f"\n$ python {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def read(run_dir: Path) -> pd.DataFrame:
    """All rows of RUN/validation/*.csv, with the name of the file."""
    paths = sorted((run_dir / "validation").glob("*.csv"))
    return pd.concat([pd.read_csv(path, dtype={"mouse": str}).assign(file=path.stem) for path in paths])


def judge(found: dict[str, pd.DataFrame]) -> list[str]:
    """One line of a Markdown table for each gate; what misses its gate is bold. found: the animal's, then twins'."""
    animal, *twins = found.values()
    lines = []
    for each in GATES:
        shown = [measured(twins[0] if each.recorded else animal, each.animal)]
        cells = [each.title, limits(each.animal), *shown, limits(each.twin), *(measured(t, each.twin) for t in twins)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def limits(need: Need | None) -> str:
    if need is None or need.least == -ANY:
        return ""
    if need.most == 1:
        return f"at least {need.least:g}"
    return f"at most {need.most:g}" if need.least == 0 else f"{need.least:g} to {need.most:g}"


def measured(found: pd.DataFrame, need: Need | None) -> str:
    """The value of every mouse, and of how many neurons it is."""
    if need is None:
        return ""
    for name in ("file", "quantity", "statistic", "selection"):
        found = found[found[name] == getattr(need, name)]
    if not len(found):
        return "**not measured**"
    values = ", ".join(f"{value:.3g}" for value in found["value"])
    passes = found["value"].between(need.least - 1e-9, need.most + 1e-9).all()
    return (values if passes else f"**{values}**") + f" (n = {', '.join(map(str, found['n']))} {need.selection})"


def page(found: dict[str, pd.DataFrame], work: Path) -> str:
    """docs/validation.md."""
    _, *twins = found
    told = "\n".join(f"- {about(name, found[name], work / name)}" for name in twins)
    titles = ["quantity", "gate", "animal", "target", *twins]
    table = [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles))] + judge(found)
    return "\n\n".join([HEAD, told, "\n".join(table), figures(twins), NOTES]) + "\n"


def about(name: str, found: pd.DataFrame, run_dir: Path) -> str:
    """What a twin learnt from, and how many neurons it predicts well."""
    card = io.read_json(run_dir / "twin.json")["card"]
    well = found[(found["file"] == FIELDS) & (found["quantity"] == WELL)]
    shares = "; ".join(f"{s.mouse} {s.value:.0%} of {s.n} {s.selection} neurons" for s in well.itertuples())
    return f"`twins/{name}`: `{card['data']}`, `{card['command']}`; well predicted are: {shares}."


def figures(twins: list[str]) -> str:
    shown = [
        f"![{title}, {name}](figures/{copy}_{name}.png)"
        for name in twins
        for copy, title in zip(FIGURES.values(), TITLES, strict=True)
    ]
    return "\n\n".join([*shown, LEGEND])


HEAD = """# Validation

*Written by `python benchmarks/validate.py`.*

Every analysis is run on the two default simulated mice: on the **animals** themselves, whose noiseless answers
leave only stimulus, presentation and estimator to be judged, and on **twins** that learnt from noisy responses and
were never shown the stimuli of the analyses. Values are those of simA, simB (one, where only one was shown the
stimulus); what misses its gate or target is bold; values without one are told for comparison. *Well predicted* are
neurons whose recorded test movies a twin predicts to 0.8 of their ceiling or better."""
TITLES = (
    "Receptive fields against the truth",
    "Tuning for direction against the truth",
    "Size tuning and feedback fields against the truth",
    "Contextual modulation against the truth",
)
LEGEND = """Fields, tuning for direction, size tuning and contextual modulation of each twin against the truth; blue:
well-predicted neurons, r, bias (median difference) and n are theirs; grey: all others."""
NOTES = """## Notes

- **Neurons that nothing drives** have fields in a twin: a model without noise answers for every neuron, with
  whatever it took for signal in training. Judge a twin's neurons by their prediction (`evaluate.py`) before their
  tuning. The recording's own fields (`tuning_retinotopy/fit_recorded_fields.py`) do not show any.
- **Luminance neurons.** Local texture hardly drives them, not even in the animal (a twentieth of what a change of
  the whole screen does), and the twin predicts a drop. The hole in the map is fitted like a peak (`sign` -1 in
  `aRF.csv`): its centre is the field's, its width is not, so widths are judged where `sign` is 1. Larger cells (4 to
  8 px), uniform instead of textured, were tried and did not turn the holes into peaks.
- **Missed: width of the field.** The median is right, the differences between neurons are not. The twin reads
  10-pixel patches (34 degrees) of one shared bank of filters; true widths span 5 to 11 degrees. Four times the
  movies and a finer grid of patches (3 instead of 4 pixels) sharpened the centres but did not bring the widths: it
  is the model. In `surround` they are lost altogether.
- **Missed: gOSI.** True values of oriented neurons lie close together (sd 0.07). `simulated` does not know them: more
  movies, a finer grid, or gratings in a patch on the neuron's own field (`--centre field`: 0.15 instead of 0.02, simB)
  did not help. `surround`, which has seen gratings and divides, nearly does.
- **Missed: selectivity for dots**, judged by rank against the animal's own answers to the same trials. Dots are as
  wide as the fields, and the twin's are not sharp enough (see above).
- **Shift with the eye.** The gaze moves the fields of these mice by 0.3 pixels (sd). The twin has learnt its
  direction, not its size.
- **Two truths of surrounds.** Gratings of 0.04 cycles/deg and 2 Hz are shown to all, in discs of an estimated size.
  *Of the grating shown*: the animal's own answer to exactly these, in closed form, without screen, onset or grey
  levels. *Of own frequencies*: the truth table of the mouse, where each neuron has its own frequencies and true
  preferred size. The first judges presentation and estimates, the second also the choice of the stimulus, on which
  CMI and flips depend steeply (`tuning_contextual_modulation/README.md`). CMI says little of the surround's
  generative tuning: for the true CMI of simA the rank correlation is 0.39.
- **Onsets** are taken at 15 % of the peak, which was chosen on these animals: at 50 % the classical one depends on the
  preferred temporal frequency (scatter 45 ms), at 20 % scatter is 25 ms, at 10 % 17, but twins' direct drive leaks in.
- **Suppression: what movies do not teach, and what does.** `simulated` tells who has a feedback field (rise with the
  grey disc), roughly which size a neuron prefers, and that a surround suppresses, but suppresses far too little. In
  movies the contrast around a field rises and falls with that on it, and hardly reaches that of gratings, where
  surrounds suppress; and attention and layer norms add up what they find, while the suppression of these animals
  divides. `surround` changes both: 70 % of its training movies lie behind apertures (`data/simulate.py --apertures
  0.7`: discs, their surrounds, mosaics, half of the patterns at full contrast), and its patches are divided by a power
  of the contrast around them (`--core_patch_mode divisive`). Neither alone did it: in earlier attempts (probed on 57
  to 76 oriented neurons of simA by scripts that are not part of this repository) the demo's core learnt no suppression
  from apertures in 3 epochs, and a core whose division began far too strong, from apertures with few patterns at full
  contrast, reached a median suppression of 0.26 (truth 0.75) and a rank correlation with the strength of the surround
  of 0.33 in 6 epochs. What the dividing core learns from ordinary movies alone was not tried. `surround` has seen
  gratings in apertures, of random places, directions and frequencies: it shows what a twin can learn from such
  recordings, not that it generalises to them from movies.
- **CMI and flips** follow from suppression: `simulated` has neither, `surround` both. Its flips are right by the truth
  table (precision 0.90, 0.91), and somewhat too many against the animal's answers to the very gratings.
- **Lag of the inverse response.** Over all inverse-tuned neurons of `simulated` it follows the delay (slope 0.8, 0.6);
  the dozen that it predicts well show no slope. In `surround` three times as many are inverse-tuned, and simB's follow
  the delay, simA's hardly; over all 221, medians rise with each of the five delays, by a third of them. Delays lie
  between 100 and 200 ms, three to six frames, in movies whose events are spread over frames by the indicator; longer
  delays and faster changes behind apertures were not tried.
- **Significance** of tuning is tested on recorded blocks only: gratings shown to a twin have no noise to test
  against. With shuffled labels no neuron comes out selective, and an untrained twin's tuning has nothing to do with
  the truth (`tests/test_tuning_direction.py`, `tests/test_tuning_retinotopy.py`)."""
FIGURES = {
    "truth_retinotopy": "validation_retinotopy",
    "truth_direction_gratings": "validation_direction",
    "truth_feedbackRF": "validation_feedbackRF",
    "truth_contextual": "validation_contextual",
}


if __name__ == "__main__":
    cli.run(main, get_parser())
