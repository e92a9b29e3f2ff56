"""Divisive normalisation: what a patch sees, divided by the contrast in it and around it.

The canonical model of V1 (Heeger 1992; Carandini & Heeger 2012; learnt from recordings by Burg et al. 2021). Attention
adds what it finds elsewhere; a response that is divided by its surround has to be found in the division.
"""

import math

import torch
from torch import nn

COPIES = 7  # channels for each quadrature pair
UNIT = 500.0  # power that a grating of full contrast gives the pairs it suits, with Gabor filters at the start
# at the start of learning:
WIDTH = 1.5  # cells of the grid, sd of the surround
SEMISATURATION = 0.002  # power at which the division begins
STRENGTHS = 0.1, 0.4  # of two surrounds; readouts mix them, and so give each neuron its own
EXPONENT = 1.5  # surrounds suppress at high contrast and hardly at low (Cavanaugh, Bair & Movshon 2002)
TUNING = 1.5  # logit of the share of the same pair in the surround; the rest is of all pairs
RIVALRY = 6.0  # how much power in the patch silences what answers to the surround alone


class DivisiveNormalisation(nn.Module):
    """Filter outputs of c quadrature pairs on a grid of patches, (..., P, 2 c) -> (..., P, 7 c), none beyond c.

    With E the power of a pair, N the mean power of all pairs in the patch, S the power around (Gaussian, in part of
    the same pair, in part of all) and s the semisaturation: the outputs / sqrt(s + N), sqrt(E / (s + N)), E / (s + N),
    twice E / (s + N + k S^n), and S / (s + S + r N), which answers where the patch itself is empty. All learnt per
    pair, but for the width and n.
    """

    def __init__(self, pairs: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        self.semisaturation = nn.Parameter(torch.full((pairs,), math.log(SEMISATURATION)))
        self.strength = nn.Parameter(torch.tensor(STRENGTHS).log()[:, None].repeat(1, pairs))
        self.rivalry = nn.Parameter(torch.full((pairs,), math.log(RIVALRY)))
        self.tuning = nn.Parameter(torch.full((pairs,), TUNING))
        self.exponent = nn.Parameter(torch.tensor(math.log(EXPONENT)))
        self.width = nn.Parameter(torch.tensor(math.log(WIDTH)))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(y.device.type, enabled=False):
            y = y.float() / math.sqrt(UNIT)
            a, b = y[..., 0::2], y[..., 1::2]
            power = a * a + b * b
            base = self.semisaturation.exp() + power.mean(dim=-1, keepdim=True)
            around, own = self.around(power), self.tuning.sigmoid()
            around = own * around + (1 - own) * around.mean(dim=-1, keepdim=True)
            scale, ratio = base.rsqrt(), power / base
            suppression = (around + 1e-6) ** self.exponent.exp()  # infinite slopes at 0 are no use
            suppressed = [power / (base + strength * suppression) for strength in self.strength.exp()]
            rivals = self.semisaturation.exp() + around + self.rivalry.exp() * power.mean(dim=-1, keepdim=True)
            return torch.cat(
                [a * scale, b * scale, (ratio + 1e-4).sqrt(), ratio, *suppressed, around / rivals], dim=-1
            )

    def around(self, power: torch.Tensor) -> torch.Tensor:
        """Gaussian mean over the grid, weights adding up to 1 at its border, too."""
        blur = []
        for n in self.grid:
            cell = torch.arange(n, device=power.device, dtype=power.dtype)
            weights = torch.exp(-((cell[:, None] - cell) ** 2) / (2 * (2 * self.width).exp()))
            blur.append(weights / weights.sum(dim=1, keepdim=True))
        rows = torch.einsum("yi,...ijc->...yjc", blur[0], power.unflatten(-2, self.grid))
        return torch.einsum("xj,...yjc->...yxc", blur[1], rows).flatten(-3, -2)
