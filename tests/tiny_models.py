"""Models of every core and readout, small enough to try all of them."""

import numpy as np
import torch

from viv1t.data.mouse import Mouse
from viv1t.model import Model, ModelConfig, build_model
from viv1t.model.options import CORES

PATCHES = {"spatial_patch_size": 9, "spatial_patch_stride": 9, "temporal_patch_size": 4, "reg_tokens": 0}
BLOCKS = {"spatial_depth": 1, "temporal_depth": 1, "num_heads": 2, "head_dim": 4, "emb_dim": 12, "ff_dim": 10}
SIZES = {
    "vivit": PATCHES | BLOCKS,
    "v1t": {"patch_stride": 7, "num_blocks": 2, "num_heads": 2, "emb_dim": 10, "mlp_dim": 12},
    "bvivit": PATCHES | BLOCKS,
    "dwise": {"widths": "8,8", "strides": "4,2", "expansion": 2, "cortex_layers": 1, "cortex_dim": 8},
    "fcnn": {"hidden_dim": 3, "num_layers": 2, "spatial_input_kernel": 5},
    "gru_baseline": {"cnn_layers": 2, "cnn_filters": 2, "rotations": 4, "rnn_size": 4, "rnn_kernel": 3},
    "stacked2d": {"num_layers": 2, "hidden_dim": 4},
}  # fmt: skip
BUILDABLE = [name for name in CORES if name != "large_random"]  # which needs a GPU


def core_flags(core: str) -> dict:
    return {"core": core} | {f"core_{name}": size for name, size in SIZES.get(core, {}).items()}


def tiny_model(core: str = "linear", mice=("A",), neurons: int = 9, means=None, **flags) -> Model:
    """Neurons lie in three planes, in no order."""
    torch.manual_seed(0)
    rng, index = np.random.default_rng(0), np.arange(neurons)
    coordinates = np.column_stack([rng.uniform(0, 600, (neurons, 2)), 200 + 25 * (index * 2 % 3)])
    cards = {m: Mouse(m, coordinates, unit_ids=index, neurons=index, statistics={}) for m in mice}
    return build_model(ModelConfig.from_flags(core_flags(core) | {"max_frame": 40} | flags), cards, means)


def clip(frames: int = 30, batch: int = 1, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Video, behaviour and gaze."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, *s, generator=generator) for s in ((1, frames, 36, 64), (2, frames), (2, frames)))


def shaken(model: Model, scale: float = 0.3) -> Model:
    """Every weight moved, so that none that matters is left at a value where it would not show."""
    for parameter in model.parameters():
        parameter.data += scale * torch.randn_like(parameter)
    return model


def learns(model: Model, steps: int = 5, rate: float = 0.001) -> list[float]:
    """Losses of a few steps towards responses that never change."""
    optimizer, inputs = torch.optim.Adam(model.parameters(), rate), clip(batch=2)
    losses = []
    for _ in range(steps):
        torch.manual_seed(0)
        y = model.train().predict("A", *inputs)
        target = torch.linspace(0.5, 2, y.shape[1])[:, None]
        loss = (y - target).square().mean() + model.core.penalty() + model.readouts["A"].penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
