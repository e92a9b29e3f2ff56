"""What the blocks of a core attend to, computed a second time beside the fused passes, only where it is asked for.

    with record_attention(twin.model.core, frames=[100, 200], locations=[70]) as maps:
        twin.respond("simA", video)
    maps.space  # (B, 2, blocks, heads, P, P)
    maps.time  # (B, 1, blocks, heads, T', T')

The forward pass stays as it is: hooks look at what enters each block, and compute softmax(q k^T) of the chosen
sequences. Memory is that of the result.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from viv1t.errors import UserError
from viv1t.estimators.attention import fold, rollout_step
from viv1t.model.attention import rotated_heads
from viv1t.model.build import Model
from viv1t.model.cores import CORES, v1t
from viv1t.model.cores.core import Core
from viv1t.model.cores.v1t import V1TCore
from viv1t.model.cores.vivit import ViViTCore
from viv1t.model.transformer import Block


class AttentionMaps:
    """Attention of the latest pass through a core, queries as rows; arrays float32.

    space (B, frames, blocks, heads, P, P) at the chosen output frames, patches in rows of the grid
    time (B, locations, blocks, heads, T', T') at the chosen places of the grid (flat indices)

    With rollout both are rolled out, (B, frames, P, P) and (B, locations, T', T'). None where nothing was chosen, and
    without blocks. Register and class tokens are cut, so rows of `space` add up to less than 1 where there are any.
    """

    def __init__(self):
        self.space: np.ndarray | None = None
        self.time: np.ndarray | None = None


class Patches(NamedTuple):
    """Where the patches of a core lie: pixels (left, right, top, bottom) of zeros around the frame (H, W)."""

    size: int
    stride: int
    pad: tuple[int, int, int, int]
    frame_size: tuple[int, int]


def patches_of(core: ViViTCore | V1TCore) -> Patches:
    if isinstance(core, V1TCore):
        return Patches(core.config.patch_size, core.config.patch_stride, (0, 0, 0, 0), core.frame_size)
    patches = core.tokenizer.tokenizer
    return Patches(patches.size, patches.stride, patches.pad, patches.frame_size)


def stacks(core: ViViTCore | V1TCore) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Blocks in space, within frames, and blocks in time, at places."""
    if isinstance(core, V1TCore):
        return core.blocks, nn.ModuleList()
    return core.vivit.spatial_transformer.blocks, core.vivit.temporal_transformer.blocks


def require_transformer(model: Model, *kinds: type[Core]) -> None:
    """UserError for twins whose core is none of these kinds (by default of those whose attention is recorded)."""
    kinds = kinds or (ViViTCore, V1TCore)
    if not isinstance(model.core, kinds):
        names = [name for name, core in CORES.items() if issubclass(core, kinds)]
        raise UserError(
            f"this is for twins with --core {' or '.join(names)}; this one has --core {model.config.core}. "
            "Name another run (--output_dir)."
        )


@torch.no_grad()
def block_attention(block: Block | v1t.Block, x: torch.Tensor) -> torch.Tensor:
    """Attention (R, heads, n, n) float32 of a block to the sequences (R, n, D) that enter it."""
    u = block.norm(x)
    q, k, _ = rotated_heads(block.projections(u), block.turns(u, 0), block.heads)
    with torch.autocast(x.device.type, enabled=False):
        logits = q.float() @ k.float().transpose(-1, -2) * block.head_dim**-0.5
        if block.causal:
            n = x.shape[1]
            logits = logits.masked_fill(torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1), -torch.inf)
        return logits.softmax(dim=-1)


@contextmanager
def record_attention(
    core: ViViTCore | V1TCore, frames: Sequence[int] = (), locations: Sequence[int] = (), rollout: str | None = None
) -> Iterator[AttentionMaps]:
    """Record spatial attention at `frames` and temporal attention at `locations` in passes made inside the context.

    rollout: "max" or "mean" over heads, to keep the rollout through all blocks instead of each block and head. For
    whole trials (no streams) of at most `core.max_frame` frames, and cores in evaluation that are not compiled.
    ValueError for longer trials and for frames or places that do not exist.
    """
    maps, (rows, columns) = AttentionMaps(), core.grid
    in_space, in_time = stacks(core)
    space, time = _Recorder(in_space, frames, "frame", rollout), _Recorder(in_time, locations, "location", rollout)

    def begin(_, inputs: tuple) -> None:
        B, T = len(inputs[0]), core.output_frames(inputs[0].shape[2])
        if core.output_frames(core.max_frame) < T:
            raise ValueError(f"attention is recorded in trials of at most {core.max_frame} frames")
        space.begin(B, T, rows * columns)
        time.begin(B, rows * columns, T)

    def end(*_) -> None:
        maps.space, maps.time = space.maps, time.maps

    handles = [core.register_forward_pre_hook(begin), core.register_forward_hook(end)]
    handles += space.handles() + time.handles()
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def as_images(core: ViViTCore | V1TCore, values: np.ndarray) -> np.ndarray:
    """Attention (..., P) to the patches of a core as images (..., H, W) in multiples of uniform attention.

    Overlapping patches are averaged; 1 where no patch lies. What register tokens got is left out.
    """
    patches = patches_of(core)
    relative = values / values.mean(axis=-1, keepdims=True)
    grid = relative.reshape(*values.shape[:-1], *core.grid)
    return np.nan_to_num(fold(grid, patches.size, patches.stride, patches.pad, patches.frame_size), nan=1.0)


@torch.inference_mode()
def places_read(
    model: Model, mouse: str, neurons: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the grid (n, 4), flat indices, that neurons (n,) of a mouse read, and their bilinear weights (n, 4).

    behavior, pupil_center: transformed, (1, 2, 1), held; the shifter moves the places with them. Weights add up to 1,
    or less where a neuron reads beyond the frame.
    """
    reader = model.readouts[mouse].reader(neurons, model.core.grid)
    if mouse in model.shifters:
        reader.look(model.shifters[mouse](behavior, pupil_center)[0, :, 0])
    return tuple(part[0].cpu().numpy() for part in reader.pixels)


class _Recorder:
    """Looks at the sequences that enter each block of a stack, chunk after chunk, and keeps the chosen ones."""

    def __init__(self, blocks: nn.ModuleList, chosen: Sequence[int], kind: str, rollout: str | None):
        self.blocks, self.chosen, self.kind, self.rollout = list(blocks), list(chosen), kind, rollout

    def handles(self) -> list:
        if not self.chosen:
            return []
        return [
            block.register_forward_pre_hook(lambda _, inputs, number=number: self.look(number, inputs[0]))
            for number, block in enumerate(self.blocks)
        ]

    def begin(self, batch: int, sequences: int, length: int) -> None:
        """Before a pass of `batch` clips with `sequences` of `length` tokens each, registers not counted."""
        wrong = [i for i in self.chosen if not 0 <= i < sequences]
        if wrong:
            raise ValueError(f"{self.kind} {wrong[0]} does not exist; there are {sequences}")
        self.length, self.seen = length, [0] * len(self.blocks)
        self.wanted = np.add.outer(np.arange(batch) * sequences, np.array(self.chosen, dtype=int)).ravel()
        self.maps = None
        if self.blocks and self.chosen:  # all at once: pieces kept between the pass's own would scatter its memory
            each = () if self.rollout else (len(self.blocks), self.blocks[0].heads)
            self.maps = np.empty((batch, len(self.chosen), *each, length, length), dtype=np.float32)

    def look(self, number: int, x: torch.Tensor) -> None:
        """A chunk of the sequences that enter block `number`, registers included."""
        start, self.seen[number] = self.seen[number], self.seen[number] + len(x)
        places = self.maps.reshape(len(self.wanted), *self.maps.shape[2:])  # a view
        for place in np.flatnonzero((self.wanted >= start) & (self.wanted < start + len(x))):
            row = int(self.wanted[place]) - start
            attention = block_attention(self.blocks[number], x[row : row + 1])[0, :, : self.length, : self.length]
            attention = attention.cpu().numpy()
            if self.rollout:
                places[place] = rollout_step(places[place] if number else None, attention, self.rollout)
            else:
                places[place, number] = attention
