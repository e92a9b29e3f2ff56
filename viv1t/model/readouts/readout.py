"""What every readout is: feature maps -> the responses of one mouse, before the output activation."""

import numpy as np
import torch
from torch import nn

from viv1t.model.options import ReadoutConfig


class Readout(nn.Module):
    """Base of all readouts, made for each mouse from the shape of the core's maps and the mouse's neurons."""

    def __init__(
        self,
        config: ReadoutConfig,
        dim: int,
        grid: tuple[int, int],
        coordinates: np.ndarray,
        mean_response: np.ndarray | None,
    ):
        """dim: channels D, grid: (h, w), of the maps; coordinates (N, 3) um; mean_response (N,), for biases."""
        super().__init__()
        self.config, self.dim, self.grid, self.num_neurons = config, dim, grid, len(coordinates)

    def make_bias(self, mean_response: np.ndarray | None) -> nn.Parameter | None:
        """(N,) as `--readout_bias_mode` says."""
        if self.config.bias_mode == "none":
            return None
        mean = torch.zeros(self.num_neurons)
        if self.config.bias_mode in ("mean", "rate") and mean_response is not None:
            mean = torch.as_tensor(mean_response, dtype=torch.float32).clone()
        return nn.Parameter(mean)

    def forward(
        self, z: torch.Tensor, shifts: torch.Tensor | None = None, neurons: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Feature maps (B, T', h, w, D), shifts (B, 2, T') -> (B, N, T').

        neurons: indices of those to read out (all). shifts: of gaze, in half frames; only where `config.local`.
        """
        raise NotImplementedError

    def penalty(self) -> torch.Tensor | float:
        """Regularisers of the weights, to be added to the loss of a step; 0 unless an option asks for them."""
        return 0.0

    def reader(self, neurons: torch.Tensor, grid: tuple[int, int]) -> "FrameReader":
        """For reading these neurons from one feature map (h, w) after another, in evaluation."""
        return FrameReader(self, neurons)


class FrameReader:
    """A readout in evaluation, for one frame after another."""

    def __init__(self, readout: Readout, neurons: torch.Tensor):
        self.readout, self.neurons = readout, neurons

    @torch.inference_mode()
    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Feature maps (R, h, w, D) -> (R, N) before the output activation."""
        return self.readout(z[:, None], None, self.neurons)[..., 0]
