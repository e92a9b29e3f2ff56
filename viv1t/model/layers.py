"""Small layers shared by tokeniser and transformer."""

import contextlib

import numpy as np
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


def is_autocast(device: torch.device) -> bool:
    """Whether autocast is on; tensors without memory, on which costs are counted, know none."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def full_precision(device: torch.device):
    """A context without autocast."""
    return torch.autocast(device.type, enabled=False) if is_autocast(device) else contextlib.nullcontext()


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
    """Dropout with cheap masks on CPUs: 15 random bits an element (p to within 1/32768) make an integer mask."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.has_cheap_masks(x):
            return F.dropout(x, self.p, self.training)
        return self.unscaled(x).mul_(1 / (1 - self.p))

    def has_cheap_masks(self, x: torch.Tensor) -> bool:
        on = self.training and self.p > 0 and not torch.compiler.is_compiling()
        return on and x.dtype in INTEGERS and x.device.type == "cpu"

    def unscaled(self, x: torch.Tensor, rectify: bool = False) -> torch.Tensor:
        """Dropout, with `rectify` of the positive part of x, that leaves the factor 1 / (1 - p) to the caller."""
        return _Masked.apply(x, keep_mask(x.shape, self.p), rectify)

    def into(self, linear: nn.Linear, x: torch.Tensor, rectify: bool = False) -> torch.Tensor:
        """linear(dropout(x)), with `rectify` of the positive part of x; the factor goes into the weights."""
        if not self.has_cheap_masks(x):
            return linear(self(F.relu(x) if rectify else x))
        return F.linear(self.unscaled(x, rectify), linear.weight / (1 - self.p), linear.bias)


INTEGERS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def keep_mask(shape: torch.Size, p: float) -> torch.Tensor:
    """int16: all bits with probability 1 - p, else none. Drawn by SFC64, seeded from torch's generator."""
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-shape.numel() // 4)).view(np.int16)[: shape.numel()]
    # a 15-bit number minus the threshold is negative when the element is dropped; the shift spreads its sign
    mask = torch.from_numpy(words).bitwise_and_(0x7FFF).sub_(round(p * 0x8000))
    return mask.bitwise_right_shift_(15).bitwise_not_().view(shape)


class _Masked(torch.autograd.Function):
    """x where the mask has its bits set (and, if `rectify`, x is positive), else 0."""

    @staticmethod
    def forward(ctx, x, mask, rectify):
        integers = INTEGERS[x.dtype]
        mask, bits = mask.to(integers), x.contiguous().view(integers)
        if rectify:  # the sign bit, spread over all others
            mask = bits.bitwise_right_shift(8 * x.element_size() - 1).bitwise_not_().bitwise_and_(mask)
        ctx.save_for_backward(mask)
        return torch.bitwise_and(bits, mask).view(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (mask,) = ctx.saved_tensors
        return torch.bitwise_and(grad.contiguous().view(mask.dtype), mask).view(grad.dtype), None, None


def drop_tokens(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero whole tokens (last axis) with probability p and rescale the rest."""
    keep = torch.rand(x.shape[:-1], device=x.device).ge_(p).div_(1 - p)
    return x * keep[..., None].to(x.dtype)
