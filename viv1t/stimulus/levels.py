"""Contrast on the one hand, grey levels of the screen on the other."""

import numpy as np

from viv1t.constants import GREY

HALF_RANGE = 127.5  # grey levels per unit of contrast
DARKEST, BRIGHTEST = -GREY / HALF_RANGE, (255 - GREY) / HALF_RANGE  # contrast of grey levels 0 and 255


def grey_levels(contrast: np.ndarray) -> np.ndarray:
    """Contrast -> grey levels 0..255, uint8 of the same shape: rounded, and cut off where the screen ends."""
    return np.clip(np.rint(GREY + HALF_RANGE * np.asarray(contrast, dtype=np.float64)), 0, 255).astype(np.uint8)


def contrast_of(grey: np.ndarray) -> np.ndarray:
    """Grey levels 0..255 -> contrast, float32 from -0.996 to 1.004; `grey_levels` of it gives them back."""
    return ((np.asarray(grey, dtype=np.float32) - GREY) / HALF_RANGE).astype(np.float32)
