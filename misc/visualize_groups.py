"""Draw how well twins predict by tier, stimulus, depth, reliability and class of cell; or what they gain over another.

reads   RUN/evaluation_neurons.csv (evaluate.py) of every run
writes  RUN/figures/groups.{pdf,png,csv} of the first run, or groups_gain.{pdf,png,csv} with --compare
next    report.py

All runs are drawn for the neurons that all of them scored. A gain is a difference neuron by neuron. Quarters are of
each mouse's neurons by explainable variance, 4 the most reliable.
"""

import textwrap
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, evaluation
from viv1t.errors import UserError
from viv1t.estimators import groups
from viv1t.plotting import panels, style
from viv1t.results import choose_tier, read_scores

BASELINES = {
    "baseline_mean": ("mean response", "v"),
    "baseline_behavior": ("behaviour only", "^"),
    "baseline_linear_nonlinear": ("linear-nonlinear", "s"),
}
TITLES = {
    "tier": "tier",
    "stimulus": "stimulus",
    "depth": "imaging plane (µm)",
    "reliability": "quarter by explainable variance",
    "cell_class": "class of cell",
}
GAIN, GAIN_RATIO = "gain", "gain_ratio"


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, nargs="+", metavar="RUN", help="run folders of the same mice")
    parser.add_argument("--compare", metavar="RUN", help="run folder over which the others gain")
    parser.add_argument("--ds_tier", metavar="TIER", help="tier of groups of neurons (default: the main test tier)")
    parser.add_argument("--score", default=groups.SCORE, choices=(*evaluation.SCORES, *evaluation.CEILINGS),
                        metavar="NAME", help=f"a column (default: {groups.SCORE})")  # fmt: skip
    return parser


def main(args) -> None:
    runs = list(dict.fromkeys(args.output_dir))
    neurons = read_shared(list(dict.fromkeys([*runs, *filter(None, [args.compare])])))
    tier = choose_tier(args.ds_tier, neurons[runs[0]]["tier"])
    if args.compare:
        other = neurons[args.compare]
        neurons = {run: add_gain(neurons[run], other, args.score) for run in runs}
    scores, grouped = scores_shown(args), {run: group(neurons[run], tier) for run in runs}
    table = pd.concat([summarize(run, grouped[run], scores) for run in runs], ignore_index=True)
    orders = {by: list(rows["group"].cat.categories) for by, rows in grouped[runs[0]].items()}
    fig = draw(table, runs, orders, scores, label_of(args))
    stem = Path(runs[0]) / "figures" / ("groups_gain" if args.compare else "groups")
    for path in style.save(fig, stem, table.round(6), caption_of(args, neurons[runs[0]], tier)):
        print(path)


def read_shared(runs: list[str]) -> dict[str, pd.DataFrame]:
    """The scores of every run for the neurons, and in the tiers, that all runs scored; in the same order."""
    keys = ["mouse", "unit_id", "tier"]
    tables = {run: read_scores(run, groups.NEEDED).set_index(keys) for run in runs}
    shared = reduce(lambda a, b: a.intersection(b, sort=False), [table.index for table in tables.values()])
    if shared.empty:
        raise UserError(f"{' and '.join(runs)}: no neuron was scored in all of them. Compare runs of the same mice.")
    return {run: table.loc[shared].reset_index() for run, table in tables.items()}


def add_gain(neurons: pd.DataFrame, other: pd.DataFrame, score: str) -> pd.DataFrame:
    return neurons.assign(**{GAIN: neurons[score] - other[score], "own": neurons[score], "other": other[score]})


def scores_shown(args) -> list[str]:
    """What is drawn comes first; ceiling and baselines beside it belong to the challenge correlation."""
    if args.compare:
        return [GAIN, GAIN_RATIO]
    return [args.score, *(["ceiling", *BASELINES] if args.score == groups.SCORE else [])]


def group(neurons: pd.DataFrame, tier: str) -> dict[str, pd.DataFrame]:
    """The rows of every grouping that there is; tiers are not split by kind of stimulus."""
    grouped = {by: groups.assign(neurons[~neurons["tier"].str.contains(":")], by, tier) for by in groups.GROUPINGS}
    return {by: rows for by, rows in grouped.items() if len(rows)}


def summarize(run: str, grouped: dict[str, pd.DataFrame], scores: list[str]) -> pd.DataFrame:
    """One row per grouping, mouse and group, and per group over mice."""
    tables, ratios = [], groups.RATIOS | {GAIN_RATIO: ("own", "other")}
    for by, rows in grouped.items():
        table = groups.summarize(rows, scores, np.random.default_rng(0), ratios)
        tables.append(pd.concat([pd.DataFrame({"run": run, "grouping": by}, index=table.index), table], axis=1))
    return pd.concat(tables, ignore_index=True)


def draw(table: pd.DataFrame, runs: list[str], orders: dict[str, list[str]], scores: list[str], label: str):
    rows = -(-len(orders) // 2)
    fig, axes = style.figure(rows, 2, height=58 * rows + 14, sharey=True)
    for ax in axes.flat[len(orders) :]:
        ax.remove()
    for ax, (by, names), letter in zip(axes.flat, orders.items(), "abcde", strict=False):
        draw_groups(ax, table[table["grouping"] == by], runs, names, scores)
        ax.set(xlabel=f"{TITLES[by]}; below: neurons", ylabel=label if ax in axes[:, 0] else "")
        style.letter(ax, letter)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if len(labels) > 1:
        order = np.roll(np.arange(len(labels)), len(runs))  # lines come before points with intervals
        fig.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside lower center", ncols=5)
    return fig


def draw_groups(ax, table: pd.DataFrame, runs: list[str], names: list[str], scores: list[str]) -> None:
    """Points of every run; ceiling and baselines of the first, which they share."""
    names = [name for name in names if name in set(table["group"])]
    table = table.assign(x=table["group"].astype(str).map({name: i for i, name in enumerate(names)}))
    width = 0.8 / len(runs)
    for i, (run, color) in enumerate(zip(runs, np.resize(style.CYCLE, len(runs)), strict=True)):
        means, mice = groups.split(table[table["run"] == run])
        middle, label = (i - (len(runs) - 1) / 2) * width, run if len(runs) > 1 else "twin"
        panels.by_group(ax, named(means, scores[0]), named(mice, scores[0]), middle, width, str(color), label)
        if i == 0:
            draw_bounds(ax, means, scores[1:])
            counts = means.set_index("group")[f"{scores[0]}_n"]
    ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
    ax.set_xticks(range(len(names)), [f"{tick(name)}\n{counts[name]}" for name in names])
    ax.set_xlim(-0.6, len(names) - 0.4)


def draw_bounds(ax, means: pd.DataFrame, scores: list[str]) -> None:
    """The ceiling as a line across each group, baselines as grey points."""
    if "ceiling" in scores:
        x, ceiling = means["x"], means["ceiling_mean"]
        ax.hlines(ceiling, x - 0.4, x + 0.4, color=style.BLACK, linewidth=1.2, label="ceiling")
    for name, (label, marker) in BASELINES.items():
        if name in scores and means[f"{name}_mean"].notna().any():
            ax.plot(means["x"], means[f"{name}_mean"], marker, color=style.GREY, markersize=3.5, label=label)


def named(table: pd.DataFrame, score: str) -> pd.DataFrame:
    return table.rename(columns={f"{score}_{key}": key for key in ("mean", "low", "high")})


def tick(name: str) -> str:
    return name.removesuffix(" µm").removeprefix("quarter ").replace("_", "\n").replace(" ", "\n")


def label_of(args) -> str:
    name = "correlation" if args.score == groups.SCORE else args.score.replace("_", " ")
    return textwrap.fill(f"{name} gained" if args.compare else name, 22)


def caption_of(args, neurons: pd.DataFrame, tier: str) -> str:
    mice = neurons["mouse"].nunique()
    name = args.score.replace("_", " ")
    what = f"Gain in {name} over {args.compare}, neuron by neuron," if args.compare else name.capitalize()
    intervals = (
        "Large points: mean over the mice that have a group, with an interval over animals and neurons; small: mice"
        if mice > 1
        else "Points: mean over neurons"
    )
    rest = ""
    if not args.compare and args.score == groups.SCORE:
        rest = f" Line: ceiling ({groups.ceiling_of(neurons).replace('_', ' ')}); grey: trivial baselines."
    return (
        f"{what} by tier and kind of stimulus; of tier {tier} by depth, reliability and class of cell. {intervals}. "
        f"Bootstrap intervals of 95 %. Below each group: the neurons behind it.{rest}"
    )


if __name__ == "__main__":
    cli.run(main, get_parser())
