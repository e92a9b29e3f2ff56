"""Random numbers instead of responses: the floor of every score."""

import torch
from torch import nn

from viv1t.model.noise import uniform
from viv1t.model.readouts.readout import FrameReader, Readout


class RandomReadout(Readout):
    """Uniform random numbers in [0, 1) times a learned scale, whatever the maps hold.

    Training draws them anew in every pass; in evaluation they depend on the numbers of frame and neuron only.
    """

    def __init__(self, config, dim, grid, coordinates, mean_response):
        super().__init__(config, dim, grid, coordinates, mean_response)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self,
        z: torch.Tensor,
        shifts: torch.Tensor | None = None,
        neurons: torch.Tensor | None = None,
        first: int = 0,
    ) -> torch.Tensor:
        B, T = z.shape[:2]
        y = self.scale * uniform(B, T, (self.num_neurons,), z.device, self.training, first).transpose(1, 2)
        return y if neurons is None else y[:, neurons]

    def reader(self, neurons: torch.Tensor, grid: tuple[int, int]) -> "RandomReader":
        return RandomReader(self, neurons)


class RandomReader(FrameReader):
    """Counts the frames, which is all that the numbers depend on."""

    def __init__(self, readout: RandomReadout, neurons: torch.Tensor):
        super().__init__(readout, neurons)
        self.reset()

    def reset(self) -> None:
        self.seen = 0

    @torch.inference_mode()
    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        y = self.readout(z[:, None], None, self.neurons, first=self.seen)[..., 0]
        self.seen += 1
        return y
