"""Options of cores, readouts and shifter: flags, help and checkpoints are printed from these dataclasses."""

from dataclasses import dataclass
from typing import ClassVar

from viv1t.cli import Words, number, numbers, option, switch
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
CHANNELS = Words("none", "behavior", "behavior_pupil")
ACTIVATIONS = Words("none", "tanh", "elu", "relu", "gelu", "silu")
FF_ACTIVATIONS = Words("none", "tanh", "elu", "relu", "gelu", "silu", "swiglu")
NORMS = Words("layernorm", "rmsnorm", "dyt")
BIAS = Words("none", "zeros", "mean", "rate")
BIAS_HELP = "initial bias: mean response, or (rate) what gives the mean response after the output activation"
probability = number(float, 0, 0.999)
weight = number(float, 0)
count = number(int, 1)
odd = number(int, 1, odd=True)


@dataclass(frozen=True)
class ViViTConfig:
    """Factorised video transformer; defaults are those of the published model."""

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
    drop_path_schedule: str = option(
        "constant",
        "stochastic depth in all blocks alike, or (linear) rising from 0 in the first block of a stack to "
        "--core_drop_path in the last",
        Words("constant", "linear"),
    )
    activation: str = option("none", "activation of the core's output", ACTIVATIONS)


@dataclass(frozen=True)
class V1TConfig:
    """Static vision transformer, frame by frame (V1T, Li et al. 2023)."""

    behavior_mode: str = option(
        "behavior_mlp",
        "traces as constant image channels (first three), or embedded and added to all tokens in every block",
        Words("none", "behavior", "behavior_pupil", "behavior_mlp", "behavior_pupil_mlp"),
    )
    patch_size: int = option(8, "patch height and width, pixels", count)
    patch_stride: int = option(1, "patch stride, pixels", count)
    num_blocks: int = option(4, "blocks", count)
    num_heads: int = option(4, "attention heads, each as wide as a token", count)
    emb_dim: int = option(155, "width of a token", count)
    mlp_dim: int = option(488, "width of the feed-forward layer", count)
    p_dropout: float = option(0.0229, "dropout of patch tokens", probability)
    t_dropout: float = option(0.2544, "dropout in attention and feed-forward layers", probability)
    drop_path: float = option(0.0, "probability that a frame skips a branch (stochastic depth)", probability)
    disable_bias: bool = option(False, "linear layers without bias", flag=True)
    flash_attention: bool = option(True, "fused attention kernel; 0: explicit softmax", switch)


@dataclass(frozen=True)
class BViViTConfig:
    """Factorised video transformer whose tokens read behaviour by cross-attention."""

    behavior_mode: str = option(
        "behavior_cross",
        "traces as constant image channels (first three), or as tokens that patches attend to in every block",
        Words("none", "behavior", "behavior_pupil", "behavior_cross", "behavior_pupil_cross"),
    )
    patch_mode: str = option(
        "unfold", "patches: normalised and linear (first two), or a convolution", Words("unfold", "gather", "conv")
    )
    pad_frame: bool = option(True, "zero-pad frame borders and trial start, so that no frame is lost", switch)
    pos_encoding: str = option(
        "learned_factorised", "position code of space and time", Words("learned_factorised", "rotary")
    )
    reg_tokens: int = option(0, "register tokens per sequence", number(int, 0))
    spatial_patch_size: int = option(7, "patch height and width, pixels", count)
    spatial_patch_stride: int = option(2, "patch stride, pixels", count)
    spatial_depth: int = option(3, "blocks of the spatial transformer", number(int, 0))
    temporal_patch_size: int = option(25, "patch length, frames", count)
    temporal_patch_stride: int = option(1, "patch stride, frames", count)
    temporal_depth: int = option(5, "blocks of the temporal transformer", number(int, 0))
    num_heads: int = option(11, "attention heads", count)
    emb_dim: int = option(112, "width of a token", count)
    head_dim: int = option(48, "width of an attention head (even)", number(int, 2, even=True))
    ff_dim: int = option(136, "width of the feed-forward branch", count)
    ff_activation: str = option("gelu", "activation of the feed-forward branch", Words("relu", "gelu", "swiglu"))
    norm_qk: bool = option(False, "normalise queries and keys", flag=True)
    use_causal_attention: bool = option(False, "temporal attention sees the past only", flag=True)
    parallel_attention: bool = option(True, "attention and feed-forward in parallel (always on)", flag=True)
    flash_attention: bool = option(True, "fused attention kernel; 0: explicit softmax", switch)
    p_dropout: float = option(0.1338, "probability to drop a patch token", probability)
    mha_dropout: float = option(0.3580, "dropout after attention", probability)
    ff_dropout: float = option(0.0592, "dropout in the feed-forward branch", probability)
    drop_path: float = option(0.0505, "probability that a sequence skips a branch (stochastic depth)", probability)


@dataclass(frozen=True)
class FCNNConfig:
    """Factorised 3-D convolutions, the baseline of Sensorium 2023; with --core_linear the paper's linear-nonlinear."""

    behavior_mode: str = option("behavior_pupil", "traces given as constant image channels", CHANNELS)
    spatial_input_kernel: int = option(11, "height and width of the first kernel, pixels (odd)", odd)
    temporal_input_kernel: int = option(11, "length of the first kernel, frames", count)
    spatial_hidden_kernel: int = option(5, "height and width of the other kernels (odd)", odd)
    temporal_hidden_kernel: int = option(5, "length of the other kernels, frames", count)
    num_layers: int = option(4, "layers; each has twice the channels of the one before", count)
    hidden_dim: int = option(16, "channels of the first layer", count)
    dropout: float = option(0.0, "probability to drop a channel, in all layers but the last", probability)
    linear: bool = option(False, "no normalisation and no nonlinearity", flag=True)
    reg_laplace: float = option(0.0, "weight of the Laplace penalty on spatial kernels", weight)


@dataclass(frozen=True)
class GRUConfig:
    """Rotation-equivariant convolutions and a convolutional GRU, the second baseline of Sensorium 2023."""

    behavior_mode: str = option("behavior", "traces given as constant image channels", CHANNELS)
    cnn_layers: int = option(4, "convolutional layers", count)
    cnn_filters: int = option(8, "filters of a layer, for each rotation", count)
    cnn_input_kernel: int = option(9, "height and width of the first kernel, pixels; not padded", count)
    cnn_hidden_kernel: int = option(7, "height and width of the other kernels (odd)", odd)
    rotations: int = option(8, "rotated copies of every filter", count)
    momentum: float = option(0.9, "momentum of batch normalisation", number(float, 0, 1))
    linear: bool = option(False, "no nonlinearity between convolutional layers", flag=True)
    rnn_size: int = option(64, "channels of the recurrent layer", count)
    rnn_input_kernel: int = option(9, "kernel from the convolutions to the recurrent layer (odd)", odd)
    rnn_kernel: int = option(9, "kernel within the recurrent layer (odd)", odd)
    cnn_input_reg: float = option(0.0, "weight of the Laplace penalty on the first filters", weight)
    cnn_hidden_reg: float = option(0.0, "weight of the group sparsity of the other filters", weight)
    rnn_reg: float = option(0.0, "weight of the L1 penalty on the kernels of the recurrent layer", weight)


@dataclass(frozen=True)
class Stacked2dConfig:
    """Plain 2-D convolutions, frame by frame."""

    behavior_mode: str = option("behavior_pupil", "traces given as constant image channels", CHANNELS)
    num_layers: int = option(4, "layers", count)
    hidden_dim: int = option(64, "channels of a layer", count)
    input_kernel: int = option(9, "height and width of the first kernel, pixels (odd)", odd)
    hidden_kernel: int = option(7, "height and width of the other kernels (odd)", odd)
    convolution: str = option(
        "full",
        "layers after the first: full, depth-separable, or attention among the pixels under the kernel",
        Words("full", "separable", "attention"),
    )
    skip: int = option(0, "earlier layers whose outputs a layer sees beside the last one's", number(int, 0))
    momentum: float = option(0.9, "momentum of batch normalisation", number(float, 0, 1))
    linear: bool = option(False, "no nonlinearity between layers", flag=True)
    reg_laplace: float = option(0.0, "weight of the Laplace penalty on the first kernels", weight)
    reg_group: float = option(0.0, "weight of the group sparsity of the other kernels", weight)

    def __post_init__(self):
        if self.reg_group and self.convolution == "attention":
            raise UserError("--core_reg_group is of kernels, which --core_convolution attention has none of.")


@dataclass(frozen=True)
class DwiseConfig:
    """Depth-wise (2+1)-D inverted residual blocks, after the design that won Sensorium 2023 (DwiseNeuro)."""

    behavior_mode: str = option(
        "behavior_pupil",
        "traces given as constant image channels; with --core_stem energy all four, embedded and added to every place",
        CHANNELS,
    )
    stem: str = option(
        "pixel",
        "first layer: channels mixed pixel by pixel, as in the competition, or (energy) motion energy of patches that "
        "start as space-time Gabors, as of --core vivit --core_patch_mode energy",
        Words("pixel", "energy"),
    )
    stem_size: int = option(10, "height and width of the patches of --core_stem energy, pixels", count)
    stem_stride: int = option(4, "stride of these patches, pixels", count)
    stem_frames: int = option(18, "length of these patches, frames", count)
    widths: str = option("64,64,64,64,128,128,128,256,256", "channels of each block", numbers)
    strides: str = option("2,1,1,1,2,1,1,1,1", "spatial stride of each block", numbers)
    spatial_kernel: int = option(3, "height and width of the depth-wise kernels (odd)", odd)
    temporal_kernel: int = option(5, "length of the depth-wise kernels, frames (odd)", odd)
    expansion: int = option(6, "channels within a block, as multiples of those that enter it", count)
    se_reduction: int = option(32, "channels within a block per hidden unit of squeeze-excitation", count)
    drop_path: float = option(
        0.1, "probability that a clip skips the last block (stochastic depth); rises linearly from 0", probability
    )
    cortex_layers: int = option(3, "frame-wise layers after the blocks, each twice as wide; 0: none", number(int, 0))
    cortex_dim: int = option(256, "channels of the first of these layers", count)
    cortex_groups: int = option(2, "groups of channels in these layers, shuffled between them", count)
    cortex_dropout: float = option(0.0, "dropout before each of these layers", probability)
    pool: bool = option(False, "average over space before these layers, for --readout conv", switch)
    causal: bool = option(True, "a frame sees the past only; 0: also what follows, as in the competition", switch)

    def __post_init__(self):
        blocks, strides = (len(text.split(",")) for text in (self.widths, self.strides))
        if blocks != strides:
            raise UserError(f"--core_widths is of {blocks} blocks, --core_strides of {strides}: give each block both.")
        width = int(self.widths.split(",")[-1])
        if self.cortex_layers and (width % self.cortex_groups or self.cortex_dim % self.cortex_groups):
            raise UserError(
                f"--core_cortex_groups {self.cortex_groups} does not divide the last of --core_widths ({width}) and "
                f"--core_cortex_dim {self.cortex_dim}."
            )


@dataclass(frozen=True)
class LinearConfig:
    """The frame itself as feature map, with a weight and an offset for every pixel and channel."""

    behavior_mode: str = option("behavior", "traces given as constant image channels", CHANNELS)


@dataclass(frozen=True)
class RandomConfig:
    """Random numbers instead of features: what a readout alone reaches."""


@dataclass(frozen=True)
class LargeRandomConfig(RandomConfig):
    """The same beside a tensor that fills 60 % of a GPU: a test of its memory."""


CORES = {
    "vivit": ViViTConfig,
    "v1t": V1TConfig,
    "bvivit": BViViTConfig,
    "dwise": DwiseConfig,
    "fcnn": FCNNConfig,
    "gru_baseline": GRUConfig,
    "stacked2d": Stacked2dConfig,
    "linear": LinearConfig,
    "random": RandomConfig,
    "large_random": LargeRandomConfig,
}
CoreConfig = (
    ViViTConfig
    | V1TConfig
    | BViViTConfig
    | DwiseConfig
    | FCNNConfig
    | GRUConfig
    | Stacked2dConfig
    | LinearConfig
    | RandomConfig
)


@dataclass(frozen=True)
class GaussianConfig:
    """Gaussian readout (Lurz et al. 2021): a position and a feature vector per neuron."""

    local: ClassVar[bool] = True  # reads at positions, which gaze can shift
    grid_mode: str = option(
        "xy", "positions: free, or predicted from cortical coordinates", Words("free", "xy", "xyz")
    )
    bias_mode: str = option("mean", BIAS_HELP, BIAS)
    positions: str = option(
        "random",
        "initial positions: random, or (contrast) where responses follow the moving contrast of training movies",
        Words("random", "contrast"),
    )
    features: str = option(
        "uniform",
        "initial features: equal, or (ridge) the regression of responses on the core's feature maps",
        Words("uniform", "ridge"),
    )
    covariance: str = option("full", "shape of the sampling noise", Words("full", "uncorrelated", "isotropic"))
    init_sigma: float = option(1.0, "initial spread of the sampling noise, in half frames", number(float, 0, 1))
    noise: str = option(
        "frame", "sampling noise is drawn for every frame, or (trial) once a clip", Words("frame", "trial")
    )


@dataclass(frozen=True)
class DepthGaussianConfig(GaussianConfig):
    """A Gaussian readout for every imaging plane, with its own map from cortical coordinates to positions."""


@dataclass(frozen=True)
class FactorizedConfig:
    """Factorised readout (Klindt et al. 2017): a spatial mask and a feature vector per neuron."""

    local: ClassVar[bool] = False
    bias_mode: str = option("mean", BIAS_HELP, BIAS)
    dropout: float = option(0.0, "dropout of masked features", probability)
    reg_l1: float = option(0.0, "weight of the L1 penalty on masks and features", weight)


@dataclass(frozen=True)
class AttentionConfig:
    """Attention readout (Pierzchlewicz et al. 2023): each neuron's query attends to the places of the map."""

    local: ClassVar[bool] = False
    bias_mode: str = option("mean", BIAS_HELP, BIAS)
    emb_dim: int = option(128, "width of queries, keys and values", count)


@dataclass(frozen=True)
class ConvConfig:
    """Mean over space, then a linear map with groups of channels, as of the winner of Sensorium 2023."""

    local: ClassVar[bool] = False
    bias_mode: str = option("mean", BIAS_HELP, BIAS)
    groups: int = option(1, "groups of channels and neurons", count)
    dropout: float = option(0.0, "probability to drop a channel", probability)


@dataclass(frozen=True)
class LinearReadoutConfig:
    """Maximum over space, then a linear map."""

    local: ClassVar[bool] = False
    bias_mode: str = option("mean", BIAS_HELP, BIAS)


@dataclass(frozen=True)
class RandomReadoutConfig:
    """Random numbers instead of responses."""

    local: ClassVar[bool] = False


READOUTS = {
    "gaussian": GaussianConfig,
    "depth-gaussian": DepthGaussianConfig,
    "factorized": FactorizedConfig,
    "attention": AttentionConfig,
    "conv": ConvConfig,
    "linear": LinearReadoutConfig,
    "random": RandomReadoutConfig,
}
ReadoutConfig = (
    GaussianConfig | FactorizedConfig | AttentionConfig | ConvConfig | LinearReadoutConfig | RandomReadoutConfig
)


@dataclass(frozen=True)
class ShifterConfig:
    """Gaze shifter: a small network per mouse."""

    mode: str = option("pupil", "input of the shifter", Words("none", "pupil", "behavior_pupil"))
    layers: int = option(3, "layers", count)
    size: int = option(5, "hidden units", count)
    start: str = option(
        "random", "first shifts: random (as published, a quarter of a half frame) or zero", Words("random", "zero")
    )
