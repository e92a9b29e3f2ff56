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


class Dropout(nn.Module):
    """Dropout with a cheap mask on CPUs: one 64-bit random word serves four elements (p to within 1 / 65536)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        keep = words.view(torch.int16)[: x.numel()].view(x.shape) >= round(self.p * 65536) - 32768
        return x * keep.to(x.dtype).mul_(1 / (1 - self.p))


def drop_tokens(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero whole tokens (last axis) with probability p and rescale the rest."""
    keep = torch.rand(x.shape[:-1], device=x.device).ge_(p).div_(1 - p)
    return x * keep[..., None].to(x.dtype)
