"""Cores without features: the frame itself, and random numbers. What a readout reaches with them is a lower bound."""

import functools

import torch
from torch import nn

from viv1t.constants import HEIGHT, WIDTH
from viv1t.errors import UserError
from viv1t.model.cores.core import CHANNELS, Core, as_channels
from viv1t.model.noise import uniform
from viv1t.model.options import LinearConfig, RandomConfig

RANDOM_DIM = 32
BORDER = 8  # pixels by which random maps are smaller than the frame, as after a convolution
FILLED = 0.6  # of the GPU's memory


class LinearCore(Core):
    """A weight and an offset for every channel and pixel; D channels on the frame's own grid (36, 64).

    An output frame depends on that input frame alone.
    """

    def __init__(self, config: LinearConfig, max_frame: int):
        super().__init__(config, max_frame)
        self.dim, self.grid = CHANNELS[config.behavior_mode], self.frame_size
        self.weight, self.bias = (nn.Parameter(torch.randn(*self.grid, self.dim)) for _ in range(2))

    def maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        x = as_channels(self.config.behavior_mode, video, behavior, pupil_center)
        return self.weight * x.permute(0, 2, 3, 4, 1) + self.bias


class RandomCore(Core):
    """Uniform random numbers in [0, 1) times a learned scale, whatever is shown.

    Training draws them anew in every pass; in evaluation they depend on the number of the frame only, so that a
    prediction can be made again.
    """

    def __init__(self, config: RandomConfig, max_frame: int):
        super().__init__(config, max_frame)
        self.dim, self.grid = RANDOM_DIM, (HEIGHT - BORDER, WIDTH - BORDER)
        self.scale = nn.Parameter(torch.ones(()))

    def maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        B, T, shape = len(video), video.shape[2], (*self.grid, self.dim)
        return self.scale * uniform(B, T, shape, video.device, self.training)


class LargeRandomCore(RandomCore):
    """The same beside a tensor that fills 60 % of the GPU: a test of what else fits. It is never saved."""

    def __init__(self, config: RandomConfig, max_frame: int):
        if not torch.cuda.is_available():
            raise UserError("--core large_random fills the memory of a CUDA GPU; there is none. Use --core random.")
        super().__init__(config, max_frame)

    def maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        if video.device.type == "cpu":
            raise UserError("--core large_random fills the memory of a CUDA GPU: use --device cuda, or --core random.")
        if video.device.type == "cuda":
            ballast(video.device)
        return super().maps(video, behavior, pupil_center)


@functools.cache
def ballast(device: torch.device) -> torch.Tensor:
    """Memory of a GPU that is held until the process ends."""
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.empty(int(FILLED * total), dtype=torch.uint8, device=device)
