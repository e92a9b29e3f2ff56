"""Print the scores of one or more runs as a table: a row for every run, mouse and tier or kind of stimulus.

reads   RUN/evaluation_tiers.json (evaluate.py) of every run
writes  nothing; the table goes to the terminal, as text, CSV or LaTeX

Means over neurons with their 95 % bootstrap intervals; over all mice, the mean of the mice with an interval over
animals.
"""

from pathlib import Path

import pandas as pd

from viv1t import cli, io
from viv1t.constants import TIERS
from viv1t.errors import UserError
from viv1t.results import require

SCORES = ("challenge_correlation", "single_trial_correlation", "pooled_normalized_correlation", "feve")
FORMATS = ("text", "csv", "latex")
KEYS = ["run", "mouse", "tier", "neurons"]


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--scores", nargs="+", default=list(SCORES), metavar="NAME",
                        help=f"scores, ceilings or baselines (default: {' '.join(SCORES)})")  # fmt: skip
    parser.add_argument("--ds_tier", nargs="+", metavar="TIER", help="tiers or kinds of stimulus (default: all)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="text (default), csv or latex")
    return parser


def main(args) -> None:
    table = pd.concat([read_run(Path(run), args.scores) for run in args.output_dir], ignore_index=True)
    if args.ds_tier:
        wanted, known = [TIERS.get(tier, tier) for tier in args.ds_tier], list(dict.fromkeys(table["tier"]))
        for tier in wanted:
            if tier not in known:
                raise UserError(
                    f"--ds_tier {tier} was not scored{cli.did_you_mean(tier, known)}; scored: {', '.join(known)}."
                )
        table = table[table["tier"].isin(wanted)]
    print(PRINT[args.format](table, args.scores))


def read_run(run_dir: Path, scores: list[str]) -> pd.DataFrame:
    """One row per mouse and tier, and per tier over all mice: KEYS and mean, low and high of every score."""
    summary = io.read_json(require(run_dir, "evaluation"))
    groups = [(mouse, tier, s) for mouse, tiers in summary["mice"].items() for tier, s in tiers.items()]
    groups += [(f"{s['mice']} mice", tier, s) for tier, s in summary["all"].items() if s["mice"] > 1]
    rows = []
    for mouse, tier, found in groups:
        known = [name for name, values in found.items() if isinstance(values, dict) and "low" in values]
        unknown = [name for name in scores if name not in known]
        if unknown and mouse in summary["mice"]:
            near = cli.did_you_mean(unknown[0], known)
            raise UserError(f"--scores {unknown[0]} is no score{near}; one of {', '.join(known)}.")
        row = dict(zip(KEYS, (str(run_dir), mouse, tier, found["challenge_correlation"]["n"]), strict=True))
        for name in scores:
            row |= {f"{name}_{key}": found.get(name, {}).get(key) for key in ("mean", "low", "high")}
        rows.append(row)
    return pd.DataFrame(rows)


def cells(table: pd.DataFrame, scores: list[str], pattern: str, missing: str) -> pd.DataFrame:
    """The table with one column of text per score."""

    def cell(row: pd.Series, name: str) -> str:
        values = [row[f"{name}_{key}"] for key in ("mean", "low", "high")]
        return missing if pd.isna(values[0]) else pattern.format(*values)

    columns = {name: [cell(row, name) for _, row in table.iterrows()] for name in scores}
    return pd.concat([table[KEYS].reset_index(drop=True), pd.DataFrame(columns)], axis=1)


def as_text(table: pd.DataFrame, scores: list[str]) -> str:
    return cells(table, scores, "{:.3f} [{:.3f}, {:.3f}]", "-").to_string(index=False)


def as_csv(table: pd.DataFrame, _) -> str:
    return table.to_csv(index=False).rstrip("\n")


def as_latex(table: pd.DataFrame, scores: list[str]) -> str:
    """Rows for a tabular environment with its head, in the packages every LaTeX has."""
    text = cells(table, scores, "{:.3f} [{:.3f}, {:.3f}]", "--")
    lines = [" & ".join(str(value).replace("_", r"\_") for value in row) + r" \\" for row in text.to_numpy()]
    head = " & ".join(name.replace("_", " ") for name in text) + r" \\"
    columns = "lll" + "r" * (len(scores) + 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\hline", head, r"\hline", *lines, r"\hline", r"\end{tabular}"]
    )


PRINT = {"text": as_text, "csv": as_csv, "latex": as_latex}


if __name__ == "__main__":
    cli.run(main, get_parser())
