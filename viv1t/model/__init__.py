"""The encoding model: core -> shifter -> readout -> output activation."""

from viv1t.model.build import Model, build_model, load_strictly
from viv1t.model.config import ModelConfig, add_model_options

__all__ = ["Model", "ModelConfig", "add_model_options", "build_model", "load_strictly"]
