"""Prove every analysis on the simulated mice, whose truth is known, and write docs/validation.md.

    python benchmarks/validate.py [--data_dir data/simulated] [--twin twins/simulated] [--work runs/validation]

Every analysis is run twice: on the simulated animals themselves (their noiseless answers, so that what is judged is
stimulus, presentation and estimator alone), and on a trained twin. What compare_truth.py finds is held against the
gates below. Runs the scripts of the analyses as a user would; finished predictions are not repeated.

reads   the default simulated mice (data/simulate.py), the twin
writes  WORK/animal/, WORK/twin/, docs/validation.md and its figures
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from viv1t import cli, io

ROOT = Path(__file__).parents[1]
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

    run: str
    file: str
    quantity: str
    statistic: str
    selection: str
    least: float = -ANY
    most: float = ANY


@dataclass(frozen=True)
class Gate:
    """A quantity with what is asked of the estimator alone (on the animal) and of a twin."""

    title: str
    animal: Need | None
    twin: Need | None


def gate(title, file, quantity, statistic, animal=None, twin=None) -> Gate:
    """animal, twin: (selection of neurons, least, most)."""
    needs = [
        asked and Need(run, file, quantity, statistic, *asked) for run, asked in (("animal", animal), ("twin", twin))
    ]
    return Gate(title, *needs)


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
         Need("twin", "tuning_comparison_animal", CURVES, "mean", "selective", 0.95, 1.05),
         Need("twin", "tuning_comparison_twin", CURVES, "mean", "selective", 0.7, 1.05)),
    Gate("recorded Gabors, untuned neurons with p < 0.01",
         Need("twin", "direction_recording", "direction, p < 0.01", "share", "untuned", 0, 0.015), None),
)  # fmt: skip


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", default="data/simulated", help="simulated mice (default: data/simulated)")
    parser.add_argument("--twin", default="twins/simulated", help="run folder of a twin (default: twins/simulated)")
    parser.add_argument("--work", default="runs/validation", help="folder of the results (default: runs/validation)")
    parser.add_argument("--to", default="docs/validation.md", help="page to write (default: docs/validation.md)")
    return parser


def main(args) -> None:
    work, data = Path(args.work).resolve(), Path(args.data_dir).resolve()
    if not (work / "twin").is_dir():
        shutil.copytree(args.twin, work / "twin")
    for command in (*BOTH, TRUTH):
        call(command, work / "animal", data, f"--animal --data_dir {data}")
    for command in (*TWIN, TRUTH):
        call(command, work / "twin", data)
    found = pd.concat([read(work, run) for run in ("animal", "twin")])
    io.write_text(args.to, page(found, work / "twin"))
    for name, copy in FIGURES.items():
        folder = Path(args.to).parent / "figures"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(work / "twin" / "figures" / f"{name}.png", folder / f"{copy}.png")
    lines = judge(found)
    missed = [line for line in lines if "**" in line]
    print(f"\n{args.to}: {len(missed)} of {len(lines)} lines with a miss", *missed, sep="\n")


def call(command: str, run_dir: Path, data: Path, who: str = "") -> None:
    words = command.format(run=run_dir, data=data, who=who).split()
    if "--output_dir" not in words:
        words[1:1] = ["--output_dir", str(run_dir)]
    print(f"\n$ python {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def read(work: Path, run: str) -> pd.DataFrame:
    """All rows of RUN/validation/*.csv, with the names of run and file."""
    paths = sorted((work / run / "validation").glob("*.csv"))
    return pd.concat([pd.read_csv(path, dtype={"mouse": str}).assign(run=run, file=path.stem) for path in paths])


def judge(found: pd.DataFrame) -> list[str]:
    """One line of a Markdown table for each gate; what misses its gate is bold."""
    lines = []
    for each in GATES:
        cells = [each.title]
        for need in (each.animal, each.twin):
            cells += ["", ""] if need is None else [limits(need), measured(found, need)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def limits(need: Need) -> str:
    if need.least == -ANY:
        return ""
    if need.most == 1:
        return f"at least {need.least:g}"
    return f"at most {need.most:g}" if need.least == 0 else f"{need.least:g} to {need.most:g}"


def measured(found: pd.DataFrame, need: Need) -> str:
    """The value of every mouse, and of how many neurons it is."""
    own = found
    for name in ("run", "file", "quantity", "statistic", "selection"):
        own = own[own[name] == getattr(need, name)]
    if not len(own):
        return "**not measured**"
    values = ", ".join(f"{value:.3g}" for value in own["value"])
    passes = own["value"].between(need.least - 1e-9, need.most + 1e-9).all()
    return (values if passes else f"**{values}**") + f" (n = {', '.join(map(str, own['n']))} {need.selection})"


def page(found: pd.DataFrame, twin: Path) -> str:
    """docs/validation.md."""
    card = io.read_json(twin / "twin.json")["card"]
    shares = found[(found["run"] == "twin") & (found["file"] == FIELDS) & (found["quantity"] == WELL)]
    told = "; ".join(f"{s.mouse} {s.value:.0%} of {s.n} {s.selection} neurons" for s in shares.itertuples())
    about = (
        f"The twin, `twins/simulated`, learnt from `{card['data']}` by `{card['command']}`. Neurons whose recorded "
        f"test movies it predicts to 0.8 of their ceiling or better (*well predicted*): {told}."
    )
    return "\n\n".join([HEAD, about, "\n".join([TABLE_HEAD, *judge(found)]), NOTES]) + "\n"


HEAD = """# Validation

*Written by `python benchmarks/validate.py`.*

Every analysis is run twice on the two default simulated mice: on the **animals** themselves, whose noiseless answers
leave only stimulus, presentation and estimator to be judged, and on a **twin** that learnt from noisy responses
to movies and was never shown the stimuli of the analyses. Values are those of simA, simB (one, where only one was
shown the stimulus); what misses its gate or target is bold; values without one are told for comparison."""
TABLE_HEAD = """| quantity | gate | animal | target | twin |
| --- | --- | --- | --- | --- |"""
NOTES = """![Receptive fields of the twin against the truth](figures/validation_retinotopy.png)

![Tuning for direction of the twin against the truth](figures/validation_direction.png)

![Size tuning and feedback fields of the twin against the truth](figures/validation_feedbackRF.png)

![Contextual modulation of the twin against the truth](figures/validation_contextual.png)

Fields, tuning for direction, size tuning and contextual modulation of the twin against the truth; blue: well-predicted
neurons, r, bias (median difference) and n are theirs; grey: all others.

## Notes

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
  is the model.
- **Missed: gOSI.** True values of oriented neurons lie close together (sd 0.07). Gratings in a patch on the neuron's
  own field (`--centre field`, simB) instead of full field gave a rank correlation of 0.15 instead of 0.02; more
  movies and the finer grid did not help either. The animal shown the same gratings recovers it, so it is the model
  here, too.
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
- **Onsets.** Both simulated mice miss 25 ms of scatter by a hair: onsets are taken at 20 % of the peak; at 50 % the
  classical one depends on the preferred temporal frequency (scatter 45 ms), at 10 % scatter is 17 ms, but twins'
  direct drive leaks in.
- **Missed: suppression, and with it CMI and flips.** The twin tells who has a feedback field (rise with the grey
  disc), roughly which size a neuron prefers, and that a surround suppresses, but suppresses far too little. Tried:
  (1) *movies with the needed structure*: 60 % of 480 training movies behind apertures (`data/simulate.py --apertures
  0.6`: movies or gratings in discs, around them, or both), the demo's core, 3 epochs: median suppression index 0.00
  (truth 0.75). (2) *What the core can see*: regression of 120 of these movies' responses on its energies, or on
  these and the energies around, gives a median of 0.00 as well; on energies divided by the contrast around, 0.3 to
  0.5, with a rank correlation of 0.24 to 0.30. Attention and layer norms add up what they find, and the suppression
  of these animals divides. (3) *Another core*: `presets/surround.txt` (`--core_patch_mode divisive`) on the same
  movies: after 1, 2 and 6 epochs the median is 0.18, 0.11 and 0.26, the rank correlation with the strength of the
  surround 0.22, 0.25 and 0.33, and feedback fields are told with an area of 0.88, 0.95 and 0.99; validation
  correlation was still rising (0.242, 0.265, 0.295) when it was stopped. CMI stays at 0.1. A core that divides is
  part of what is missing; what it learns from ordinary movies alone was not tried, and it wants more training than was
  done. These numbers are of 57 oriented neurons of simA (76 for the first), probed on their true fields and
  directions by scripts that are not part of this repository; the twin in `twins/` is unchanged.
- **Missed: lag of the inverse response.** Over all inverse-tuned neurons of the twin it follows the delay (slope 0.8
  and 0.6); few of the well-predicted ones are inverse-tuned by the published index, and these show no slope.
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
