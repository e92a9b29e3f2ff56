"""Cores: video and behaviour of any mouse -> shared feature maps."""

import torch
from torch import nn

from viv1t.model.config import ModelConfig
from viv1t.model.layers import ACTIVATIONS
from viv1t.model.tokenizer import Tokenizer
from viv1t.model.transformer import ViViT, autocast

CPU_CHUNK_TOKENS = 6000  # a chunk's activations stay in a core's caches
GPU_CHECKPOINT_TOKENS = 1 << 18  # with checkpointing, a chunk's activations are the peak


class ViViTCore(nn.Module):
    """Tokeniser and factorised transformer; output (B, T', h, w, D) float32, channels last.

    grad_checkpointing: recompute activations in the backward pass; autocast_dtype: bfloat16 or None.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config.core_config
        self.tokenizer = Tokenizer(self.config, config.max_frame)
        self.grid, self.dim, self.max_frame = self.tokenizer.grid, self.config.emb_dim, config.max_frame
        self.vivit = ViViT(self.config, self.tokenizer.max_tokens, self.grid[0] * self.grid[1])
        self.activation = ACTIVATIONS[self.config.activation]()
        self.grad_checkpointing = False
        self.autocast_dtype: torch.dtype | None = None

    @property
    def any_length(self) -> bool:
        """Whether trials longer than `max_frame` can be shown; learned and absolute position codes end there."""
        return self.config.pos_encoding == "none"

    def forward(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        device = video.device
        with autocast(device, self.autocast_dtype):
            x = self.tokenizer(video, behavior, pupil_center)  # (B, T', P, D)
            chunk = CPU_CHUNK_TOKENS if device.type == "cpu" else GPU_CHECKPOINT_TOKENS * self.grad_checkpointing
            x = self.vivit(x, chunk, self.grad_checkpointing)
        return self.activation(x).float().unflatten(2, self.grid)

    def compile(self) -> None:
        self.vivit.compile()

    def output_frames(self, frames: int) -> int:
        return self.tokenizer.num_tokens(frames)

    def flops(self, frames: int) -> float:
        """Floating point operations of one forward pass of one trial."""
        c, T, P = self.config, self.output_frames(frames), self.grid[0] * self.grid[1]
        hidden = c.ff_dim * (2 if c.ff_activation == "swiglu" else 1)
        inner = c.num_heads * c.head_dim
        weights = c.emb_dim * (3 * inner + hidden) + inner * c.emb_dim + c.ff_dim * c.emb_dim
        n_space, n_time = P + c.reg_tokens, T + (0 if c.use_causal_attention else c.reg_tokens)
        causal = 0.5 if c.use_causal_attention else 1.0
        space = T * c.spatial_depth * (2 * n_space * weights + 4 * n_space**2 * inner)
        time = P * c.temporal_depth * (2 * n_time * weights + 4 * n_time**2 * inner * causal)
        tokens = 2 * T * P * c.emb_dim * c.temporal_patch_size * c.spatial_patch_size**2
        return float(space + time + tokens)

    def activation_bytes(self, frames: int) -> float:
        """Memory that one trial's training step holds in the core, roughly: what backward needs, float32 or half."""
        c, T, P = self.config, self.output_frames(frames), self.grid[0] * self.grid[1]
        hidden = c.ff_dim * (2 if c.ff_activation == "swiglu" else 1)
        size = 2 if self.autocast_dtype is not None else 4
        per_token = size * (5 * c.num_heads * c.head_dim + 3 * hidden + c.emb_dim) + 4 * 3 * c.emb_dim
        tokens, kept = T * (P + c.reg_tokens), 4 * 6 * c.emb_dim
        depth = c.spatial_depth + c.temporal_depth
        if self.grad_checkpointing:
            return float(tokens * kept + CPU_CHUNK_TOKENS * per_token * max(c.spatial_depth, c.temporal_depth))
        return float(tokens * (kept + depth * per_token * (1 - c.drop_path / 2)))


CORES = {"vivit": ViViTCore}
