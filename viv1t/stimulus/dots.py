"""A Gaussian dot at a place, and clouds of dots that move together more or less."""

import numpy as np

from viv1t.constants import FPS
from viv1t.geometry import Monitor, drift_axis
from viv1t.stimulus.windows import gaussian


def gaussian_dot(
    monitor: Monitor,
    xy,
    sigma_deg: float,
    polarity: int,
    frames: int,
    geometry: str = "spherical",
    dtype: type = np.float32,
) -> np.ndarray:
    """A blurred dot around pixel (x, y), (frames, H, W): white for polarity 1, black for -1.

    dtype: float64 keeps the last digits, on which a few grey levels of simulated recordings depend.
    """
    dot = (polarity * gaussian(monitor, xy, sigma_deg, geometry)).astype(dtype)
    return np.repeat(dot[None], frames, axis=0)


def random_dots(
    monitor: Monitor,
    direction_deg,
    coherence,
    frames: int,
    rng: np.random.Generator,
    speed_deg_s: float = 40.0,
    radius_deg: float = 4.0,
    life: int = 20,
    density: float = 0.25,
) -> np.ndarray:
    """Random dot kinematogram, float32 (frames, H, W): black and white dots, wrapped around the screen.

    direction_deg, coherence: numbers, or one for each frame; that share of the dots moves in that direction, every
    other dot in one of its own. life: frames until a dot is born again elsewhere. density: share of the screen that
    dots cover. Degrees are counted as they are at the screen centre.
    """
    pitch = monitor.degrees_per_pixel
    count = round(density * monitor.width * monitor.height * pitch**2 / (np.pi * radius_deg**2))
    size = np.array([monitor.width, monitor.height], float)
    place, own = rng.uniform(0, size, (count, 2)), rng.uniform(0, 360, count)
    rank, age = rng.permutation(count) / count, rng.integers(0, life, count)
    sign = rng.choice((-1, 1), count).astype(np.float32)
    x, y = np.arange(monitor.width, dtype=np.float32), np.arange(monitor.height, dtype=np.float32)
    video = np.empty((frames, monitor.height, monitor.width), np.float32)
    signals = (np.broadcast_to(signal, frames) for signal in (direction_deg, coherence))
    for frame, direction, share in zip(video, *signals, strict=True):
        dx, dy = drift_axis(np.where(rank < share, direction, own))
        place = np.float32((place + np.stack([dx, -dy], 1) * speed_deg_s / FPS / pitch) % size)
        reborn = age == 0
        place[reborn] = rng.uniform(0, size, (reborn.sum(), 2))
        age = np.where(reborn, life, age) - 1
        across, down = (x - place[:, :1]) ** 2, (y - place[:, 1:]) ** 2
        distance = np.sqrt(down[:, :, None] + across[:, None], dtype=np.float32)
        frame[:] = np.tensordot(sign, np.clip(radius_deg / pitch + 0.5 - distance, 0, 1), 1).clip(-1, 1)
    return video
