"""Draw how well a twin predicts at each cortical depth; or how much better than another twin.

reads   RUN/evaluation_neurons.csv (evaluate.py), RUN/ckpt/; the same of the run to compare with
writes  RUN/figures/depth.{pdf,png,csv}, or depth_gain.{pdf,png,csv} with --compare
next    report.py

A gain is the difference, neuron by neuron, over the neurons that both runs scored.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, stats
from viv1t.errors import UserError
from viv1t.inference import load_twin
from viv1t.plotting import maps, style
from viv1t.results import choose_tier, read_scores

COLUMNS = 5  # mice side by side


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder with evaluation_neurons.csv")
    parser.add_argument("--compare", metavar="RUN", help="run folder of another twin of the same mice")
    parser.add_argument("--data_dir", help="folder of the recordings; for runs of the public implementation only")
    parser.add_argument("--ds_tier", metavar="TIER", help="tier to draw (default: the main test tier)")
    parser.add_argument(
        "--score", default="challenge_correlation", metavar="NAME", help="a column (default: challenge_correlation)"
    )
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    neurons = read_run(run_dir, args)
    if args.compare:
        other = read_run(Path(args.compare), args)
        neurons = neurons.merge(other, on=["mouse", "unit_id", "tier"], suffixes=("", "_other"))
        if neurons.empty:
            raise UserError(f"--compare {args.compare}: no neuron of {run_dir} was scored there in the same tier.")
    planes = summarize(neurons, args.score)
    fig = draw(neurons, planes, args.score)
    name = args.score.replace("_", " ")
    caption = f"{name} by depth, tier {neurons['tier'].iloc[0]}: every neuron, mean and 95 % interval of each plane."
    if args.compare:
        caption = f"Gain over {args.compare} in {caption}"
    table = planes.round(6)
    print(table.to_string(index=False))
    for path in style.save(fig, run_dir / "figures" / ("depth_gain" if args.compare else "depth"), table, caption):
        print(path)


def read_run(run_dir: Path, args) -> pd.DataFrame:
    """mouse, unit_id, tier, depth, plane and score of every neuron of one tier."""
    scores = read_scores(run_dir)
    if args.score not in scores or scores[args.score].dtype != float:
        known = [name for name in scores if scores[name].dtype == float]
        raise UserError(f"--score {args.score} is no score{cli.did_you_mean(args.score, known)}; {', '.join(known)}.")
    scores = scores[scores["tier"] == choose_tier(args.ds_tier, scores["tier"])]
    depths = [
        pd.DataFrame({"mouse": id, "neuron": mouse.neurons, "depth_um": mouse.coordinates[:, 2]})
        for id, mouse in load_twin(run_dir, "cpu", data_dir=args.data_dir).mice.items()
    ]
    table = scores.merge(pd.concat(depths), on=["mouse", "neuron"])
    table["plane_um"] = table.groupby("mouse", sort=False)["depth_um"].transform(maps.planes)
    return table[["mouse", "unit_id", "tier", "depth_um", "plane_um", args.score]]


def summarize(neurons: pd.DataFrame, score: str) -> pd.DataFrame:
    """One row per mouse and plane: mean and interval of the score or of its gain, which also comes in per cent."""
    rng = np.random.default_rng(0)
    rows = []
    for (mouse, plane), part in neurons.groupby(["mouse", "plane_um"], sort=True):
        row = {"mouse": mouse, "plane_um": plane}
        if f"{score}_other" in part:
            own, other = part[score].to_numpy(), part[f"{score}_other"].to_numpy()
            ratio = stats.bootstrap_ratio(own, other, rng)
            percent = {f"gain_percent_{key}": 100 * (getattr(ratio, key) - 1) for key in ("mean", "low", "high")}
            rows.append(row | interval(stats.bootstrap(own - other, rng)) | percent)
        else:
            rows.append(row | interval(stats.bootstrap(part[score].to_numpy(), rng)))
    return pd.DataFrame(rows)


def interval(found: stats.Interval) -> dict:
    return {"n": found.n, "mean": found.mean, "low": found.low, "high": found.high}


def draw(neurons: pd.DataFrame, planes: pd.DataFrame, score: str):
    mice = list(dict.fromkeys(planes["mouse"]))
    gain = f"{score}_other" in neurons
    columns = min(len(mice), COLUMNS)
    rows = -(-len(mice) // columns)
    fig, axes = style.figure(rows, columns, width=max(36 * columns, 80), height=70 * rows, sharex=True)
    for ax in axes.flat[len(mice) :]:
        ax.remove()
    for ax, mouse in zip(axes.flat, mice, strict=False):
        part, table = neurons[neurons["mouse"] == mouse], planes[planes["mouse"] == mouse].set_index("plane_um")
        values = (part[score] - part[f"{score}_other"] if gain else part[score]).to_numpy()
        rows_of = {plane: tuple(row) for plane, row in table[["mean", "low", "high"]].iterrows()}
        label = score.replace("_", " ") + (" gained" if gain else "")
        maps.strip_by_depth(ax, part["depth_um"].to_numpy(), values, rows_of, label)
        ax.set_title(f"{mouse}, n = {np.isfinite(values).sum()}", loc="left")
        ax.axvline(0, color=style.GREY, linewidth=0.6, zorder=0)
        if ax not in axes[:, 0]:
            ax.set_ylabel("")
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
