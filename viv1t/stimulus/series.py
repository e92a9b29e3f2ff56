"""Noise patterns by number: the same seed and number always give the same pattern, so that none need be stored."""

from dataclasses import replace

import numpy as np

from viv1t.geometry import Monitor
from viv1t.stimulus.noise import mask_noise, white_noise

CELL, TEXTURE, SHARE_ON = 4, 2, 0.15  # pixels, pixels, probability of a cell


def noise_pattern(monitor: Monitor, kind: str, number: int, seed: int) -> np.ndarray:
    """Contrast (H, W) of pattern `number` of a series.

    mask: local contrast noise whose lattice of cells is shifted at random, so that fields are mapped finer than a
    cell; where it is on, contrast is 1 or -1. white: independent pixels; every odd pattern is the negative of the
    one before, which keeps responses to contrast and to its square apart.
    """
    if kind == "mask":
        rng = np.random.default_rng([seed, number])
        wider = replace(monitor, width=monitor.width + CELL, height=monitor.height + CELL)
        contrast, _ = mask_noise(wider, 1, rng, CELL, SHARE_ON, TEXTURE)
        x, y = rng.integers(CELL, size=2)
        return contrast[0, y : y + monitor.height, x : x + monitor.width]
    sign = 1 - 2 * (number % 2)
    return sign * white_noise(monitor, 1, np.random.default_rng([seed, number // 2]))[0]
