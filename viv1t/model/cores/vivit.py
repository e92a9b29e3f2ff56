"""The factorised video transformer as a core, of whole trials or frame by frame."""

import torch
from torch.utils.checkpoint import checkpoint

from viv1t.errors import UserError
from viv1t.model.cores.core import Core
from viv1t.model.layers import ACTIVATIONS
from viv1t.model.memory import BlockMemory
from viv1t.model.options import ViViTConfig
from viv1t.model.positions import TIME_TABLES, open_windows, window_hop, windows
from viv1t.model.prelude import Prelude
from viv1t.model.tokenizer import Tokenizer
from viv1t.model.transformer import ViViT, autocast

CPU_CHUNK_TOKENS = 6000  # a chunk's activations stay in a core's caches
GPU_CHECKPOINT_TOKENS = 1 << 18  # with checkpointing, a chunk's activations are the peak


def chunk_tokens(device: torch.device, grad_checkpointing: bool) -> int:
    """Tokens that a stack computes at a time; 0: all."""
    if device.type == "cpu":
        return CPU_CHUNK_TOKENS
    return GPU_CHECKPOINT_TOKENS if grad_checkpointing else 0


class ViViTCore(Core):
    """Tokeniser and factorised transformer; output (B, T', h, w, D) float32, channels last.

    What a frame's output depends on, in trials of any length (L is the number of tokens of `max_frame` frames):
    - codes without absolute time (none, learned_relative, relative) under causal attention: each temporal block sees
      the last L tokens, the frame's own included, so that memory reaches back `temporal_depth` times as far;
    - all other cases: frames beyond the first L are computed in windows of L tokens that start every half window
      (`positions.windows`), with the positions of the window. Such a frame sees the half to whole window before it,
      and without causal attention also what follows in its window. Patches always hold the true preceding frames.
    """

    def __init__(self, config: ViViTConfig, max_frame: int):
        super().__init__(config, max_frame)
        self.tokenizer = Tokenizer(config, max_frame)
        self.grid, self.dim, self.causal = self.tokenizer.grid, config.emb_dim, config.use_causal_attention
        self.vivit = ViViT(config, self.tokenizer.max_tokens, self.grid)
        self.activation = ACTIVATIONS[config.activation]()

    def forward(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        device = video.device
        chunk = chunk_tokens(device, self.grad_checkpointing)
        with autocast(device, self.autocast_dtype):
            x = self.embed(video, behavior, pupil_center)  # (B, T', P, D)
            if x.shape[1] <= self.tokenizer.max_tokens or self.vivit.window is not None:
                x = self.vivit(self.tokenizer.add_positions(x), chunk, self.grad_checkpointing)
            elif self.training:
                raise ValueError(f"clips of {video.shape[2]} frames: this core learns from {self.max_frame} at most")
            else:
                x = self.in_windows(x, chunk)
        return self.activation(x).float().unflatten(2, self.grid)

    def first_maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """What goes into the blocks, as feature maps (B, T', h, w, D): nearly the output of a core not yet trained."""
        with autocast(video.device, self.autocast_dtype):
            x = self.tokenizer(video, behavior, pupil_center)
        return self.activation(x).float().unflatten(2, self.grid)

    def embed(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Tokens without position codes; cheap to compute again, but wide."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(self.tokenizer.embed, *inputs, self.tokenizer.front, use_reentrant=False)
        return self.tokenizer.embed(*inputs, self.tokenizer.front)

    def in_windows(self, x: torch.Tensor, chunk: int) -> torch.Tensor:
        """Tokens (B, T', P, D) without position codes, more than the codes reach -> (B, T', P, D)."""
        add_positions, (space, time) = self.tokenizer.add_positions, (self.vivit.space, self.vivit.time)
        options = (chunk, self.grad_checkpointing)
        same_in_every_window = self.config.pos_encoding not in TIME_TABLES
        if same_in_every_window:
            x = space(add_positions(x), *options)
        parts, done = [], 0
        for start, stop in windows(x.shape[1], self.tokenizer.max_tokens):
            part = x[:, start:stop]
            if not same_in_every_window:
                part = space(add_positions(part), *options)
            parts.append(time(part, *options)[:, done - start :])
            done = stop
        return torch.cat(parts, dim=1)

    @staticmethod
    def chunk_tokens(device: torch.device) -> int:
        """Tokens that a stack computes at a time, where it computes them in chunks."""
        return chunk_tokens(device, True)

    def shares(self, frames: int) -> bool:
        """Whether patterns in trials of so many frames can share a prelude: causal, and no longer than the codes."""
        fits = frames <= self.max_frame and self.config.temporal_patch_stride == 1
        return self.config.use_causal_attention and fits

    def prelude(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> Prelude:
        """For showing many patterns after the same frames (1, 1, L, H, W), (1, 2, L), (1, 2, L)."""
        return Prelude(self, video, behavior, pupil_center)

    def memory(self, batch: int) -> "CoreMemory":
        """For showing `batch` videos frame by frame."""
        return CoreMemory(self, batch)

    def compile(self) -> None:
        self.vivit.compile()

    def output_frames(self, frames: int) -> int:
        return self.tokenizer.num_tokens(frames)

    @property
    def survival(self) -> float:
        return 1 - self.config.drop_path * (0.5 if self.config.drop_path_schedule == "linear" else 1.0)

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
        return float(tokens * (kept + depth * per_token * (1 + self.survival) / 2))


class CoreMemory:
    """A causal ViViTCore shown `batch` videos frame by frame, with what it must remember for that.

    `step` returns what the core returns for the same frame of the whole trial, however long. Kept are the inputs of
    one temporal patch, and keys and values of `max_frame` tokens for every temporal block; twice as many where long
    trials are shown in windows, since the next window begins while the present one still answers. All memory is
    reserved at once, in the core's precision. Weights are those of the moment it is made.
    """

    def __init__(self, core: ViViTCore, batch: int):
        c, tokenizer = core.config, core.tokenizer
        if not c.use_causal_attention:
            raise UserError(
                "this twin's responses depend on later frames, so it cannot answer frame by frame. "
                "Train one with --core_use_causal_attention."
            )
        if c.temporal_patch_stride != 1:
            raise UserError("--core_temporal_patch_stride above 1 leaves frames without response.")
        self.core, self.batch, self.device = core, batch, next(core.parameters()).device
        self.longest, self.slides = tokenizer.max_tokens, core.vivit.window is not None
        with torch.inference_mode():
            self.kernels = tokenizer.tokenizer.kernels()
        rows = batch * core.grid[0] * core.grid[1]
        shape, dtype = (rows, c.num_heads, self.longest, c.head_dim), core.autocast_dtype or torch.float32
        self.lanes = [
            [BlockMemory(shape, dtype, self.device) for _ in range(c.temporal_depth)]
            for _ in range(1 if self.slides else 2)
        ]
        self.reset()

    def reset(self) -> None:
        """Back to before the first frame."""
        patch, frame_size = self.core.config.temporal_patch_size, self.core.frame_size
        shapes = ((self.batch, 1, patch, *frame_size), (self.batch, 2, patch), (self.batch, 2, patch))
        self.recent = [torch.zeros(shape, device=self.device) for shape in shapes]  # video, behaviour, pupil centre
        self.token = self.core.tokenizer.front - (patch - 1)  # of the next frame; below 0 there is none yet
        self.forget(*self.lanes)

    @staticmethod
    def forget(*lanes: list[BlockMemory]) -> None:
        for memory in (memory for lane in lanes for memory in lane):
            memory.seen = 0

    @torch.inference_mode()
    def step(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor | None:
        """One frame (B, 1, 1, H, W), (B, 2, 1), (B, 2, 1) -> (B, 1, h, w, D), or None while no patch is complete."""
        for i, x in enumerate((video, behavior, pupil_center)):
            self.recent[i] = torch.cat([self.recent[i][:, :, 1:], x], dim=2)
        token, self.token = self.token, self.token + 1
        if token < 0:
            return None
        core, opened = self.core, [0] if self.slides else open_windows(token, self.longest)
        positions = [token - window * window_hop(self.longest) for window in opened]
        with autocast(self.device, core.autocast_dtype):
            x = core.tokenizer.embed(*self.recent, 0, self.kernels)  # (B, 1, P, D)
            if core.config.pos_encoding in TIME_TABLES:
                x = torch.cat([core.tokenizer.add_positions(x, position) for position in positions])
            else:
                x = core.tokenizer.add_positions(x)
            parts = core.vivit.space(x, 0, False).flatten(0, 1).split(self.batch)  # (B, P, D) of every window, or one
            outputs = []
            for i, (window, position) in enumerate(zip(opened, positions, strict=True)):
                lane = self.lanes[window % len(self.lanes)]
                if position == 0:
                    self.forget(lane)
                part = parts[i % len(parts)].reshape(-1, 1, x.shape[-1])
                outputs.append(core.vivit.temporal_transformer.step(part, lane, answer=i == 0))
        return core.activation(outputs[0]).float().view(self.batch, 1, *core.grid, -1)

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.recent) + sum(memory.nbytes for lane in self.lanes for memory in lane)
