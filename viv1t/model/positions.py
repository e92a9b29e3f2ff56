"""Position codes of tokens: fixed sinusoids, rotary embedding as published and in its relative form; windows.

Codes whose tables end (all that tell a frame's absolute time) are shown long trials in `windows`; the others attend to
a sliding window of the last tokens, for as long as a trial or a stream may last.
"""

from collections.abc import Iterator

import torch
from torch import nn

TIME_TABLES = ("learned", "learned_factorised", "learned_sinusoid", "sinusoid")  # added to tokens before all blocks
PUBLISHED_ROTARY = ("rotary", "learned_rotary", "sincos_rotary")  # in the blocks of the temporal transformer
RELATIVE = ("learned_relative", "relative")
TIMELESS = ("none", *RELATIVE)  # attention does not depend on when a trial began
TIME_BASE = 10000.0  # how much slower the last pair of channels turns than the first (Su et al. 2021)
SPACE_BASE = 100.0  # rows and columns are few (Heo et al. 2024)


def sinusoid(length: int, dim: int) -> torch.Tensor:
    """Interleaved sine and cosine code (length, dim) of Vaswani et al. 2017."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    frequency = 10000 ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    code = torch.zeros(length, dim)
    code[:, 0::2] = torch.sin(position * frequency)
    code[:, 1::2] = torch.cos(position * frequency)[:, : dim // 2]
    return code


def sincos_2d(height: int, width: int, dim: int) -> torch.Tensor:
    """Two-dimensional code (height * width, dim): columns in the first half of the channels, rows in the second."""
    frequency = 10000 ** (-torch.arange(dim // 4, dtype=torch.float32) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angle = [place.reshape(-1, 1) * frequency for place in (column, row)]
    return torch.cat([f(a) for a in angle for f in (torch.sin, torch.cos)], dim=1)


def window_hop(longest: int) -> int:
    """Tokens from the start of one window to that of the next: half a window, and never more than two are open."""
    return longest - longest // 2


def windows(length: int, longest: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the windows in which a trial of `length` tokens is shown, at most `longest` in each.

    Where windows overlap, the earlier one answers. Tokens beyond the first window therefore see between `longest // 2`
    and `longest - 1` of the tokens before them.
    """
    start = 0
    yield 0, min(length, longest)
    while start + longest < length:
        start += window_hop(longest)
        yield start, min(length, start + longest)


def open_windows(token: int, longest: int) -> list[int]:
    """Numbers of the one or two windows that hold a token, the one that answers first."""
    hop = window_hop(longest)
    first = max((token - longest) // hop + 1, 0)
    return [first, first + 1] if token >= (first + 1) * hop else [first]


class Rotary(nn.Module):
    """Rotary position embedding: pairs of channels, as complex numbers, are turned by angles that grow with position.

    extra: trailing tokens (registers) that are not turned. All blocks of a stack share one instance and its table.
    """

    def __init__(self, extra: int):
        super().__init__()
        self.extra, self.kept = extra, {}

    def turns(self, start: int, length: int, device: torch.device) -> torch.Tensor:
        """Complex factors (length, d/2) of positions start, start + 1, ..."""
        raise NotImplementedError

    def table(self, start: int, length: int, device: torch.device) -> torch.Tensor:
        """The same with ones for the extra tokens, (length + extra, 1, d/2) complex64: broadcast over heads."""
        # what is made in inference mode could not serve a backward pass later
        key = (start, length, device, torch.is_inference_mode_enabled())
        table = self.kept.get(key)
        if table is None:
            turns = self.turns(start, length, device)
            table = torch.cat([turns, turns.new_ones(self.extra, turns.shape[1])])[:, None]
            self.kept = {key: table}
        return table


class PublishedRotary(Rotary):
    """Rotary position embedding as the public implementation computes it.

    Both queries and keys are multiplied by the same length-dependent scale (extrapolatable rotary embedding divides
    the keys by it), so logits depend on absolute position and on the table length; kept for its checkpoints.

    head_dim: even width d of a head; length: number of positions of the published tables.
    """

    def __init__(self, head_dim: int, length: int, extra: int = 0):
        super().__init__(extra)
        self.length = length
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32)
        self.register_buffer("inv_freq", 1.0 / 10000 ** (exponent / head_dim))
        self.register_buffer("scale", (exponent + 0.4 * head_dim) / (1.4 * head_dim))

    def turns(self, start: int, length: int, device: torch.device) -> torch.Tensor:
        centre = max(self.length, start + length) // 2
        position = torch.arange(start, start + length, dtype=torch.float32, device=device)[:, None]
        scale = self.scale.to(device, torch.float32) ** ((position - centre) / 512)
        return torch.polar(scale, position * self.inv_freq.to(device, torch.float32))


class RelativeRotary(Rotary):
    """Rotary position embedding without any scale (Su et al. 2021): logits depend on differences of position only.

    head_dim: even width d of a head. width: columns of a grid of positions in row-major order; half of the channel
    pairs then turn with the row and half with the column. Without it all turn with time.
    """

    def __init__(self, head_dim: int, extra: int = 0, width: int | None = None):
        super().__init__(extra)
        self.pairs, self.width = head_dim // 2, width

    def turns(self, start: int, length: int, device: torch.device) -> torch.Tensor:
        """Angles are computed in float64: a stream may go on for days."""
        position = torch.arange(start, start + length, dtype=torch.float64)[:, None]
        if self.width is None:
            angle = position * frequencies(self.pairs, TIME_BASE)
        else:
            row, column = position.div(self.width, rounding_mode="floor"), position.remainder(self.width)
            along, across = self.pairs - self.pairs // 2, self.pairs // 2
            angle = torch.cat([row * frequencies(along, SPACE_BASE), column * frequencies(across, SPACE_BASE)], dim=1)
        return torch.polar(torch.ones_like(angle), angle).to(device, torch.complex64)


def frequencies(pairs: int, base: float) -> torch.Tensor:
    """Radians per position of each pair of channels, from 1 down to nearly 1 / base; float64."""
    return base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
