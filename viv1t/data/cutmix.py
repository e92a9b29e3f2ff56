"""CutMix of movies (Yun et al. 2019): a rectangle of a clip shows another clip of the same mouse.

Responses, behaviour and gaze are mixed in the proportion of the areas, as if every neuron saw the whole frame. That is
wrong for each neuron alone and right on average; it keeps a model from learning its training clips by heart.
"""

import dataclasses

import numpy as np
import torch

from viv1t.data.batch import Batch


def draw_boxes(rng: np.random.Generator, count: int, probability: float, height: int, width: int) -> np.ndarray:
    """(count, 4) top, bottom, left, right in pixels: areas uniform between nothing and all, cut at the frame's edges.

    Without a box, by 1 - probability, all four are 0.
    """
    side = np.sqrt(rng.uniform(size=count))
    boxes = np.empty((count, 4), dtype=np.int64)
    for first, length in ((0, height), (2, width)):
        centre, half = rng.uniform(0, length, count), side * length / 2
        boxes[:, first] = np.clip(np.round(centre - half), 0, length)
        boxes[:, first + 1] = np.clip(np.round(centre + half), 0, length)
    boxes[rng.uniform(size=count) >= probability] = 0
    return boxes


def mix(batch: Batch, other: Batch, boxes: np.ndarray) -> Batch:
    """Paste the boxes (B, 4) of another batch of the same shape; `trial_ids` stay those of the first."""
    video, share = batch.video.clone(), torch.zeros(len(boxes))
    for row, (top, bottom, left, right) in enumerate(boxes.tolist()):
        video[row, :, :, top:bottom, left:right] = other.video[row, :, :, top:bottom, left:right]
        share[row] = (bottom - top) * (right - left) / video[row, 0, 0].numel()
    names = ("responses", "behavior", "pupil_center")
    mixed = {name: torch.lerp(getattr(batch, name), getattr(other, name), share[:, None, None]) for name in names}
    return dataclasses.replace(batch, video=video, **mixed)
