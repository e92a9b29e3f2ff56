"""Prove every analysis on the simulated mice, whose truth is known, and write docs/validation.md.

    python benchmarks/validate.py [--data_dir data/simulated] [--twin twins/simulated] [--work runs/validation]

Every analysis is run twice: on the simulated animals themselves (their noiseless answers, so that what is judged is
stimulus, presentation and estimator alone), and on a trained twin. What compare_truth.py finds is held against the
gates below. Runs the scripts of the analyses as a user would; finished predictions are not repeated.

reads   the default simulated mice (data/simulate.py), the twin
writes  WORK/animal/, WORK/twin/, docs/validation.md
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from viv1t import cli, io

ROOT = Path(__file__).parents[1]
BONUS = "live_main live_bonus final_main final_bonus"
PREPARE = (f"predict.py --data_dir {{data}} --output_dir {{run}} --ds_tier {BONUS}",
           "evaluate.py --data_dir {data} --output_dir {run}")  # fmt: skip
ANALYSES = (
    "tuning_retinotopy/predict_noise.py --output_dir {run} {who}",
    "tuning_retinotopy/fit_aRFs.py --output_dir {run}",
    "tuning_retinotopy/estimate_retinotopy.py --output_dir {run}",
    "tuning_retinotopy/compare_truth.py --output_dir {run} --data_dir {data}",
    "tuning_direction/predict_gratings.py --output_dir {run} --centre field {who}",
    "tuning_direction/estimate_selectivity.py --output_dir {run}",
    "tuning_direction/compare_truth.py --output_dir {run} --data_dir {data}",
)


@dataclass(frozen=True)
class Gate:
    """One number of RUN/validation/<file>.csv and where it must lie: for the animal (L0) and for a twin (L1)."""

    title: str
    file: str
    quantity: str
    statistic: str
    animal: tuple[str, float, float] | None  # selection of neurons, least, most
    twin: tuple[str, float, float] | None


ANY = float("inf")
R, D, T, W = "retinotopy", "direction_gratings", "tuning_comparison_twin", "well predicted"
GATES = (
    Gate("field centre, median error (px)", R, "centre (px)", "median error", ("accepted", 0, 0.3), (W, 0, 2)),
    Gate("field centre within 1 px", R, "centre (px)", "share within 1", ("accepted", 0.95, 1), None),
    Gate("... simple, complex and mixed cells", R, "centre (px)", "share within 1", ("gabor", 0.95, 1), None),
    Gate("field centre within 2 px", R, "centre (px)", "share within 2", ("accepted", 0.99, 1), (W, 0.8, 1)),
    Gate("field found", R, "field accepted", "share", ("driven", 0.98, 1), (W, 0.8, 1)),
    Gate("field of an undriven neuron", R, "field accepted", "share", ("undriven", 0, 0.05), None),
    Gate("width, rank correlation", R, "width (sd, deg)", "rank correlation", ("accepted", 0.6, 1), (W, 0.6, 1)),
    Gate("width, median ratio to the truth", R, "width (sd, deg)", "median ratio", ("accepted", 0.75, 1.25), None),
    Gate("map of cortex, relative error", R, "map of cortex", "relative error", ("accepted", 0, 0.1),
         ("accepted", 0, 0.2)),
    Gate("scatter around it, error (deg)", R, "scatter (deg)", "error", ("accepted", -0.5, 0.5),
         ("accepted", -ANY, ANY)),
    Gate("preferred axis, median error (deg)", D, "preferred axis (deg)", "median error", ("responsive", 0, 2),
         (W, 0, 10)),
    Gate("preferred axis within 10 deg", D, "preferred axis (deg)", "share within 10", ("responsive", 0.9, 1), None),
    Gate("preferred axis within 22.5 deg", D, "preferred axis (deg)", "share within 22.5", None, (W, 0.8, 1)),
    Gate("preferred direction, median error (deg)", D, "preferred direction (deg)", "median error",
         ("responsive", 0, 2), None),
    Gate("preferred direction within 22.5 deg", D, "preferred direction (deg)", "share within 22.5",
         ("responsive", 0.9, 1), None),
    Gate("preferred direction within 45 deg", D, "preferred direction (deg)", "share within 45", None, (W, 0.75, 1)),
    Gate("direction selectivity, rank correlation", D, "gDSI", "Spearman", ("responsive", 0.95, 1), (W, 0.5, 1)),
    Gate("similarity of axes below 100 um, error", D, "similarity of axes, pairs below 100 um", "estimated - true",
         ("responsive", -0.02, 0.02), (W, -0.1, 0.1)),
)  # fmt: skip


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", default="data/simulated", help="simulated mice (default: data/simulated)")
    parser.add_argument("--twin", default="twins/simulated", help="run folder of a twin (default: twins/simulated)")
    parser.add_argument("--work", default="runs/validation", help="folder of the results (default: runs/validation)")
    parser.add_argument("--to", default="docs/validation.md", help="page to write (default: docs/validation.md)")
    return parser


def main(args) -> None:
    work, data = Path(args.work), Path(args.data_dir).resolve()
    twin, animal = work / "twin", work / "animal"
    if not twin.is_dir():
        shutil.copytree(args.twin, twin)
    for command in PREPARE:
        call(command, twin, data)
    for run_dir, who in ((animal, f"--animal --data_dir {data}"), (twin, "")):
        for command in ANALYSES:
            call(command, run_dir, data, who)

    tables = {name: read(run_dir) for name, run_dir in (("animal", animal), ("twin", twin))}
    io.write_text(args.to, page(tables, twin))
    print(args.to)
    missed = [line for line in judge(tables) if "**" in line]
    print(f"{len(missed)} gates missed" + "".join(f"\n{line}" for line in missed))


def read(run_dir: Path) -> pd.DataFrame:
    """All rows of RUN/validation/*.csv, with the name of their file."""
    paths = sorted((run_dir / "validation").glob("*.csv"))
    return pd.concat([pd.read_csv(path, dtype={"mouse": str}).assign(file=path.stem) for path in paths])


def judge(tables: dict[str, pd.DataFrame]) -> list[str]:
    """One line of a Markdown table for each gate; what misses its gate is bold."""
    lines = []
    for gate in GATES:
        cells = [gate.title]
        for name, demand in (("animal", gate.animal), ("twin", gate.twin)):
            cells += [limits(demand), measured(tables[name], gate, demand)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def limits(demand: tuple[str, float, float] | None) -> str:
    if demand is None or not any(abs(limit) < ANY for limit in demand[1:]):
        return "–"
    _, least, most = demand
    return f"at most {most:g}" if least == 0 else f"at least {least:g}" if most == 1 else f"{least:g} to {most:g}"


def measured(table: pd.DataFrame, gate: Gate, demand: tuple[str, float, float] | None) -> str:
    """The value of every mouse, and how many neurons it is of."""
    if demand is None:
        return ""
    selection, least, most = demand
    own = table[(table["file"] == gate.file) & (table["quantity"] == gate.quantity)]
    own = own[(own["statistic"] == gate.statistic) & (own["selection"] == selection)]
    if not len(own):
        return "**not measured**"
    values = ", ".join(f"{value:.3g}" for value in own["value"])
    passes = own["value"].between(least - 1e-9, most + 1e-9).all()
    return (values if passes else f"**{values}**") + f" (n = {', '.join(map(str, own['n']))} {selection})"


def page(tables: dict[str, pd.DataFrame], twin: Path) -> str:
    """docs/validation.md."""
    card = io.read_json(twin / "twin.json")["card"] if (twin / "twin.json").is_file() else {}
    shares = tables["twin"][tables["twin"]["quantity"].isin(["well predicted"])]
    told = "; ".join(f"{s.mouse}: {s.value:.0%} of {s.n} {s.selection} neurons" for s in shares.itertuples())
    about = f"`{card['command']}` on `{card['data']}`" if card else f"`{twin}`"
    parts = [HEAD, f"The twin: {about}. Neurons that it predicts to 0.8 of their ceiling on recorded test movies "
             f"(\"well predicted\"): {told}.\n", TABLE_HEAD, *judge(tables), "", NOTES.rstrip()]  # fmt: skip
    return "\n".join(parts) + "\n"


HEAD = """# Validation

*Written by `python benchmarks/validate.py`; do not edit.*

Every analysis is run twice on the two default simulated mice: on the **animals** themselves, whose noiseless answers
leave only stimulus, presentation and estimator to be judged, and on a **twin** that learnt from their noisy responses
to movies and never saw the stimuli of the analyses. Values are those of simA and simB; what misses its gate is bold.
"""
TABLE_HEAD = """| quantity | gate, animal | animal | target, twin | twin |
| --- | --- | --- | --- | --- |"""
NOTES = """
"""


def call(command: str, run_dir: Path, data: Path, who: str = "") -> None:
    words = command.format(run=run_dir.resolve(), data=data, who=who).split()
    print(f"\n$ python {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


if __name__ == "__main__":
    cli.run(main, get_parser())
