"""Output activations: from readout to a rate."""

import torch
from torch import nn
from torch.nn import functional as F


class LearnedSoftplus(nn.Module):
    """log(1 + exp(beta x)) / beta with one learned beta per mouse."""

    def __init__(self):
        super().__init__()
        self.log_beta = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beta = self.log_beta.exp()
        return F.softplus(beta * x) / beta


class ELU1(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x) + 1


class Exp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp()


OUTPUTS = {"identity": nn.Identity, "elu": ELU1, "exp": Exp, "softplus": LearnedSoftplus, "sigmoid": nn.Sigmoid}
