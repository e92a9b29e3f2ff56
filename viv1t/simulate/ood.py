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
from viv1t.simulate.scenes import natural_image
from viv1t.stimulus import dots, noise
from viv1t.stimulus.gratings import gabor
from viv1t.stimulus.levels import grey_levels

DIRECTIONS = tuple(range(0, 360, 45))
GABOR_BLOCK, GABOR_SIGMA = 25, 17.7  # frames, deg
GABOR_CPD, GABOR_HERTZ = (0.026, 0.044, 0.093), (0.6, 1.7, 4.2)
DOT_FRAMES, DOT_SIGMA = 9, 8.0  # frames per dot, deg
DOT_SURPLUS = 5  # per cent: these trials are 315 frames where others are 300, so that 6 clips show every dot once
DOT_COLUMNS, DOT_ROWS = np.linspace(9, 54, 15) / 64, np.linspace(8, 27.5, 7) / 36  # share of the screen
KINEMATOGRAM_BLOCK, COHERENCES = 50, (0.0, 0.3, 0.6, 1.0)
PINK_BLOCK, PINK_SPEED = 25, 30.0  # frames, deg/s
IMAGE_FRAMES = 15  # shown, and again grey


def drifting_gabor(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Gabor patches at the screen centre, 8 directions x 3 spatial x 3 temporal frequencies, 25 frames each."""
    table = _blocks(product(DIRECTIONS, GABOR_CPD, GABOR_HERTZ), GABOR_BLOCK, clip, clips, seed, frames)
    table.columns = ["direction_deg", "sf_cpd", "tf_hz"]
    blocks = [  # time counts from the start of the clip
        gabor(monitor, *row, length, GABOR_SIGMA, phase_deg=360 * row.tf_hz * start / FPS, dtype=float)
        for start, length, row in _shown(table, GABOR_BLOCK)
    ]
    return grey_levels(np.concatenate(blocks)), table


def gaussian_dots(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """One bright or dark blob at a time on a lattice of 15 x 7 places, a new one every 9 frames."""
    grid = product(DOT_COLUMNS * monitor.width, DOT_ROWS * monitor.height, (0, 1))
    frames += frames * DOT_SURPLUS // 100
    table = _blocks(grid, DOT_FRAMES, clip, clips, seed, frames)
    table.columns = ["x_px", "y_px", "is_black"]
    blocks = [
        dots.gaussian_dot(monitor, (row.x_px, row.y_px), DOT_SIGMA, 1 - 2 * row.is_black, length, dtype=float)
        for _, length, row in _shown(table, DOT_FRAMES)
    ]
    table["sigma_deg"] = DOT_SIGMA
    return grey_levels(np.concatenate(blocks)), table


def random_dots(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Random dot kinematograms: a share of the dots moves in one direction, the others each in their own."""
    table = _blocks(product(DIRECTIONS, COHERENCES), KINEMATOGRAM_BLOCK, clip, clips, seed, frames)
    table.columns = ["direction_deg", "coherence"]
    signals = table["direction_deg"], table["coherence"]
    return grey_levels(dots.random_dots(monitor, *signals, frames, np.random.default_rng(seed))), table


def pink_noise(clip: int, clips: int, seed, monitor: Monitor, frames: int) -> tuple[np.ndarray, pd.DataFrame]:
    """1/f noise whose orientations gather around the axis of its drift, a new direction every 25 frames."""
    table = _blocks(product(DIRECTIONS), PINK_BLOCK, clip, clips, seed, frames)
    table.columns = ["direction_deg"]
    rng = np.random.default_rng(seed)
    blocks = [
        noise.directional_noise(monitor, row.direction_deg, PINK_SPEED, length, rng, dtype=float)
        for _, length, row in _shown(table, PINK_BLOCK)
    ]
    return grey_levels(np.concatenate(blocks)), table


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


def _shown(table: pd.DataFrame, length: int):
    """(first frame, number of frames, row) of every block in a table with one row per frame."""
    rows = list(table.itertuples(index=False))
    for start in range(0, len(rows), length):
        yield start, min(length, len(rows) - start), rows[start]
