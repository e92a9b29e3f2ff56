"""Draw how well a twin predicts: against its ceiling and trivial baselines, and neuron by neuron.

reads   RUN/evaluation_tiers.json, RUN/evaluation_neurons.csv (evaluate.py)
writes  RUN/figures/performance.{pdf,png,csv}
next    report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.constants import TIERS
from viv1t.plotting import panels, style
from viv1t.results import choose_tier, read_scores, require

SERIES = {
    "baseline_mean": "mean response",
    "baseline_behavior": "behaviour only",
    "baseline_linear_nonlinear": "linear-nonlinear",
    "challenge_correlation": "twin",
}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder with evaluation_neurons.csv")
    parser.add_argument("--ds_tier", metavar="TIER", help="tier shown neuron by neuron (default: the main test tier)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    summary = io.read_json(require(run_dir, "evaluation"))
    neurons = read_scores(run_dir)
    tier = choose_tier(args.ds_tier, neurons["tier"])
    shown = neurons[neurons["tier"] == tier]
    bound = "true_rate" if shown["true_rate"].notna().any() else "oracle"
    name = bound.replace("_", " ")

    fig, axes = style.figure(1, 3, height=76, below=16, width_ratios=(1.9, 1.1, 1.1))
    draw_tiers(axes[0, 0], summary, bound)
    draw_histogram(axes[0, 1], shown, bound)
    draw_neurons(axes[0, 2], shown, bound)
    for ax, text in zip(axes[0], "abc", strict=True):
        style.letter(ax, text)
    columns = ["mouse", "neuron", "unit_id", "tier", *SERIES, bound]
    caption = (
        f"Correlation of predicted and recorded responses (all trials of a tier end to end, frames from 50 on). "
        f"a: mean over neurons and mice, 95 % bootstrap intervals. b, c: neurons of tier {tier}; ceiling: {name}."
    )
    for path in style.save(fig, run_dir / "figures" / "performance", neurons[columns], caption):
        print(path)


def draw_tiers(ax, summary: dict, bound: str) -> None:
    """Baselines, twin and ceiling, tier by tier."""
    series = {**SERIES, bound: bound.replace("_", " ")}
    tiers = {tier: scores for tier, scores in summary["all"].items() if tier in TIERS.values()}
    groups = {
        tier.replace("_", "\n"): {
            label: tuple(scores[column][key] for key in ("mean", "low", "high"))
            for column, label in series.items()
            if scores[column]["n"]
        }
        for tier, scores in tiers.items()
    }
    panels.intervals(ax, groups)
    mice = max(scores["mice"] for scores in tiers.values())
    ax.set_ylabel("correlation")
    ax.set_title(f"{mice} mice, 95 % intervals" if mice > 1 else "95 % intervals", loc="left")
    style.legend_below(ax, ncols=2)


def draw_histogram(ax, shown: pd.DataFrame, bound: str) -> None:
    values = {"twin": shown["challenge_correlation"].to_numpy()}
    if shown[bound].notna().any():
        values = {bound.replace("_", " "): shown[bound].to_numpy()} | values
    everything = np.concatenate(list(values.values()))
    low, high = np.nanmin(everything), np.nanmax(everything)
    panels.histogram(ax, values, np.linspace(min(low, 0), high, 26))
    ax.set_xlabel("correlation")
    ax.set_title(f"{len(shown)} neurons, {shown['tier'].iloc[0]}", loc="left")
    style.legend_below(ax)


def draw_neurons(ax, shown: pd.DataFrame, bound: str) -> None:
    mice = list(dict.fromkeys(shown["mouse"]))
    for mouse, color in zip(mice, np.resize(style.CYCLE, len(mice)), strict=True):
        part = shown[shown["mouse"] == mouse]
        panels.against_ceiling(ax, part[bound].to_numpy(), part["challenge_correlation"].to_numpy(), mouse, str(color))
    values = shown[[bound, "challenge_correlation"]].to_numpy()
    panels.unity(ax, min(0.0, float(np.nanmin(values))), 1.05 * float(np.nanmax(values)))
    ax.set_xlabel(f"ceiling ({bound.replace('_', ' ')})")
    ax.set_ylabel("correlation of the twin")
    ax.set_title("neuron by neuron", loc="left")
    if len(mice) > 1:
        style.legend_below(ax, ncols=3, markerscale=2, handletextpad=0.1)


if __name__ == "__main__":
    cli.run(main, get_parser())
