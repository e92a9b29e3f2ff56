"""Readouts that know no places: space is averaged, or its maximum taken, before a linear map to all neurons."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from viv1t.errors import UserError
from viv1t.model.options import ConvConfig, LinearReadoutConfig
from viv1t.model.readouts.readout import Readout


class ConvReadout(Readout):
    """Mean over space, dropout of channels, then a linear map in groups (a grouped convolution of length 1).

    Channels and neurons, in their order, are divided into `groups` equal parts, the neurons filled up with some that
    do not exist; a part of the neurons reads its part of the channels. Weights (groups, neurons of one, channels of
    one). A dropped channel is dropped for a whole clip.
    """

    def __init__(
        self,
        config: ConvConfig,
        dim: int,
        grid: tuple[int, int],
        coordinates: np.ndarray,
        mean_response: np.ndarray | None,
    ):
        super().__init__(config, dim, grid, coordinates, mean_response)
        if dim % config.groups:
            raise UserError(f"--readout_groups {config.groups} does not divide the core's {dim} channels.")
        bound = (dim // config.groups) ** -0.5
        shape = (config.groups, math.ceil(self.num_neurons / config.groups), dim // config.groups)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = self.make_bias(mean_response)

    def forward(
        self, z: torch.Tensor, shifts: torch.Tensor | None = None, neurons: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = z.mean(dim=(2, 3))  # (B, T', D)
        x = F.dropout1d(x.transpose(1, 2), self.config.dropout, self.training).transpose(1, 2)
        if neurons is None:
            y = torch.einsum("btgd,gnd->btgn", x.unflatten(2, (self.config.groups, -1)), self.weight)
            return self.with_bias(y.flatten(2)[..., : self.num_neurons])
        group, member = neurons // self.weight.shape[1], neurons % self.weight.shape[1]
        weights = self.weight.new_zeros(len(neurons), *self.weight.shape[::2])  # (n, groups, channels of one)
        weights[torch.arange(len(neurons), device=neurons.device), group] = self.weight[group, member]
        return self.with_bias(x @ weights.flatten(1).T, neurons)


class LinearReadout(Readout):
    """Maximum over space of each channel, then a linear map; weights (N, D)."""

    def __init__(
        self,
        config: LinearReadoutConfig,
        dim: int,
        grid: tuple[int, int],
        coordinates: np.ndarray,
        mean_response: np.ndarray | None,
    ):
        super().__init__(config, dim, grid, coordinates, mean_response)
        self.weight = nn.Parameter(torch.empty(self.num_neurons, dim).uniform_(-(dim**-0.5), dim**-0.5))
        self.bias = self.make_bias(mean_response)

    def forward(
        self, z: torch.Tensor, shifts: torch.Tensor | None = None, neurons: torch.Tensor | None = None
    ) -> torch.Tensor:
        weight = self.weight if neurons is None else self.weight[neurons]
        return self.with_bias(z.amax(dim=(2, 3)) @ weight.T, neurons)
