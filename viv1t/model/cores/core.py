"""What every core is: video and behaviour of any mouse -> feature maps that all mice share."""

import copy

import torch
from torch import nn

from viv1t.constants import HEIGHT, WIDTH
from viv1t.errors import UserError
from viv1t.model.options import CoreConfig
from viv1t.model.transformer import autocast

CHANNELS = {"none": 1, "behavior": 3, "behavior_pupil": 5}  # C that `as_channels` gives


class Core(nn.Module):
    """Base of all cores. A core says in its docstring which frames an output frame depends on.

    Subclasses set `dim` (D) and `grid` (h, w), and define `maps`. Attributes that callers set: grad_checkpointing
    (recompute activations in the backward pass, where a core can), autocast_dtype (bfloat16 or None).
    """

    causal = True  # no output frame depends on later input frames
    lost_frames = 0  # at the start of a clip, which get no output
    dim: int
    grid: tuple[int, int]

    def __init__(self, config: CoreConfig, max_frame: int):
        """max_frame: longest clip that position tables are made for, where there are any."""
        super().__init__()
        self.config, self.max_frame, self.frame_size = config, max_frame, (HEIGHT, WIDTH)
        self.grad_checkpointing = False
        self.autocast_dtype: torch.dtype | None = None

    def forward(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """(B, 1, T, H, W), (B, 2, T), (B, 2, T), transformed -> the last T' frames, (B, T', h, w, D) float32."""
        with autocast(video.device, self.autocast_dtype):
            return self.maps(video, behavior, pupil_center).float()

    def maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """`forward` in any precision."""
        raise NotImplementedError

    def first_maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """What readouts can be started from (`--readout_features ridge`): (B, T', h, w, D) of an untrained core."""
        return self(video, behavior, pupil_center)

    def penalty(self) -> torch.Tensor | float:
        """Regularisers of the weights, to be added to the loss of a step; 0 unless an option asks for them."""
        return 0.0

    @property
    def sees_behavior(self) -> bool:
        """Whether the output depends on behaviour and pupil centre, too."""
        return getattr(self.config, "behavior_mode", "none") != "none"

    def output_frames(self, frames: int) -> int:
        return frames - self.lost_frames

    def shares(self, frames: int) -> bool:
        """Whether patterns in trials of so many frames can share a `prelude`."""
        return False

    def memory(self, batch: int):
        """For showing `batch` videos frame by frame."""
        raise UserError(
            f"this twin's core ({type(self).__name__}) answers whole clips only. For a stream, train one with "
            "--core vivit --core_use_causal_attention."
        )

    @property
    def survival(self) -> float:
        """Share of the work of a forward pass that is done in training (stochastic depth)."""
        return 1.0

    def flops(self, frames: int) -> float:
        """Floating point operations of one forward pass of one trial."""
        return self._cost(frames)[0]

    def activation_bytes(self, frames: int) -> float:
        """Memory that one trial's training step holds in the core, roughly: what backward needs, float32 or half."""
        return self._cost(frames)[1] * (0.5 if self.autocast_dtype is not None else 1.0)

    def _cost(self, frames: int) -> tuple[float, float]:
        """Operations and saved bytes of a pass in training, counted on tensors without memory."""
        from torch.utils.flop_counter import FlopCounterMode

        core, saved = copy.deepcopy(self).to("meta").train(), {}
        core.autocast_dtype, core.grad_checkpointing = None, False
        inputs = [torch.empty(1, *s, device="meta") for s in ((1, frames, *self.frame_size), (2, frames), (2, frames))]

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            core(*inputs)
        return float(counter.get_total_flops()), float(sum(saved.values()))


def as_channels(mode: str, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
    """The video and, constant over each frame, the traces of a `--core_behavior_mode`: (B, C, T, H, W)."""
    traces = {"none": [], "behavior": [behavior], "behavior_pupil": [behavior, pupil_center]}[mode]
    planes = [x[..., None, None].expand(-1, -1, -1, *video.shape[-2:]) for x in traces]
    return torch.cat([video, *planes], dim=1) if planes else video
