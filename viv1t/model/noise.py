"""Random numbers in the place of features or responses: new ones in training, the same ones in every evaluation."""

import torch


def uniform(
    batch: int, frames: int, shape: tuple[int, ...], device: torch.device, training: bool, first: int = 0
) -> torch.Tensor:
    """U(0, 1) numbers (B, T', *shape).

    In training from torch's generator; else seeded with the number of each frame, of which the first is `first`, and
    the same in every row of the batch and on every device.
    """
    if training:
        return torch.rand(batch, frames, *shape, device=device)
    rows = [torch.rand(shape, generator=torch.Generator().manual_seed(first + t)) for t in range(frames)]
    return torch.stack(rows).to(device).expand(batch, frames, *shape)
