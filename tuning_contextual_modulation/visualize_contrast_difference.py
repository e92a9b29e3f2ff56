"""Draw what contrast does to surrounds: ratios to the centre, and neurons whose preference turns from cross to iso.

reads   RUN/contextual_modulation.csv, RUN/contextual_flips.csv (estimate_contextual_modulation.py)
writes  RUN/figures/contrast_difference.{pdf,png,csv}, one row per neuron
next    visualize_responses.py, report.py

Neurons that were chosen because their difference is large show a smaller one when they are looked at again: lines are
drawn from the half of the samples that had no part in the choice.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.errors import UserError
from viv1t.plotting import contexts, panels, style
from viv1t.results import read_table
from viv1t.stats import bootstrap, count, counts, hierarchical_bootstrap

SURROUNDS = ("iso", "cross", "shift")
SHARES = {"flip": style.BLUE, "flip_by_threshold": style.SKY, "chance": style.GREY}
LABELS = {"flip": "tested", "flip_by_threshold": "by threshold", "chance": "contrasts exchanged"}
LARGEST = 30.0  # ratio; larger ones, and smaller than its inverse, are drawn there
SEED = 1


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with contextual_flips.csv")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the run)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    flips = read_table(run_dir, "contextual_flips", args.mouse_ids)
    flips = flips[flips["responsive"] & flips["centred"] & flips["interaction"].notna()]
    if not len(flips):
        raise UserError(f"{run_dir}: no neuron has a CMI at both contrasts; see estimate_contextual_modulation.py.")
    table = read_table(run_dir, "contextual_modulation", args.mouse_ids)
    table = table[table["chosen"] & table["responsive"] & table["centred"]]
    low, high = flips["low_contrast"].iloc[0], flips["high_contrast"].iloc[0]
    fig, axes = style.figure(2, 3, height=132, below=8)
    ratios = [draw_ratios(ax, table, contrast) for ax, contrast in zip(axes[0], (low, high), strict=False)]
    draw_change(axes[0, 2], flips, low, high)
    draw_turning(axes[1, 0], flips, "chosen", low, high)
    draw_turning(axes[1, 1], flips, "held", low, high)
    draw_shares(axes[1, 2], flips)
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        style.letter(ax, text)
    handles, names = axes[1, 2].get_legend_handles_labels()
    fig.legend(handles, [LABELS[name] for name in names], loc="lower right", ncols=3)
    caption = (
        f"Surrounds at contrast {low:g} and {high:g}, {counts(*count(flips))} (responsive, centred, each at the disc "
        "that fits it best). a, b: response with a surround over that to the disc alone; at low contrast a disc that "
        "fits at high contrast may not fill the field, so that more than 1 need not mean facilitation. c: CMI at both "
        "contrasts; blue: neurons that turn from cross to iso: interaction tested by exchanging contrasts, false "
        "discovery rate 5 %, the published threshold, and both preferences certain. d, e: neurons that pass the "
        "threshold on half of their samples, drawn on that half (d) and on the other (e); thick: mean. f: share of "
        "neurons that turn, 95 % interval; contrasts exchanged: the threshold, with labels of contrast exchanged. "
        f"Ratios beyond {LARGEST:g} lie at the edge."
    )
    numbers = flips.merge(pd.concat(ratios), on=["mouse", "neuron"], how="left", suffixes=("", "_ratio"))
    for path in style.save(fig, run_dir / "figures" / "contrast_difference", numbers.round(6), caption):
        print(path)


def draw_ratios(ax, table: pd.DataFrame, contrast: float) -> pd.DataFrame:
    own = table[table["contrast"] == contrast]
    kinds = [kind for kind in SURROUNDS if own[kind].notna().any()]
    defined = {kind: own[f"mi_{kind}"].notna() for kind in kinds}
    ratios = pd.DataFrame({kind: (own[kind] / own["centre"]).where(defined[kind]) for kind in kinds})
    shown = {kind: ratios[kind].clip(1 / LARGEST, LARGEST).to_numpy() for kind in kinds}
    contexts.boxes(ax, shown, [contexts.KIND_COLORS[kind] for kind in kinds], np.random.default_rng(SEED))
    ax.axhline(1, color=style.GREY, linewidth=0.6, linestyle="--", zorder=0)
    ax.set(yscale="log", ylim=(0.8 / LARGEST, 1.25 * LARGEST), ylabel="response / centre alone")
    ax.set_title(f"contrast {contrast:g}\n{panels.told(own)}", loc="left")
    return own[["mouse", "neuron"]].join(ratios.add_suffix(f"_over_centre_{contrast:g}"))


def draw_change(ax, flips: pd.DataFrame, low: float, high: float) -> None:
    for flip, color in ((False, style.COLORS["repeats"]), (True, style.BLUE)):
        own = flips[flips["flip"] == flip]
        ax.scatter(own["cmi_low"], own["cmi_high"], s=6, color=color, alpha=0.7, linewidths=0)
    for line in (ax.axhline, ax.axvline):
        line(0, color=style.GREY, linewidth=0.6, linestyle="--", zorder=0)
    ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), box_aspect=1)
    ax.set(xlabel=f"CMI, contrast {low:g}", ylabel=f"CMI, contrast {high:g}")
    ax.set_title(f"{int(flips['flip'].sum())} of {len(flips)} flip\n{panels.told(flips)}", loc="left")


def draw_turning(ax, flips: pd.DataFrame, part: str, low: float, high: float) -> None:
    own = flips[flips["flip_chosen"]]
    values = (own[f"cmi_{name}_{part}"].to_numpy() for name in ("low", "high"))
    contexts.turning(ax, *values, (f"{low:g}", f"{high:g}"))
    ax.set(xlabel="contrast", ylabel="CMI")
    title = "half that chose them" if part == "chosen" else "other half"
    ax.set_title(f"{title}\n{panels.told(own)}", loc="left")


def draw_shares(ax, flips: pd.DataFrame) -> None:
    per_mouse = {mouse_id: own for mouse_id, own in flips.groupby("mouse", sort=False)}
    groups = {f"{mouse_id}\nn = {len(own)}": {} for mouse_id, own in per_mouse.items()}
    if len(per_mouse) > 1:
        groups[f"mean\nn = {len(flips)}"] = {}
    for name in SHARES:
        values = [100.0 * own[name].to_numpy(dtype=float) for own in per_mouse.values()]
        found = [bootstrap(v, np.random.default_rng(SEED)) for v in values]
        if len(values) > 1:
            found.append(hierarchical_bootstrap(values, np.random.default_rng(SEED)))
        for series, interval in zip(groups.values(), found, strict=True):
            series[name] = interval.mean, interval.low, interval.high
    contexts.shares(ax, groups, SHARES)


if __name__ == "__main__":
    cli.run(main, get_parser())
