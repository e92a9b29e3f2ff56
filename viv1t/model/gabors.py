"""A start for patch weights: the space-time receptive fields that any model of V1 has to find first."""

import math

import torch
from torch import nn

from viv1t.constants import FPS

BLOBS = 1 / 8  # share of channels without spatial carrier, for neurons that follow luminance
WAVELENGTH = (4.0, 20.0)  # pixels, log-uniform
TEMPORAL_FREQUENCY = (1.0, 6.0)  # Hz, log-uniform
DECAY = 3.0  # frames
BIAS = 0.3  # sd; lets a token tell weak contrast from strong after normalisation


@torch.no_grad()
def start_as_gabors(linear: nn.Linear, channels: int, frames: int, size: int) -> None:
    """Set the video weights of patches (D, C_in, frames, size, size) to motion-energy filters, in quadrature pairs.

    Channels come in pairs that drift in one direction (Adelson & Bergen 1985); directions are evenly spaced. Scales
    undo the 1/f spectrum of natural movies, so that channels start with like variance. Other channels start small.
    """
    D = linear.out_features  # channels 2 i and 2 i + 1 are a pair
    pairs = (D + 1) // 2
    blobs = round(BLOBS * pairs)
    direction = torch.arange(pairs) * (math.pi * (3 - math.sqrt(5)))  # golden angle: even at any number
    wavelength = log_uniform(pairs, *WAVELENGTH)
    carrier = torch.where(torch.arange(pairs) < blobs, 0.0, 2 * math.pi / wavelength)
    hertz = log_uniform(pairs, *TEMPORAL_FREQUENCY)
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = x * direction.cos()[:, None, None] + y * direction.sin()[:, None, None]
    envelope = torch.exp(-(x**2 + y**2) / (2 * (size / 4.5) ** 2))
    lag = torch.arange(frames - 1, -1, -1.0)
    window = lag / DECAY * torch.exp(1 - lag / DECAY)
    turn = 2 * math.pi * hertz[:, None] / FPS * lag
    phase = carrier[:, None, None, None] * along[:, None] + turn[:, :, None, None]  # drifts as time goes on
    filters = torch.stack([phase.cos(), phase.sin()], dim=1) * window[:, None, None] * envelope
    filters = filters - filters.mean(dim=(-1, -2), keepdim=True) * (carrier > 0)[:, None, None, None, None]
    power = filters.square().sum(dim=(-1, -2, -3), keepdim=True).sqrt().clamp_min(1e-6)
    filters = filters / power * carrier.clamp_min(0.15)[:, None, None, None, None] * 0.8
    weight = linear.weight.view(D, channels, frames, size, size)
    weight[:, 0] = filters.flatten(0, 1)[:D]
    linear.bias.normal_(0, BIAS)


def log_uniform(n: int, low: float, high: float) -> torch.Tensor:
    return torch.exp(torch.rand(n) * math.log(high / low) + math.log(low))
