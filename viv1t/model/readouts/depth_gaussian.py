"""Gaussian readout whose map from cortex to visual field is another in every imaging plane."""

import numpy as np
import torch
from torch import nn

from viv1t.model.readouts.gaussian import GaussianReadout, position_network


class DepthGaussianReadout(GaussianReadout):
    """A Gaussian readout with one position network for each plane: neurons of one depth (z), recorded together.

    Coordinates are centred and scaled plane by plane, and neurons keep their order. With free positions
    (`--readout_grid_mode free`) there is nothing to map, and it is the Gaussian readout.
    """

    def planes(self, coordinates: np.ndarray) -> np.ndarray:
        return np.unique(coordinates[:, 2], return_inverse=True)[1].reshape(-1)

    def position_map(self, inputs: int, planes: np.ndarray) -> "PlaneMaps":
        return PlaneMaps(inputs, planes)


class PlaneMaps(nn.Module):
    """Position networks of several planes; planes (N,): which one each neuron has."""

    def __init__(self, inputs: int, planes: np.ndarray):
        super().__init__()
        self.networks = nn.ModuleList(position_network(inputs) for _ in range(planes.max() + 1))
        self.register_buffer("order", torch.as_tensor(planes.argsort(kind="stable")), persistent=False)
        self.counts = np.bincount(planes).tolist()

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        """(N, inputs) -> (N, 2)."""
        by_plane = source[self.order].split(self.counts)
        found = torch.cat([network(part) for network, part in zip(self.networks, by_plane, strict=True)])
        return found[self.order.argsort()]
