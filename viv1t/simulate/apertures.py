"""Movies and gratings behind apertures: in discs, around them, different within and without, or in a mosaic.

Natural movies fill the screen: what lies on a field and what lies around it move and change contrast together, and
reach the contrast of gratings nowhere, so that they hardly tell what a surround does. Here all of that varies apart.
"""

import numpy as np

from viv1t.constants import FPS, GREY
from viv1t.geometry import Monitor
from viv1t.stimulus.gratings import grating
from viv1t.stimulus.windows import disc

SECONDS = 0.8, 2.0  # shortest and longest stay of an aperture
DIAMETERS = 12.0, 80.0  # deg
DISCS = 3  # at most, at once
TILES = 6, 16  # of a mosaic, 20 to 40 degrees wide
CPD, HERTZ = (0.02, 0.08), (1.0, 4.0)  # of gratings
CONTRASTS = 0.05, 1.0
FULL = 0.5  # share of patterns at full contrast, where surrounds suppress; the rest is log-uniform
SHOWN = {"discs": (1, 0), "holes": (0, 1), "both": (1, 1)}  # whether anything is shown within, and without


def behind_apertures(movies: list[np.ndarray], seed, monitor: Monitor) -> np.ndarray:
    """Two movies (T, H, W) uint8, one for the discs and one for what surrounds them -> (T, H, W) uint8.

    Every one or two seconds, anew, either one to three discs of 12 to 80 degrees anywhere on the screen, in which
    something is shown, or around which something is, or both; or, as often, a mosaic of tiles, a quarter of them grey.
    Something is a movie or a drifting grating of its own direction, frequencies and contrast. The rest is grey.
    """
    rng = np.random.default_rng(seed)
    shown, start = np.empty_like(movies[0]), 0
    while start < len(shown):
        stop = min(len(shown), start + int(rng.uniform(*SECONDS) * FPS))
        parts = [movie[start:stop] for movie in movies]
        light = GREY + (_mosaic(rng, parts, monitor) if rng.random() < 0.5 else _within_without(rng, parts, monitor))
        shown[start:stop] = np.clip(np.rint(light), 0, 255)
        start = stop
    return shown


def _within_without(rng: np.random.Generator, movies: list[np.ndarray], monitor: Monitor) -> np.ndarray:
    """Deviations from grey (T, H, W) of discs, of their surround, or of both."""
    within, kind = _discs(rng, monitor), rng.choice(list(SHOWN))
    windows = zip(movies, (within, 1 - within), SHOWN[kind], strict=True)
    return sum(is_shown * window * _pattern(rng, movie, monitor) for movie, window, is_shown in windows)


def _mosaic(rng: np.random.Generator, movies: list[np.ndarray], monitor: Monitor) -> np.ndarray:
    """The same of a mosaic: each pixel shows the pattern of the nearest of some random points."""
    x, y = np.meshgrid(np.arange(monitor.width), np.arange(monitor.height))
    points = rng.uniform(-0.5, [monitor.width - 0.5, monitor.height - 0.5], (rng.integers(*TILES), 2))
    tile = np.hypot(x - points[:, :1, None], y - points[:, 1:, None]).argmin(axis=0)
    light = np.zeros(movies[0].shape, np.float32)
    for number in range(len(points)):
        if rng.random() < 0.75:
            light += (tile == number) * _pattern(rng, movies[number % len(movies)], monitor)
    return light


def _pattern(rng: np.random.Generator, movie: np.ndarray, monitor: Monitor) -> np.ndarray:
    """Deviations from grey (T, H, W): of the movie, or of a grating, equally often."""
    contrast, cpd, hertz = (np.exp(rng.uniform(*np.log(limits))) for limits in (CONTRASTS, CPD, HERTZ))
    contrast = CONTRASTS[1] if rng.random() < FULL else contrast
    direction, phase = rng.uniform(0, 360, 2)
    if rng.random() < 0.5:
        return contrast * (movie.astype(np.float32) - GREY)
    return 127.5 * grating(monitor, direction, cpd, hertz, len(movie), phase, contrast)


def _discs(rng: np.random.Generator, monitor: Monitor) -> np.ndarray:
    """(H, W) float32: 1 in any of some discs."""
    window = np.zeros((monitor.height, monitor.width), np.float32)
    for _ in range(rng.integers(1, DISCS + 1)):
        centre = rng.uniform(-0.5, [monitor.width - 0.5, monitor.height - 0.5])
        window = np.maximum(window, disc(monitor, centre, np.exp(rng.uniform(*np.log(DIAMETERS)))))
    return window
