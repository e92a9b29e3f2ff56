"""Print the scores of one or more runs as a table: a row for every run, mouse and tier or kind of stimulus.

reads   RUN/evaluation_tiers.json (evaluate.py) of every run
writes  nothing; the table goes to the terminal, as text, CSV or LaTeX

Means over neurons with their 95 % bootstrap intervals; over all mice, the mean of the mice with an interval over
animals. In parentheses the number of neurons behind a score that is not defined for all.
"""

from pathlib import Path

import pandas as pd

from viv1t import cli, io, tables
from viv1t.constants import TIERS
from viv1t.errors import UserError
from viv1t.results import require

SCORES = ("challenge_correlation", "single_trial_correlation", "pooled_normalized_correlation", "feve")
KEYS = ["run", "mouse", "tier", "neurons"]


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--scores", nargs="+", default=list(SCORES), metavar="NAME",
                        help=f"scores, ceilings or baselines (default: {' '.join(SCORES)})")  # fmt: skip
    parser.add_argument(
        "--ds_tier",
        nargs="+",
        metavar="TIER",
        help="tiers, kinds of stimulus, or both as in live_bonus:image (default: all)",
    )
    parser.add_argument("--format", choices=tables.FORMATS, default="text", help="text (default), csv or latex")
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
    print(tables.layout(table, args.scores, args.format))


def read_run(run_dir: Path, scores: list[str]) -> pd.DataFrame:
    """One row per mouse and tier, and per tier over all mice: KEYS and mean, low, high and n of every score."""
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
            row |= {f"{name}_{key}": found.get(name, {}).get(key) for key in ("mean", "low", "high", "n")}
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    cli.run(main, get_parser())
