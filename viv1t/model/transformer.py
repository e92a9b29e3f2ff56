"""Parallel transformer blocks on batches of sequences, in cache-sized chunks.

Sequences are independent (frames in the spatial stack, locations in the temporal one), so a stack runs on a chunk of
them from first to last block: activations stay in cache, and checkpointing a chunk stores its input only.
"""

from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from viv1t.model.attention import attention, plain_attention
from viv1t.model.config import ViViTConfig
from viv1t.model.layers import ACTIVATIONS, NORMS, Dropout, SwiGLU
from viv1t.model.positions import Rotary


class Block(nn.Module):
    """x + drop_path(attention(norm(x))) + drop_path(feed_forward(norm(x))), one fused input projection."""

    def __init__(self, config: ViViTConfig, length: int, extra: int, rotary: bool, causal: bool):
        super().__init__()
        D, self.heads, self.head_dim = config.emb_dim, config.num_heads, config.head_dim
        self.inner, self.causal, self.config = self.heads * self.head_dim, causal, config
        hidden = config.ff_dim * (2 if config.ff_activation == "swiglu" else 1)
        activation = SwiGLU() if config.ff_activation == "swiglu" else ACTIVATIONS[config.ff_activation]()
        self.norm = NORMS[config.norm](D)
        self.fused_linear = nn.Linear(D, 3 * self.inner + hidden, bias=False)  # rows: q, k, v, feed-forward
        if config.norm_qk:
            self.norm_q, self.norm_k = NORMS[config.norm](self.inner), NORMS[config.norm](self.inner)
        self.mha_dropout = Dropout(config.mha_dropout)
        self.attn_out = nn.Linear(self.inner, D, bias=False)
        self.ff_out = nn.Sequential(activation, Dropout(config.ff_dropout), nn.Linear(config.ff_dim, D, bias=False))
        self.rotary_position_embedding = Rotary(self.head_dim, length, extra) if rotary else None
        for linear in (self.fused_linear, self.attn_out, self.ff_out[2]):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def attention(self, u: torch.Tensor) -> torch.Tensor:
        """Normalised sequences (R, n, D) -> (R, n, D)."""
        R, n, _ = u.shape
        qkv = F.linear(u, self.fused_linear.weight[: 3 * self.inner])
        qk, v = qkv[..., : 2 * self.inner], qkv[..., 2 * self.inner :]
        if self.config.norm_qk:
            q, k = qk.chunk(2, dim=-1)
            qk = torch.cat([self.norm_q(q), self.norm_k(k)], dim=-1)
        qk = qk.reshape(R, n, 2 * self.heads, self.head_dim)
        if self.rotary_position_embedding is not None:
            qk = self.rotary_position_embedding(qk, n - self.rotary_position_embedding.extra)
        q, k = (x.transpose(1, 2) for x in qk.to(v.dtype).split(self.heads, dim=2))  # (R, heads, n, d)
        v = v.reshape(R, n, self.heads, self.head_dim).transpose(1, 2)
        y = (attention if self.config.flash_attention else plain_attention)(q, k, v, self.causal)
        y = y.transpose(1, 2).reshape(R, n, self.inner)
        return self.attn_out(self.mha_dropout(y))

    def feed_forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.ff_out(F.linear(u, self.fused_linear.weight[3 * self.inner :]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.config.drop_path if self.training else 0.0
        if p == 0 or torch.compiler.is_compiling():
            u = self.norm(x)
            keep = (row_mask(len(x), p, x) for _ in range(2)) if p else (1, 1)
            return x + sum(k * branch(u) for k, branch in zip(keep, (self.attention, self.feed_forward), strict=True))
        return self.surviving_rows(x, p)

    def surviving_rows(self, x: torch.Tensor, p: float) -> torch.Tensor:
        """Stochastic depth that computes only the sequences it keeps; the same distribution as masking them."""
        R, y = len(x), x
        for branch in (self.attention, self.feed_forward):
            if self.config.drop_path_mode == "fixed":
                rows = torch.randperm(R)[: max(round((1 - p) * R), 1)]
                scale = R / len(rows)
            else:
                rows, scale = (torch.rand(R) >= p).nonzero()[:, 0], 1 / (1 - p)
            if len(rows):
                rows = rows.to(x.device, non_blocking=True)
                update = branch(self.norm(x.index_select(0, rows)))
                y = y.index_add(0, rows, update.to(x.dtype), alpha=scale)
        return y


def row_mask(rows: int, p: float, like: torch.Tensor) -> torch.Tensor:
    """(rows, 1, 1): 0 with probability p, else 1 / (1 - p)."""
    return torch.rand(rows, 1, 1, device=like.device).ge(p).to(like.dtype) / (1 - p)


class Transformer(nn.Module):
    """A stack of blocks over sequences (R, n, D), with register tokens appended to each sequence."""

    def __init__(self, config: ViViTConfig, depth: int, length: int, registers: int, rotary: bool, causal: bool):
        super().__init__()
        self.registers = registers
        self.blocks = nn.ModuleList(Block(config, length, registers, rotary, causal) for _ in range(depth))

    def forward(self, x: torch.Tensor, registers: torch.Tensor | None) -> torch.Tensor:
        n = x.shape[1]
        if self.registers:
            x = torch.cat([x, registers.expand(len(x), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, :n]


def chunked(stack, x: torch.Tensor, registers, chunk: int, grad_checkpointing: bool) -> torch.Tensor:
    """Run a stack on `chunk` sequences at a time; with checkpointing only the input of each chunk is kept."""
    step = max(min(chunk, len(x)), 1)
    use_checkpoint = grad_checkpointing and torch.is_grad_enabled()
    parts = [
        checkpoint(stack, part, registers, use_reentrant=False) if use_checkpoint else stack(part, registers)
        for part in x.split(step)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class ViViT(nn.Module):
    """Factorised encoder (Arnab et al. 2021, model 2): space within each frame, then time at each location."""

    def __init__(self, config: ViViTConfig, frames: int, locations: int):
        super().__init__()
        self.config = config
        r, D, code = config.reg_tokens, config.emb_dim, config.pos_encoding
        if r:
            self.reg_s_tokens = nn.Parameter(torch.randn(r, D))
            self.reg_t_tokens = nn.Parameter(torch.randn(r, D))
        causal = config.use_causal_attention
        rotary_time = code in ("rotary", "learned_rotary", "sincos_rotary")
        self.spatial_transformer = Transformer(config, config.spatial_depth, locations, r, code == "rotary", False)
        # Registers at the end of a causal sequence are invisible to every frame: keep the parameters, skip the work.
        registers = 0 if causal else r
        self.temporal_transformer = Transformer(config, config.temporal_depth, frames, registers, rotary_time, causal)
        self.spatial_stack, self.temporal_stack = self.spatial_transformer.forward, self.temporal_transformer.forward

    def forward(self, x: torch.Tensor, chunk_tokens: int, grad_checkpointing: bool) -> torch.Tensor:
        """Tokens (B, T, P, D) -> (B, T, P, D)."""
        B, T, P, D = x.shape
        per_chunk = [max(chunk_tokens // n, 1) if chunk_tokens else B * T * P for n in (P, T)]
        registers = (self.reg_s_tokens, self.reg_t_tokens) if self.config.reg_tokens else (None, None)
        x = x.reshape(B * T, P, D)
        x = chunked(self.spatial_stack, x, registers[0], per_chunk[0], grad_checkpointing)
        x = x.view(B, T, P, D).transpose(1, 2).reshape(B * P, T, D)
        x = chunked(self.temporal_stack, x, registers[1], per_chunk[1], grad_checkpointing)
        return x.view(B, P, T, D).transpose(1, 2)

    def compile(self) -> None:
        """Compile both stacks; every chunk but the last has the same shape."""
        self.spatial_stack = torch.compile(self.spatial_transformer.forward)
        self.temporal_stack = torch.compile(self.temporal_transformer.forward)


def autocast(device: torch.device, dtype: torch.dtype | None):
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
