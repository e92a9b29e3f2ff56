"""Panels about tuning: estimates beside the truth, curves over directions, indices, and similarity over distance."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from viv1t.estimators.accuracy import correlation
from viv1t.plotting import panels, style

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]  # mean, low, high over directions


def against_truth(
    ax: Axes,
    truth: np.ndarray,
    estimate: np.ndarray,
    label: str,
    period: float | None = None,
    told: str | None = None,
) -> None:
    """Estimate (N,) of every neuron against its known value; correlation, n and bias (median difference) in the title.

    label: the quantity with its unit. period: of circular quantities, in that unit. told: what to say instead of n.
    Neurons without one of the two values are left out.
    """
    _agreement(ax, truth, estimate, period, told)
    ax.set_xlabel(f"true {label}")
    ax.set_ylabel(f"estimated {label}")


def by_prediction(
    ax: Axes, table: pd.DataFrame, truth: str, estimate: str, label: str, period: float | None = None
) -> None:
    """`against_truth` of two columns, for neurons with `well_predicted`; the others in grey behind them.

    The title also counts the planes (`z_um`) and mice (`mouse`) that the neurons are from.
    """
    others, good = table[~table["well_predicted"]], table[table["well_predicted"]]
    panels.against_ceiling(ax, others[truth], others[estimate], color=style.COLORS["repeats"])
    told = panels.told(good.dropna(subset=[truth, estimate]))
    against_truth(ax, good[truth].to_numpy(), good[estimate].to_numpy(), label, period, told)


def paired_scatter(
    ax: Axes, recorded: np.ndarray, predicted: np.ndarray, label: str, period: float | None = None
) -> None:
    """The same quantity (N,) from recorded and from predicted responses, as `against_truth`."""
    _agreement(ax, recorded, predicted, period)
    ax.set_xlabel(f"{label}, recorded")
    ax.set_ylabel(f"{label}, twin")


def _agreement(ax: Axes, x: np.ndarray, y: np.ndarray, period: float | None, told: str | None = None) -> None:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    valid = np.isfinite(x) & np.isfinite(y)
    x, y = x[valid], y[valid]
    difference, name, told = y - x, "r", told or f"n = {len(x)}"
    if period is not None:
        x, y, name = x % period, y % period, "circular r"
        difference = (difference + period / 2) % period - period / 2
    if len(x) < 2:
        ax.set_title(told, loc="left")
        return
    r = correlation(x, y) if period is None else circular_correlation(x, y, period)
    panels.against_ceiling(ax, x, y)
    low, high = (0, period) if period is not None else (min(x.min(), y.min()), max(x.max(), y.max()))
    panels.unity(ax, low, high)
    if period is not None:
        ticks = [0, period / 2, period]
        ax.set(xticks=ticks, yticks=ticks)
    ax.set_box_aspect(1)
    ax.set_title(f"{name} = {r:.2f}, bias {np.median(difference):+.2g}\n{told}", loc="left")


def circular_correlation(a: np.ndarray, b: np.ndarray, period: float = 360.0) -> float:
    """Correlation of two circular variables (N,) without a mean direction (Fisher & Lee 1983), -1..1."""
    a, b = (2 * np.pi / period * np.asarray(x, dtype=float) for x in (a, b))
    cosines, sines = np.cos(a) @ np.cos(b), np.sin(a) @ np.sin(b)
    mixed = (np.cos(a) @ np.sin(b)) * (np.sin(a) @ np.cos(b))
    spread = [len(x) ** 2 - np.cos(2 * x).sum() ** 2 - np.sin(2 * x).sum() ** 2 for x in (a, b)]
    below = np.sqrt(np.prod(np.maximum(spread, 0)))
    return float(4 * (cosines * sines - mixed) / below) if below > 0 else float("nan")


def tuning_curve(ax: Axes, angles: np.ndarray, curves: Mapping[str, Curve], period: float = 360.0) -> None:
    """Response over directions (D,) in degrees, with intervals; the circle is closed by drawing its start again."""
    closed = np.append(angles, angles[0] + period)
    for name, curve in curves.items():
        mean, low, high = (np.append(values, values[0]) for values in curve)
        ax.fill_between(closed, low, high, color=style.COLORS[name], alpha=0.2, linewidth=0)
        ax.plot(closed, mean, color=style.COLORS[name], marker=style.MARKERS.get(name, "o"), markersize=3, label=name)
    ax.set_xticks(angles[0] + np.linspace(0, period, 3))
    ax.set_xlim(closed[0], closed[-1])
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_xlabel("direction of motion (deg)" if period == 360 else "axis of motion (deg)")


def polar_tuning(ax: Axes, angles: np.ndarray, curves: Mapping[str, np.ndarray]) -> None:
    """Responses (D,) over all directions of motion in degrees, on a polar axis that points where the pattern moves.

    0 is left, 90 down, 180 right, 270 up. Negative responses are drawn as 0.
    """
    ax.set_theta_zero_location("W")
    closed = np.radians(np.append(angles, angles[0]))
    for name, curve in curves.items():
        radius = np.maximum(np.append(curve, curve[0]), 0)
        ax.plot(closed, radius, color=style.COLORS[name], label=name)
        ax.fill(closed, radius, color=style.COLORS[name], alpha=0.12, linewidth=0)
    ax.set_xticks(np.radians([0, 90, 180, 270]), ["0", "90", "180", "270"])
    ax.tick_params(axis="x", pad=-2)
    ax.set_rticks([])
    ax.grid(color=style.GREY, linewidth=0.4)
    ax.spines["polar"].set_visible(False)


def index_histogram(ax: Axes, values: Mapping[str, np.ndarray], label: str, limits: tuple = (0.0, 1.0)) -> None:
    """Distributions of an index over neurons, {name: (N,)}, with their medians marked; NaNs are left out."""
    panels.histogram(ax, values, np.linspace(*limits, 26), middle="median")
    counts = {int(np.isfinite(v).sum()) for v in values.values()}
    ax.set_xlabel(label)
    ax.set_title(f"n = {' / '.join(map(str, sorted(counts)))}", loc="left")


def similarity_vs_distance(
    ax: Axes,
    distance: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    chance: float | tuple[np.ndarray, np.ndarray],
    label: str = "twin",
) -> None:
    """Mean tuning similarity of pairs with its interval over their cortical distance (bins,) in um.

    chance: the level expected of any pair, or its interval (low, high) in each bin.
    """
    color = style.COLORS.get(label, style.BLUE)
    ax.errorbar(
        distance, mean, [mean - low, high - mean], fmt="o-", color=color, markersize=3, elinewidth=1, label=label
    )
    if np.ndim(chance):
        ax.fill_between(distance, *chance, color=style.COLORS["chance"], alpha=0.3, linewidth=0, label="chance")
    else:
        ax.axhline(chance, color=style.COLORS["chance"], linestyle="--", linewidth=0.8, label="chance")
    ax.set_xlim(left=0)
    ax.set_xlabel("cortical distance (µm)")
    ax.set_ylabel("tuning similarity")
