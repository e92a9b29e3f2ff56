"""Starting values of a model that come from the recordings."""

import numpy as np
from tqdm import tqdm

from viv1t.constants import TRIAL_FRAMES
from viv1t.data.loader import MouseData
from viv1t.estimators.retinotopy import ContrastMaps, fit_positions
from viv1t.model import Model

TRIALS = 120  # of the training tier, evenly spaced: enough for a start, seconds per mouse


def set_readout_positions(model: Model, mice: dict[str, MouseData]) -> None:
    """Put every neuron's readout where its responses follow the moving contrast of the training movies."""
    for mouse_id, data in tqdm(mice.items(), desc="readout positions", unit="mouse", leave=False, disable=None):
        model.readouts[mouse_id].set_positions(estimate_positions(data))


def estimate_positions(data: MouseData) -> np.ndarray:
    """(N, 2) positions (x, y) in [-1, 1] of the frame."""
    maps = None
    for trial in data.train_ids[:: max(len(data.train_ids) // TRIALS, 1)][:TRIALS]:
        batch = data.batch(trial, frames=TRIAL_FRAMES)
        video = batch.video[0, 0].numpy()
        maps = maps or ContrastMaps(data.num_neurons, *video.shape[1:])
        maps.update(video, batch.responses[0].numpy())
    return fit_positions(maps.value(), data.mouse.coordinates)
