"""Rotation-equivariant convolutions: filters that are copies of one another, turned (Ecker et al. 2019).

A filter is a sum of 2-D Hermite functions, which turn exactly: of angular order m, the pair that goes as cos and sin
of m times the angle turns by m times the filter's angle. Channels are rotations x filters, rotations first.
"""

import contextlib
import math

import numpy as np
import torch
from scipy.special import eval_genlaguerre
from torch import nn
from torch.nn import functional as F


class EquivariantConv2d(nn.Module):
    """(n, C, H, W) -> (n, rotations * filters, H', W').

    lifts: whether inputs are images; else they are an equivariant layer's output, `rotations` groups of channels.
    Then the filter that is turned by r steps sees groups r steps further on: turning the image by r steps turns the
    maps and moves every channel r groups on.
    """

    def __init__(self, inputs: int, filters: int, rotations: int, size: int, padding: int, lifts: bool):
        super().__init__()
        self.rotations, self.padding, self.lifts = rotations, padding, lifts
        functions, orders = hermite(size)
        self.coefficients = nn.Parameter(0.1 * torch.randn(len(functions), inputs, filters))
        self.register_buffer("functions", torch.tensor(functions, dtype=torch.float32))
        self.register_buffer("turns", torch.tensor(turns(orders, rotations), dtype=torch.float32))
        steps = torch.arange(rotations)
        self.register_buffer("groups", (steps - steps[:, None]) % rotations, False)  # (turn, input group)

    def kernels(self) -> torch.Tensor:
        """(rotations * filters, C, size, size)."""
        with in_float32(self.functions.device.type):
            turned = torch.einsum("rij,jcf->ricf", self.turns, self.coefficients)
            if not self.lifts:
                turned = turned.unflatten(2, (self.rotations, -1))  # (turn, function, group, C / rotations, filter)
                steps = torch.arange(self.rotations, device=turned.device)[:, None]
                turned = turned[steps, :, self.groups].permute(0, 2, 1, 3, 4).flatten(2, 3)
            pixels = F.avg_pool2d(self.functions, 2, divisor_override=1)  # sums of 2 x 2, against aliasing
            return torch.einsum("ricf,iyx->rfcyx", turned, pixels).flatten(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.kernels(), padding=self.padding)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of every filter, over its rotations, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.permute(0, 2, 3, 1).unflatten(-1, (-1, self.num_features)).flatten(1, 2)  # (n, H, W rotations, filters)
        y = super().forward(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return y.flatten(1).view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


def in_float32(device: str):
    """Outside autocast, where a device has that."""
    available = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else contextlib.nullcontext()


def hermite(size: int) -> tuple[np.ndarray, list[int]]:
    """2-D Hermite functions of rank below `size`, on a grid of half pixels: (size (size + 1) / 2, 2 size, 2 size).

    Orthonormal in the plane, of which the kernel covers 2 sqrt(size) to either side. Also the angular order of each;
    of order 0 there is one of a rank, of the others a cosine and a sine.
    """
    axis = np.linspace(-2 * math.sqrt(size), 2 * math.sqrt(size), 2 * size)
    x, y = np.meshgrid(axis, axis)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    functions, orders = [], []
    for rank in range(size):
        for m in range(rank % 2, rank + 1, 2):
            p = (rank - m) // 2
            scale = math.sqrt((1 if m == 0 else 2) * math.factorial(p) / (math.pi * math.factorial(p + m)))
            radial = scale * r**m * eval_genlaguerre(p, m, r**2) * np.exp(-(r**2) / 2)
            waves = [np.ones_like(r)] if m == 0 else [np.cos(m * angle), np.sin(m * angle)]
            functions += [radial * wave for wave in waves]
            orders += [m] * len(waves)
    return np.stack(functions), orders


def turns(orders: list[int], rotations: int) -> np.ndarray:
    """What turns the coefficients of Hermite functions by each rotation: (rotations, functions, functions)."""
    matrices = np.zeros((rotations, len(orders), len(orders)))
    for step, matrix in enumerate(matrices):
        i = 0
        while i < len(orders):
            m = orders[i]
            if m == 0:
                matrix[i, i] = 1
                i += 1
                continue
            c, s = (wave(2 * math.pi * m * step / rotations) for wave in (math.cos, math.sin))
            matrix[i : i + 2, i : i + 2] = [[c, -s], [s, c]]
            i += 2
    return matrices
