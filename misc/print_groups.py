"""Print the scores of one or more runs by tier, kind of stimulus, depth, reliability or class of cell.

reads   RUN/evaluation_neurons.csv (evaluate.py) of every run
writes  nothing; the table goes to the terminal, as text, CSV or LaTeX
next    misc/visualize_groups.py

Groups by reliability are quarters of each mouse's neurons by explainable variance, quarter 4 the most reliable.
ratio_to_ceiling is mean correlation over mean ceiling; difference_from_others, how much more correlation a group has
than all other neurons of its mice. 95 % bootstrap intervals over neurons; over several mice, over animals. In
parentheses the number of neurons behind a score that is not defined for all.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, evaluation, tables
from viv1t.errors import UserError
from viv1t.estimators import groups
from viv1t.results import choose_tier, read_scores

KNOWN = (*evaluation.SCORES, *evaluation.CEILINGS, *evaluation.BASELINES, groups.RATIO, groups.DIFFERENCE)
MISSING = {
    "stimulus": "no scores of bonus tiers, without which there is one kind of stimulus",
    "cell_class": "no simulated mice, and of others no classes are known",
}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--by", required=True, choices=groups.GROUPINGS, help="what the scores are split by")
    parser.add_argument("--scores", nargs="+", choices=KNOWN, metavar="NAME",
                        help=f"columns of evaluation_neurons.csv, {groups.RATIO} or {groups.DIFFERENCE} "
                        f"(default: {' '.join(groups.DEFAULT)}; {groups.DIFFERENCE} by depth or class)")  # fmt: skip
    parser.add_argument("--ds_tier", metavar="TIER", help="tier of groups of neurons (default: the main test tier)")
    parser.add_argument("--format", choices=tables.FORMATS, default="text", help="text (default), csv or latex")
    return parser


def main(args) -> None:
    scores = args.scores or groups.default_scores(args.by)
    if groups.DIFFERENCE in scores and args.by not in groups.PARTITIONS:
        raise UserError(f"--scores {groups.DIFFERENCE}: neurons are the same in every {args.by}. Leave it out.")
    table = pd.concat([read_run(Path(run), args, scores) for run in args.output_dir], ignore_index=True)
    print(tables.layout(table.rename(columns={"group": args.by}), scores, args.format))


def read_run(run_dir: Path, args, scores: list[str]) -> pd.DataFrame:
    """One row per mouse and group, and per group over all mice."""
    neurons = read_scores(run_dir, groups.NEEDED)
    tier = choose_tier(args.ds_tier, neurons["tier"])
    grouped = groups.assign(neurons, args.by, tier)
    if grouped.empty:
        raise UserError(f"--by {args.by}: {run_dir} has {MISSING[args.by]}.")
    table = groups.summarize(grouped, scores, np.random.default_rng(0))
    if args.by in groups.PARTITIONS:
        table.insert(0, "tier", tier)
    table.insert(0, "run", str(run_dir))
    return table


if __name__ == "__main__":
    cli.run(main, get_parser())
