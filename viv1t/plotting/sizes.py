"""Panels about size tuning: curves of classical and inverse gratings, classes of neurons, onsets, and the stimuli."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from viv1t.plotting import panels, style

COLORS = {"classical": style.BLACK, "inverse": style.VERMILION}
CLASSES = {"inverse-tuned": style.VERMILION, "classical": style.BLACK, "not responsive": style.GREY}
FULL = 100.0  # where the full field stands on an axis of sizes, deg
TICKS = (0, 20, 40, 60, 80)

# Keller, Roth & Scanziani 2020 (Nature 582:545), read off its figures: layer 2/3 of awake mice, two-photon imaging
IN_VIVO_SIZES = (5, 15, 25, 35, 45, 55, 65, 75, 85)  # deg
IN_VIVO = {
    "classical": (0.661, 0.766, 0.775, 0.604, 0.480, 0.321, 0.254, 0.269, 0.215),
    "inverse": (0.302, 0.734, 0.771, 0.774, 0.608, 0.427, 0.318, 0.258, 0.224),
}
IN_VIVO_PREFERRED = {"classical": 11.7, "inverse": 24.2}  # medians, deg
IN_VIVO_INDEX = 0.52  # mean inverse tuning index
IN_VIVO_TUNED = 79  # % of responsive neurons
IN_VIVO_LAG = (50.0, 20.0)  # ms, mean and sem of 15 units


def size_axis(ax: Axes) -> None:
    """Diameters of the disc, and the full field beside them."""
    ax.set_xticks([*TICKS, FULL], [*map(str, TICKS), "full"])
    ax.set(xlim=(-3, FULL + 5), xlabel="diameter of the disc (deg)")
    ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)


def size_curves(ax: Axes, sizes: np.ndarray, classical: np.ndarray, inverse: np.ndarray, full: float) -> None:
    """Measured responses of one neuron, classical and inverse (S,) over sizes, and to the full field."""
    ax.plot([*sizes, FULL], [*classical, full], "o", color=COLORS["classical"], markersize=3, label="classical")
    ax.plot([0, *sizes], [full, *inverse], "s", color=COLORS["inverse"], markersize=3, label="inverse")


def fitted_curves(ax: Axes, sizes: np.ndarray, classical: np.ndarray, inverse: np.ndarray) -> None:
    """Fits of one neuron over a fine grid of sizes."""
    ax.plot(sizes, classical, color=COLORS["classical"], linewidth=1)
    ax.plot(sizes, inverse, color=COLORS["inverse"], linewidth=1)


def population_curve(ax: Axes, name: str, sizes: np.ndarray, mice: np.ndarray, bands: np.ndarray) -> None:
    """Mean over mice with its interval, bands (3, S): mean, low, high; each mouse (M, S) as a thin line."""
    color = COLORS[name]
    ax.plot(sizes, mice.T, color=color, linewidth=0.5, alpha=0.6)
    ax.fill_between(sizes, *bands[1:], color=color, alpha=0.2, linewidth=0)
    ax.plot(sizes, bands[0], "o-", color=color, markersize=2.5, label=name)


def in_vivo_curves(ax: Axes) -> None:
    """The published curves, as a faint reference."""
    for name, values in IN_VIVO.items():
        label = f"{name}, in vivo"
        ax.plot(IN_VIVO_SIZES, values, ":", color=COLORS[name], alpha=0.55, linewidth=1.2, label=label)


def distributions(
    ax: Axes, values: Mapping[str, np.ndarray], bins: np.ndarray, reference: Mapping[str, float] | None = None
) -> None:
    """Shares in per cent of named values (N,) in each bin, their medians as ticks above, references as dotted lines.

    Values beyond the bins count in the outermost ones.
    """
    tops = []
    for name, own in values.items():
        own = np.clip(own[np.isfinite(own)], bins[0], bins[-1])
        share = 100 * np.histogram(own, bins)[0] / max(len(own), 1)
        ax.stairs(share, bins, color=COLORS[name], linewidth=1.2)
        ax.stairs(share, bins, color=COLORS[name], fill=True, alpha=0.15)
        tops.append(share.max())
    top = 1.15 * max(max(tops), 1)
    for name, own in values.items():
        if np.isfinite(own).any():
            middle = np.clip(np.nanmedian(own), bins[0], bins[-1])
            ax.plot(middle, 0.96 * top, marker="v", color=COLORS[name], markersize=4, clip_on=False)
    for name, value in (reference or {}).items():
        ax.axvline(value, color=COLORS[name], linestyle=":", linewidth=1.2, alpha=0.8)
    ax.set(xlim=(bins[0], bins[-1]), ylim=(0, top), ylabel="neurons (%)")


def class_shares(ax: Axes, shares: Mapping[str, Mapping[str, float]]) -> None:
    """Classes of each group's neurons in per cent, stacked: {group: {class: per cent}}."""
    start = np.zeros(len(shares))
    for name, color in CLASSES.items():
        values = np.array([own.get(name, 0.0) for own in shares.values()])
        drawn = ax.bar(range(len(shares)), values, 0.6, bottom=start, color=color, alpha=0.75, label=name)
        ax.bar_label(drawn, [f"{v:.0f}" if v >= 6 else "" for v in values], label_type="center", color="white")
        start += values
    ax.set_xticks(range(len(shares)), list(shares))
    ax.set(xlim=(-0.6, len(shares) - 0.4), ylim=(0, 100), ylabel="neurons (%)")


def time_courses(
    ax: Axes, ms: np.ndarray, traces: Mapping[str, np.ndarray], bands: Mapping[str, tuple] | None = None
) -> None:
    """Responses (F,) to the classical and the inverse grating over time from onset; bands: {name: (low, high)}."""
    for name, trace in traces.items():
        if bands:
            ax.fill_between(ms, *bands[name], color=COLORS[name], alpha=0.2, linewidth=0)
        ax.plot(ms, trace, color=COLORS[name], label=name)
    ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
    ax.set(xlim=(ms[0], ms[-1]), xlabel="time from onset (ms)")


def onsets(ax: Axes, classical: np.ndarray, inverse: np.ndarray, tuned: np.ndarray) -> None:
    """Onset (N,) of the inverse over that of the classical response in ms; inverse-tuned neurons in colour."""
    for chosen, color, label in ((~tuned, style.COLORS["repeats"], "others"),
                                 (tuned, COLORS["inverse"], "inverse-tuned")):  # fmt: skip
        panels.against_ceiling(ax, classical[chosen], inverse[chosen], label, color)
    known = np.concatenate([classical, inverse])
    top = float(np.nanmax(known)) if np.isfinite(known).any() else 1.0
    panels.unity(ax, 0, 1.05 * top)
    ax.set(xlabel="classical onset (ms)", ylabel="inverse onset (ms)", box_aspect=1)


def shown_frame(ax: Axes, image: np.ndarray, centre: tuple[float, float]) -> None:
    """A frame (H, W) of grey levels with the field's centre marked."""
    panels.picture(ax, image)
    ax.plot(*centre, "+", color=style.VERMILION, markersize=5, markeredgewidth=1)
