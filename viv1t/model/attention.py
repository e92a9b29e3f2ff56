"""Attention, from one fused projection to one output, with backward passes that suit CPUs.

Rotation: pairs of channels are complex numbers and a rotation is one complex product, in float32 at any precision. The
projection's rows are ordered so that pairs lie side by side; products of queries and keys do not see the order.
Attention: the fused CPU kernel is fast forward, but backward it leaves the matrix units idle in bfloat16. There, the
backward pass is five batched matrix products on a few sequences at a time, whose squares stay in cache.
"""

import torch
from torch.nn import functional as F

TILE = 3 << 19  # elements of the attention matrices held at once: 3 MiB in bfloat16
CACHED = 1 << 17  # elements turned at once: 512 KiB in float32


def pairs_side_by_side(heads: int, head_dim: int) -> torch.Tensor:
    """Order of the rows (q, k, v) of a fused projection that puts channels i and i + d/2 of a head next to each other.

    Returns indices (3 * heads * d,); the values keep their place.
    """
    order = torch.arange(3 * heads * head_dim).view(3 * heads, head_dim)
    paired = order[: 2 * heads].view(2 * heads, 2, head_dim // 2).transpose(1, 2)
    return torch.cat([paired.flatten(), order[2 * heads :].flatten()])


def rotated_heads(qkv: torch.Tensor, table: torch.Tensor | None, heads: int) -> tuple[torch.Tensor, ...]:
    """Fused projections (R, n, 3 heads d), channel pairs side by side, -> queries, keys, values (R, heads, n, d).

    table: complex rotation (n, 1, d/2) of every position, scale included, or None. The projections are rotated where
    they lie: nothing else may hold on to them.
    """
    if table is not None:
        qkv = rotated(qkv, table, heads) if torch.compiler.is_compiling() else _Rotation.apply(qkv, table, heads)
    return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def rotated(qkv: torch.Tensor, table: torch.Tensor, heads: int) -> torch.Tensor:
    """The rotation in real numbers and out of place, for the compiler."""
    x = qkv.unflatten(-1, (3, heads, -1, 2))
    cosine, sine = torch.view_as_real(table)[:, None].unbind(-1)
    real, imaginary = x[:, :, :2].unbind(-1)
    qk = torch.stack([real * cosine - imaginary * sine, imaginary * cosine + real * sine], dim=-1)
    return torch.cat([qk.to(qkv.dtype), x[:, :, 2:]], dim=2).flatten(2)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, table, heads):
        ctx.save_for_backward(table)
        ctx.mark_dirty(qkv)
        ctx.heads = heads
        turn(qkv.unflatten(-1, (3, heads, -1)), table)
        return qkv

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        turn(grad.unflatten(-1, (3, ctx.heads, -1)), ctx.saved_tensors[0].conj().resolve_conj())
        return grad, None, None


def turn(qkv: torch.Tensor, table: torch.Tensor) -> None:
    """Neighbouring channels of queries and keys, as complex numbers, times `table` (n, 1, d/2), in place.

    qkv: (R, n, 3, heads, d), of which the first two of three are turned.
    """
    turned = qkv[:, :, :2].flatten(2, 3)
    rows = max(CACHED * len(turned) // max(turned.numel(), 1), 1) if qkv.device.type == "cpu" else len(turned)
    for x in turned.split(rows):
        if x.dtype in (torch.float32, torch.float64):
            as_complex(x).mul_(table)
        else:  # on a CPU, a long sequence in float32, or many short ones, stay in its cache
            wide = x.float()
            as_complex(wide).mul_(table)
            x.copy_(wide)


def as_complex(x: torch.Tensor) -> torch.Tensor:
    """(..., d) real -> (..., d/2) complex, neighbours as real and imaginary part; a view."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v for (R, heads, n, d) each; with `causal`, position i sees positions <= i.

    mask: instead of `causal`, (queries, keys) True where a query sees a key.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def attention_after(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, past_k: torch.Tensor, past_v: torch.Tensor
) -> torch.Tensor:
    """Causal attention of sequences that begin alike, without a copy of their beginning for each.

    q, k, v (L * K, heads, n, d): what follows in K sequences at each of L locations. past_k, past_v (L, heads, m, d):
    the m positions before, the same in all sequences of a location. Returns (L * K, heads, n, d).
    """
    (L, _, m, d), n = past_k.shape, q.shape[2]
    own = q @ k.transpose(-1, -2)  # (L K, heads, n, n)
    later = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
    before = _by_location(q, L) @ past_k.transpose(-1, -2)  # (L, heads, K n, m)
    scores = torch.cat([_by_sequence(before, n), own.masked_fill(later, -torch.inf)], dim=-1)
    share = (scores * d**-0.5).softmax(dim=-1).to(v.dtype)
    return _by_sequence(_by_location(share[..., :m], L) @ past_v, n) + share[..., m:] @ v


def _by_location(x: torch.Tensor, L: int) -> torch.Tensor:
    """(L K, heads, n, d) -> (L, heads, K n, d)"""
    return x.unflatten(0, (L, -1)).transpose(1, 2).flatten(2, 3)


def _by_sequence(x: torch.Tensor, n: int) -> torch.Tensor:
    """(L, heads, K n, d) -> (L K, heads, n, d)"""
    return x.unflatten(2, (-1, n)).transpose(1, 2).flatten(0, 1)


def suits_fused_attention(qkv: torch.Tensor) -> bool:
    return qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16 and torch.is_grad_enabled() and qkv.requires_grad


def fused_attention(qkv: torch.Tensor, table: torch.Tensor | None, heads: int, causal: bool) -> torch.Tensor:
    """`attention` of `rotated_heads`, for training in bfloat16 on a CPU; (R, n, 3 heads d) -> (R, n, heads d).

    The projections are rotated where they lie; nothing but the linear map that made them may hold on to them.
    """
    return _FusedAttention.apply(qkv, table, heads, causal)


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, table, heads, causal):
        x = qkv.unflatten(-1, (3, heads, -1))  # (R, n, 3, heads, d)
        if table is not None:
            turn(x, table)
        ctx.save_for_backward(qkv, table)
        ctx.heads, ctx.causal = heads, causal
        y = F.scaled_dot_product_attention(*x.permute(2, 0, 3, 1, 4), is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    @staticmethod
    def backward(ctx, grad):
        (qkv, table), heads = ctx.saved_tensors, ctx.heads
        R, n, _ = qkv.shape
        out = torch.empty_like(qkv)
        back = None if table is None else table.conj().resolve_conj()
        step = min(max(TILE // (heads * n**2), 1), R)
        squares = [qkv.new_empty(step * heads, n, n) for _ in range(2)]
        for x, g, target in zip(*(t.split(step) for t in (qkv, grad, out)), strict=True):
            q, k, v = x.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2)
            g = g.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)
            grads = attention_gradients(q, k, v, g, ctx.causal, [square[: len(q)] for square in squares])
            target = target.unflatten(-1, (3, heads, -1))
            target.copy_(grads.unflatten(1, (-1, heads)).permute(1, 3, 0, 2, 4))
            if back is not None:
                turn(target, back)
        return out, None, None, None


def attention_gradients(q, k, v, grad, causal: bool, squares) -> torch.Tensor:
    """Gradients (3, R, n, d) of attention with respect to q, k and v, each (R, n, d); `squares`: two (R, n, n)."""
    (n, d), (first, second) = q.shape[-2:], squares
    grads = q.new_empty(3, *q.shape)
    q = q * d**-0.5
    torch.bmm(q, k.transpose(1, 2), out=first)
    if causal:
        first.masked_fill_(_future(n, q.device), float("-inf"))
    p = torch.softmax(first, dim=-1, out=second)
    torch.bmm(p.transpose(1, 2), grad, out=grads[2])
    torch.bmm(grad, v.transpose(1, 2), out=first)
    grad_logits = torch._softmax_backward_data(first, p, -1, p.dtype, grad_input=first)
    torch.bmm(grad_logits, k, out=grads[0]).mul_(d**-0.5)
    torch.bmm(grad_logits.transpose(1, 2), q, out=grads[1])
    return grads


def _future(n: int, device: torch.device) -> torch.Tensor:
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)


def plain_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The same with an explicit softmax: quadratic memory, any precision."""
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    hidden = _future(q.shape[-2], q.device) if causal else None if mask is None else ~mask
    if hidden is not None:
        logits = logits.masked_fill(hidden, float("-inf"))
    return logits.softmax(dim=-1).to(v.dtype) @ v


def sliding_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int, attend) -> torch.Tensor:
    """Causal attention in which position i sees the `window` positions up to i; time and memory linear in length.

    attend: `attention` or `plain_attention`, called on `window` queries and the at most 2 window - 1 keys they see.
    """
    parts = [attend(*(x[:, :, :window] for x in (q, k, v)), True)]
    for start in range(window, q.shape[2], window):
        first, stop = start - window + 1, min(start + window, q.shape[2])
        query, key = (torch.arange(*ends, device=q.device) for ends in ((start, stop), (first, stop)))
        distance = query[:, None] - key
        mask = (distance >= 0) & (distance < window)
        parts.append(attend(q[:, :, start:stop], k[:, :, first:stop], v[:, :, first:stop], False, mask))
    return torch.cat(parts, dim=2)
