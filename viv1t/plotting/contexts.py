"""Panels about surrounds: responses and indices by the kind of surround, and how they change with contrast."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from viv1t.plotting import style

KIND_COLORS = {
    "centre": style.BLACK,
    "iso": style.BLUE,
    "cross": style.VERMILION,
    "shift": style.GREEN,
    "inverse": style.SKY,
    "inverse_cross": style.ORANGE,
}
CMI_BINS = np.linspace(-1, 1, 17)
# Keller et al. 2020, Neuron 108:1181, read off its histogram: centres of bins 0.25 wide, share of neurons; beyond the
# last bins lie 3.7 % (below) and 9.9 % (above). Its index leaves [-1, 1], since responses below grey count.
IN_VIVO_CMI = {
    -1.375: 0.000, -1.125: 0.008, -0.875: 0.011, -0.625: 0.014, -0.375: 0.028, -0.125: 0.041, 0.125: 0.077,
    0.375: 0.162, 0.625: 0.206, 0.875: 0.180, 1.125: 0.102, 1.375: 0.033,
}  # fmt: skip


def boxes(ax: Axes, values: Mapping[str, np.ndarray], colors: Sequence[str], rng: np.random.Generator) -> None:
    """Quartiles and whiskers (up to 1.5 times their distance) of named values (N,), and all values as dots."""
    known = [v[np.isfinite(v)] for v in values.values()]
    for i, (own, color) in enumerate(zip(known, colors, strict=True)):
        size = float(np.clip(600 / max(len(own), 1), 0.6, 6))
        x = i + rng.uniform(-0.22, 0.22, len(own))
        ax.scatter(x, own, s=size, color=color, alpha=0.35, linewidths=0, rasterized=len(own) > 2000)
    line = {"color": style.BLACK, "linewidth": 0.9}
    places = [i for i, own in enumerate(known) if len(own)]
    if places:
        ax.boxplot([known[i] for i in places], positions=places, widths=0.55, showfliers=False, boxprops=line,
                   whiskerprops=line, capprops=line, medianprops=line | {"linewidth": 1.8})  # fmt: skip
    ax.set_xticks(range(len(known)), list(values))
    ax.set_xlim(-0.6, len(known) - 0.4)


def iso_cross(ax: Axes, iso: np.ndarray, cross: np.ndarray, color: str = style.BLUE) -> None:
    """Response (N,) to a cross over that to an iso surround, on logarithmic axes, with the line of equality.

    Responses below a thousandth of the largest lie on the edge; those without one of the two are left out.
    """
    shown = np.isfinite(iso) & np.isfinite(cross)
    if shown.any() and max(iso[shown].max(), cross[shown].max()) > 0:
        high = 1.4 * max(iso[shown].max(), cross[shown].max())
        low = high / 2000
        x, y = np.maximum(iso[shown], low), np.maximum(cross[shown], low)
        ax.scatter(x, y, s=float(np.clip(1500 / len(x), 1, 9)), color=color, alpha=0.6, linewidths=0)
        ax.plot([low, high], [low, high], color=style.GREY, linewidth=0.8, linestyle="--", zorder=0)
        ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_formatter(NullFormatter())
    ax.set_box_aspect(1)


def cmi_histogram(ax: Axes, per_mouse: Mapping[str, np.ndarray], in_vivo: bool = True) -> np.ndarray:
    """Share of neurons by CMI: one thin line per mouse, a thick one for their mean, and what was found in vivo behind.

    Returns the shares (mice, CMI_BINS - 1) drawn, in per cent.
    """
    shares = []
    for values in per_mouse.values():
        values = values[np.isfinite(values)]
        shares.append(100 * np.histogram(values, CMI_BINS)[0] / max(len(values), 1))
    if in_vivo:  # bins twice as wide as ours
        places, share = np.array(list(IN_VIVO_CMI)), 100 * np.array(list(IN_VIVO_CMI.values())) / 2
        edges = np.append(places - 0.125, places[-1] + 0.125)
        ax.stairs(share, edges, fill=True, color=style.COLORS["repeats"], alpha=0.6, label="in vivo (Keller 2020)")
    for own in shares:
        ax.stairs(own, CMI_BINS, color=style.BLUE, linewidth=0.6, alpha=0.7)
    ax.stairs(np.mean(shares, axis=0), CMI_BINS, color=style.BLUE, linewidth=1.6, label="mean of mice")
    middles = [float(np.nanmedian(v)) if np.isfinite(v).any() else np.nan for v in per_mouse.values()]
    ax.axvline(0, color=style.GREY, linewidth=0.6, linestyle="--", zorder=0)
    top = ax.get_ylim()[1]
    ax.plot(np.mean(middles), 1.04 * top, marker="v", color=style.BLUE, markersize=4, clip_on=False)
    ax.set(xlim=(-1.5, 1.5) if in_vivo else (-1, 1), ylim=(0, 1.08 * top), xlabel="CMI", ylabel="neurons (%)")
    return np.array(shares)


def size_curves(ax: Axes, sizes: np.ndarray, curves: Mapping[str, np.ndarray]) -> None:
    """Responses (S,) of one neuron by kind over the diameter (S,) of the disc in degrees; one size: side by side."""
    look = {"markersize": 2.5, "linewidth": 1} if len(sizes) > 1 else {"markersize": 4, "linestyle": ""}
    for place, (kind, values) in enumerate(curves.items()):
        x = sizes if len(sizes) > 1 else [place]
        ax.plot(x, values, color=KIND_COLORS[kind], marker="o", label=kind, clip_on=False, **look)
    ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
    if len(sizes) > 1:
        ax.set_xlabel("disc (deg)")
    else:
        ax.set_xticks([])
        ax.set(xlim=(-0.5, len(curves) - 0.5), xlabel=f"disc of {sizes[0]:g} deg")


def time_courses(ax: Axes, seconds: np.ndarray, traces: Mapping[str, np.ndarray], pattern: float) -> None:
    """Responses (frames,) by kind; a bar below marks when the pattern was on, from 0 to `pattern` s."""
    for kind, trace in traces.items():
        ax.plot(seconds, trace, color=KIND_COLORS[kind], linewidth=1, label=kind)
    ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
    bottom, top = ax.get_ylim()
    bottom -= 0.06 * (top - bottom)
    ax.plot([0, pattern], [bottom, bottom], color=style.GREY, linewidth=3, solid_capstyle="butt", clip_on=False)
    ax.set(xlim=(seconds[0], seconds[-1]), ylim=(bottom, top))


def turning(ax: Axes, low: np.ndarray, high: np.ndarray, labels: tuple[str, str]) -> None:
    """An index (N,) at two contrasts, one line per neuron, and the means."""
    ax.plot([0, 1], np.stack([low, high]), color=style.COLORS["repeats"], linewidth=0.5, zorder=1)
    means = np.nanmean(low) if len(low) else np.nan, np.nanmean(high) if len(high) else np.nan
    ax.plot([0, 1], means, color=style.BLUE, marker="o", markersize=4, zorder=2)
    ax.axhline(0, color=style.GREY, linewidth=0.6, linestyle="--", zorder=0)
    ax.set_xticks([0, 1], labels)
    ax.set(xlim=(-0.3, 1.3), ylim=(-1.05, 1.05))


def shares(
    ax: Axes, groups: Mapping[str, Mapping[str, tuple[float, float, float]]], colors: Mapping[str, str]
) -> None:
    """Share of neurons in per cent (mean, low, high) by group and series, side by side."""
    names = list(colors)
    for k, name in enumerate(names):
        offset = (k - (len(names) - 1) / 2) * 0.2
        rows = [(i + offset, *series[name]) for i, series in enumerate(groups.values()) if name in series]
        x, mean, low, high = np.array(rows).T
        ax.errorbar(x, mean, [mean - low, high - mean], fmt="o", markersize=4, color=colors[name], label=name,
                    elinewidth=1.2)  # fmt: skip
    ax.set_xticks(range(len(groups)), list(groups))
    ax.set(xlim=(-0.6, len(groups) - 0.4), ylim=(0, max(5, ax.get_ylim()[1])), ylabel="neurons that flip (%)")
