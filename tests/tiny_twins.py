"""Tiny twins with every part at work, for tests of what twins answer."""

import numpy as np
import torch

from viv1t.data.mouse import Mouse
from viv1t.data.transforms import Transforms
from viv1t.geometry import SENSORIUM
from viv1t.inference import Twin
from viv1t.model import ModelConfig, build_model

TINY = {
    "core_emb_dim": 12,
    "core_head_dim": 4,
    "core_ff_dim": 10,
    "core_spatial_depth": 1,
    "core_temporal_depth": 2,
    "core_spatial_patch_size": 9,
    "core_spatial_patch_stride": 9,
    "core_temporal_patch_size": 4,
    "core_reg_tokens": 0,
    "core_use_causal_attention": True,
    "max_frame": 12,
}
NEURONS = {"A": 7, "B": 5}


def statistics(neurons: int, rng: np.random.Generator) -> dict:
    """Of a mouse with its own screen, eye, temper and neurons."""

    def of(mean, std):
        mean, std = np.float32(mean), np.float32(std)
        return {"min": mean - 3 * std, "max": mean + 3 * std, "median": mean, "mean": mean, "std": std}

    return {
        "video": of(rng.uniform(90, 130), rng.uniform(30, 60)),
        "responses": of(rng.uniform(1, 5, neurons), rng.uniform(1, 9, neurons)),
        "behavior": of(rng.uniform([40, 1], [80, 3]), rng.uniform([5, 2], [9, 4])),
        "pupil_center": of(rng.uniform(130, 160, 2), rng.uniform(3, 9, 2)),
    }


def tiny_twin(output: str = "standardise", center_crop: float = 1.0, alike: bool = False, **flags) -> Twin:
    """Two mice of random statistics (`alike`: the same) and a core whose every part matters."""
    rng = np.random.default_rng(0)
    mice = {}
    for mouse_id, count in NEURONS.items():
        known = statistics(count, np.random.default_rng(5) if alike else rng)
        index = np.arange(count)
        mice[mouse_id] = Mouse(mouse_id, rng.uniform(0, 600, (count, 3)), 100 + index, index, known, SENSORIUM)
    torch.manual_seed(0)
    model = build_model(ModelConfig.from_flags(TINY | flags), mice).eval().requires_grad_(False)
    for parameter in model.core.vivit.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    for mouse_id in mice:
        model.readouts[mouse_id].features.normal_()
    transforms = {m: Transforms(mouse.statistics, "standardise", output, center_crop) for m, mouse in mice.items()}
    return Twin(model, mice, transforms, torch.device("cpu"), "")
