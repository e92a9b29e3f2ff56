"""Recorded units to what the model sees, and back; always with the statistics of the training tier.

    transform    video, pupil_center        behavior              responses
    none         x                          x                     max(x, 0)
    standardise  (x - mean) / (std + eps)   x / std               x * precision
    minmax       (x - min) / (max - min)    likewise              likewise

precision = 1 / std, where std is held above 1 % of its mean over neurons, so that a nearly silent neuron is not blown
up. Something that never varied has no scale: it is only shifted, so it becomes 0 under minmax.
"""

import torch
import torch.nn.functional as F

from viv1t.cli import Words
from viv1t.constants import EPSILON
from viv1t.data.mouse import Statistics
from viv1t.errors import UserError

TRANSFORMS = Words("none", "standardise", "minmax")


class Transforms:
    """Transforms of one mouse. Leading axes are free: video (..., H, W), responses (..., N, T), traces (..., 2, T).

    Tensors of any real type and device come in; float32 goes out, on the same device.
    """

    def __init__(
        self,
        statistics: Statistics,
        input: str = "standardise",
        output: str = "standardise",
        center_crop: float = 1.0,
    ):
        if not 0 < center_crop <= 1:
            raise UserError(f"center_crop is {center_crop}; it must be above 0 and at most 1.")
        self.input, self.output, self.center_crop = TRANSFORMS(input), TRANSFORMS(output), center_crop
        self._affine = {
            name: _shift_and_scale(name, self.output if name == "responses" else self.input, values)
            for name, values in statistics.items()
        }
        self._on: dict[torch.device, dict] = {torch.device("cpu"): self._affine}

    def video(self, x: torch.Tensor) -> torch.Tensor:
        """Grey levels 0..255 to model input, centre crop included."""
        return crop_center(self._apply("video", x), self.center_crop)

    def behavior(self, x: torch.Tensor) -> torch.Tensor:
        return self._apply("behavior", x)

    def pupil_center(self, x: torch.Tensor) -> torch.Tensor:
        return self._apply("pupil_center", x)

    def responses(self, x: torch.Tensor) -> torch.Tensor:
        return self._apply("responses", x).clamp(min=0) if self.output == "none" else self._apply("responses", x)

    def inverse_video(self, x: torch.Tensor) -> torch.Tensor:
        """Back to grey levels; the centre crop cannot be undone."""
        return self._invert("video", x)

    def inverse_behavior(self, x: torch.Tensor) -> torch.Tensor:
        return self._invert("behavior", x)

    def inverse_pupil_center(self, x: torch.Tensor) -> torch.Tensor:
        return self._invert("pupil_center", x)

    def inverse_responses(self, x: torch.Tensor) -> torch.Tensor:
        """Back to recorded units (of clamped responses under "none")."""
        return self._invert("responses", x)

    @property
    def precision(self) -> torch.Tensor:
        """(N,) factor between recorded and transformed responses."""
        return 1 / self._affine["responses"][1].reshape(-1)

    def select(self, neurons) -> "Transforms":
        """The same transforms for some of the neurons (indices), in that order."""
        chosen = object.__new__(Transforms)
        chosen.input, chosen.output, chosen.center_crop = self.input, self.output, self.center_crop
        index = torch.as_tensor(neurons, dtype=torch.long, device="cpu")
        shift, scale = self._affine["responses"]
        chosen._affine = {**self._affine, "responses": (shift[index], scale[index])}
        chosen._on = {torch.device("cpu"): chosen._affine}
        return chosen

    def _apply(self, name: str, x: torch.Tensor) -> torch.Tensor:
        shift, scale = self._constants(name, x.device)
        return (x.float() - shift) / scale

    def _invert(self, name: str, x: torch.Tensor) -> torch.Tensor:
        shift, scale = self._constants(name, x.device)
        return x.float() * scale + shift

    def _constants(self, name: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Constants of one variable on a device, moved there once."""
        if device not in self._on:
            self._on[device] = {
                key: (shift.to(device), scale.to(device)) for key, (shift, scale) in self._affine.items()
            }
        return self._on[device][name]


def _shift_and_scale(name: str, transform: str, statistics: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """x -> (x - shift) / scale; a trailing axis for frames where the variable has rows."""
    known = {key: torch.as_tensor(value, dtype=torch.float32) for key, value in statistics.items()}
    std = known["std"]
    shift, scale = torch.zeros_like(std), torch.ones_like(std)
    if transform == "minmax":
        shift, scale = known["min"], known["max"] - known["min"]
    elif transform == "standardise" and name == "responses":
        scale = std.clamp(min=0.01 * float(std.mean()))
    elif transform == "standardise" and name == "behavior":
        scale = std
    elif transform == "standardise":
        shift, scale = known["mean"], std + EPSILON
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (shift, scale) if shift.ndim == 0 else (shift[:, None], scale[:, None])


def crop_center(video: torch.Tensor, fraction: float) -> torch.Tensor:
    """Keep the central `fraction` of each side of (..., H, W), enlarged back to H x W.

    As published: int(H * fraction) x int(W * fraction) nearest pixels on an even grid, then bilinear resizing.
    """
    if fraction == 1:
        return video
    height, width = video.shape[-2:]
    rows, columns = (_nearest(size, fraction, video.device) for size in (height, width))
    cropped = video.index_select(-2, rows).index_select(-1, columns)
    frames = cropped.reshape(-1, 1, len(rows), len(columns))
    return F.interpolate(frames, size=(height, width), mode="bilinear").reshape(video.shape)


def _nearest(size: int, fraction: float, device: torch.device) -> torch.Tensor:
    """Nearest pixels of int(size * fraction) even points in [-fraction, fraction]; -1 and 1 are the outer pixels."""
    points = torch.linspace(-fraction, fraction, max(int(size * fraction), 1), device=device)
    return ((points + 1) / 2 * (size - 1)).round().long()
