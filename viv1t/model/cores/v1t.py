"""The static vision transformer of V1T (Li et al. 2023), on every frame of a video by itself."""

import torch
from torch import nn
from torch.nn import functional as F

from viv1t.errors import UserError
from viv1t.model.attention import attention, fused_attention, plain_attention, rotated_heads, suits_fused_attention
from viv1t.model.cores.core import CHANNELS, Core, as_channels
from viv1t.model.cores.vivit import chunk_tokens
from viv1t.model.layers import Dropout
from viv1t.model.options import V1TConfig
from viv1t.model.transformer import chunked, row_mask

EMBEDDED = {"behavior_mlp": 2, "behavior_pupil_mlp": 4}  # traces that are added to the tokens of every block


class V1TCore(Core):
    """Patches, a class token, learned positions, and blocks of attention and feed-forward; (B, T, h, w, D).

    An output frame depends on the input frame, behaviour and gaze of the same time alone. The grid is that of the
    patches: (H - patch) // stride + 1 rows, columns likewise.
    """

    def __init__(self, config: V1TConfig, max_frame: int):
        super().__init__(config, max_frame)
        size, stride, D, bias = config.patch_size, config.patch_stride, config.emb_dim, not config.disable_bias
        if size > min(self.frame_size):
            raise UserError(
                f"--core_patch_size {size} is larger than the frame of {' x '.join(map(str, self.frame_size))} pixels."
            )
        self.grid, self.dim = tuple((length - size) // stride + 1 for length in self.frame_size), D
        self.traces = EMBEDDED.get(config.behavior_mode, 0)
        self.channels = "none" if self.traces else config.behavior_mode
        self.patches = nn.Conv2d(CHANNELS[self.channels], D, size, stride, bias=bias)
        self.cls_token = nn.Parameter(torch.randn(1, 1, D))
        self.positions = nn.Parameter(torch.randn(1, self.grid[0] * self.grid[1] + 1, D))  # the class token's is last
        self.dropout = Dropout(config.p_dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        if self.traces:
            self.behavior = nn.ModuleList(behavior_network(self.traces, D, bias) for _ in range(config.num_blocks))
        self.stack = self.in_blocks

    def maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        x = self.embed(video, behavior, pupil_center)  # (B T, P + 1, D)
        traces = torch.cat([behavior, pupil_center], dim=1)[:, : self.traces].transpose(1, 2).flatten(0, 1)
        tokens = chunk_tokens(x.device, self.grad_checkpointing)
        chunk = max(tokens // x.shape[1], 1) if tokens else len(x)
        x = chunked(self.stack, x, None, chunk, self.grad_checkpointing, traces)
        return x[:, :-1].reshape(len(video), -1, *self.grid, self.dim)

    def first_maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """What goes into the blocks, as feature maps (B, T, h, w, D)."""
        x = self.embed(video, behavior, pupil_center)
        return x[:, :-1].reshape(len(video), -1, *self.grid, self.dim).float()

    def embed(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Tokens of every frame with their positions, the class token last: (B T, P + 1, D) float32."""
        frames = as_channels(self.channels, *inputs).transpose(1, 2).flatten(0, 1)  # (B T, C, H, W)
        x = self.patches(frames).float().flatten(2).transpose(1, 2)
        return self.dropout(torch.cat([x, self.cls_token.expand(len(x), -1, -1)], dim=1) + self.positions)

    def in_blocks(self, x: torch.Tensor, _, traces: torch.Tensor) -> torch.Tensor:
        """Tokens (R, P + 1, D) of frames with traces (R, 2 or 4)."""
        for number, block in enumerate(self.blocks):
            if self.traces:
                x = x + self.behavior[number](traces)[:, None]
            x = block(x)
        return x

    def compile(self) -> None:
        self.stack = torch.compile(self.in_blocks)

    def activation_bytes(self, frames: int) -> float:
        c, size = self.config, 2 if self.autocast_dtype is not None else 4
        per_block = size * (4 * c.num_heads * c.emb_dim + 3 * c.mlp_dim + 2 * c.emb_dim) + 4 * 3 * c.emb_dim
        tokens, chunk = frames * self.positions.shape[1], chunk_tokens(self.positions.device, True)
        kept = min(chunk, tokens) if self.grad_checkpointing else tokens
        return float(kept * c.num_blocks * per_block + tokens * 4 * 3 * c.emb_dim)


class Block(nn.Module):
    """x + attention(norm(x)), then the same of a feed-forward layer; heads are as wide as a token."""

    causal = False

    def __init__(self, config: V1TConfig):
        super().__init__()
        D, self.heads, self.head_dim, bias = config.emb_dim, config.num_heads, config.emb_dim, not config.disable_bias
        inner, self.config = self.heads * self.head_dim, config
        self.norm, self.ff_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        self.projections = nn.Linear(D, 3 * inner, bias=False)
        self.attn_out, self.dropout = nn.Linear(inner, D, bias=bias), Dropout(config.t_dropout)
        self.ff_in, self.ff_out = nn.Linear(D, config.mlp_dim, bias=bias), nn.Linear(config.mlp_dim, D, bias=bias)

    def turns(self, u: torch.Tensor, start: int) -> None:
        """Positions are not rotated."""

    def attention(self, u: torch.Tensor) -> torch.Tensor:
        qkv = self.projections(u)
        if self.config.flash_attention and suits_fused_attention(qkv):
            y = fused_attention(qkv, None, self.heads, False)
        else:
            attend = attention if self.config.flash_attention else plain_attention
            y = attend(*rotated_heads(qkv, None, self.heads), False).transpose(1, 2).flatten(2)
        return self.dropout(self.attn_out(y))

    def feed_forward(self, u: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.dropout.into(self.ff_out, F.gelu(self.ff_in(u))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(R, n, D) -> (R, n, D)."""
        x = x + self.kept(x) * self.attention(self.norm(x))
        return x + self.kept(x) * self.feed_forward(self.ff_norm(x))

    def kept(self, x: torch.Tensor) -> torch.Tensor | float:
        """Stochastic depth: which frames take a branch, scaled to its expectation."""
        p = self.config.drop_path if self.training else 0.0
        return row_mask(len(x), p, x) if p else 1.0


def behavior_network(traces: int, dim: int, bias: bool) -> nn.Sequential:
    """What behaviour and gaze (R, traces) add to all tokens of a frame, (R, D)."""
    return nn.Sequential(
        nn.Linear(traces, dim // 2, bias=bias), nn.Tanh(), nn.Linear(dim // 2, dim, bias=bias), nn.Tanh()
    )
