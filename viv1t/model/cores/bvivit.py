"""The factorised video transformer whose tokens read behaviour by cross-attention."""

import dataclasses
from functools import partial

import torch
from torch import nn

from viv1t.errors import UserError
from viv1t.model.attention import as_complex, attention, plain_attention
from viv1t.model.cores.vivit import CoreMemory, ViViTCore, chunk_tokens
from viv1t.model.layers import Dropout
from viv1t.model.options import BViViTConfig, ViViTConfig
from viv1t.model.positions import Rotary, windows
from viv1t.model.tokenizer import BEHAVIOR_HIDDEN
from viv1t.model.transformer import Transformer, autocast, chunked, row_mask

TRACES = {"behavior_cross": 2, "behavior_pupil_cross": 4}


class BViViTCore(ViViTCore):
    """Tokens of the video alone, which attend to tokens of behaviour before every block; (B, T', h, w, D).

    The published implementation has flags of this core but no code: the design is ours. Each trace of a frame is a
    token, its value embedded by a small network. Before a spatial block, the patches of a frame attend to the traces
    of that frame. Before a temporal block, the tokens of a place attend to one token for each frame, the mean of its
    traces, in the order of time: to all frames, or with causal attention up to their own. Frames beyond the first
    `max_frame` are computed in windows, as by ViViTCore. Modes none, behavior and behavior_pupil are that very core.
    """

    def __init__(self, config: BViViTConfig, max_frame: int):
        super().__init__(as_vivit(config), max_frame)
        self.num_traces = TRACES.get(config.behavior_mode, 0)
        if not self.num_traces:
            return
        vivit, causal = self.vivit, config.use_causal_attention
        time = vivit.temporal_transformer.blocks[0].rotary_position_embedding if config.temporal_depth else None
        self.traces = TraceTokens(self.num_traces, self.dim)
        space_reads = nn.ModuleList(CrossAttention(self.config) for _ in range(config.spatial_depth))
        time_reads = nn.ModuleList(CrossAttention(self.config, time, causal) for _ in range(config.temporal_depth))
        self.reads = nn.ModuleDict({"space": space_reads, "time": time_reads})
        self.space_stack, self.time_stack = self.blocks_in_space, self.blocks_in_time

    def forward(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        if not self.num_traces:
            return super().forward(video, behavior, pupil_center)
        parts, done, longest = [], 0, self.tokenizer.max_tokens
        with autocast(video.device, self.autocast_dtype):
            x = self.embed(video, behavior, pupil_center)  # (B, T', P, D)
            if self.training and x.shape[1] > longest:
                raise ValueError(f"clips of {video.shape[2]} frames: this core learns from {self.max_frame} at most")
            traces = self.traces(self.last_of_patches(behavior, pupil_center, x.shape[1]))  # (B, T', traces, D)
            for start, stop in windows(x.shape[1], longest):
                part, of_part = self.tokenizer.add_positions(x[:, start:stop]), traces[:, start:stop]
                part = self.in_time(self.in_space(part, of_part), of_part)
                parts.append(part[:, done - start :])
                done = stop
            return self.activation(torch.cat(parts, dim=1)).float().unflatten(2, self.grid)

    def last_of_patches(self, behavior: torch.Tensor, pupil_center: torch.Tensor, tokens: int) -> torch.Tensor:
        """The traces (B, T', traces) in the last frame of every patch."""
        traces = torch.cat([behavior, pupil_center], dim=1)[:, : self.num_traces].transpose(1, 2)
        first = self.config.temporal_patch_size - 1 - self.tokenizer.front
        return traces[:, first :: self.config.temporal_patch_stride][:, :tokens]

    def in_space(self, x: torch.Tensor, traces: torch.Tensor) -> torch.Tensor:
        """The spatial blocks on every frame (B, T', P, D), with its traces (B, T', traces, D)."""
        B, T, P, _ = x.shape
        chunk = self.sequences(x.device, P) or B * T
        registers = self.vivit.reg_s_tokens if self.config.reg_tokens else None
        x = x.flatten(0, 1), registers, chunk, self.grad_checkpointing, traces.flatten(0, 1)
        return chunked(self.space_stack, *x).unflatten(0, (B, T))

    def in_time(self, x: torch.Tensor, traces: torch.Tensor) -> torch.Tensor:
        """The temporal blocks at every place of (B, T', P, D), clip by clip: its places have the same traces."""
        T, P = x.shape[1:3]
        chunk = self.sequences(x.device, T) or P
        registers = self.vivit.reg_t_tokens if self.config.reg_tokens else None
        traces = traces.mean(dim=2)
        if hasattr(self.tokenizer, "temporal_pos_embedding"):
            traces = traces + self.tokenizer.temporal_pos_embedding[:, :T, 0]
        clips = []
        for places, of_clip in zip(x.transpose(2, 1), traces, strict=True):  # (P, T', D), (T', D)
            stack = partial(self.time_stack, traces=of_clip[None])
            clips.append(chunked(stack, places.contiguous(), registers, chunk, self.grad_checkpointing))
        return torch.stack(clips).transpose(1, 2)

    def blocks_in_space(self, x: torch.Tensor, registers: torch.Tensor | None, traces: torch.Tensor) -> torch.Tensor:
        return read_and_attend(self.reads["space"], self.vivit.spatial_transformer, x, registers, traces)

    def blocks_in_time(self, x: torch.Tensor, registers: torch.Tensor | None, traces: torch.Tensor) -> torch.Tensor:
        return read_and_attend(self.reads["time"], self.vivit.temporal_transformer, x, registers, traces)

    def sequences(self, device: torch.device, length: int) -> int:
        """How many of `length` tokens a stack computes at a time; 0: all."""
        tokens = chunk_tokens(device, self.grad_checkpointing)
        return max(tokens // length, 1) if tokens else 0

    @property
    def sees_behavior(self) -> bool:
        return bool(self.num_traces) or super().sees_behavior

    def shares(self, frames: int) -> bool:
        return not self.num_traces and super().shares(frames)

    def memory(self, batch: int) -> CoreMemory:
        if self.num_traces:
            raise UserError(
                "this twin's core reads behaviour by cross-attention, which answers whole clips only. For a stream, "
                "train one with --core vivit --core_use_causal_attention."
            )
        return super().memory(batch)

    def compile(self) -> None:
        super().compile()
        if self.num_traces:
            self.space_stack, self.time_stack = (torch.compile(x) for x in (self.space_stack, self.time_stack))

    def flops(self, frames: int) -> float:
        c, T, P = self.config, self.output_frames(frames), self.grid[0] * self.grid[1]
        inner, seen = c.num_heads * c.head_dim, T * (0.5 if c.use_causal_attention else 1.0)
        weights = 4 * (c.spatial_depth + c.temporal_depth) * c.emb_dim * inner
        keys = 4 * inner * (c.spatial_depth * self.num_traces + c.temporal_depth * seen)
        return super().flops(frames) + (T * P * (weights + keys) if self.num_traces else 0.0)

    def activation_bytes(self, frames: int) -> float:
        c, whole = self.config, super().activation_bytes(frames)
        if self.grad_checkpointing or not self.num_traces:
            return whole
        size, inner = 2 if self.autocast_dtype is not None else 4, c.num_heads * c.head_dim
        per_read = size * (3 * inner + 2 * c.emb_dim) + 4 * c.emb_dim
        tokens = self.output_frames(frames) * self.grid[0] * self.grid[1]
        return whole + tokens * (c.spatial_depth + c.temporal_depth) * per_read


class TraceTokens(nn.Module):
    """Values (..., traces) -> tokens (..., traces, D), each trace by its own hidden units."""

    def __init__(self, traces: int, dim: int):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(traces, BEHAVIOR_HIDDEN)) for _ in range(2))
        self.out = nn.Linear(BEHAVIOR_HIDDEN, dim)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(values[..., None] * self.weight + self.bias))


class CrossAttention(nn.Module):
    """x + drop_path(attention of norm(x) to the tokens of traces), multi-headed, as in the blocks beside it.

    rotary: turns queries and keys by their time. causal: the i-th token sees the first i tokens of the traces.
    """

    def __init__(self, config: ViViTConfig, rotary: Rotary | None = None, causal: bool = False):
        super().__init__()
        D, inner, self.heads = config.emb_dim, config.num_heads * config.head_dim, config.num_heads
        self.drop_path, self.rotary, self.causal = config.drop_path, rotary, causal
        self.attend = attention if config.flash_attention else plain_attention
        self.norm, self.dropout = nn.LayerNorm(D), Dropout(config.mha_dropout)
        self.queries = nn.Linear(D, inner, bias=False)
        self.keys, self.values = (nn.Linear(D, inner, bias=False) for _ in range(2))
        self.norm_q, self.norm_k = (nn.LayerNorm(inner) if config.norm_qk else nn.Identity() for _ in range(2))
        self.out = nn.Linear(inner, D, bias=False)
        for linear in (self.queries, self.keys, self.values, self.out):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def forward(self, x: torch.Tensor, traces: torch.Tensor) -> torch.Tensor:
        """Sequences (R, n, D), which read traces (R or 1, m, D) -> (R, n, D)."""
        q, k = self.norm_q(self.queries(self.norm(x))), self.norm_k(self.keys(traces))
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in (q, k, self.values(traces)))
        if self.rotary is not None:
            table = self.rotary.table(0, traces.shape[1], x.device)
            q, k = turned(q, table[: q.shape[1]]), turned(k, table[: k.shape[1]])
        q, k, v = (part.to(v.dtype).transpose(1, 2).expand(len(x), -1, -1, -1) for part in (q, k, v))
        y = self.dropout.into(self.out, self.attend(q, k, v, self.causal).transpose(1, 2).flatten(2))
        return x + (y * row_mask(len(x), self.drop_path, x) if self.training and self.drop_path else y)


def turned(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """(R, n, heads, d) with neighbouring channels, as complex numbers, times (n, 1, d/2); float32."""
    return torch.view_as_real(as_complex(x.float()) * table).flatten(-2)


def read_and_attend(
    reads: nn.ModuleList, transformer: Transformer, x: torch.Tensor, registers, traces: torch.Tensor
) -> torch.Tensor:
    """A stack on sequences (R, n, D), which read traces (R or 1, m, D) before each of its blocks."""
    n = x.shape[1]
    if transformer.registers:
        x = torch.cat([x, registers.expand(len(x), -1, -1)], dim=1)
    for read, block in zip(reads, transformer.blocks, strict=True):
        x = block(read(x, traces))
    return x[:, :n]


def as_vivit(config: BViViTConfig) -> ViViTConfig:
    """The video transformer without cross-attention."""
    shared = dataclasses.asdict(config)
    if config.behavior_mode in TRACES:
        shared["behavior_mode"] = "none"
    return ViViTConfig(**shared)
