"""What a trained twin must remember of a recording: enough to predict and to probe without the data."""

from dataclasses import dataclass

import numpy as np

from viv1t.constants import FPS
from viv1t.geometry import Monitor

Statistics = dict[str, dict[str, np.ndarray]]
# {"video" | "responses" | "behavior" | "pupil_center": {"min" | "max" | "median" | "mean" | "std": array}}
# shapes: video (), responses (N,), behavior (2,), pupil_center (2,); float32, over the training tier


@dataclass(frozen=True)
class Mouse:
    """One recording's identity card, stored in every checkpoint.

    coordinates (N, 3) in um, unit_ids (N,), neurons (N,) row of each neuron in the recording (after --limit_neurons).
    """

    id: str
    coordinates: np.ndarray
    unit_ids: np.ndarray
    neurons: np.ndarray
    statistics: Statistics
    monitor: Monitor | None = None  # unknown
    fps: float = FPS
    train_size: int = 0  # trials in the training tier, for the loss weight of the mouse

    @property
    def num_neurons(self) -> int:
        return len(self.neurons)
