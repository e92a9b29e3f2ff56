"""Depth-wise (2+1)-D inverted residual blocks, after the design that won Sensorium 2023 (DwiseNeuro, R. Baikulov)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from viv1t.model.cores.convolution import INPUTS, ConvolutionalCore, over_frames, over_time
from viv1t.model.options import DwiseConfig, ViViTConfig
from viv1t.model.tokenizer import Tokenizer

BASE = 10000.0  # of the wavelengths of position codes


class DwiseCore(ConvolutionalCore):
    """Stem, inverted residual blocks, and layers of every frame ("cortex") that widen the maps for the readouts.

    Causal (default): an output frame depends on itself, the `temporal_kernel - 1` frames before it for every block,
    and those that a patch of the stem holds. It depends on no absolute time: where a clip was cut must not matter to a
    response, and clips may be of any length. So convolutions are padded with zeros before the clip,
    squeeze-excitation averages over the space of each frame, and only rows and columns are encoded. Else, as in the
    competition, an output frame depends on the whole clip: convolutions are centred, squeeze-excitation averages over
    time, too, and the number of the frame is encoded.
    """

    def __init__(self, config: DwiseConfig, max_frame: int):
        super().__init__(config, max_frame)
        self.causal, grid = config.causal, self.frame_size
        widths, strides = (list(map(int, text.split(","))) for text in (config.widths, config.strides))
        layers = []
        if config.stem == "energy":
            self.stem = EnergyStem(config, widths[0], max_frame)
            grid = self.stem.grid
        else:
            layers.append(Stem(INPUTS[config.behavior_mode], widths[0]))
        for i, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            drop = config.drop_path * i / max(len(widths) - 1, 1)
            layers.append(Block(widths[max(i - 1, 0)], width, stride, grid, drop, config))
            grid = tuple(-(-n // stride) for n in grid)
        if config.pool:
            layers.append(Pool())
            grid = 1, 1
        widths = [widths[-1], *(config.cortex_dim * 2**i for i in range(config.cortex_layers))]
        layers += [CorticalLayer(*widths[i : i + 2], config) for i in range(config.cortex_layers)]
        self.layers = nn.ModuleList(layers)
        self.dim, self.grid = widths[-1], grid

    def inputs(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        if self.config.stem == "energy":
            return self.stem(video, behavior, pupil_center)
        return super().inputs(video, behavior, pupil_center)


class EnergyStem(Tokenizer):
    """Motion energy of patches as maps (B, T, h, w, C); patches hold the present frame and those before it."""

    def __init__(self, config: DwiseConfig, outputs: int, max_frame: int):
        patches = ViViTConfig(
            behavior_mode="none" if config.behavior_mode == "none" else "additive",
            patch_mode="energy",
            patch_init="gabor",
            pos_encoding="none",
            spatial_patch_size=config.stem_size,
            spatial_patch_stride=config.stem_stride,
            temporal_patch_size=config.stem_frames,
            emb_dim=outputs,
            p_dropout=0.0,
        )
        super().__init__(patches, max_frame)

    def forward(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        return super().forward(video, behavior, pupil_center).unflatten(2, self.grid)


class Stem(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.mix, self.norm = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return over_frames(self.norm, self.mix(x))


class Block(nn.Module):
    """Expand channels, convolve each in space, then in time, gate, project; all beside a shortcut without weights.

    (B, T, h, w, inputs) -> (B, T, h / stride, w / stride, outputs), sizes rounded up.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, grid: tuple[int, int], drop: float, c: DwiseConfig):
        super().__init__()
        hidden, self.outputs, self.stride, self.drop = inputs * c.expansion, outputs, stride, drop
        self.positions = Positions(inputs, grid, c.causal)
        self.expand = nn.Linear(inputs, hidden, bias=False)
        self.spatial = SpatialConvolution(hidden, c.spatial_kernel, stride)
        self.temporal = TemporalConvolution(hidden, c.temporal_kernel, c.causal)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (hidden, hidden, hidden, outputs))
        nn.init.zeros_(self.norms[-1].weight)  # so that what the stem sees reaches the readouts from the start
        self.gate = SqueezeExcitation(hidden, c.se_reduction, c.causal)
        self.project = nn.Linear(hidden, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.positions(x)
        y = x
        for layer, norm in zip((self.expand, self.spatial, self.temporal), self.norms, strict=False):
            y = F.silu(over_frames(norm, layer(y)))
        y = over_frames(self.norms[-1], self.gate(self.project, y))
        return self.shortcut(x) + drop_path(y, self.drop, self.training)

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over strides, channels repeated until there are enough."""
        if self.stride > 1:
            x = over_frames(lambda y: F.avg_pool2d(y, self.stride, ceil_mode=True), x)
        return tiled(x, self.outputs)


class SpatialConvolution(nn.Conv2d):
    """Depth-wise, of every frame, padded."""

    def __init__(self, channels: int, size: int, stride: int):
        super().__init__(channels, channels, size, stride, size // 2, groups=channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == (1, 1) or x.device.type != "cpu":
            return over_frames(super().forward, x)
        with torch.autocast("cpu", enabled=False):  # where bfloat16 takes three times as long in the backward pass
            return over_frames(super().forward, x.float()).to(x.dtype)


class TemporalConvolution(nn.Conv2d):
    """Depth-wise, at every place; zeros before the clip or, if not causal, on both sides."""

    def __init__(self, channels: int, length: int, causal: bool):
        padding = 0 if causal else length // 2
        super().__init__(channels, channels, (length, 1), padding=(padding, 0), groups=channels, bias=False)
        self.front = length - 1 if causal else 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return over_time(super().forward, F.pad(x, (0, 0) * 3 + (self.front, 0)))


class SqueezeExcitation(nn.Module):
    """Gates of channels from their means over space (if not causal, over the clip): Hu et al. 2018."""

    def __init__(self, channels: int, reduction: int, causal: bool):
        super().__init__()
        self.axes = (2, 3) if causal else (1, 2, 3)
        hidden = max(channels // reduction, 1)
        self.gates = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, project: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        """project(gates x), for which the gates go into the weights: a frame has fewer of them than of pixels."""
        gates = self.gates(x.mean(self.axes))
        weight = gates[..., None] * project.weight.mT.to(gates.dtype)
        y = x.flatten(2, 3) if gates.dim() == 3 else x.flatten(1, 3)
        return (y @ weight).view(*x.shape[:-1], -1)


class Positions(nn.Module):
    """Adds sinusoids of row and column and, if not causal, of the frame: channels are shared among these axes."""

    def __init__(self, channels: int, grid: tuple[int, int], causal: bool):
        super().__init__()
        axes = 2 if causal else 3
        n = 2 * math.ceil(channels / (2 * axes))
        self.timed, self.channels = max(channels - 2 * n, 0) if not causal else 0, channels
        rows, columns = (sinusoids(torch.arange(size), n) for size in grid)
        rows, columns = rows[:, None].expand(*grid, n), columns.expand(*grid, n)
        self.register_buffer("table", torch.cat([rows, columns], dim=-1)[..., : channels - self.timed], False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.timed:
            return x + self.table.to(x.dtype)
        frames = sinusoids(torch.arange(x.shape[1], device=x.device), self.timed)[:, None, None]
        size = (x.shape[1], *x.shape[2:4], -1)
        return x + torch.cat([self.table.expand(size), frames.expand(size)], dim=-1).to(x.dtype)


class Pool(nn.Module):
    """Mean over space: (B, T, h, w, C) -> (B, T, 1, 1, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


class CorticalLayer(nn.Module):
    """Mixes channels within groups, at every place of every frame; channels of all groups then alternate."""

    def __init__(self, inputs: int, outputs: int, c: DwiseConfig):
        super().__init__()
        self.outputs, self.groups, self.drop = outputs, c.cortex_groups, c.drop_path
        self.dropout = nn.Dropout(c.cortex_dropout)
        self.mix = nn.Conv2d(inputs, outputs, 1, groups=c.cortex_groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(x)
        y = F.silu(over_frames(lambda z: self.norm(self.mix(z)), x))
        y = y.unflatten(-1, (self.groups, -1)).transpose(-1, -2).flatten(-2)
        return tiled(x, self.outputs) + drop_path(y, self.drop, self.training)


def tiled(x: torch.Tensor, channels: int) -> torch.Tensor:
    """The last axis, repeated and cut to a number of channels."""
    copies = -(-channels // x.shape[-1])
    return (torch.cat([x] * copies, dim=-1) if copies > 1 else x)[..., :channels]


def drop_path(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Without x for a share p of clips, the rest scaled to keep the mean (stochastic depth, Huang et al. 2016)."""
    if not training or p == 0:
        return x
    kept = torch.rand(len(x), device=x.device) >= p
    return x * (kept / (1 - p)).to(x.dtype).view(-1, 1, 1, 1, 1)


def sinusoids(positions: torch.Tensor, channels: int) -> torch.Tensor:
    """Sines and cosines of positions (n,), wavelengths from 2 pi up in powers of BASE: (n, channels)."""
    rates = BASE ** (-torch.arange(0, channels, 2, device=positions.device) / channels)
    angles = positions[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :channels]
