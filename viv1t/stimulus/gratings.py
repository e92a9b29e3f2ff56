"""Sinusoidal gratings, full field or in a Gaussian window, drifting or still.

A drifting grating is Re[image exp(-i w t)] with a complex image that does not depend on time.
"""

from fractions import Fraction

import numpy as np

from viv1t.constants import FPS
from viv1t.geometry import Monitor, drift_axis
from viv1t.stimulus.coordinates import coordinates
from viv1t.stimulus.windows import gaussian


def grating(
    monitor: Monitor,
    direction_deg: float,
    sf_cpd: float,
    tf_hz: float,
    frames: int,
    phase_deg: float = 0.0,
    contrast: float = 1.0,
    centre=None,
    geometry: str = "spherical",
) -> np.ndarray:
    """contrast cos(2 pi (sf u - tf t) - phase), float32 (frames, H, W); u is the way from `centre` along the drift.

    sf_cpd: cycles per degree. tf_hz: cycles per second, 0 for a still grating. phase_deg: how far in its cycle the
    grating is at frame 0. centre: pixel (x, y), None for the screen's.
    """
    image = plane_wave(*coordinates(monitor, centre, geometry), direction_deg, sf_cpd)
    return drift(contrast * image, tf_hz, frames, phase_deg).astype(np.float32)


def gabor(
    monitor: Monitor,
    direction_deg: float,
    sf_cpd: float,
    tf_hz: float,
    frames: int,
    sigma_deg: float,
    phase_deg: float = 0.0,
    contrast: float = 1.0,
    centre=None,
    geometry: str = "spherical",
    dtype: type = np.float32,
) -> np.ndarray:
    """A `grating` under a Gaussian window around the same centre with standard deviation `sigma_deg`.

    dtype: float64 keeps the last digits, on which a few grey levels of simulated recordings depend.
    """
    wave = plane_wave(*coordinates(monitor, centre, geometry), direction_deg, sf_cpd)
    image = contrast * gaussian(monitor, centre, sigma_deg, geometry) * wave
    return drift(image, tf_hz, frames, phase_deg).astype(dtype)


def whole_frames(count: int, tf_hz: float) -> np.ndarray:
    """Phases (count,) in degrees, equally spaced over the cycle up to whole frames; exactly, if a cycle has none.

    Gratings whose phases lie whole frames apart are made of the same frames, which a twin then sees only once. At 2 Hz
    and 30 frames a second 3, 5 and 15 phases are equally spaced; 4 are so within half a frame.
    """
    cycle = FPS / tf_hz if tf_hz else 0.0
    phases = np.arange(count) / count
    if cycle.is_integer() and count <= cycle:
        phases = np.rint(phases * cycle) / cycle
    return 360 * phases


def plane_wave(right: np.ndarray, up: np.ndarray, direction_deg, sf_cpd) -> np.ndarray:
    """exp(2 pi i sf u), complex, at positions in degrees; u grows along the drift. All arguments broadcast."""
    ex, ey = drift_axis(direction_deg)
    phase = 2 * np.pi * sf_cpd * (right * ex + up * ey)
    return np.cos(phase) + 1j * np.sin(phase)


def drift(image: np.ndarray, tf_hz: float, frames: int, phase_deg: float = 0.0) -> np.ndarray:
    """Re[image exp(-i (2 pi tf t + phase))], float64 (frames, H, W), for a complex image (H, W).

    Frames a whole number of cycles apart are equal to the last bit: the place in the cycle is counted in fractions.
    """
    step = Fraction(float(tf_hz)).limit_denominator(10**6) / FPS  # cycles per frame
    place, frame = np.unique(np.arange(frames) * step.numerator % step.denominator, return_inverse=True)
    angle = 2 * np.pi * (place / step.denominator + phase_deg / 360)[:, None, None]
    return (np.cos(angle) * image.real + np.sin(angle) * image.imag)[frame]
