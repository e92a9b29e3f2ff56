"""Gaze shifter: eye position (and behaviour) -> shift of all readout positions of a mouse."""

import torch
from torch import nn

from viv1t.model.options import ShifterConfig


class MLPShifter(nn.Module):
    """Frame-wise network with tanh after every layer: traces (B, 2 or 4, T) -> (dx, dy) (B, 2, T) in half frames."""

    def __init__(self, config: ShifterConfig):
        super().__init__()
        self.mode = config.mode
        sizes = [2 if config.mode == "pupil" else 4] + [config.size] * (config.layers - 1) + [2]
        layers = [layer for a, b in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(a, b), nn.Tanh())]
        self.mlp = nn.Sequential(*layers)
        if config.start == "zero":
            nn.init.zeros_(layers[-2].weight)
            nn.init.zeros_(layers[-2].bias)

    def forward(self, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        traces = pupil_center if self.mode == "pupil" else torch.cat([behavior, pupil_center], dim=1)
        return self.mlp(traces.transpose(1, 2)).transpose(1, 2)
