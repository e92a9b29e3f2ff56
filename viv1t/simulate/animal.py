"""The simulated animal: a population of V1 neurons that answers like a model, differentiable and causal.

A video is seen as a monitor shows it (whole grey levels), moved by the gaze, answered by the circuit and scaled by
behaviour. The response is the expected deconvolved activity per frame in recorded units; a change on frame t first
shows in the response to frame t + 1. Before the first frame the screen is grey.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from viv1t import io
from viv1t.constants import GREY
from viv1t.errors import UserError
from viv1t.geometry import SENSORIUM, Monitor
from viv1t.simulate.circuit import Circuit, convolve

VERSION = 1  # of the formulas; raised whenever the same parameters would answer differently
MAX_Z = 3.0  # behaviour beyond this many sd changes the gain no further
BLOCK = 1024  # neurons answered at a time, which bounds memory


@dataclass(frozen=True)
class Setting:
    """What all neurons of one animal share.

    gaze: field shift (right, up) in deg per pixel of pupil centre (x, y), 2 x 2; pupil_center: resting (x, y) in
    camera pixels; behavior_mean, behavior_sd: of (pupil dilation, running speed); grey: level the eye is adapted to.
    """

    gaze: tuple = ((1 / 6, 0.0), (0.0, 1 / 6))
    pupil_center: tuple = (120.0, 120.0)
    behavior_mean: tuple = (50.0, 1.0)
    behavior_sd: tuple = (14.0, 3.0)
    monitor: Monitor = field(default=SENSORIUM)
    grey: float = GREY
    version: int = VERSION


class Animal:
    """Simulated V1. `neurons` is the table of `population.draw_population`, calibrated (see `calibration.calibrate`).

    `respond` is that of a twin: whatever is shown to a trained model can be shown to the animal.
    """

    def __init__(self, neurons: pd.DataFrame, setting: Setting | None = None, device: str | torch.device = "cpu"):
        self.neurons, self.setting = neurons.reset_index(drop=True), setting or Setting()
        if self.setting.version != VERSION:
            raise UserError(
                f"this animal is of version {self.setting.version} of the simulation, this is version {VERSION}. "
                "Make it again with data/simulate.py --overwrite."
            )
        self.monitor, self.device = self.setting.monitor, torch.device(device)
        self.circuit = Circuit(self.neurons, self.monitor, self.device)
        leak = self.neurons["spread"].to_numpy()[:, None] ** np.arange(3)
        self.kernels = leak / leak.sum(axis=1, keepdims=True)  # (N, 3): how an event spreads over frames

    @property
    def num_neurons(self) -> int:
        return len(self.neurons)

    def respond(self, video, behavior, pupil_center, neurons=None) -> torch.Tensor:
        """Expected response per frame in recorded units.

        video (B, 1, T, H, W) grey levels 0..255; behavior (B, 2, T) pupil dilation and running speed; pupil_center
        (B, 2, T) x and y in camera pixels; neurons: indices, all if None. Returns (B, N, T) float32.
        """
        rate, lead_in = self.rate(video, behavior, pupil_center, neurons), self.kernels.shape[1] - 1
        rate = F.pad(rate, (lead_in, 0), mode="replicate")  # earlier frames were like the first
        return convolve(rate, self._tensor(self.kernels)[_rows(neurons)])[..., lead_in:]

    def rate(self, video, behavior, pupil_center, neurons=None) -> torch.Tensor:
        """The response before deconvolution spreads events over frames; arguments and shape as in `respond`."""
        column = {
            name: self._tensor(self.neurons[name])[_rows(neurons), None]
            for name in ("mean_response", "spontaneous", "drive_mean")
        }
        relative = self.drive(video, pupil_center, neurons) / column["drive_mean"]
        activity = column["spontaneous"] + (1 - column["spontaneous"]) * relative
        return column["mean_response"] * activity * self.gain(behavior, neurons)

    def drive(self, video, pupil_center, neurons=None) -> torch.Tensor:
        """What vision alone does to each neuron, (B, N, T), about 1 for the best grating."""
        seen = self.see(video, pupil_center)
        rows = np.arange(self.num_neurons)[_rows(neurons)]
        blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
        return torch.cat([self.circuit.drive(seen, _compact(block)) for block in blocks], dim=1)

    def gain(self, behavior, neurons=None) -> torch.Tensor:
        """Behavioural gain (B, N, T) around 1, exponential in the z-scored pupil dilation and running speed."""
        mean, sd = self._tensor(self.setting.behavior_mean), self._tensor(self.setting.behavior_sd)
        z = ((self._tensor(behavior) - mean[:, None]) / sd[:, None]).clamp(-MAX_Z, MAX_Z)
        weights = self._tensor(self.neurons[["pupil_gain", "running_gain"]])[_rows(neurons)]
        return torch.exp(weights @ z)

    def see(self, video, pupil_center) -> torch.Tensor:
        """Contrast on the retina (B, T, H, W): whole grey levels against the adaptation level, moved by the gaze."""
        video, (H, W) = self._tensor(video), (self.monitor.height, self.monitor.width)
        if video.ndim != 5 or video.shape[1] != 1 or video.shape[3:] != (H, W):
            raise ValueError(f"video must be (B, 1, T, {H}, {W}), got {tuple(video.shape)}")
        video = video[:, 0].clamp(0, 255)
        shown = video + (video.round() - video).detach()  # straight-through: rounding lets gradients pass
        return self._look((shown - self.setting.grey) / 127.5, self.gaze_shift(pupil_center))

    def gaze_shift(self, pupil_center) -> torch.Tensor:
        """Shift of every field on the screen, (B, T, 2) as (right, down) in pixels, for pupil centres (B, 2, T)."""
        pupil = self._tensor(pupil_center).movedim(1, 2) - self._tensor(self.setting.pupil_center)
        degrees = pupil @ self._tensor(self.setting.gaze).T
        return degrees * self._tensor([1.0, -1.0]) / self.monitor.degrees_per_pixel

    def _look(self, contrast: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        if not shift.any():
            return contrast
        B, T, H, W = contrast.shape
        y, x = torch.meshgrid(self._tensor(range(H)), self._tensor(range(W)), indexing="ij")
        grid = torch.stack([x, y], dim=-1) + shift.reshape(B * T, 1, 1, 2)
        grid = (2 * grid + 1) / self._tensor([W, H]) - 1
        moved = F.grid_sample(contrast.reshape(B * T, 1, H, W), grid, padding_mode="border", align_corners=False)
        return moved.reshape(B, T, H, W)

    def save(self, path: Path | str, **more) -> None:
        """Write everything as JSON; `Animal.load` rebuilds it bit for bit. `more`: further entries to keep."""
        columns = {name: self.neurons[name].tolist() for name in self.neurons}
        io.write_json(path, {"setting": asdict(self.setting), **more, "neurons": columns})

    @classmethod
    def load(cls, path: Path | str, device: str | torch.device = "cpu") -> "Animal":
        """The animal that `save` wrote. UserError if the file holds none."""
        content = io.read_json(path)
        try:
            setting = Setting(**dict(content["setting"], monitor=Monitor(**content["setting"]["monitor"])))
            return cls(pd.DataFrame(content["neurons"]), setting, device)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a simulated animal ({error}). Make it with data/simulate.py.") from None

    def _tensor(self, values) -> torch.Tensor:
        if not torch.is_tensor(values):
            values = np.array(values, dtype=np.float32)  # a copy, since torch takes no read-only arrays
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


def _rows(neurons):
    """Indices of neurons as something that indexes arrays and tensors alike."""
    if neurons is None:
        return slice(None)
    return neurons.cpu().numpy() if torch.is_tensor(neurons) else np.asarray(neurons)


def _compact(rows: np.ndarray):
    """Neighbouring rows as a slice, which indexes without a copy."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return slice(int(rows[0]), int(rows[0]) + len(rows))
    return rows
