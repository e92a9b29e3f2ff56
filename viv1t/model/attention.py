"""Attention with a backward pass that suits CPUs in half precision.

The fused CPU kernel is fast forward, but its backward pass leaves the matrix units idle in bfloat16. Here the forward
pass is the fused kernel's, and the backward pass five batched matrix products: 2 to 4 times faster.
"""

import torch
from torch.nn import functional as F


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v for (R, heads, n, d) each; with `causal`, position i sees positions <= i."""
    if q.device.type == "cpu" and q.dtype != torch.float32 and torch.is_grad_enabled() and q.requires_grad:
        return _HalfAttention.apply(q, k, v, causal)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


class _HalfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, causal):
        ctx.save_for_backward(q, k, v)
        ctx.causal = causal
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    @staticmethod
    def backward(ctx, grad):
        q, k, v = (x.contiguous() for x in ctx.saved_tensors)
        grad, scale = grad.contiguous(), q.shape[-1] ** -0.5
        q = q * scale
        logits = q @ k.transpose(-1, -2)
        if ctx.causal:
            logits.masked_fill_(_future(q.shape[-2], q.device), float("-inf"))
        p = logits.softmax(dim=-1)
        grad_v = p.transpose(-1, -2) @ grad
        grad_logits = torch._softmax_backward_data(grad @ v.transpose(-1, -2), p, -1, p.dtype)
        return (grad_logits @ k).mul_(scale), grad_logits.transpose(-1, -2) @ q, grad_v, None


def _future(n: int, device: torch.device) -> torch.Tensor:
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """The same with an explicit softmax: quadratic memory, any precision."""
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        logits = logits.masked_fill(_future(q.shape[-2], q.device), float("-inf"))
    return logits.softmax(dim=-1).to(v.dtype) @ v
