"""Where pixels lie around the centre of a pattern, in degrees, by one of two rules.

spherical   along great circles around the centre: what the eye sees. Patterns keep their size and spatial frequency
            wherever their centre is. The rule of the simulated animal
flat        every pixel counts as many degrees as one at the screen centre: as published. The screen's origin is then
            pixel (ceil(W / 2), ceil(H / 2))
"""

import math
from functools import lru_cache

import numpy as np

from viv1t.geometry import Monitor

GEOMETRIES = ("spherical", "flat")


def position(monitor: Monitor, centre, geometry: str) -> np.ndarray:
    """The centre of a pattern as pixel (x, y); None is the screen's. ValueError if it is not a finite position."""
    if geometry not in GEOMETRIES:
        raise ValueError(f"geometry is {' or '.join(GEOMETRIES)}, not {geometry}")
    if centre is None:
        flat = math.ceil(monitor.width / 2), math.ceil(monitor.height / 2)
        centre = flat if geometry == "flat" else monitor.centre
    centre = np.asarray(centre, dtype=np.float64)
    if centre.shape != (2,) or not np.isfinite(centre).all():
        raise ValueError(f"the centre of a pattern is a pixel (x, y), not {centre}")
    return centre


def coordinates(monitor: Monitor, centre=None, geometry: str = "spherical") -> tuple[np.ndarray, np.ndarray]:
    """Degrees (right, up) of every pixel from `centre`, each (H, W) float64, read-only: others may hold the same."""
    return _coordinates(monitor, tuple(position(monitor, centre, geometry).tolist()), geometry)


@lru_cache(maxsize=64)
def _coordinates(monitor: Monitor, centre: tuple[float, float], geometry: str) -> tuple[np.ndarray, np.ndarray]:
    if geometry == "spherical":
        right, up = monitor.local_coordinates(monitor.to_degrees(centre)[None])
        found = right[0, :, :, 0], up[0, :, :, 0]
    else:
        x, y = np.moveaxis(monitor.points()[:, :, 0], -1, 0)
        found = (x - centre[0]) * monitor.degrees_per_pixel, (centre[1] - y) * monitor.degrees_per_pixel
    return tuple(map(read_only, found))


def read_only(array: np.ndarray) -> np.ndarray:
    """The array, which from now on nobody can change: it is kept to be given out again."""
    array.flags.writeable = False
    return array
