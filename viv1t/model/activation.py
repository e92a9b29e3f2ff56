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


def pre_activation(rate: torch.Tensor, mode: str) -> torch.Tensor:
    """The input at which an output activation (with its initial parameters) gives these rates."""
    rate = torch.as_tensor(rate, dtype=torch.float32)
    if mode == "identity":
        return rate
    if mode == "sigmoid":
        return torch.logit(rate, eps=1e-3)
    rate = rate.clamp_min(1e-3)
    if mode == "exp":
        return rate.log()
    if mode == "softplus":
        return rate + torch.log(-torch.expm1(-rate))
    return torch.where(rate < 1, rate.log(), rate - 1)  # elu
