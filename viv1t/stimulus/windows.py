"""Windows that let a pattern through, (H, W) from 0 to 1, and patterns put together with them."""

from functools import lru_cache

import numpy as np

from viv1t.geometry import Monitor
from viv1t.stimulus.coordinates import coordinates, position, read_only

SUBPIXELS = 8  # the covered area of a pixel is counted on a grid of 8 x 8 points


def disc(
    monitor: Monitor, centre, diameter_deg: float, geometry: str = "spherical", subpixels: int = SUBPIXELS
) -> np.ndarray:
    """Share of every pixel, (H, W) float32, that lies within a disc of `diameter_deg` around pixel `centre` (x, y).

    centre: None is the screen's. geometry: spherical discs hold what is nearer than half the diameter along great
    circles; flat ones are circles of `monitor.radius_px`. subpixels=1 asks for the pixel's centre only: in flat
    geometry that is the published mask, true where the distance is less than the radius. The array is read-only.
    """
    if not 0 <= diameter_deg < 180:
        raise ValueError(f"a disc spans 0 to 180 degrees, not {diameter_deg}")
    centre = tuple(position(monitor, centre, geometry).tolist())
    return _disc(monitor, centre, float(diameter_deg), geometry, subpixels)


@lru_cache(maxsize=256)
def _disc(monitor: Monitor, centre: tuple[float, float], diameter_deg: float, geometry: str, subpixels: int):
    points = _points(monitor, subpixels, geometry)
    if geometry == "flat":
        inside = np.hypot(*np.moveaxis(points - centre, -1, 0)) < monitor.radius_px(diameter_deg)
    else:  # compare chords: they are as exact for small discs as for large ones
        chord = points - monitor.lines_of_sight(centre)
        inside = np.einsum("...i,...i", chord, chord) < (2 * np.sin(np.radians(diameter_deg) / 4)) ** 2
    return read_only(inside.mean(axis=-1, dtype=np.float32))


@lru_cache(maxsize=8)
def _points(monitor: Monitor, subpixels: int, geometry: str) -> np.ndarray:
    points = monitor.points(subpixels)
    return points if geometry == "flat" else monitor.lines_of_sight(points)


def annulus(monitor: Monitor, centre, inner_deg: float, outer_deg: float, **kwargs) -> np.ndarray:
    """Share of every pixel, (H, W) float32, between two discs of these diameters; further arguments as for `disc`."""
    if inner_deg > outer_deg:
        raise ValueError(f"the inner diameter {inner_deg} exceeds the outer {outer_deg}")
    return disc(monitor, centre, outer_deg, **kwargs) - disc(monitor, centre, inner_deg, **kwargs)


def gaussian(monitor: Monitor, centre, sigma_deg: float, geometry: str = "spherical") -> np.ndarray:
    """exp(-d^2 / 2 sigma^2) at distance d from `centre`, (H, W) float64."""
    right, up = coordinates(monitor, centre, geometry)
    return np.exp(-(right**2 + up**2) / (2 * sigma_deg**2))


def classical(pattern: np.ndarray, window: np.ndarray) -> np.ndarray:
    """A pattern (frames, H, W) within a window, grey around it."""
    return window * pattern


def inverse(pattern: np.ndarray, window: np.ndarray) -> np.ndarray:
    """A pattern everywhere but in a window, which is grey."""
    return (1 - window) * pattern


def centre_surround(
    centre: np.ndarray, surround: np.ndarray, window: np.ndarray, ring: np.ndarray | None = None
) -> np.ndarray:
    """One pattern within a window, another within `ring`, mixed by area where they meet.

    ring: an annulus leaves a grey gap where it begins outside the window, and ends the surround; None is all that is
    not the window. With a grating g in the centre, the surround is g (iso), a grating at 90 degrees to it (cross), -g
    (shift), 0 (centre alone); or the centre is 0 (surround alone).
    """
    return window * centre + (1 - window if ring is None else ring) * surround
