"""What a model is made of, as dataclasses: argparse flags and checkpoints are printed from them."""

import argparse
import dataclasses
from dataclasses import dataclass

from viv1t.cli import Words, add_options, did_you_mean, number, option, switch, take_options
from viv1t.errors import UserError

BEHAVIOR = Words("none", "behavior", "behavior_pupil", "additive")
POSITIONS = Words(
    "none",
    "learned",
    "learned_factorised",
    "learned_sinusoid",
    "sinusoid",
    "rotary",
    "learned_rotary",
    "sincos_rotary",
    "learned_relative",
    "relative",
)
ACTIVATIONS = Words("none", "tanh", "elu", "relu", "gelu", "silu")
FF_ACTIVATIONS = Words("none", "tanh", "elu", "relu", "gelu", "silu", "swiglu")
NORMS = Words("layernorm", "rmsnorm", "dyt")
probability = number(float, 0, 0.999)
count = number(int, 1)


@dataclass(frozen=True)
class ViViTConfig:
    """Factorised video transformer; defaults are those of the published model (flags `--core_<field>`)."""

    behavior_mode: str = option(
        "behavior_pupil",
        "traces given to the core as constant image channels, or (additive) embedded and added to every token",
        BEHAVIOR,
    )
    patch_mode: str = option(
        "unfold",
        "patches: normalised and linear (first two), a convolution, or one with the energies of channel pairs, as "
        "they are or divided by the contrast around",
        Words("unfold", "gather", "conv", "energy", "divisive"),
    )
    patch_init: str = option(
        "random",
        "first weights of the patches: random, or (gabor) space-time Gabor pairs as in V1",
        Words("random", "gabor"),
    )
    pad_frame: bool = option(True, "zero-pad frame borders and trial start, so that no frame is lost", switch)
    pos_encoding: str = option("rotary", "position code of space and time; streams want a relative one", POSITIONS)
    reg_tokens: int = option(24, "register tokens per sequence", number(int, 0))
    spatial_patch_size: int = option(7, "patch height and width, pixels", count)
    spatial_patch_stride: int = option(2, "patch stride, pixels", count)
    spatial_depth: int = option(14, "blocks of the spatial transformer", number(int, 0))
    temporal_patch_size: int = option(13, "patch length, frames", count)
    temporal_patch_stride: int = option(1, "patch stride, frames", count)
    temporal_depth: int = option(14, "blocks of the temporal transformer", number(int, 0))
    num_heads: int = option(2, "attention heads", count)
    emb_dim: int = option(112, "width of a token", count)
    head_dim: int = option(80, "width of an attention head (even)", number(int, 2, even=True))
    ff_dim: int = option(224, "width of the feed-forward branch", count)
    ff_activation: str = option("relu", "activation of the feed-forward branch", FF_ACTIVATIONS)
    norm: str = option("layernorm", "normalisation layer", NORMS)
    norm_qk: bool = option(False, "normalise queries and keys", flag=True)
    use_causal_attention: bool = option(False, "temporal attention sees the past only", flag=True)
    parallel_attention: bool = option(True, "attention and feed-forward in parallel (always on)", flag=True)
    flash_attention: bool = option(True, "fused attention kernel; 0: explicit softmax", switch)
    p_dropout: float = option(0.17, "probability to drop a patch token", probability)
    mha_dropout: float = option(0.04, "dropout after attention", probability)
    ff_dropout: float = option(0.21, "dropout in the feed-forward branch", probability)
    drop_path: float = option(0.43, "probability that a sequence skips a branch (stochastic depth)", probability)
    drop_path_mode: str = option(
        "bernoulli",
        "stochastic depth: independent per sequence and branch, a fixed share of sequences per block (both compute "
        "the sequences they keep only), or independent masks on everything computed, as published",
        Words("bernoulli", "fixed", "masked"),
    )
    activation: str = option("none", "activation of the core's output", ACTIVATIONS)


@dataclass(frozen=True)
class GaussianConfig:
    """Gaussian readout (Lurz et al. 2021): a position and a feature vector per neuron (flags `--readout_<field>`)."""

    grid_mode: str = option(
        "xy", "positions: free, or predicted from cortical coordinates", Words("free", "xy", "xyz")
    )
    bias_mode: str = option(
        "mean",
        "initial bias: mean response, or (rate) what gives the mean response after the output activation",
        Words("none", "zeros", "mean", "rate"),
    )
    positions: str = option(
        "random",
        "initial positions: random, or (contrast) where responses follow the moving contrast of training movies",
        Words("random", "contrast"),
    )
    features: str = option(
        "uniform",
        "initial features: equal, or (ridge) the regression of responses on the core's first feature maps",
        Words("uniform", "ridge"),
    )
    covariance: str = option("full", "shape of the sampling noise", Words("full", "uncorrelated", "isotropic"))
    init_sigma: float = option(1.0, "initial spread of the sampling noise, in half frames", number(float, 0, 1))


@dataclass(frozen=True)
class ShifterConfig:
    """Gaze shifter: a small network per mouse (flags `--shifter_<field>`)."""

    mode: str = option("pupil", "input of the shifter", Words("none", "pupil", "behavior_pupil"))
    layers: int = option(3, "layers", count)
    size: int = option(5, "hidden units", count)
    start: str = option(
        "random", "first shifts: random (as published, a quarter of a half frame) or zero", Words("random", "zero")
    )


OUTPUT_MODES = Words("identity", "elu", "exp", "softplus", "sigmoid")
CORES = {"vivit": ViViTConfig}
READOUTS = {"gaussian": GaussianConfig}


@dataclass(frozen=True)
class ModelConfig:
    """Core, readout, shifter and output activation of one model, for any number of mice."""

    core: str
    readout: str
    output_mode: str
    core_config: ViViTConfig
    readout_config: GaussianConfig
    shifter_config: ShifterConfig
    max_frame: int = 300  # length of the position tables; the public implementation's rotary code depends on it

    @classmethod
    def from_flags(cls, flags: dict) -> "ModelConfig":
        """From a flat dict of flag values (words or integer codes), as in config.json or args.yaml."""
        flags = {"core": "vivit", "readout": "gaussian", "output_mode": "elu"} | flags
        core, readout = (_known(kind, flags[kind], table) for kind, table in (("core", CORES), ("readout", READOUTS)))
        try:
            output_mode = OUTPUT_MODES(flags["output_mode"])
        except argparse.ArgumentTypeError as error:
            raise UserError(f"output_mode: {error}") from None
        if flags.get("transform_output") in ("minmax", "2", 2) and output_mode not in ("identity", "sigmoid"):
            raise UserError(
                f"--output_mode {output_mode} does not fit --transform_output minmax (targets in 0..1): "
                "use --output_mode sigmoid or identity."
            )
        return cls(
            core=core,
            readout=readout,
            output_mode=output_mode,
            core_config=take_options(CORES[core], flags, "core_"),
            readout_config=take_options(READOUTS[readout], flags, "readout_"),
            shifter_config=take_options(ShifterConfig, flags, "shifter_"),
            max_frame=int(flags.get("max_frame", 300)),
        )

    def to_flags(self) -> dict:
        """The flat dict of words that `from_flags` takes."""
        flags = {"core": self.core, "readout": self.readout, "output_mode": self.output_mode}
        for prefix, part in (
            ("core_", self.core_config),
            ("readout_", self.readout_config),
            ("shifter_", self.shifter_config),
        ):
            flags |= {prefix + name: value for name, value in dataclasses.asdict(part).items()}
        return flags | {"max_frame": self.max_frame}


def add_model_options(parser: argparse.ArgumentParser, core: str, readout: str) -> None:
    """The flag groups of one core, one readout, the shifter, and the output activation."""
    add_options(parser, CORES[_known("core", core, CORES)], f"core {core}", "core_")
    add_options(parser, READOUTS[_known("readout", readout, READOUTS)], f"readout {readout}", "readout_")
    add_options(parser, ShifterConfig, "shifter", "shifter_")


def _known(kind: str, name: str, table: dict) -> str:
    name = str(name).lower()
    if name not in table:
        raise UserError(f"--{kind} {name} is unknown{did_you_mean(name, list(table))}. Known: {', '.join(table)}.")
    return name
