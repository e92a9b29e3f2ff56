"""Video and behaviour to tokens, without ever unfolding the patches.

A patch is C_in x frames x rows x columns; the published embedding normalises it (LayerNorm over all its elements)
and maps it linearly. Written as sums over a patch, that is a convolution with weights W * gamma (centred, which
removes the mean), divided by the patch's standard deviation, which box sums give. Behaviour channels are constant over
a frame, so their share is a temporal convolution whose kernel differs only at the zero-padded border. Same numbers;
the memory of the output, not K = C_in * frames * rows * columns values for each token.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from viv1t.constants import HEIGHT, WIDTH
from viv1t.errors import UserError
from viv1t.model.gabors import start_as_gabors
from viv1t.model.layers import NORMS, drop_tokens, full_precision, is_autocast
from viv1t.model.normalisation import COPIES, DivisiveNormalisation
from viv1t.model.options import ViViTConfig
from viv1t.model.positions import TIME_TABLES, sincos_2d, sinusoid

BEHAVIOR_CHANNELS = {"none": 0, "behavior": 2, "behavior_pupil": 4, "additive": 0}
BEHAVIOR_HIDDEN = 16
LINEAR = ("conv", "energy", "divisive")  # modes whose patches are not normalised before they are projected
PAIRED = {"energy": 3, "divisive": COPIES}  # modes whose filters come in quadrature pairs: channels for each pair
SHARED_FRAMES = 1.5  # so many windows for each frame, or more: it pays to project frames once for all windows


def padding(length: int, size: int, stride: int) -> int:
    """Zeros needed so that ceil(length / stride) patches fit."""
    return max((math.ceil(length / stride) - 1) * stride + size - length, 0)


class Kernels(NamedTuple):
    """Normalisation and projection of patches as convolutions; computed from the weights."""

    video: torch.Tensor  # (D, frames, rows, columns), channels last in memory
    traces: torch.Tensor  # (C_in - 1, frames, h w D): where a patch leaves the frame, it holds less of a trace
    constant: torch.Tensor  # (D,)


class Region(NamedTuple):
    """The patches, rows and columns of the grid, outside of which windows hold nothing new.

    elsewhere (P, D): their video convolved with the kernels, for the patches outside.
    """

    rows: slice
    columns: slice
    elsewhere: torch.Tensor


class PatchEmbedding(nn.Module):
    """Normalised linear patches; holds the parameters `norm` (K,) and `linear` (D, K), channel slowest, then frame."""

    def __init__(self, config: ViViTConfig, channels: int, height: int, width: int):
        super().__init__()
        self.size, self.stride = config.spatial_patch_size, config.spatial_patch_stride
        self.frames, self.frame_stride = config.temporal_patch_size, config.temporal_patch_stride
        self.channels, self.norm_name = channels, "none" if config.patch_mode in LINEAR else config.norm
        if self.size > min(height, width):
            raise UserError(
                f"--core_spatial_patch_size {self.size} is larger than the frame of {height} x {width} pixels."
            )
        rows = padding(height, self.size, self.stride) if config.pad_frame else 0
        columns = padding(width, self.size, self.stride) if config.pad_frame else 0
        self.pad = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)  # left, right, top, bottom
        self.frame_size = (height, width)
        self.grid = ((height + rows - self.size) // self.stride + 1, (width + columns - self.size) // self.stride + 1)
        elements = channels * self.frames * self.size**2
        if self.norm_name != "none":
            self.norm = NORMS[self.norm_name](elements)
        self.mode, copies = config.patch_mode, PAIRED.get(config.patch_mode, 2)
        if config.emb_dim % copies and self.mode in PAIRED:
            raise UserError(
                f"--core_emb_dim {config.emb_dim}: --core_patch_mode {self.mode} needs a width divisible by {copies}."
            )
        self.linear = nn.Linear(elements, config.emb_dim * 2 // copies)
        if self.mode == "divisive":
            self.division = DivisiveNormalisation(config.emb_dim // copies, self.grid)
        if config.patch_init == "gabor":
            start_as_gabors(self.linear, channels, self.frames, self.size)
            if self.mode == "divisive":  # contrast is not lost, so that no bias needs to tell it
                nn.init.zeros_(self.linear.bias)
        inside = torch.zeros(height + rows, width + columns)
        inside[self.pad[2] : self.pad[2] + height, self.pad[0] : self.pad[0] + width] = 1
        steps = [torch.arange(n)[:, None] * self.stride + torch.arange(self.size) for n in self.grid]
        # (h, rows of a patch) and (w, columns of a patch): 1 where the patch lies on the frame
        self.register_buffer("rows_inside", inside[:, self.pad[0]][steps[0]], persistent=False)
        self.register_buffer("columns_inside", inside[self.pad[2]][steps[1]], persistent=False)

    def forward(
        self,
        video: torch.Tensor,
        traces: torch.Tensor,
        front: int,
        kernels: Kernels | None = None,
        region: Region | None = None,
    ) -> torch.Tensor:
        """(B, 1, T, H, W), (B, C_in - 1, T), zero frames put in front -> (B, T', h * w, D).

        kernels: those of the present weights if they are at hand, as when every frame is a call. region: where the
        video must be looked at; all of it by default.
        """
        kernels = kernels or self.kernels()
        if self.norm_name == "dyt":  # acts on each element and keeps the padding's zero
            video, traces = torch.tanh(self.norm.alpha * video), torch.tanh(self.norm.alpha * traces)
        traces = F.pad(traces, (front, 0))
        if region is None:
            y = self.convolve_video(self.padded(video, front), kernels.video)  # (B, T', P, D)
        else:
            y = self.convolve_region(self.padded(video, front), kernels.video, region)
        if traces.shape[1]:
            y = y + self.convolve_traces(traces, kernels.traces).view_as(y)
        if self.norm_name in ("layernorm", "rmsnorm"):
            y = y * self.inverse_deviation(video, traces, front)
        return self.finish(y, kernels)

    def finish(self, y: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """Projected patches (..., P, D) with their constant, or what the modes with quadrature pairs make of them."""
        if self.mode == "divisive":
            return self.division(y + kernels.constant)
        if self.mode == "energy":  # Adelson & Bergen 1985
            energy = y.unflatten(-1, (-1, 2)).square().sum(-1).add(1e-4).sqrt()
            return torch.cat([energy, y + kernels.constant], dim=-1)
        return y + kernels.constant

    def project(self, frames: torch.Tensor, kernels: Kernels, region: Region | None = None) -> torch.Tensor:
        """Frames (V, H, W) projected once at every place of a window in time, (V frames of a patch, P D).

        Not for patches that are normalised as a whole. region: P are its patches.
        """
        rows, columns = (region.rows, region.columns) if region else (slice(None), slice(None))
        patches = self.padded(frames).unfold(1, self.size, self.stride).unfold(2, self.size, self.stride)
        patches = patches[:, rows, columns].flatten(1, 2).flatten(2)  # (V, P, rows columns)
        slices = kernels.video.flatten(2).permute(2, 1, 0)  # (rows columns, frames, D)
        y = (patches @ slices.flatten(1)).unflatten(-1, slices.shape[1:])  # (V, P, frames, D)
        return y.transpose(1, 2).flatten(0, 1).flatten(1)

    def of_projected(
        self, projected: torch.Tensor, windows: torch.Tensor, traces: torch.Tensor, kernels: Kernels, region=None
    ) -> torch.Tensor:
        """What `forward` gives for single windows (R, frames of a patch) of frames that `project` saw: (R, 1, P, D).

        traces (1, C_in - 1, frames of a patch): the same in all.
        """
        which = windows * self.frames + torch.arange(self.frames, device=windows.device)
        y = F.embedding_bag(which, projected, mode="sum").view(len(windows), 1, -1, self.linear.out_features)
        if region is not None:
            y = self.beside(y, region)
        if traces.shape[1]:
            y = y + self.convolve_traces(traces, kernels.traces).view(1, *y.shape[1:])
        return self.finish(y, kernels)

    def kernels(self) -> Kernels:
        weight, constant = self.linear.weight.float(), self.linear.bias
        if self.norm_name != "none":
            bias = getattr(self.norm, "bias", None)
            if bias is not None:
                constant = constant + weight @ bias
            weight = weight * self.norm.weight
            if self.norm_name == "layernorm":
                weight = weight - weight.mean(dim=1, keepdim=True)
        weight = weight.view(len(weight), self.channels, self.frames, self.size, self.size)
        with full_precision(weight.device):
            traces = torch.einsum("dctyx,iy->dctix", weight[:, 1:], self.rows_inside)
            traces = torch.einsum("dctix,jx->ctijd", traces, self.columns_inside).flatten(2)
        return Kernels(weight[:, 0].contiguous(memory_format=torch.channels_last), traces, constant)

    def padded(self, video: torch.Tensor, front: int = 0) -> torch.Tensor:
        """Zeros around each frame, and zero frames in front."""
        return F.pad(video, (*self.pad, front, 0))

    def convolve_video(self, video: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Padded (B, 1, T, H, W) with kernel (D, frames, rows, columns) -> (B, T', P, D) float32."""
        B = len(video)
        if is_autocast(video.device):  # before the frames are repeated, not after
            video = video.to(torch.get_autocast_dtype(video.device.type))
        windows = video[:, 0].unfold(1, self.frames, self.frame_stride)  # (B, T', H, W, frames), a view
        windows = windows.flatten(0, 1).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(windows, kernel, stride=self.stride)  # (B T', D, h, w), channels last in memory
        return y.permute(0, 2, 3, 1).reshape(B, -1, y.shape[2] * y.shape[3], y.shape[1]).float()

    def convolve_region(self, video: torch.Tensor, kernel: torch.Tensor, region: Region) -> torch.Tensor:
        """The same, computed for the patches of a region only."""
        rows, columns = (
            slice(part.start * self.stride, (part.stop - 1) * self.stride + self.size)
            for part in (region.rows, region.columns)
        )
        return self.beside(self.convolve_video(video[..., rows, columns], kernel), region)

    def beside(self, inner: torch.Tensor, region: Region) -> torch.Tensor:
        """A region's patches (B, T', h w, D), put among those that hold nothing new."""
        y = region.elsewhere.expand(*inner.shape[:2], -1, -1).clone()
        size = (region.rows.stop - region.rows.start, region.columns.stop - region.columns.start)
        y.unflatten(2, self.grid)[:, :, region.rows, region.columns] = inner.unflatten(2, size)
        return y

    def unchanged(self, video: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        """What a region has `elsewhere`, (P, D), from one patch's frames (1, 1, frames, H, W) without a change."""
        if self.norm_name == "dyt":
            video = torch.tanh(self.norm.alpha * video)
        return self.convolve_video(self.padded(video), kernels.video)[0, 0]

    def region(self, changed: torch.Tensor, elsewhere: torch.Tensor) -> Region | None:
        """The smallest region that holds all pixels (H, W) that `changed`; None if that is the whole grid."""
        parts = []
        for axis, pad, count in ((1, self.pad[2], self.grid[0]), (0, self.pad[0], self.grid[1])):
            seen = changed.any(axis).nonzero()[:, 0]
            first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (0, 0)
            start = max(-(-(first + pad - self.size + 1) // self.stride), 0)
            parts.append(slice(start, min((last + pad) // self.stride + 1, count)))
        rows, columns = parts
        whole = rows == slice(0, self.grid[0]) and columns == slice(0, self.grid[1])
        return None if whole else Region(rows, columns, elsewhere)

    def convolve_traces(self, traces: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Traces (B, C, T) that fill each frame and are zero outside it, with (C, frames, h w D) -> (B, T', h w D)."""
        with full_precision(traces.device):
            windows = traces.float().unfold(2, self.frames, self.frame_stride).transpose(1, 2)  # (B, T', C, frames)
            return windows.flatten(2) @ kernel.flatten(0, 1)

    def inverse_deviation(self, video: torch.Tensor, traces: torch.Tensor, front: int) -> torch.Tensor:
        """1 / sqrt(patch variance or mean square + eps), (B, T', P, 1), summed in float64 against cancellation."""
        with full_precision(video.device):
            kind = torch.float32 if video.device.type == "mps" else torch.float64
            video, traces = video[:, 0].to(kind), traces.to(kind)
            pixels = torch.outer(self.rows_inside.sum(1), self.columns_inside.sum(1)).to(kind)
            total = self.box(video, front) + traces.sum(1)[..., None, None] * pixels
            square = self.box(video.square(), front) + traces.square().sum(1)[..., None, None] * pixels
            total, square = (x.unfold(1, self.frames, self.frame_stride).sum(-1) for x in (total, square))
            elements = self.linear.in_features
            spread = square / elements
            if self.norm_name == "layernorm":
                spread = (spread - (total / elements).square()).clamp_min(0)
            eps = self.norm.eps if self.norm.eps is not None else torch.finfo(torch.float32).eps
            return (spread + eps).rsqrt().flatten(2)[..., None].float()

    def box(self, video: torch.Tensor, front: int) -> torch.Tensor:
        """Sum over the patch area in every frame, (B, T, H, W) -> (B, front + T, h, w)."""
        padded = F.pad(video, self.pad)
        summed = F.avg_pool2d(padded, self.size, self.stride, divisor_override=1)
        return F.pad(summed, (0, 0, 0, 0, front, 0))


class Tokenizer(nn.Module):
    """Patch embedding, second normalisation, token dropout and additive positions."""

    def __init__(self, config: ViViTConfig, max_frame: int, height: int = HEIGHT, width: int = WIDTH):
        super().__init__()
        self.config = config
        channels = 1 + BEHAVIOR_CHANNELS[config.behavior_mode]
        self.tokenizer = PatchEmbedding(config, channels, height, width)
        # another normalisation would undo what the first says about contrast
        self.norm = nn.Identity() if config.patch_mode == "divisive" else NORMS[config.norm](config.emb_dim)
        if config.behavior_mode == "additive":
            self.behavior_embedding = nn.Sequential(
                nn.Linear(4, BEHAVIOR_HIDDEN), nn.Tanh(), nn.Linear(BEHAVIOR_HIDDEN, config.emb_dim)
            )
        self.grid = self.tokenizer.grid
        self.front = (
            padding(max_frame, config.temporal_patch_size, config.temporal_patch_stride) if config.pad_frame else 0
        )
        self.max_tokens = self.num_tokens(max_frame)
        P, D, code = self.grid[0] * self.grid[1], config.emb_dim, config.pos_encoding
        if code == "learned":
            self.pos_embedding = nn.Parameter(torch.randn(1, self.max_tokens, P, D))
        if code in ("learned_factorised", "learned_sinusoid", "learned_rotary", "learned_relative"):
            self.spatial_pos_embedding = nn.Parameter(torch.randn(1, 1, P, D))
        if code == "learned_factorised":
            self.temporal_pos_embedding = nn.Parameter(torch.randn(1, self.max_tokens, 1, D))
        if code in ("learned_sinusoid", "sinusoid"):
            self.register_buffer("temporal_code", sinusoid(self.max_tokens, D)[:, None], persistent=False)
        if code == "sinusoid":
            self.register_buffer("spatial_code", sinusoid(P, D), persistent=False)
        if code == "sincos_rotary":
            self.register_buffer("spatial_code", sincos_2d(*self.grid, D), persistent=False)

    def num_tokens(self, frames: int) -> int:
        """Tokens in time (= output frames) of a clip of that many frames."""
        return (frames + self.front - self.config.temporal_patch_size) // self.config.temporal_patch_stride + 1

    def traces(self, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """The behaviour channels (B, C_in - 1, T) of this model."""
        return torch.cat([behavior, pupil_center], dim=1)[:, : BEHAVIOR_CHANNELS[self.config.behavior_mode]]

    def forward(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """(B, 1, T, H, W), (B, 2, T), (B, 2, T) -> tokens (B, T', P, D) float32."""
        return self.add_positions(self.embed(video, behavior, pupil_center, self.front))

    def embed(
        self,
        video: torch.Tensor,
        behavior: torch.Tensor,
        pupil_center: torch.Tensor,
        front: int,
        kernels: Kernels | None = None,
        region: Region | None = None,
    ) -> torch.Tensor:
        """The same before position codes; see `PatchEmbedding.forward` for `front`, `kernels` and `region`."""
        x = self.tokenizer(video, self.traces(behavior, pupil_center), front, kernels, region)
        return self.normalised(x, behavior, pupil_center)

    def normalised(self, x: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """Projected patches (B, T', P, D), normalised, with what behaviour and gaze add."""
        x = self.norm(x)
        if self.config.behavior_mode == "additive":
            traces = torch.cat([behavior, pupil_center], dim=1).transpose(1, 2)[:, -x.shape[1] :]
            x = x + self.behavior_embedding(traces)[:, :, None]
        p = self.config.p_dropout
        return drop_tokens(x, p) if self.training and p > 0 else x

    def project(self, frames: torch.Tensor, windows: int, kernels: Kernels, region: Region | None):
        """See `PatchEmbedding.project`; None where `embed_windows` does better without, for so many windows."""
        patches = self.tokenizer
        pays = windows >= SHARED_FRAMES * len(frames) and patches.norm_name == "none"
        if not pays or is_autocast(frames.device):  # where sums of rounded parts would be coarse
            return None
        return patches.project(frames, kernels, region)

    def embed_windows(self, frames, projected, windows, traces, kernels: Kernels, region: Region | None):
        """`embed` (R, 1, P, D) of windows (R, patch) of frames (V, H, W) at behaviour and gaze (1, 2, patch) each."""
        if projected is None:
            traces = [trace.expand(len(windows), -1, -1) for trace in traces]
            return self.embed(frames[windows][:, None], *traces, 0, kernels, region)
        x = self.tokenizer.of_projected(projected, windows, self.traces(*traces), kernels, region)
        return self.normalised(x, *traces)

    def add_positions(self, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Add the additive position codes to tokens (B, T', P, D), of which the first is at time `start`."""
        time = slice(start, start + x.shape[1])
        if hasattr(self, "pos_embedding"):
            x = x + self.pos_embedding[:, time]
        if hasattr(self, "spatial_pos_embedding"):
            x = x + self.spatial_pos_embedding
        if hasattr(self, "temporal_pos_embedding"):
            x = x + self.temporal_pos_embedding[:, time]
        p = self.config.p_dropout if self.config.pos_encoding in TIME_TABLES else 0.0
        if hasattr(self, "spatial_code"):
            x = F.dropout(x + self.spatial_code, p, self.training)
        if hasattr(self, "temporal_code"):
            x = F.dropout(x + self.temporal_code[time], p, self.training)
        return x
