"""Draw how selective neurons are for direction and orientation, at which depth, and which directions they prefer.

reads   RUN/selectivity_<source>.csv, RUN/direction/curves_<source>_mouse<ID>.npz (estimate_selectivity.py)
writes  RUN/figures/selectivity_<source>.{pdf,png,csv}
next    report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.curves import Curves
from viv1t.errors import UserError
from viv1t.estimators import groups
from viv1t.plotting import maps, panels, style, tuning
from viv1t.results import read_selectivity, require
from viv1t.stats import bootstrap, hierarchical_bootstrap

INDICES = {"gosi": "gOSI", "gdsi": "gDSI"}
FLAGS = {"orientation": "orientation_selective", "direction": "direction_selective"}
STEP = 45  # deg, of the histogram of preferred directions
SEED = 1


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with selectivity_<source>.csv")
    words = cli.Words("gratings", "recording", "twin", "animal")
    parser.add_argument("--source", type=words, default="gratings", metavar="WORD", help=f"{words} (default: 0)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the source)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    table = read_selectivity(run_dir, args.source, args.mouse_ids)
    if not table["responsive"].any():
        raise UserError(
            f"{run_dir}: no neuron responds ({args.source}). Nothing to draw; see estimate_selectivity.py."
        )
    label = Curves.read(require(run_dir, f"curves_{args.source}", table["mouse"].iloc[0])).label
    fig, axes = style.figure(2, 3, height=125)
    responsive = table[table["responsive"]]
    for ax, (name, title) in zip(axes[0], INDICES.items(), strict=False):
        tuning.index_histogram(ax, {label: responsive[name].to_numpy()}, title)
        values = responsive[name].dropna()
        ax.set_title(f"median {values.median():.2f}, n = {len(values)}", loc="left")
    numbers = [draw_shares(axes[0, 2], table)]
    for ax, (name, title) in zip(axes[1], INDICES.items(), strict=False):
        numbers.append(draw_depth(ax, responsive, name, title))
    numbers.append(draw_preferences(axes[1, 2], table, label))
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        style.letter(ax, text)
    mice = table["mouse"].nunique()
    caption = (
        f"Selectivity of {label} responses ({args.source}): {len(responsive)} of {len(table)} neurons of "
        f"{'one mouse' if mice == 1 else f'{mice} mice'} are responsive. a, b: global indices (1 - circular variance) "
        "of responsive neurons. c: share of all neurons that are selective. d, e: by depth. f: preferred directions "
        "of direction-selective neurons, share in steps of 45 deg (0 left, 90 down, 180 right, 270 up). Intervals: "
        "95 %, bootstrap over neurons, and over mice and neurons where mice are averaged."
    )
    shown = pd.concat(numbers, ignore_index=True).round(6)
    for path in style.save(fig, run_dir / "figures" / f"selectivity_{args.source}", shown, caption):
        print(path)


def draw_shares(ax, table: pd.DataFrame) -> pd.DataFrame:
    """Selective neurons in per cent, of each mouse and of their mean."""
    groups, rows = {}, []
    per_mouse = {mouse_id: own for mouse_id, own in table.groupby("mouse", sort=False)}
    for name, flag in FLAGS.items():
        values = {mouse_id: 100.0 * own[flag].to_numpy() for mouse_id, own in per_mouse.items()}
        found = {mouse_id: bootstrap(v, np.random.default_rng(SEED)) for mouse_id, v in values.items()}
        if len(values) > 1:
            found["mean"] = hierarchical_bootstrap(list(values.values()), np.random.default_rng(SEED))
        for group, interval in found.items():
            key = f"{group}\nn = {interval.n}"
            groups.setdefault(key, {})[name] = interval.mean, interval.low, interval.high
            rows.append(line("share selective (%)", group, name, interval))
    panels.intervals(ax, groups)
    ax.set(ylim=(0, 100), ylabel="selective neurons (%)")
    ax.legend(loc="lower left")
    return pd.DataFrame(rows)


def draw_depth(ax, table: pd.DataFrame, name: str, title: str) -> pd.DataFrame:
    planes, rows = {}, []
    plane = table.groupby("mouse", sort=False)["z_um"].transform(groups.planes)
    for depth, own in table.groupby(plane):
        interval = bootstrap(own[name].to_numpy(), np.random.default_rng(SEED))
        planes[depth] = interval.mean, interval.low, interval.high
        rows.append(line(title, "all", f"{depth:g} um", interval))
    maps.strip_by_depth(ax, plane.to_numpy(), table[name].to_numpy(), planes, title)
    ax.set_title(f"n = {table[name].notna().sum()}", loc="left")
    return pd.DataFrame(rows)


def draw_preferences(ax, table: pd.DataFrame, label: str) -> pd.DataFrame:
    table = table[table["direction_selective"]]
    angles, rows = np.arange(0, 360, STEP), []
    nearest = np.rint(table["preferred_direction_deg"] / STEP) * STEP % 360
    for angle in angles:
        hits = [100.0 * (own == angle).to_numpy() for _, own in nearest.groupby(table["mouse"], sort=False)]
        rows.append(
            line(
                "preferred direction (%)",
                "mean",
                f"{angle} deg",
                hierarchical_bootstrap(hits, np.random.default_rng(SEED)),
            )
        )
    shares = pd.DataFrame(rows)
    tuning.tuning_curve(ax, angles, {label: shares[["mean", "low", "high"]].to_numpy().T})
    ax.axhline(100 / len(angles), color=style.COLORS["chance"], linestyle="--", linewidth=0.8)
    ax.set(xlabel="preferred direction (deg)", ylabel="neurons (%)")
    ax.set_title(f"n = {len(table)}", loc="left")
    return shares


def line(quantity: str, mouse: str, group: str, interval) -> dict:
    return {"quantity": quantity, "mouse": mouse, "group": group, "mean": interval.mean, "low": interval.low,
            "high": interval.high, "n": interval.n}  # fmt: skip


if __name__ == "__main__":
    cli.run(main, get_parser())
