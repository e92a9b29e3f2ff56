"""Position codes of tokens: fixed sinusoids and the published form of rotary embedding."""

import torch
from torch import nn


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


class Rotary(nn.Module):
    """Rotary position embedding as the public implementation computes it.

    Both queries and keys are multiplied by the same length-dependent scale (extrapolatable rotary embedding divides
    the keys by it), so logits depend on absolute position and on the table length; kept for its checkpoints.

    head_dim: even width d of a head; length: number of positions in the tables; extra: trailing tokens
    (registers) that are not rotated.
    """

    def __init__(self, head_dim: int, length: int, extra: int = 0):
        super().__init__()
        self.head_dim, self.length, self.extra = head_dim, length, extra
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32)
        self.register_buffer("inv_freq", 1.0 / 10000 ** (exponent / head_dim))
        self.register_buffer("scale", (exponent + 0.4 * head_dim) / (1.4 * head_dim))
        self.tables: dict = {}

    def table(self, frames: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled cosine and sine (frames + extra, 1, d/2), broadcast over heads."""
        key = (frames, device)
        if key not in self.tables:
            length = max(self.length, frames)
            position = torch.arange(frames, dtype=torch.float32, device=device)[:, None]
            angle = position * self.inv_freq.to(device, torch.float32)
            scale = self.scale.to(device, torch.float32) ** ((position - length // 2) / 512)
            cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
            if self.extra:
                cosine = torch.cat([cosine, cosine.new_ones(self.extra, cosine.shape[1])])
                sine = torch.cat([sine, sine.new_zeros(self.extra, sine.shape[1])])
            self.tables[key] = cosine[:, None], sine[:, None]
        return self.tables[key]

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """Rotate (rows, frames + extra, heads, d); positions run along the second axis."""
        cosine, sine = self.table(frames, x.device)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
