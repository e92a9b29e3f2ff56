"""A digital twin: one shared core; a shifter, a readout and an output activation for every mouse."""

import shutil
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from viv1t.data.mouse import Mouse
from viv1t.errors import UserError
from viv1t.model.activation import make_output, pre_activation
from viv1t.model.config import ModelConfig
from viv1t.model.cores import CORES
from viv1t.model.readouts import READOUTS
from viv1t.model.shifter import MLPShifter

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # transformed video, behaviour, pupil centre

# Constants that runs of the public implementation store beside the weights; ours derive them from the configuration.
DERIVED = ("reg_scale", "scale", "one", "threshold", "inv_freq", "pos_encoding")


class Model(nn.Module):
    def __init__(
        self, config: ModelConfig, mice: Mapping[str, Mouse], mean_responses: Mapping[str, np.ndarray] | None
    ):
        super().__init__()
        self.config = config
        self.core = CORES[config.core](config.core_config, config.max_frame)
        make = READOUTS[config.readout]
        means = dict(mean_responses or {})
        if getattr(config.readout_config, "bias_mode", "") == "rate":
            means = {
                mouse: pre_activation(mean, config.output_mode, config.softplus_beta) for mouse, mean in means.items()
            }
        self.shifters = nn.ModuleDict()
        if config.shifter_config.mode != "none":
            self.shifters.update({mouse: MLPShifter(config.shifter_config) for mouse in mice})
        shape = (self.core.dim, self.core.grid)
        self.readouts = nn.ModuleDict(
            {id: make(config.readout_config, *shape, mouse.coordinates, means.get(id)) for id, mouse in mice.items()}
        )
        self.output_activation = nn.ModuleDict(
            {mouse: make_output(config.output_mode, config.softplus_beta) for mouse in mice}
        )

    def forward(
        self,
        inputs: Mapping[str, Inputs],
        neurons: Mapping[str, torch.Tensor] | None = None,
        activate: bool = True,
        seeds: Mapping[str, int] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Responses (B, N, T') of several mice from one pass through the core; all clips of the same length.

        inputs: mouse -> (video (B, 1, T, H, W), behaviour (B, 2, T), pupil centre (B, 2, T)), transformed.
        neurons: mouse -> indices of the neurons to read out. seeds: mouse -> seed of its readout's random numbers.
        Output frames are the last T' <= T input frames.
        """
        sizes = [len(video) for video, _, _ in inputs.values()]
        joined = [torch.cat(parts) if len(sizes) > 1 else parts[0] for parts in zip(*inputs.values(), strict=True)]
        maps = self.core(*joined).split(sizes)
        responses = {}
        for (mouse, (_, behavior, pupil_center)), z in zip(inputs.items(), maps, strict=True):
            T, shifts = z.shape[1], None
            if mouse in self.shifters:
                shifts = self.shifters[mouse](behavior[..., -T:], pupil_center[..., -T:])
            if seeds is not None:
                torch.manual_seed(seeds[mouse])
            y = self.readouts[mouse](z, shifts, None if neurons is None else neurons.get(mouse))
            responses[mouse] = self.output_activation[mouse](y) if activate else y
        return responses

    def predict(self, mouse: str, video, behavior, pupil_center, neurons=None, activate: bool = True) -> torch.Tensor:
        """Responses of one mouse, (B, N, T')."""
        subset = None if neurons is None else {mouse: neurons}
        return self({mouse: (video, behavior, pupil_center)}, subset, activate)[mouse]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        parts = {
            "core": self.core,
            "shifters": self.shifters,
            "readouts": self.readouts,
            "activation": self.output_activation,
        }
        groups = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
        return {name: parameters for name, parameters in groups.items() if parameters}

    def load_reference_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the flat state dict of a run of the public implementation, strictly but for derived constants."""
        own = self.state_dict()
        skipped = ("core.tokenizer.tokenizer.weight",)  # one-hot kernel that cuts out patches
        state = {k: v for k, v in state.items() if k in own or (k.split(".")[-1] not in DERIVED and k not in skipped)}
        state |= {k: v for k, v in own.items() if k.split(".")[-1] in DERIVED and k not in state}
        load_strictly(self, state)

    def compile(self) -> None:
        """Compile the core (the first step of every shape takes a minute or so)."""
        if next(self.parameters()).device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
            raise UserError("--compile on a CPU needs a C++ compiler (g++ or clang++); install one or leave it out.")
        self.core.compile()

    def estimate(self, frames: int, trials: int) -> dict[str, float]:
        """Cost of a training step over `trials` clips: flops, peak activation bytes, and number of parameters."""
        passes = 4 if self.core.grad_checkpointing else 3
        neurons = max((readout.num_neurons for readout in self.readouts.values()), default=0)
        reading = 8 * frames * neurons * self.core.dim
        return {
            "flops": trials * passes * (self.core.flops(frames) * self.core.survival + reading),
            "activation_bytes": trials * (self.core.activation_bytes(frames) + 16 * frames * neurons),
            "parameters": sum(p.numel() for p in self.parameters()),
        }


def load_strictly(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """`load_state_dict` whose failure is one line: which weights are missing, unknown or of another shape."""
    own = model.state_dict()
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [
        f"{name} is {tuple(state[name].shape)}, the model expects {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    faults = [f"missing {missing[0]} and {len(missing) - 1} more"] if missing else []
    faults += [f"unknown {unknown[0]} and {len(unknown) - 1} more"] if unknown else []
    faults += [f"{shapes[0]} and {len(shapes) - 1} more"] if shapes else []
    if faults:
        raise UserError(f"the weights do not fit this model: {'; '.join(faults)}. Check core, readout and mice.")
    model.load_state_dict(state)


def build_model(
    config: ModelConfig, mice: Mapping[str, Mouse], mean_responses: Mapping[str, np.ndarray] | None = None
) -> Model:
    """A freshly initialised model. mean_responses: mouse -> mean transformed response (N,), for the readout biases."""
    return Model(config, mice, mean_responses)
