"""Panels: one axis each, drawn from arrays. They return nothing and know no model and no file."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from viv1t.plotting import style


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


def histogram(ax: Axes, values: Mapping[str, np.ndarray], bins: np.ndarray) -> None:
    """Overlaid outlines of several distributions over the same bins; their means as ticks above."""
    for name, v in values.items():
        v = v[np.isfinite(v)]
        color = style.COLORS[name]
        ax.hist(v, bins, histtype="stepfilled", color=color, alpha=0.2)
        ax.hist(v, bins, histtype="step", color=color, linewidth=1.2, label=f"{name}, mean {v.mean():.2f}")
    top = ax.get_ylim()[1]
    for name, v in values.items():
        ax.plot(np.nanmean(v), 1.03 * top, marker="v", color=style.COLORS[name], markersize=4, clip_on=False)
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


def curve(ax: Axes, x: np.ndarray, y: np.ndarray, color: str) -> None:
    """A line over epochs or other whole numbers; with points where there are few."""
    ax.plot(x, y, color=color, marker="o" if len(x) <= 30 else "", markersize=2.5)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
