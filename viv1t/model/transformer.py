"""Parallel transformer blocks on batches of sequences, in cache-sized chunks.

Sequences are independent (frames in the spatial stack, locations in the temporal one), so a stack runs on a chunk of
them from first to last block: activations stay in cache, and checkpointing a chunk stores its input only.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from viv1t.errors import UserError
from viv1t.model.attention import (
    attention,
    attention_after,
    fused_attention,
    pairs_side_by_side,
    plain_attention,
    rotated_heads,
    sliding_attention,
    suits_fused_attention,
)
from viv1t.model.layers import ACTIVATIONS, NORMS, Dropout, SwiGLU
from viv1t.model.memory import BlockMemory, Past
from viv1t.model.options import ViViTConfig
from viv1t.model.positions import PUBLISHED_ROTARY, RELATIVE, TIMELESS, PublishedRotary, RelativeRotary, Rotary


class Block(nn.Module):
    """x + drop_path(attention(norm(x))) + drop_path(feed_forward(norm(x))), one fused input projection."""

    def __init__(
        self,
        config: ViViTConfig,
        rotary: Rotary | None,
        causal: bool,
        window: int | None = None,
        drop_path: float | None = None,
    ):
        """rotary: shared by the blocks of a stack. window: positions that a causal block sees, the own included.

        drop_path: of this block, if not that of the configuration.
        """
        super().__init__()
        self.drop_path = config.drop_path if drop_path is None else drop_path
        D, self.heads, self.head_dim = config.emb_dim, config.num_heads, config.head_dim
        self.inner, self.causal, self.window, self.config = self.heads * self.head_dim, causal, window, config
        hidden = config.ff_dim * (2 if config.ff_activation == "swiglu" else 1)
        activation = SwiGLU() if config.ff_activation == "swiglu" else ACTIVATIONS[config.ff_activation]()
        self.norm = NORMS[config.norm](D)
        self.fused_linear = nn.Linear(D, 3 * self.inner + hidden, bias=False)  # rows: q, k, v, feed-forward
        if config.norm_qk:
            self.norm_q, self.norm_k = NORMS[config.norm](self.inner), NORMS[config.norm](self.inner)
        self.mha_dropout = Dropout(config.mha_dropout)
        self.attn_out = nn.Linear(self.inner, D, bias=False)
        self.ff_out = nn.Sequential(activation, Dropout(config.ff_dropout), nn.Linear(config.ff_dim, D, bias=False))
        self.rotary_position_embedding = rotary
        self.register_buffer("order", pairs_side_by_side(self.heads, self.head_dim), persistent=False)
        for linear in (self.fused_linear, self.attn_out, self.ff_out[2]):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def attention(self, u: torch.Tensor, memory: BlockMemory | None = None) -> torch.Tensor:
        """Normalised sequences (R, n, D) -> (R, n, D); with a memory of what came before, for n = 1."""
        qkv, table = self.projections(u), self.turns(u, memory.seen if memory else 0)
        slides = self.window is not None and u.shape[1] > self.window
        attend = attention if self.config.flash_attention else plain_attention
        if attend is attention and memory is None and not slides and suits_fused_attention(qkv):
            y = fused_attention(qkv, table, self.heads, self.causal)
            return self.mha_dropout.into(self.attn_out, y)
        q, k, v = rotated_heads(qkv, table, self.heads)
        if memory is not None:
            y = attend(q, *memory.extend(k, v), False)
        elif slides:
            y = sliding_attention(q, k, v, self.window, attend)
        else:
            y = attend(q, k, v, self.causal)
        return self.mha_dropout.into(self.attn_out, y.transpose(1, 2).flatten(2))

    def projections(self, u: torch.Tensor) -> torch.Tensor:
        """Normalised sequences (R, n, D) -> queries, keys and values (R, n, 3 heads d), not yet rotated."""
        rotary, weight = self.rotary_position_embedding, self.fused_linear.weight[: 3 * self.inner]
        if not self.config.norm_qk:
            return F.linear(u, weight if rotary is None else weight.index_select(0, self.order))
        q, k, v = F.linear(u, weight).chunk(3, dim=-1)
        qkv = torch.cat([self.norm_q(q), self.norm_k(k), v], dim=-1).to(v.dtype)
        return qkv if rotary is None else qkv.index_select(-1, self.order)

    def turns(self, u: torch.Tensor, start: int) -> torch.Tensor | None:
        """Rotations of the positions of u, the first of which is `start`."""
        rotary = self.rotary_position_embedding
        return None if rotary is None else rotary.table(start, u.shape[1] - rotary.extra, u.device)

    def remember(self, x: torch.Tensor, memory: BlockMemory) -> None:
        memory.extend(*self.heads_of(self.norm(x), memory.seen)[1:])

    def heads_of(self, u: torch.Tensor, start: int) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values (R, heads, n, d) of normalised sequences whose first position is `start`."""
        return rotated_heads(self.projections(u), self.turns(u, start), self.heads)

    def at(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The block's output at some positions of sequences (R, n, D), which see all of them; in evaluation."""
        u = self.norm(x)
        q, k, v = self.heads_of(u, 0)
        y = attention(q[:, :, places], k, v, False)
        return x[:, places] + self.attn_out(y.transpose(1, 2).flatten(2)) + self.feed_forward(u[:, places])

    def learn(self, x: torch.Tensor) -> Past:
        """Keys and values of sequences (L, n, D), for sequences that begin like them."""
        return Past(*(part.contiguous() for part in self.heads_of(self.norm(x), 0)[1:]))

    def after(self, x: torch.Tensor, past: Past) -> torch.Tensor:
        """What follows (L K, n, D) in K sequences at each location that begin as `past`, in evaluation."""
        u = self.norm(x)
        y = attention_after(*self.heads_of(u, past.keys.shape[2]), *past)
        return x + self.attn_out(y.transpose(1, 2).flatten(2)) + self.feed_forward(u)

    def feed_forward(self, u: torch.Tensor) -> torch.Tensor:
        x = F.linear(u, self.fused_linear.weight[3 * self.inner :])
        activation, dropout, linear = self.ff_out
        if isinstance(activation, nn.ReLU):
            return dropout.into(linear, x, rectify=True)
        return dropout.into(linear, activation(x))

    def forward(self, x: torch.Tensor, memory: BlockMemory | None = None) -> torch.Tensor:
        if memory is not None:
            u = self.norm(x)
            return x + self.attention(u, memory) + self.feed_forward(u)
        p = self.drop_path if self.training else 0.0
        if p == 0 or self.config.drop_path_mode == "masked" or torch.compiler.is_compiling():
            u = self.norm(x)
            keep = (row_mask(len(x), p, x) for _ in range(2)) if p else (1, 1)
            return x + sum(k * branch(u) for k, branch in zip(keep, (self.attention, self.feed_forward), strict=True))
        return self.surviving_rows(x, p)

    def surviving_rows(self, x: torch.Tensor, p: float) -> torch.Tensor:
        """Stochastic depth that computes only the sequences it keeps; the same distribution as masking them."""
        R, y = len(x), x
        if not torch.is_grad_enabled():
            y = x.clone()
        for branch in (self.attention, self.feed_forward):
            if self.config.drop_path_mode == "fixed":
                rows = torch.randperm(R)[: max(round((1 - p) * R), 1)]
                scale = R / len(rows)
            else:
                rows, scale = (torch.rand(R) >= p).nonzero()[:, 0], 1 / (1 - p)
            if len(rows):
                rows = rows.to(x.device, non_blocking=True)
                update = branch(self.norm(x.index_select(0, rows)))
                add = y.index_add if torch.is_grad_enabled() else y.index_add_
                y = add(0, rows, update.to(x.dtype), alpha=scale)
        return y


def row_mask(rows: int, p: float, like: torch.Tensor) -> torch.Tensor:
    """(rows, 1, 1): 0 with probability p, else 1 / (1 - p)."""
    return torch.rand(rows, 1, 1, device=like.device).ge(p).to(like.dtype) / (1 - p)


def drop_rates(config: ViViTConfig, depth: int) -> list[float]:
    """Stochastic depth of each block of a stack."""
    if config.drop_path_schedule == "constant":
        return [config.drop_path] * depth
    return [config.drop_path * i / max(depth - 1, 1) for i in range(depth)]


class Transformer(nn.Module):
    """A stack of blocks over sequences (R, n, D), with register tokens appended to each sequence."""

    def __init__(
        self,
        config: ViViTConfig,
        depth: int,
        registers: int,
        rotary: Rotary | None,
        causal: bool = False,
        window: int | None = None,
    ):
        super().__init__()
        self.registers = registers
        self.blocks = nn.ModuleList(Block(config, rotary, causal, window, rate) for rate in drop_rates(config, depth))

    def forward(self, x: torch.Tensor, registers: torch.Tensor | None) -> torch.Tensor:
        n = x.shape[1]
        if self.registers:
            x = torch.cat([x, registers.expand(len(x), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, :n]

    def at(self, x: torch.Tensor, registers: torch.Tensor | None, places: torch.Tensor) -> torch.Tensor:
        """`forward` for some positions only, (R, places, D): of the last block no others are computed."""
        if self.registers:
            x = torch.cat([x, registers.expand(len(x), -1, -1)], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.blocks[-1].at(x, places) if len(self.blocks) else x[:, places]

    def step(self, x: torch.Tensor, memories: Sequence[BlockMemory], answer: bool = True) -> torch.Tensor | None:
        """The next position (R, 1, D) of causal sequences, given what each block remembers.

        Without `answer` it is only taken in, for which the last block need not attend.
        """
        last = len(self.blocks) - 1
        for i, (block, memory) in enumerate(zip(self.blocks, memories, strict=True)):
            if i == last and not answer:
                return block.remember(x, memory)
            x = block(x, memory)
        return x

    def learn(self, x: torch.Tensor) -> list[Past]:
        """What each block must remember of sequences (L, n, D) to go on after them."""
        pasts = []
        for block in self.blocks:
            pasts.append(block.learn(x))
            x = block(x) if len(pasts) < len(self.blocks) else x
        return pasts

    def after(self, x: torch.Tensor, pasts: Sequence[Past]) -> torch.Tensor:
        """What follows (L K, n, D) in K causal sequences at each of L locations, all of which begin alike."""
        for block, past in zip(self.blocks, pasts, strict=True):
            x = block.after(x, past)
        return x


def chunked(
    stack, x: torch.Tensor, registers, chunk: int, grad_checkpointing: bool, *beside: torch.Tensor
) -> torch.Tensor:
    """Run a stack on `chunk` sequences at a time; with checkpointing only the input of each chunk is kept.

    registers: whatever the stack needs for all sequences alike. beside: more tensors with a row for each sequence.

    Results are written where they belong at once: many that wait to be joined would keep the memory between them from
    being used again.
    """
    size = max(min(chunk, len(x)), 1)
    parts = list(zip(*(rows.split(size) for rows in (x, *beside)), strict=True))
    if len(parts) == 1 or (torch.is_grad_enabled() and not grad_checkpointing):
        if torch.is_grad_enabled() and grad_checkpointing:
            return checkpoint(stack, x, registers, *beside, use_reentrant=False)
        results = [stack(part, registers, *rows) for part, *rows in parts]
        return results[0] if len(results) == 1 else torch.cat(results)
    out = torch.empty_like(x)
    places = out.split(size)
    if not torch.is_grad_enabled():
        for (part, *rows), place in zip(parts, places, strict=True):
            place.copy_(stack(part, registers, *rows))
        return out
    placed = []

    def run(number: int, part: torch.Tensor, *rows: torch.Tensor) -> torch.Tensor:
        first = number == len(placed)  # not when it is computed again
        placed.extend([number] * first)
        return _Placed.apply(stack(part, registers, *rows), places[number] if first else None)

    return _Joined.apply(out, *(checkpoint(run, i, *part, use_reentrant=False) for i, part in enumerate(parts)))


class _Placed(torch.autograd.Function):
    """Copy to a place in a larger tensor. What is returned stands for the copy; it has its shape but no memory."""

    @staticmethod
    def forward(ctx, x, place):
        if place is not None:
            place.copy_(x)
        return x.new_empty(()).expand_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class _Joined(torch.autograd.Function):
    """The larger tensor, once all its places are filled."""

    @staticmethod
    def forward(ctx, whole, *placed):
        ctx.sizes = [len(part) for part in placed]
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx, grad):
        return None, *grad.split(ctx.sizes)


class ViViT(nn.Module):
    """Factorised encoder (Arnab et al. 2021, model 2): space within each frame, then time at each location."""

    def __init__(self, config: ViViTConfig, frames: int, grid: tuple[int, int]):
        super().__init__()
        self.config = config
        r, D, d, code = config.reg_tokens, config.emb_dim, config.head_dim, config.pos_encoding
        if r:
            self.reg_s_tokens = nn.Parameter(torch.randn(r, D))
            self.reg_t_tokens = nn.Parameter(torch.randn(r, D))
        causal = config.use_causal_attention
        # Registers at the end of a causal sequence are invisible to every frame: keep the parameters, skip the work.
        registers = 0 if causal else r
        self.window = frames if causal and code in TIMELESS else None
        space = time = None
        if code == "rotary":
            space = PublishedRotary(d, grid[0] * grid[1], r)
        elif code == "relative":
            if d < 4:
                raise UserError(f"--core_head_dim {d}: positions in two dimensions need at least 4.")
            space = RelativeRotary(d, r, width=grid[1])
        if code in PUBLISHED_ROTARY:
            time = PublishedRotary(d, frames, registers)
        elif code in RELATIVE:
            time = RelativeRotary(d, registers)
        self.spatial_transformer = Transformer(config, config.spatial_depth, r, space)
        self.temporal_transformer = Transformer(config, config.temporal_depth, registers, time, causal, self.window)
        self.spatial_stack, self.temporal_stack = self.spatial_transformer.forward, self.temporal_transformer.forward

    def forward(self, x: torch.Tensor, chunk_tokens: int, grad_checkpointing: bool) -> torch.Tensor:
        """Tokens (B, T, P, D) -> (B, T, P, D)."""
        return self.time(self.space(x, chunk_tokens, grad_checkpointing), chunk_tokens, grad_checkpointing)

    def space(self, x: torch.Tensor, chunk_tokens: int, grad_checkpointing: bool) -> torch.Tensor:
        """The spatial transformer on every frame."""
        B, T, P, _ = x.shape
        registers = self.reg_s_tokens if self.config.reg_tokens else None
        chunk = max(chunk_tokens // P, 1) if chunk_tokens else B * T
        return chunked(self.spatial_stack, x.flatten(0, 1), registers, chunk, grad_checkpointing).view(x.shape)

    def space_at(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The spatial transformer on frames (R, P, D), in evaluation, for some places: (R, places, D)."""
        return self.spatial_transformer.at(x, self.reg_s_tokens if self.config.reg_tokens else None, places)

    def time(self, x: torch.Tensor, chunk_tokens: int, grad_checkpointing: bool) -> torch.Tensor:
        """The temporal transformer at every location."""
        B, T, P, D = x.shape
        registers = self.reg_t_tokens if self.config.reg_tokens else None
        chunk = max(chunk_tokens // T, 1) if chunk_tokens else B * P
        x = x.transpose(1, 2).reshape(B * P, T, D)
        x = chunked(self.temporal_stack, x, registers, chunk, grad_checkpointing)
        return x.view(B, P, T, D).transpose(1, 2)

    def compile(self) -> None:
        """Compile both stacks; every chunk but the last has the same shape."""
        self.spatial_stack = torch.compile(self.spatial_transformer.forward)
        self.temporal_stack = torch.compile(self.temporal_transformer.forward)


def autocast(device: torch.device, dtype: torch.dtype | None):
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
