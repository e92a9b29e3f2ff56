"""What every readout is: feature maps -> the responses of one mouse, before the output activation."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from viv1t.model.options import ReadoutConfig

CHUNK_ELEMENTS = 1 << 23  # read features held at once: 32 MiB


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

    def with_bias(self, y: torch.Tensor, neurons: torch.Tensor | None = None) -> torch.Tensor:
        """What (B, T', N) neurons read, plus their biases, as (B, N, T')."""
        if self.bias is not None:
            y = y + (self.bias if neurons is None else self.bias[neurons])
        return y.transpose(1, 2)

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

    def reset(self) -> None:
        """Back to before the first frame, for readers that count them."""

    @torch.inference_mode()
    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Feature maps (R, h, w, D) -> (R, N) before the output activation."""
        return self.readout(z[:, None], None, self.neurons)[..., 0]


def in_chunks(read: Callable[..., torch.Tensor], elements: int, *rows: torch.Tensor) -> torch.Tensor:
    """`read` of a few rows of tensors at a time, for which it holds `elements` numbers a row; (R, ...) -> (R, N).

    Tensors of one row go with all. With gradients, what a chunk holds is computed again in the backward pass.
    """
    step = max(CHUNK_ELEMENTS // max(elements, 1), 1)
    chunks = [x.split(step) for x in rows]
    most = len(chunks[0])
    chunks = zip(*(x * most if len(x) < most else x for x in chunks), strict=True)
    if torch.is_grad_enabled() and most > 1:
        return torch.cat([checkpoint(read, *chunk, use_reentrant=False) for chunk in chunks])
    return torch.cat([read(*chunk) for chunk in chunks])
