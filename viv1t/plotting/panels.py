"""Panels: one axis each, drawn from arrays. They return nothing and know no model and no file."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from viv1t.plotting import style
from viv1t.stats import count


def told(*tables: pd.DataFrame) -> str:
    """Neurons of each table (columns `mouse` and `z_um`), imaging planes and mice of the first, for titles."""
    _, planes, mice = count(tables[0])
    n = " / ".join(str(len(table)) for table in tables)
    return f"n = {n}, {planes} plane{'s' * (planes != 1)}, {mice} {'mouse' if mice == 1 else 'mice'}"


def traces(ax: Axes, seconds: np.ndarray, repeats: np.ndarray, lines: Mapping[str, np.ndarray]) -> None:
    """Single trials (R, T) in grey behind named traces (T,), e.g. their mean, the prediction, the true rate.

    The axis is made for the named traces; single trials are cut off above it.
    """
    singles = ax.plot(seconds, repeats.T, color=style.COLORS["repeats"], linewidth=0.5, zorder=1)
    singles[0].set_label("single trials")
    for name, line in lines.items():
        ax.plot(seconds, line, color=style.COLORS[name], label=name, zorder=2, linewidth=1.2)
    ax.set_xlim(seconds[0], seconds[-1])
    values = np.concatenate(list(lines.values()))
    bottom, top = min(0.0, float(values.min())), float(values.max())
    ax.set_ylim(bottom, bottom + 1.5 * (top - bottom) if top > bottom else bottom + 1)


def histogram(ax: Axes, values: Mapping[str, np.ndarray], bins: np.ndarray, middle: str = "mean") -> None:
    """Overlaid outlines of several distributions over the same bins; their means (or medians) as ticks above."""
    middles = {name: getattr(np, f"nan{middle}")(v) for name, v in values.items()}
    for name, v in values.items():
        v = v[np.isfinite(v)]
        color = style.COLORS[name]
        ax.hist(v, bins, histtype="stepfilled", color=color, alpha=0.2)
        ax.hist(v, bins, histtype="step", color=color, linewidth=1.2, label=f"{name}, {middle} {middles[name]:.2f}")
    top = ax.get_ylim()[1]
    for name in values:
        ax.plot(middles[name], 1.03 * top, marker="v", color=style.COLORS[name], markersize=4, clip_on=False)
    ax.set_ylim(0, 1.05 * top)
    ax.set_xlim(bins[0], bins[-1])
    ax.set_ylabel("neurons")


def against_ceiling(
    ax: Axes, ceiling: np.ndarray, score: np.ndarray, label: str = "", color: str = style.BLUE
) -> None:
    """Score of every neuron against its ceiling, with the line where both are equal."""
    size = float(np.clip(1500 / max(len(score), 1), 1, 9))
    ax.scatter(ceiling, score, s=size, color=color, alpha=0.6, linewidths=0, label=label, rasterized=len(score) > 2000)


def unity(ax: Axes, low: float, high: float) -> None:
    """The same limits on both axes, and the diagonal."""
    ax.plot([low, high], [low, high], color=style.GREY, linewidth=0.8, linestyle="--", zorder=0)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)


def intervals(ax: Axes, groups: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> None:
    """Mean with its interval (mean, low, high) for each series in each group, side by side."""
    names = list(dict.fromkeys(name for series in groups.values() for name in series))
    offsets = (np.arange(len(names)) - (len(names) - 1) / 2) * min(0.16, 0.7 / len(names))
    for name, offset in zip(names, offsets, strict=True):
        rows = [(i + offset, *series[name]) for i, series in enumerate(groups.values()) if name in series]
        x, mean, low, high = np.array(rows).T
        color = style.COLORS[name]
        marker, yerr = style.MARKERS.get(name, "D"), [mean - low, high - mean]
        ax.errorbar(x, mean, yerr, fmt=marker, markersize=4, color=color, label=name, elinewidth=1.2)
    ax.set_xticks(range(len(groups)), list(groups))
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)


def by_group(ax: Axes, means: pd.DataFrame, mice: pd.DataFrame, middle: float, width: float, color: str, label: str):
    """A point with its interval in every group, and small ones for single mice spread around it.

    means, mice: `x`, the place of the group, `mean`, `low` and `high`; mice has several rows for each x. The points
    lie around x + middle within `width`.
    """
    number, of = mice.groupby("x").cumcount() + 1, mice.groupby("x")["x"].transform("size") + 1
    places = (means["x"] + middle, mice["x"] + middle + width * (number / of - 0.5))
    looks = ({"markersize": 4, "elinewidth": 1.4, "label": label, "zorder": 3}, {"markersize": 2, "elinewidth": 0.6})
    for table, x, look in zip((means, mice), places, looks, strict=True):
        bars = [table["mean"] - table["low"], table["high"] - table["mean"]]
        ax.errorbar(x, table["mean"], bars, fmt="o", color=color, alpha=1 if table is means else 0.55, **look)


def stacked_traces(ax: Axes, seconds: np.ndarray, lines: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
    """Named traces (n, T) of n neurons, one neuron above the next, each scaled to the largest value of its traces."""
    n = len(labels)
    peak = np.max([abs(line).max(axis=1) for line in lines.values()], axis=0)
    scale = 0.9 / np.where(peak > 0, peak, 1)
    for name, line in lines.items():
        shown = ax.plot(seconds, (line * scale[:, None] + np.arange(n)[::-1, None]).T, color=style.COLORS[name])
        shown[0].set_label(name)
        for each in shown:
            each.set_linewidth(0.9)
    ax.set_yticks(np.arange(n)[::-1], labels)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(seconds[0], seconds[-1])
    ax.set_ylim(-0.3, n)


def growth(
    ax: Axes, x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, label: str, color: str
) -> None:
    """Scores with their intervals over amounts on a logarithmic axis; a line through the mean of each amount."""
    ax.errorbar(x, mean, [mean - low, high - mean], fmt="o", color=color, markersize=4, elinewidth=1, label=label)
    amounts, group = np.unique(x, return_inverse=True)
    ax.plot(amounts, np.bincount(group, mean) / np.bincount(group), color=color)
    ax.set_xscale("log")


def bars(ax: Axes, counts: Mapping[str, float], label: str) -> None:
    """Named counts as horizontal bars from top to bottom, with their numbers."""
    drawn = ax.barh(list(counts), list(counts.values()), color=style.BLUE)
    ax.bar_label(drawn, padding=2)
    ax.margins(x=0.25)
    ax.invert_yaxis()
    ax.set_xlabel(label)


def shares(ax: Axes, values: np.ndarray, bins: np.ndarray, label: str) -> np.ndarray:
    """Per cent of the values (n,) in each bin, with the median marked; returns the shares drawn."""
    share = 100 * np.histogram(values, bins)[0] / max(len(values), 1)
    ax.stairs(share, bins, fill=True, color=style.SKY)
    middle = float(np.median(values))
    ax.axvline(middle, color=style.VERMILION, linewidth=1)
    ax.set(xlim=(bins[0], bins[-1]), xlabel=label, ylabel="%", title=f"median {middle:.3g}")
    return share


def spectrum(
    ax: Axes, frequency: np.ndarray, amplitude: np.ndarray, line: np.ndarray, slope: float, unit: str
) -> None:
    """An amplitude spectrum on logarithmic axes with the power law fitted to it."""
    ax.loglog(frequency[1:], amplitude[1:], color=style.BLUE)
    ax.loglog(frequency, line, "--", color=style.VERMILION)
    ax.set(xlabel=f"frequency ({unit})", ylabel="amplitude", title=f"slope {slope:.2f}")
    ax.yaxis.set_minor_formatter("")


def picture(ax: Axes, image: np.ndarray, limit: float | None = None, **kwargs):
    """An image (H, W) without ticks: grey levels 0..255, or signed values in -limit..limit, red positive."""
    colors = {"cmap": "gray", "vmin": 0, "vmax": 255} if limit is None else {"cmap": "RdBu_r", "vmin": -limit}
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax.imshow(image, **colors | ({} if limit is None else {"vmax": limit}) | kwargs)


def curve(ax: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    """A line over epochs or other whole numbers; with points where there are few."""
    ax.plot(x, y, color=color, marker="o" if len(x) <= 30 else "", markersize=2.5)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
