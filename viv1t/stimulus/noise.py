"""Random patterns: white noise, local contrast noise, and noise with the spectrum of nature, still or drifting.

Each draws from the Generator it is given. Noise has no centre; its cells are pixels, and drifting noise counts degrees
as they are at the screen centre.
"""

import numpy as np

from viv1t.constants import FPS
from viv1t.geometry import Monitor, drift_axis
from viv1t.stimulus.levels import BRIGHTEST, DARKEST

RMS = 0.45  # contrast of 1/f noise: standard deviation before the brightest and darkest spots are cut off
SHARPNESS = 4.0  # of the orientations in drifting noise: exp(SHARPNESS cos^2) around the axis of motion


def white_noise(monitor: Monitor, n: int, rng: np.random.Generator, check_px: int = 1) -> np.ndarray:
    """Checks of independent contrast, uniform in [-1, 1): float32 (n, H, W). Checks are cut at the border."""
    checks = rng.random((n, *_cells(monitor, check_px)), dtype=np.float32) * 2 - 1
    return _enlarge(checks, check_px, monitor)


def mask_noise(
    monitor: Monitor, n: int, rng: np.random.Generator, cell_px: int = 4, p_on: float = 0.15, texture_px: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Local contrast noise: cells on with probability `p_on`, black and white checks in them, grey elsewhere.

    Returns contrast float32 (n, H, W) and the cells that are on, bool (n, rows, columns). Cells and checks are squares
    of `cell_px` and `texture_px` pixels, cut at the right and lower border where they do not divide the screen.
    """
    masks = rng.random((n, *_cells(monitor, cell_px))) < p_on
    texture = rng.integers(0, 2, (n, *_cells(monitor, texture_px)), dtype=np.int8) * 2 - 1
    contrast = _enlarge(texture, texture_px, monitor).astype(np.float32)
    contrast *= _enlarge(masks, cell_px, monitor)
    return contrast, masks


def pink_noise(monitor: Monitor, n: int, rng: np.random.Generator, rms: float = RMS) -> np.ndarray:
    """Still noise with amplitude spectrum 1/f, float32 (n, H, W)."""
    images = np.empty((n, monitor.height, monitor.width), np.float32)
    for image in images:
        image[:] = _field(_spectrum(monitor, rng, 1.0, rms), monitor)
    return images


def directional_noise(
    monitor: Monitor,
    direction_deg: float,
    speed_deg_s: float,
    frames: int,
    rng: np.random.Generator,
    rms: float = RMS,
    dtype: type = np.float32,
) -> np.ndarray:
    """1/f noise, its orientations gathered around the axis of motion, drifting as a whole: (frames, H, W).

    dtype: float64 keeps the last digits, on which a few grey levels of simulated recordings depend.
    """
    (fx, fy, radius), (ex, ey) = _frequencies(monitor), drift_axis(direction_deg)
    along = fx * ex - fy * ey  # cycles per pixel along the drift
    spectrum = _spectrum(monitor, rng, np.exp(SHARPNESS * ((along / radius) ** 2 - 1)), rms)
    turn = np.exp(-2j * np.pi * along * speed_deg_s / FPS / monitor.degrees_per_pixel)
    video = np.empty((frames, monitor.height, monitor.width), dtype)
    for frame in video:
        frame[:] = _field(spectrum, monitor)
        spectrum *= turn
    return video


def _cells(monitor: Monitor, size: int) -> tuple[int, int]:
    return -(-monitor.height // size), -(-monitor.width // size)


def _enlarge(cells: np.ndarray, size: int, monitor: Monitor) -> np.ndarray:
    """(n, rows, columns) -> (n, H, W), each cell `size` pixels wide and high."""
    return cells.repeat(size, axis=1).repeat(size, axis=2)[:, : monitor.height, : monitor.width]


def _frequencies(monitor: Monitor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fx, fy, radius) in cycles per pixel of a periodic canvas twice the screen, so that edges do not meet on it."""
    fy, fx = np.fft.fftfreq(2 * monitor.height)[:, None], np.fft.rfftfreq(2 * monitor.width)
    return fx, fy, np.maximum(np.hypot(fx, fy), 1 / (2 * monitor.width))


def _spectrum(monitor: Monitor, rng: np.random.Generator, weight: np.ndarray | float, rms: float) -> np.ndarray:
    """Random spectrum of the canvas with amplitude weight / f and no mean."""
    shape, (_, _, radius) = (2 * monitor.height, 2 * monitor.width), _frequencies(monitor)
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * weight / radius
    spectrum[0, 0] = 0
    return spectrum * (rms / np.fft.irfft2(spectrum, shape).std())


def _field(spectrum: np.ndarray, monitor: Monitor) -> np.ndarray:
    """The part of the canvas that is on the screen, (H, W), within its darkest and brightest."""
    canvas = np.fft.irfft2(spectrum, (2 * monitor.height, 2 * monitor.width))
    return canvas[: monitor.height, : monitor.width].clip(DARKEST, BRIGHTEST)
