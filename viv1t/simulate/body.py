"""What the mouse does while it watches: pupil, running and gaze, with the statistics of real recordings."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

from viv1t.constants import FPS


@dataclass(frozen=True)
class Body:
    """Targets of one mouse: pupil dilation (mean, sd, min, max), running speed in cm/s, pupil centre in camera px."""

    pupil: tuple[float, float, float, float]
    speed: tuple[float, float, float]  # mean, sd, fastest
    running_share: float  # of the time
    centre: tuple[float, float]
    centre_sd: tuple[float, float]


BODIES = (  # as published recordings A, B and F behave; simulated mice take them in turn
    Body((53.6, 14.8, 20.8, 88.1), (5.55, 8.74, 47.1), 0.42, (120.0, 120.0), (4.9, 6.9)),
    Body((48.2, 12.0, 24.0, 85.7), (0.30, 1.23, 21.0), 0.18, (152.0, 140.0), (6.3, 5.6)),
    Body((39.8, 16.1, 10.2, 81.0), (0.30, 1.65, 22.5), 0.12, (156.0, 152.0), (4.0, 4.5)),
)
BOUT_SECONDS = 4.0  # mean length of a run
JITTER = 0.02  # cm/s, sensor noise at rest
SACCADES = 0.35  # per second


def behave(body: Body, frames: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """One trial: behavior (2, T) pupil dilation and running speed; pupil_center (2, T) x and y; all float32."""
    rng = np.random.default_rng(seed)
    speed = _run(body, frames, rng)
    arousal = np.tanh(gaussian_filter1d(speed, 0.8 * FPS) / (body.speed[0] + 1e-9) / 2)
    state = 0.9 * wander(rng, frames, 5.0) + 0.35 * wander(rng, frames, 0.6) + 0.6 * (arousal - 0.3)
    mean, sd, low, high = body.pupil
    pupil = np.clip(mean + sd * 0.98 * state, low, high)
    steps = np.cumsum(rng.random((2, frames)) < SACCADES / FPS, axis=1)
    fixations = np.stack([rng.standard_normal(frames + 1)[step] for step in steps])
    drift = np.stack([wander(rng, frames, 8.0) for _ in range(2)])
    eye = 0.78 * drift + 0.6 * gaussian_filter1d(fixations, 0.8, axis=1) + 0.08 * rng.standard_normal((2, frames))
    centre = np.array(body.centre)[:, None] + np.array(body.centre_sd)[:, None] * eye
    return np.stack([pupil, speed]).astype(np.float32), centre.astype(np.float32)


def _run(body: Body, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Speed (T,): bouts of log-normal vigour among long rests."""
    mean, sd, fastest = body.speed
    in_bout = mean / body.running_share
    spread = np.sqrt(np.log1p(max(0.2, (sd**2 + mean**2) / (body.running_share * in_bout**2) - 0.85)))
    rest_seconds = BOUT_SECONDS * (1 - body.running_share) / body.running_share
    running, vigour = np.zeros(frames, bool), np.zeros(frames)
    moving, start = rng.random() < body.running_share, 0
    while start < frames:
        length = 1 + int(rng.exponential(BOUT_SECONDS if moving else rest_seconds) * FPS)
        running[start : start + length] = moving
        vigour[start : start + length] = in_bout * rng.lognormal(-(spread**2) / 2, spread)
        moving, start = not moving, start + length
    stride = 1 + 0.35 * wander(rng, frames, 0.3)
    speed = gaussian_filter1d(np.where(running, vigour, 0.0) * np.clip(stride, 0, None), 3.0)
    return np.clip(speed + abs(JITTER * rng.standard_normal(frames)) * (rng.random(frames) < 0.6), 0, fastest)


def wander(rng: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """Stationary Ornstein-Uhlenbeck path (T,) with zero mean, unit variance and that time constant."""
    decay = np.exp(-1 / (seconds * FPS))
    steps = rng.standard_normal(frames) * np.sqrt(1 - decay**2)
    steps[0] = rng.standard_normal()
    return lfilter([1.0], [1.0, -decay], steps)
