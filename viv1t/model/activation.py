"""Output activations: from readout to a rate."""

import torch
from torch import nn
from torch.nn import functional as F


class LearnedSoftplus(nn.Module):
    """log(1 + exp(beta x)) / beta with one learned beta per mouse, which starts at `beta`."""

    def __init__(self, beta: float = 1.0):
        super().__init__()
        self.log_beta = nn.Parameter(torch.tensor(beta).log())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        beta = self.log_beta.exp()
        return F.softplus(beta * x) / beta


class ELU1(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x) + 1


class Exp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp()


OUTPUTS = {"identity": nn.Identity, "elu": ELU1, "exp": Exp, "sigmoid": nn.Sigmoid}


def make_output(mode: str, beta: float) -> nn.Module:
    """The output activation of one mouse; beta: that of a softplus at the start."""
    return LearnedSoftplus(beta) if mode == "softplus" else OUTPUTS[mode]()


def pre_activation(rate: torch.Tensor, mode: str, beta: float = 1.0) -> torch.Tensor:
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
        return rate + torch.log(-torch.expm1(-beta * rate)) / beta
    return torch.where(rate < 1, rate.log(), rate - 1)  # elu
