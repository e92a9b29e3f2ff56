"""Gather a run into one page: what was run, how well it predicts, and every figure drawn so far.

reads   RUN/config.json, RUN/log.csv, RUN/evaluation_tiers.json and evaluation_neurons.csv (evaluate.py),
        RUN/figures/**/*.png (visualize_*, compare_*), RUN/statistics/*.csv, RUN/validation/*.csv (compare_truth.py)
writes  RUN/report.html, which needs no other file to be read; its links lead to tables and PDFs of the run folder
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io, tables
from viv1t.constants import SKIP
from viv1t.estimators import groups
from viv1t.evaluation import BASELINES
from viv1t.plotting import page
from viv1t.results import choose_tier, locate, read_scores, require


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder with evaluation_tiers.json")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    summary = io.read_json(require(run_dir, "evaluation"))
    neurons = read_scores(run_dir, groups.NEEDED)
    parts = [
        what_was_run(run_dir, summary),
        scores(summary),
        by_group(neurons),
        *figures(run_dir),
        answers(run_dir),
        truth(run_dir),
        files(run_dir),
    ]
    path = locate(run_dir, "report")
    io.write_text(path, page.page(f"Digital twin {run_dir.resolve().name}", parts))
    print(path)


def what_was_run(run_dir: Path, summary: dict) -> str:
    """Mice, model and training in a few lines; all flags folded away."""
    lines = []
    for mouse, tiers in summary["mice"].items():
        first = next(iter(tiers.values()))
        told = ", ".join(f"{tier} ({s['trials']})" for tier, s in whole_tiers(tiers).items())
        lines.append((mouse, first["neurons"], told))
    parts = [page.table(("mouse", "neurons", "scored tiers (trials)"), lines, texts=3)]
    log = locate(run_dir, "log")
    if log.is_file():
        epochs = pd.read_csv(log)
        best = epochs.loc[epochs["val_correlation"].idxmax()]
        hours = epochs["seconds"].sum() / 3600
        parts.append(
            page.paragraph(
                f"Trained for {len(epochs)} epochs ({hours:.2f} h); best validation correlation "
                f"{best['val_correlation']:.4f} in epoch {int(best['epoch'])}."
            )
        )
    config = locate(run_dir, "config")
    if config.is_file():
        flags = [(name, str(value)) for name, value in sorted(io.read_json(config).items())]
        parts.append(page.details("All flags of the run", page.table(("flag", "value"), flags, texts=2)))
    return page.section("What was run", *parts)


COLUMNS = ("mouse", "tier", "correlation", "ceiling", "ratio to ceiling", "single trial", "normalised", "FEVE",
           "mean response", "behaviour", "linear-nonlinear", "neurons", "left out")  # fmt: skip
NOTE = (
    f"Correlation: all trials of a tier end to end, frames from {SKIP} on, mean over neurons [95 % bootstrap interval "
    "over neurons; over animals and neurons where several mice are averaged]. Ceiling: the score of the true rate on "
    "simulated mice, else the oracle, the mean of the other repeats, noisy itself, so a good twin can beat it. "
    "Normalised: divided by the largest correlation that the noise allows, pooled over repeated videos. FEVE: share "
    "of explainable variance explained. Left out: neurons without enough explainable variance for the normalised "
    "correlation, and for FEVE."
)
WARNING = "better than the true rate: responses leak into the inputs, or the truth is not theirs."


def scores(summary: dict) -> str:
    rows, warnings = [], []
    for mouse, tiers in summary["mice"].items():
        for tier, s in whole_tiers(tiers).items():
            ceiling = f"{number(s[s['ceiling']]['mean'])} {s['ceiling'].replace('_', ' ')}"
            left_out = f"{s['pooled_normalized_correlation']['excluded']}, {s['feve']['excluded']}"
            rows.append(row(mouse, tier, s, ceiling, with_interval(s["ratio_to_ceiling"], 2), left_out))
            if s["beats_true_rate"]:
                warnings.append(page.paragraph(f"Mouse {mouse}, {tier}: {WARNING}", "warning"))
    for tier, s in whole_tiers(summary["all"]).items():
        if s["mice"] > 1:
            rows.append(row(f"{s['mice']} mice", tier, s, ratio=with_interval(s["ratio_to_ceiling"], 2)))
    return page.section(
        "How well it predicts", *warnings, page.table(COLUMNS, rows, texts=2), page.paragraph(NOTE, "note")
    )


def whole_tiers(scores: dict) -> dict:
    """Without the rows that split a tier by kind of stimulus; `misc/print_table.py` prints them."""
    return {tier: values for tier, values in scores.items() if ":" not in tier}


def row(mouse: str, tier: str, s: dict, ceiling: str = "", ratio: str = "", left_out: str = "") -> tuple:
    names = ("single_trial_correlation", "pooled_normalized_correlation", "feve", *BASELINES)
    correlation = s["challenge_correlation"]
    means = (number(s[name]["mean"]) for name in names)
    return mouse, tier, with_interval(correlation), ceiling, ratio, *means, correlation["n"], left_out


GROUPS = {"stimulus": "stimulus", "depth": "imaging plane", "reliability": "quarter", "cell_class": "class of cell"}
GROUP_COLUMNS = {groups.SCORE: "correlation", "pooled_normalized_correlation": "normalised",
                 groups.RATIO: "ratio to ceiling", groups.DIFFERENCE: "more than the others"}  # fmt: skip
GROUP_NOTE = (
    "Stimuli: over all test tiers that showed them. Quarters: of each mouse's neurons by explainable variance, 4 the "
    "most reliable. More than the others: difference in correlation from all other neurons of the same mice; one "
    "interval in twenty misses 0 by chance. In parentheses: the neurons behind a score that is not defined for all."
)


def by_group(neurons: pd.DataFrame) -> str:
    """Scores by stimulus, depth, reliability and class of cell; single mice folded away."""
    tier, parts = choose_tier(None, neurons["tier"]), []
    for by, name in GROUPS.items():
        grouped = groups.assign(neurons, by, tier)
        if grouped.empty:
            continue
        scores = groups.default_scores(by)
        means, mice = groups.split(groups.summarize(grouped, scores, np.random.default_rng(0)))
        of = f", tier {tier}" if by in groups.PARTITIONS else ""
        parts.append(page.paragraph(f"By {name}{of}:"))
        parts.append(group_table(name, means, scores))
        if len(mice):
            parts.append(page.details(f"The same of each mouse, by {name}", group_table(name, mice, scores)))
    return page.section("Stimulus, depth and reliability", *parts, page.paragraph(GROUP_NOTE, "note"))


def group_table(name: str, table: pd.DataFrame, scores: list[str]) -> str:
    columns = (name, "mouse", "neurons", *(GROUP_COLUMNS[score] for score in scores))
    cells = tables.cells(table, scores, "–")[["group", "mouse", "neurons", *scores]]
    return page.table(columns, cells.to_numpy().tolist(), texts=2)


FIGURES = {  # title -> how the names of its figures begin; the rest comes last
    "Prediction": ("performance", "training", "traces", "reliable", "groups"),
    "Receptive fields and retinotopy": ("truth_retinotopy", "aRFs", "retinotopy", "fields", "gaze", "spatial_tuning"),
    "Tuning for direction": ("truth_direction", "selectivity", "tuning"),
    "Size tuning and feedback fields": ("truth_feedbackRF", "size_tuning", "response_onset", "feedbackRF"),
    "Contextual modulation": ("truth_contextual", "contextual", "contrast", "context", "attention_context"),
    "More": ("",),
}


def figures(run_dir: Path) -> list[str]:
    """One section for each analysis that has drawn something."""
    paths = [path for path in sorted((run_dir / "figures").rglob("*.png")) if not path.name.startswith(".")]
    if not paths:
        return [page.section("Figures", page.paragraph("None drawn yet: run misc/visualize_performance.py."))]
    sections = []
    for title, beginnings in FIGURES.items():
        own = [path for start in beginnings for path in paths if path.stem.startswith(start)]
        own = list(dict.fromkeys(own))
        paths = [path for path in paths if path not in own]
        if own:
            sections.append(page.section(title, *(page.figure(path, run_dir) for path in own)))
    return sections


def answers(run_dir: Path) -> str:
    """One test for each question that an analysis asked, in the order of the analyses."""
    parts = []
    for path in sorted((run_dir / "statistics").glob("*.csv")):
        rows = []
        for r in pd.read_csv(path).itertuples():
            value = f"{number(r.value)} [{number(r.low)}, {number(r.high)}]"
            rows.append((r.question, r.effect, value, f"{r.p:.2g}", r.n, r.planes, r.animals))
        columns = ("question", "effect", "value [95 %]", "p", "neurons", "planes", "animals")
        parts.append(page.details(path.stem, page.table(columns, rows, texts=2)))
    note = "One test each; intervals and p from resampling animals, and neurons within them (Saravanan et al. 2020)."
    return page.section("Questions and answers", *parts, page.paragraph(note, "note")) if parts else ""


def truth(run_dir: Path) -> str:
    """What compare_truth.py found of estimates on simulated mice, folded away; nothing for real ones."""
    parts = []
    for path in sorted((run_dir / "validation").glob("*.csv")):
        table = pd.read_csv(path, dtype={"mouse": str})
        rows = [(r.mouse, r.quantity, r.statistic, r.selection, number(r.value), r.n) for r in table.itertuples()]
        columns = ("mouse", "quantity", "statistic", "neurons", "value", "n")
        parts.append(page.details(path.stem, page.table(columns, rows, texts=4)))
    return page.section("Estimates against the truth", *parts) if parts else ""


def files(run_dir: Path) -> str:
    tables = [path for path in sorted(run_dir.rglob("*.csv")) if "figures" not in path.parts]
    return page.section("Tables", page.links([*tables, locate(run_dir, "evaluation")], run_dir))


def number(value, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def with_interval(values: dict, digits: int = 3) -> str:
    if not values["n"]:
        return "–"
    return f"{number(values['mean'], digits)} [{number(values['low'], digits)}, {number(values['high'], digits)}]"


if __name__ == "__main__":
    cli.run(main, get_parser())
