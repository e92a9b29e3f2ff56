"""What a temporal block remembers of the tokens it has seen, so that the next one costs one token and not a trial."""

from typing import NamedTuple

import torch


class Past(NamedTuple):
    """Keys and values (L, heads, m, d) of the m positions that many sequences begin with; L locations."""

    keys: torch.Tensor
    values: torch.Tensor


class BlockMemory:
    """Keys and values (R, heads, length, d) of the last `length` positions of one block, of `seen` in all."""

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device):
        self.keys, self.values = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        self.seen = 0

    def extend(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in the next position (R, heads, 1, d), over the oldest one once full; return all that are kept."""
        length = self.keys.shape[2]
        at = self.seen % length  # attention does not mind the order
        self.keys[:, :, at], self.values[:, :, at] = k[:, :, 0], v[:, :, 0]
        self.seen += 1
        kept = min(self.seen, length)
        return self.keys[:, :, :kept], self.values[:, :, :kept]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes
