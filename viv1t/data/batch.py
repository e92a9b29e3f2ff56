"""Trials of one mouse as tensors."""

import dataclasses
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """Trials of one mouse in recorded units, on the CPU.

    video (B, 1, T, H, W) uint8 or float32 grey levels 0..255, responses (B, N, T) float32 or None where withheld,
    behavior and pupil_center (B, 2, T) float32, trial_ids (B,) int64; whole: trials of the batch that this is a part
    of, where several processes share one
    """

    video: torch.Tensor
    responses: torch.Tensor | None
    behavior: torch.Tensor
    pupil_center: torch.Tensor
    trial_ids: torch.Tensor
    whole: int | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        return self._each(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        return self._each(lambda x: x.pin_memory())

    def _each(self, function) -> "Batch":
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return Batch(*(function(value) if isinstance(value, torch.Tensor) else value for value in values))
