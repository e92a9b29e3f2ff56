"""Factorised 3-D convolutions: the baseline of Sensorium 2023, and with `--core_linear` a linear-nonlinear model."""

import torch
from torch import nn

from viv1t.model.cores.convolution import INPUTS, ConvolutionalCore, laplace, over_frames, over_time
from viv1t.model.options import FCNNConfig

MOMENTUM = 0.7


class FCNNCore(ConvolutionalCore):
    """Layers of a convolution in space, then one in time, batch normalisation and ELU (Turishcheva et al. 2023).

    Time is not padded: an output frame depends on itself and the `lost_frames` input frames before it, all told. Space
    is padded, so that maps keep the size of frames. `linear` leaves convolutions only: readouts and output
    nonlinearity then make it the linear-nonlinear model.
    """

    def __init__(self, config: FCNNConfig, max_frame: int):
        super().__init__(config, max_frame)
        kernels = [(config.spatial_input_kernel, config.temporal_input_kernel)]
        kernels += [(config.spatial_hidden_kernel, config.temporal_hidden_kernel)] * (config.num_layers - 1)
        widths = [INPUTS[config.behavior_mode], *(config.hidden_dim * 2**i for i in range(config.num_layers))]
        self.layers = nn.ModuleList(
            SeparableLayer(*widths[i : i + 2], *kernels[i], config.linear, config.dropout if widths[i + 2 :] else 0.0)
            for i in range(config.num_layers)
        )
        self.dim, self.grid = widths[-1], self.frame_size
        self.lost_frames = sum(length - 1 for _, length in kernels)

    def penalty(self) -> torch.Tensor | float:
        weight = self.config.reg_laplace
        return weight * sum(laplace(layer.spatial.weight) for layer in self.layers) if weight else 0.0


class SeparableLayer(nn.Module):
    """(B, T, H, W, inputs) -> (B, T - length + 1, H, W, outputs)."""

    def __init__(self, inputs: int, outputs: int, size: int, length: int, linear: bool, dropout: float):
        super().__init__()
        self.spatial = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        self.temporal = nn.Conv2d(outputs, outputs, (length, 1))
        for convolution in (self.spatial, self.temporal):
            nn.init.xavier_normal_(convolution.weight)
            nn.init.zeros_(convolution.bias)
        after = [] if linear else [nn.BatchNorm2d(outputs, momentum=MOMENTUM), nn.ELU(inplace=True)]
        self.after = nn.Sequential(*after, *([nn.Dropout2d(dropout)] if dropout else []))  # of channels, all frames

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return over_time(lambda y: self.after(self.temporal(y)), over_frames(self.spatial, x))
