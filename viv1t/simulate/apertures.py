"""Movies and gratings behind apertures: in discs, around them, or different within and without, at any contrast.

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
CPD, HERTZ = (0.02, 0.08), (1.0, 4.0)  # of gratings
CONTRASTS = 0.05, 1.0
SHOWN = {"discs": (1, 0), "holes": (0, 1), "both": (1, 1)}  # whether anything is shown within, and without


def behind_apertures(movies: list[np.ndarray], seed, monitor: Monitor) -> np.ndarray:
    """Two movies (T, H, W) uint8, one for the discs and one for what surrounds them -> (T, H, W) uint8.

    Every one or two seconds, anew: one to three discs of 12 to 80 degrees anywhere on the screen, in which something
    is shown, or around which something is, or both; each a movie or a drifting grating of its own direction,
    frequencies and contrast (log-uniform). The rest is grey.
    """
    rng = np.random.default_rng(seed)
    shown, start = np.empty_like(movies[0]), 0
    while start < len(shown):
        stop = min(len(shown), start + int(rng.uniform(*SECONDS) * FPS))
        within = _discs(rng, monitor)
        light = np.full((stop - start, monitor.height, monitor.width), GREY, np.float32)
        kind = rng.choice(list(SHOWN))
        for movie, window, is_shown in zip(movies, (within, 1 - within), SHOWN[kind], strict=True):
            pattern = _pattern(rng, movie[start:stop], monitor)
            light += is_shown * window * pattern
        shown[start:stop] = np.clip(np.rint(light), 0, 255)
        start = stop
    return shown


def _pattern(rng: np.random.Generator, movie: np.ndarray, monitor: Monitor) -> np.ndarray:
    """Deviations from grey (T, H, W): of the movie, or of a grating, equally often."""
    contrast, cpd, hertz = (np.exp(rng.uniform(*np.log(limits))) for limits in (CONTRASTS, CPD, HERTZ))
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
