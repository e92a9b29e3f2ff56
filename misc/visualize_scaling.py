"""Draw how the score of twins grows with the trials and the neurons they were trained on.

reads   RUN/evaluation_neurons.csv (evaluate.py) and RUN/ckpt/ of every run
writes  OUTPUT_DIR/scaling.{pdf,png,csv}

Train the runs with --limit_data and --limit_neurons. All are scored on the same neurons: those that every run was
trained on, of the mice that every run has.
"""

from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, stats
from viv1t.errors import UserError
from viv1t.inference import load_twin
from viv1t.plotting import panels, style
from viv1t.results import choose_tier, read_scores


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--runs", required=True, nargs="+", metavar="RUN", help="run folders, at least two")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the figure")
    parser.add_argument("--data_dir", help="folder of the recordings; for runs of the public implementation only")
    parser.add_argument("--ds_tier", metavar="TIER", help="tier to score (default: the main test tier)")
    return parser


def main(args) -> None:
    if len(args.runs) < 2:
        raise UserError("--runs: name at least two run folders to compare.")
    scores = [read_run(run, args) for run in args.runs]
    shared = reduce(pd.Index.intersection, [table.index for table in scores])
    if shared.empty:
        raise UserError("--runs: no neuron was scored in all of these runs. Compare runs of the same mice and tier.")
    rows = [summarize(run, table.loc[shared]) for run, table in zip(args.runs, scores, strict=True)]
    table = pd.DataFrame(rows).sort_values(["neurons", "trials"], ignore_index=True)
    print(table.round(4).to_string(index=False))
    mice = shared.get_level_values("mouse").nunique()
    caption = (
        f"Correlation with recordings of twins trained on fewer trials or neurons, always of the same {len(shared)} "
        f"neurons of {mice} mice, with 95 % bootstrap intervals{' over animals' if mice > 1 else ''}."
    )
    for path in style.save(draw(table), args.output_dir / "scaling", table, caption):
        print(path)


def read_run(run: str, args) -> pd.DataFrame:
    """score, and trials and neurons per mouse that the run was trained on, by mouse and unit id."""
    scores = read_scores(run)
    scores = scores[scores["tier"] == choose_tier(args.ds_tier, scores["tier"])].set_index(["mouse", "unit_id"])
    mice = load_twin(run, "cpu", data_dir=args.data_dir).mice
    ids = scores.index.get_level_values("mouse")
    return pd.DataFrame(
        {
            "score": scores["challenge_correlation"],
            "trials": [mice[id].train_size for id in ids],
            "neurons": [mice[id].num_neurons for id in ids],
        },
        index=scores.index,
    )


def summarize(run: str, scores: pd.DataFrame) -> dict:
    """One row: trials and neurons of a mouse (mean over mice), and the score with its interval."""
    rng = np.random.default_rng(0)
    per_mouse = [part["score"].to_numpy() for _, part in scores.groupby("mouse")]
    found = stats.bootstrap(per_mouse[0], rng) if len(per_mouse) == 1 else stats.hierarchical_bootstrap(per_mouse, rng)
    trained = scores.groupby("mouse")[["trials", "neurons"]].first().mean()
    return {
        "run": run,
        **trained.to_dict(),
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "scored": found.n,
    }


def draw(table: pd.DataFrame):
    fig, axes = style.figure(1, 2, width=140, height=72, below=14, sharey=True)
    for ax, (x, other) in zip(axes[0], (("trials", "neurons"), ("neurons", "trials")), strict=True):
        for color, (amount, part) in zip(np.resize(style.CYCLE, len(table)), table.groupby(other), strict=False):
            panels.growth(ax, *part[[x, "mean", "low", "high"]].to_numpy().T, f"{amount:g} {other}", str(color))
        amounts = table[x].unique()
        ax.set_xticks(amounts, [f"{amount:g}" for amount in amounts])
        ax.xaxis.set_minor_formatter("")
        ax.set_xlabel(f"training {x} per mouse" if x == "trials" else "neurons per mouse")
        style.legend_below(ax, ncols=2)
    axes[0, 0].set_ylabel("correlation")
    for ax, text in zip(axes[0], "ab", strict=True):
        style.letter(ax, text)
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
