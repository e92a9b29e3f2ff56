"""Small layers shared by tokeniser and transformer."""

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {
    "none": nn.Identity,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class DynamicTanh(nn.Module):
    """weight * tanh(alpha x) + bias (Zhu et al. 2025), in place of a normalisation."""

    def __init__(self, dim: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * torch.tanh(self.alpha * x) + self.bias


class SwiGLU(nn.Module):
    """Gated unit: the first half of the channels times the SiLU of the second half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * value


NORMS = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm, "dyt": DynamicTanh}


def drop_tokens(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero whole tokens (last axis) with probability p and rescale the rest."""
    keep = torch.rand(x.shape[:-1], device=x.device).ge_(p).div_(1 - p)
    return x * keep[..., None].to(x.dtype)
