"""Patterns cut from movies and pictures that are given in grey levels."""

import numpy as np

from viv1t.geometry import Monitor
from viv1t.stimulus.levels import contrast_of


def clips(monitor: Monitor, video: np.ndarray, length: int, step: int) -> np.ndarray:
    """Every stretch of `length` frames of a movie (T, H, W), one every `step` frames: float32 (n, length, H, W)."""
    _check(monitor, video)
    if not 0 < length <= len(video):
        raise ValueError(f"a movie of {len(video)} frames has no clips of {length}")
    return np.stack([contrast_of(video[t : t + length]) for t in range(0, len(video) - length + 1, step)])


def flash(monitor: Monitor, image: np.ndarray, frames: int) -> np.ndarray:
    """A picture (H, W) that stands still, float32 (frames, H, W)."""
    _check(monitor, image)
    return np.repeat(contrast_of(image)[None], frames, axis=0)


def _check(monitor: Monitor, images: np.ndarray) -> None:
    if images.shape[-2:] != (monitor.height, monitor.width):
        raise ValueError(f"frames of {images.shape[-2:]} pixels on a monitor of {(monitor.height, monitor.width)}")
