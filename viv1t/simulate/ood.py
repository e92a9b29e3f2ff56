"""The five stimulus types outside the movies that the bonus tiers hold, each with its parameters per frame.

Every `<type>(clip, clips, seed, monitor, frames)` returns a video (T, H, W) uint8 and a table with one row per frame.
The conditions of a type are dealt over its `clips`, so that together they show each condition equally often.
Motion directions: 0 left, 90 down, 180 right, 270 up.
"""

from itertools import product

import numpy as np
import pandas as pd

from viv1t.constants import FPS, GREY
from viv1t.geometry import Monitor
from viv1t.simulate.filters import drift_axis, local_coordinates
from viv1t.simulate.scenes import natural_image

DIRECTIONS = tuple(range(0, 360, 45))
GABOR_BLOCK, GABOR_SIGMA = 25, 17.7  # frames, deg
GABOR_CPD, GABOR_HERTZ = (0.026, 0.044, 0.093), (0.6, 1.7, 4.2)
DOT_FRAMES, DOT_SIGMA = 9, 8.0  # frames per dot, deg
DOT_SURPLUS = 5  # per cent: these trials are 315 frames where others are 300, so that 6 clips show every dot once
DOT_COLUMNS, DOT_ROWS = np.linspace(9, 54, 15) / 64, np.linspace(8, 27.5, 7) / 36  # share of the screen
KINEMATOGRAM_BLOCK, COHERENCES = 50, (0.0, 0.3, 0.6, 1.0)
KINEMATOGRAM_SPEED, KINEMATOGRAM_RADIUS, KINEMATOGRAM_LIFE = 40.0, 4.0, 20  # deg/s, deg, frames
PINK_BLOCK, PINK_SPEED = 25, 30.0  # frames, deg/s
IMAGE_FRAMES = 15  # shown, and again grey


def drifting_gabor(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Gabor patches at the screen centre, 8 directions x 3 spatial x 3 temporal frequencies, 25 frames each."""
    table = _blocks(product(DIRECTIONS, GABOR_CPD, GABOR_HERTZ), GABOR_BLOCK, clip, clips, seed, frames)
    table.columns = ["direction_deg", "sf_cpd", "tf_hz"]
    right, up = (x[0, :, :, 0] for x in local_coordinates(monitor, np.zeros((1, 2))))
    envelope = np.exp(-(right**2 + up**2) / (2 * GABOR_SIGMA**2))
    ex, ey = (e[:, None, None] for e in drift_axis(table["direction_deg"].to_numpy()))
    cpd, hertz = (table[name].to_numpy()[:, None, None] for name in ("sf_cpd", "tf_hz"))
    time = np.arange(frames)[:, None, None] / FPS
    wave = np.cos(2 * np.pi * (cpd * (right * ex + up * ey) - hertz * time))
    return _grey_levels(envelope * wave), table


def gaussian_dots(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """One bright or dark blob at a time on a lattice of 15 x 7 places, a new one every 9 frames."""
    grid = product(DOT_COLUMNS * monitor.width, DOT_ROWS * monitor.height, (0, 1))
    frames += frames * DOT_SURPLUS // 100
    table = _blocks(grid, DOT_FRAMES, clip, clips, seed, frames)
    table.columns = ["x_px", "y_px", "is_black"]
    places = table.drop_duplicates()
    right, up = (x[..., 0] for x in local_coordinates(monitor, monitor.to_degrees(places[["x_px", "y_px"]])))
    blobs = np.exp(-(right**2 + up**2) / (2 * DOT_SIGMA**2)) * (1 - 2 * places["is_black"].to_numpy()[:, None, None])
    row = pd.Series(np.arange(len(places)), index=pd.MultiIndex.from_frame(places))
    shown = row.loc[list(table.itertuples(index=False, name=None))].to_numpy()
    table["sigma_deg"] = DOT_SIGMA
    return _grey_levels(blobs)[shown], table


def random_dots(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Random dot kinematograms: a share of the dots moves in one direction, the others each in their own."""
    table = _blocks(product(DIRECTIONS, COHERENCES), KINEMATOGRAM_BLOCK, clip, clips, seed, frames)
    table.columns = ["direction_deg", "coherence"]
    rng = np.random.default_rng(seed)
    pitch = monitor.degrees_per_pixel
    count = round(0.25 * monitor.width * monitor.height * pitch**2 / (np.pi * KINEMATOGRAM_RADIUS**2))
    size = np.array([monitor.width, monitor.height], float)
    position, own = rng.uniform(0, size, (count, 2)), rng.uniform(0, 360, count)
    rank, age = rng.permutation(count) / count, rng.integers(0, KINEMATOGRAM_LIFE, count)
    sign = rng.choice((-1, 1), count).astype(np.float32)
    video = np.empty((frames, monitor.height, monitor.width))
    x, y = np.arange(monitor.width, dtype=np.float32), np.arange(monitor.height, dtype=np.float32)
    for t, (direction, coherence) in enumerate(table.itertuples(index=False)):
        dx, dy = drift_axis(np.where(rank < coherence, direction, own))
        position = np.float32((position + np.stack([dx, -dy], 1) * KINEMATOGRAM_SPEED / FPS / pitch) % size)
        reborn = age == 0
        position[reborn] = rng.uniform(0, size, (reborn.sum(), 2))
        age = np.where(reborn, KINEMATOGRAM_LIFE, age) - 1
        across, down = (x - position[:, :1]) ** 2, (y - position[:, 1:]) ** 2
        distance = np.sqrt(down[:, :, None] + across[:, None], dtype=np.float32)
        video[t] = np.tensordot(sign, np.clip(KINEMATOGRAM_RADIUS / pitch + 0.5 - distance, 0, 1), 1).clip(-1, 1)
    return _grey_levels(video), table


def pink_noise(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """1/f noise whose orientations gather around the axis of its drift, a new direction every 25 frames."""
    table = _blocks(product(DIRECTIONS), PINK_BLOCK, clip, clips, seed, frames)
    table.columns = ["direction_deg"]
    rng = np.random.default_rng(seed)
    shape = (2 * monitor.height, 2 * monitor.width)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    radius = np.maximum(np.hypot(fx, fy), 1 / shape[1])
    video = np.empty((frames, monitor.height, monitor.width))
    for start in range(0, frames, PINK_BLOCK):
        ex, ey = drift_axis(table["direction_deg"].iloc[start])
        along = (fx * ex - fy * ey) / radius
        spectrum = np.fft.rfft2(rng.standard_normal(shape)) * np.exp(4 * (along**2 - 1)) / radius
        spectrum[0, 0] = 0
        spectrum *= 0.45 / np.fft.irfft2(spectrum, shape).std()
        turn = np.exp(-2j * np.pi * (fx * ex - fy * ey) * PINK_SPEED / FPS / monitor.degrees_per_pixel)
        for t in range(start, min(start + PINK_BLOCK, frames)):
            video[t] = np.fft.irfft2(spectrum, shape)[: monitor.height, : monitor.width]
            spectrum *= turn
    return _grey_levels(video), table


def image(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Natural stills flashed for 15 frames between 15 frames of grey; `image` is -1 on grey."""
    number = np.where(np.arange(frames) // IMAGE_FRAMES % 2, np.arange(frames) // (2 * IMAGE_FRAMES), -1)
    video = np.full((frames, monitor.height, monitor.width), GREY, np.uint8)
    seeds = np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, 0))
    for k, child in enumerate(seeds.spawn(number.max() + 1)):
        video[number == k] = natural_image(child, monitor)
    shown = np.where(number >= 0, number + clip * (number.max() + 1), -1)
    return video, pd.DataFrame({"image": shown})


GENERATORS = {
    "pink_noise": pink_noise,
    "gaussian_dots": gaussian_dots,
    "random_dots": random_dots,
    "drifting_gabor": drifting_gabor,
    "image": image,
}


def _blocks(conditions, length: int, clip: int, clips: int, seed, frames: int) -> pd.DataFrame:
    """One row per frame: the conditions in random order, dealt over the clips of a type, which share the deck."""
    deck = list(conditions)
    shuffle = np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key[:-1]))
    order = shuffle.permutation(len(deck))
    need = -(-frames // length)
    chosen = [deck[order[(clip * need + k) % len(deck)]] for k in range(need)]
    return pd.DataFrame(chosen).iloc[np.repeat(np.arange(need), length)[:frames]].reset_index(drop=True)


def _grey_levels(contrast: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(GREY + 127.5 * contrast), 0, 255).astype(np.uint8)
