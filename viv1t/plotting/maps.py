"""Panels that are places: on the monitor, on the cortical sheet, in its depth."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Ellipse, Rectangle

from viv1t.constants import FPS
from viv1t.geometry import Monitor
from viv1t.plotting import panels, style

LINEAR, CYCLIC = "viridis", "twilight"  # both safe for colour-blind readers
WEIGHTS = "inferno"
Extent = tuple[float, float, float, float]  # left, right, bottom, top


def pixels(height: int, width: int) -> Extent:
    """Extent of a frame in pixels, whose centres are integers and whose rows count downward."""
    return -0.5, width - 0.5, height - 0.5, -0.5


def field_map(ax: Axes, image: np.ndarray, extent: Extent, ellipse: tuple | None = None, unit: str = "px") -> None:
    """A receptive-field map (h, w) on the monitor, red positive, and the 1-sigma ellipse of its fit.

    extent: of the map in `unit`, px or deg (azimuth, elevation). ellipse: (x, y, sigma_major, sigma_minor, theta_deg)
    in that unit; theta from the x axis towards growing y.
    """
    limit = float(abs(np.nan_to_num(image)).max()) or 1.0
    ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent, aspect="equal")
    if ellipse is not None and np.isfinite(ellipse).all():
        x, y, major, minor, theta = ellipse
        outline = Ellipse((x, y), 2 * major, 2 * minor, angle=theta, fill=False, color=style.BLACK, linewidth=1)
        ax.add_patch(outline)
    _monitor(ax, extent, unit)


def field_in_degrees(ax: Axes, image: np.ndarray, monitor: Monitor, outline: np.ndarray | None = None) -> None:
    """A map (H, W) at the pixels of a monitor, where the eye sees them, red positive; outline (K, 2) in pixels."""
    y, x = np.mgrid[: monitor.height + 1, : monitor.width + 1] - 0.5
    limit = float(abs(np.nan_to_num(image)).max()) or 1.0
    azimuth, elevation = np.moveaxis(monitor.to_degrees(np.stack([x, y], axis=-1)), -1, 0)
    colors = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    ax.pcolormesh(azimuth, elevation, image, rasterized=True, **colors)
    if outline is not None:
        ax.plot(*monitor.to_degrees(outline).T, color=style.BLACK, linewidth=1)
    ax.set(xlabel="azimuth (deg)", ylabel="elevation (deg)", aspect="equal")


def contours(ax: Axes, image: np.ndarray, monitor: Monitor, shares: Sequence[float], color: str) -> None:
    """Where a map (H, W) at the pixels of a monitor reaches some shares of its peak, in degrees."""
    y, x = np.mgrid[: monitor.height, : monitor.width]
    azimuth, elevation = np.moveaxis(monitor.to_degrees(np.stack([x, y], axis=-1)), -1, 0)
    ax.contour(azimuth, elevation, image / image.max(), sorted(shares), colors=color, linewidths=1)
    ax.set(xlabel="azimuth (deg)", ylabel="elevation (deg)", aspect="equal")


def field_density(ax: Axes, centres: np.ndarray, extent: Extent, unit: str = "px", bins: int = 32) -> None:
    """How many receptive-field centres (N, 2) lie where on the monitor; those outside are counted in the title."""
    left, right, bottom, top = extent
    x, y = centres[np.isfinite(centres).all(axis=1)].T
    edges = [
        np.linspace(min(ends), max(ends), n + 1) for ends, n in (((left, right), bins), ((bottom, top), bins // 2))
    ]
    counts, *_ = np.histogram2d(x, y, edges)
    image = ax.pcolormesh(*edges, np.where(counts > 0, counts, np.nan).T, cmap=LINEAR, vmin=0)
    ax.figure.colorbar(image, ax=ax, label="neurons", shrink=0.7)
    ax.set_aspect("equal")
    ax.set_title(f"n = {len(x)}, outside {int(len(x) - counts.sum())}", loc="left")
    _monitor(ax, extent, unit)


def _monitor(ax: Axes, extent: Extent, unit: str) -> None:
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])
    names = {"px": ("x (px)", "y (px)"), "deg": ("azimuth (deg)", "elevation (deg)")}[unit]
    ax.set(xlabel=names[0], ylabel=names[1])


def cortex_map(ax: Axes, xy_um: np.ndarray, values: np.ndarray, label: str, period: float | None = None) -> None:
    """Values (N,) of neurons at their places (N, 2) in um, with a colour bar; circular ones have a period."""
    known = np.isfinite(values)
    shown = values[known] if period is None else values[known] % period
    limits = (0, period) if period is not None else np.percentile(shown, [1, 99]) if len(shown) else (0, 1)
    size = float(np.clip(2400 / max(len(values), 1), 1.5, 10))
    colors = {"cmap": LINEAR if period is None else CYCLIC, "norm": Normalize(*limits)}
    ax.scatter(*xy_um[~known].T, s=size / 3, color=style.GREY, linewidths=0)
    points = ax.scatter(*xy_um[known].T, c=shown, s=size, linewidths=0, **colors)
    ends = "neither" if period is not None else "both"
    bar = ax.figure.colorbar(points, ax=ax, label=label, location="top", aspect=14, pad=0.03, extend=ends)
    if period is not None:
        bar.set_ticks([0, period / 2, period])
        ax.set_facecolor(style.COLORS["repeats"])  # the ends of the cyclic colours are nearly white
    ax.set(xlabel=f"cortex x (µm), n = {known.sum()}", ylabel="cortex y (µm)")
    ax.set_aspect("equal")


def gradient_arrow(ax: Axes, gradient: np.ndarray, label: str) -> None:
    """An arrow from the middle of a cortex map along a gradient (2,), to where the value grows; label: its size."""
    (left, right), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    middle, length = np.array([left + right, bottom + top]) / 2, 0.3 * min(right - left, top - bottom)
    if not np.linalg.norm(gradient) > 0:
        return
    arrow = {"arrowstyle": "-|>", "color": style.BLACK, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", middle + length * gradient / np.linalg.norm(gradient), middle, arrowprops=arrow)
    ax.set_ylim(bottom, top + 0.15 * (top - bottom))
    ax.text(0.03, 0.98, label, transform=ax.transAxes, va="top")


def strip_by_depth(
    ax: Axes, depth: np.ndarray, values: np.ndarray, planes: Mapping[float, tuple[float, float, float]], label: str
) -> None:
    """Values (N,) of neurons at their depth (N,) in um; per plane {depth: (mean, low, high)}. Deeper is lower.

    Neurons of a plane are spread over its thickness so that none hides another.
    """
    known = np.isfinite(values)
    centres = np.array(sorted(planes))
    spread = 0.3 * float(np.diff(centres).min()) if len(centres) > 1 else 1.0
    jitter = spread * (2 * np.random.default_rng(0).random(known.sum()) - 1)
    size = float(np.clip(1500 / max(known.sum(), 1), 0.8, 6))
    ax.scatter(
        values[known], depth[known] + jitter, s=size, color=style.COLORS["repeats"], linewidths=0, rasterized=True
    )
    mean, low, high = np.array([planes[centre] for centre in centres]).T
    ax.errorbar(
        mean,
        centres,
        xerr=[mean - low, high - mean],
        fmt="o-",
        color=style.COLORS["twin"],
        markersize=3,
        elinewidth=1.2,
    )
    ax.invert_yaxis()
    ax.set(xlabel=label, ylabel="depth (µm)")


def patch_grid(ax: Axes, frame: np.ndarray, size: int, stride: int, pad: tuple, grid: tuple[int, int]) -> None:
    """One patch of a grid (rows, columns), and the centres of all, over a frame (H, W) of grey levels.

    size, stride: in pixels; pad: pixels added to the frame (left, right, top, bottom), in which patches may lie.
    """
    panels.picture(ax, frame)
    rows, columns = grid
    x, y = np.meshgrid(np.arange(columns) * stride - pad[0], np.arange(rows) * stride - pad[2])
    half = (size - 1) / 2
    ax.plot((x + half).ravel(), (y + half).ravel(), ".", color=style.YELLOW, markersize=2)
    corner = (x[rows // 2, columns // 2] - 0.5, y[rows // 2, columns // 2] - 0.5)
    ax.add_patch(Rectangle(corner, size, size, fill=False, color=style.VERMILION, linewidth=1.2))
    ax.set_title(f"{rows} x {columns} patches of {size} px", loc="left")


def overlay(ax: Axes, frame: np.ndarray, weights: np.ndarray, limits: tuple[float, float]) -> ScalarMappable:
    """A frame (H, W) of grey levels 0..255 under weights (H, W); returns what a colour bar needs."""
    panels.picture(ax, blended(frame, weights, limits))
    return ScalarMappable(Normalize(*limits), WEIGHTS)


def around_field(
    ax: Axes, image: np.ndarray, limits: tuple[float, float], radii: Sequence[float] = ()
) -> ScalarMappable:
    """A map (n, n) of positive values whose middle pixel is a field's centre, with circles of these radii in px.

    Colours are logarithmic within `limits`.
    """
    reach = (len(image) - 1) / 2
    extent = (-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5)
    shown = ax.imshow(np.maximum(image, limits[0]), cmap=WEIGHTS, norm=LogNorm(*limits), extent=extent)
    angle = np.linspace(0, 2 * np.pi, 100)
    for radius in radii:
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), color="white", linewidth=0.8)
    ax.set(xlim=extent[:2], ylim=extent[2:], xticks=[-10, 0, 10], yticks=[-10, 0, 10])
    return shown


def blended(frame: np.ndarray, weights: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """A frame (H, W) of grey levels under weights (H, W), as colours (H, W, 3) uint8.

    limits: weights that leave the frame as it is, and weights that cover most of it.
    """
    strength = np.clip((weights - limits[0]) / max(limits[1] - limits[0], 1e-12), 0, 1)
    colors = 255 * matplotlib.colormaps[WEIGHTS](strength)[..., :3]
    share = 0.8 * strength[..., None]
    return np.rint((1 - share) * np.asarray(frame, dtype=float)[..., None] + share * colors).astype(np.uint8)


def film(
    frames: np.ndarray,
    weights: np.ndarray,
    limits: tuple[float, float],
    responses: Mapping[str, np.ndarray],
    name: str,
) -> Iterator[np.ndarray]:
    """Frames (T, H, W) beside themselves under weights (T, H, W), and the response `name` as far as it has come.

    responses: named, (T,) each, of which the others are drawn in grey. Yields pixels (height, width, 3) uint8.
    """
    fig, axes = style.figure(1, 3, height=40, width_ratios=(1, 1, 0.9))
    video, under, trace = axes[0]
    frame, covered = panels.picture(video, frames[0]), panels.picture(under, blended(frames[0], weights[0], limits))
    video.set_title(name)
    under.set_title("attention")
    seconds, top = np.arange(len(frames)) / FPS, max(float(response.max()) for response in responses.values())
    for response in responses.values():
        trace.plot(seconds, response, color=style.COLORS["repeats"], linewidth=0.8)
    (line,) = trace.plot([], [], color=style.COLORS["twin"], linewidth=1.5)
    trace.set(xlabel="time (s)", ylabel="response", xlim=(0, seconds[-1]), ylim=(0, 1.05 * top))
    for t, shown in enumerate(frames):
        frame.set_data(shown)
        covered.set_data(blended(shown, weights[t], limits))
        line.set_data(seconds[: t + 1], responses[name][: t + 1])
        yield style.raster(fig)
