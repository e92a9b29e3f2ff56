"""Amplitude spectra of movies: how much of their contrast is fine, and how much is fast."""

import numpy as np


def spatial_spectrum(video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frequency in cycles/px, mean amplitude) along the rows of a video (T, H, W)."""
    centred = np.asarray(video, dtype=np.float32) - np.mean(video)
    return np.fft.rfftfreq(video.shape[2]), abs(np.fft.rfft(centred, axis=2)).mean(axis=(0, 1))


def temporal_spectrum(video: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """(frequency in Hz, mean amplitude) over the frames of a video (T, H, W)."""
    centred = np.asarray(video, dtype=np.float32) - np.mean(video, axis=0)
    return np.fft.rfftfreq(len(video), 1 / fps), abs(np.fft.rfft(centred, axis=0)).mean(axis=(1, 2))


def power_law(frequency: np.ndarray, amplitude: np.ndarray) -> tuple[float, np.ndarray]:
    """Slope of log amplitude over log frequency (F,), and the fitted line (F,), NaN where it was not fitted.

    Neither the lowest two frequencies count, which drifts dominate, nor the highest fifth, which blur dominates.
    """
    k = slice(2, int(0.8 * len(frequency)))
    slope, offset = np.polyfit(np.log(frequency[k]), np.log(amplitude[k]), 1)
    line = np.full(len(frequency), np.nan)
    line[k] = np.exp(offset) * frequency[k] ** slope
    return float(slope), line
