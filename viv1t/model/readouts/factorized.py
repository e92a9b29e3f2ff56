"""Factorised readout: every neuron has a mask over space and weights of features (Klindt et al. 2017)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from viv1t.model.options import FactorizedConfig
from viv1t.model.readouts.readout import Readout, in_chunks

INIT_STD = 0.001


class FactorizedReadout(Readout):
    """y_n = sum_d f_nd dropout(sum_s m_ns z_sd) + b_n over places s and channels d of a map.

    Parameters masks (N, h w), features (N, D), bias (N,). Gaze does not move the masks.
    """

    def __init__(
        self,
        config: FactorizedConfig,
        dim: int,
        grid: tuple[int, int],
        coordinates: np.ndarray,
        mean_response: np.ndarray | None,
    ):
        super().__init__(config, dim, grid, coordinates, mean_response)
        self.masks = nn.Parameter(torch.randn(self.num_neurons, grid[0] * grid[1]) * INIT_STD)
        self.features = nn.Parameter(torch.randn(self.num_neurons, dim) * INIT_STD)
        self.bias = self.make_bias(mean_response)

    def forward(
        self, z: torch.Tensor, shifts: torch.Tensor | None = None, neurons: torch.Tensor | None = None
    ) -> torch.Tensor:
        masks, features = (x if neurons is None else x[neurons] for x in (self.masks, self.features))

        def read(maps: torch.Tensor) -> torch.Tensor:
            masked = F.dropout(masks @ maps, self.config.dropout, self.training)  # (R, N, D)
            return torch.einsum("rnd,nd->rn", masked, features)

        y = in_chunks(read, features.numel(), z.flatten(2, 3).flatten(0, 1))
        return self.with_bias(y.unflatten(0, z.shape[:2]), neurons)

    def penalty(self) -> torch.Tensor | float:
        """L1 norm of masks and features."""
        if not self.config.reg_l1:
            return 0.0
        return self.config.reg_l1 * (self.masks.abs().sum() + self.features.abs().sum())
