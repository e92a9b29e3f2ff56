"""Everything that train.py can be told, as dataclasses from which its flags are printed."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viv1t import cli, io
from viv1t.cli import add_options, did_you_mean, number, option, switch, take_options
from viv1t.data.transforms import TRANSFORMS
from viv1t.errors import UserError
from viv1t.model.config import CORES, OUTPUT_MODES, READOUTS, ModelConfig, add_model_options
from viv1t.training.losses import CRITERIONS

at_least_0, at_least_1 = number(int, 0), number(int, 1)
rate = number(float, 0)


def one_of(*words: str):
    """A word in any case; the parser's answer to an unknown one names the nearest."""

    def parse(text: str) -> str:
        for word in words:
            if str(text).strip().lower() == word.lower():
                return word
        raise argparse.ArgumentTypeError(f"'{text}' is unknown{did_you_mean(text, words)}; one of {', '.join(words)}")

    return parse


def crop(text) -> int:
    """Frames of a training clip; -1 for whole trials."""
    return -1 if str(text).strip() == "-1" else at_least_1(text)


def clip_limit(text) -> float:
    """-1, 0 or a positive norm."""
    value = number(float)(text)
    if value < 0 and value != -1:
        raise argparse.ArgumentTypeError(f"{text} is neither -1 (adaptive), 0 (off) nor a positive norm")
    return value


@dataclass(frozen=True)
class DataConfig:
    data_dir: str = option("data", "folder that holds the recordings, at most two levels down")
    mouse_ids: list[str] | None = option(None, "mice to train on; none: every recording in --data_dir", nargs="+")
    limit_data: int | None = option(None, "training trials per mouse; none: all", at_least_1)
    limit_neurons: int | None = option(None, "neurons per mouse; none: all", at_least_1)
    transform_input: str = option("standardise", "scaling of video, behaviour and pupil position", TRANSFORMS)
    transform_output: str = option("standardise", "scaling of responses", TRANSFORMS)
    center_crop: float = option(1.0, "central fraction of the frame that is kept", number(float, 0.01, 1))
    crop_frame: int = option(300, "frames of a training clip; -1: whole trials", crop)
    num_workers: int = option(2, "threads that prepare batches", at_least_0)
    cache_dir: str | None = option(None, "where compact copies of recordings are kept; none: beside them")


@dataclass(frozen=True)
class RunConfig:
    output_dir: str | None = option(None, "run folder to write (required)")
    clear_output_dir: bool = option(False, "delete what the run folder holds and start anew", flag=True)
    resume: bool = option(False, "insist on a run to continue; without it one is continued if there is one", flag=True)
    restore: str | None = option(None, "start from all weights of this run")
    pretrained_core: str | None = option(None, "start from the core weights of this run (--core_lr 0 freezes them)")
    config: str | None = option(None, "take every flag that is not given from this RUN/config.json")
    save_every: float = option(300.0, "seconds between saves within an epoch", number(float, 0))
    dry_run: bool = option(False, "print the estimate of time and memory, then stop", flag=True)


@dataclass(frozen=True)
class FitConfig:
    epochs: int = option(400, "most epochs", at_least_1)
    batch_size: int = option(1, "trials per mouse and step", at_least_1)
    micro_batch_size: int = option(0, "trials per pass through the core; 0: as many as memory allows", at_least_0)
    criterion: str = option("poisson", f"loss: {', '.join(CRITERIONS)}", one_of(*CRITERIONS))
    ds_scale: bool = option(True, "weigh mice by the inverse of their number of training trials", switch)
    loss_skip: int = option(0, "frames at the start of a clip left out of the loss", at_least_0)
    cutmix: float = option(
        0.0, "probability that a clip shows a rectangle of another one of its mouse (CutMix)", number(float, 0, 1)
    )
    eval_every: int = option(1, "epochs between validations", at_least_1)
    patience: int = option(10, "epochs without improvement before stopping, schedule-free; 0: never", at_least_0)
    seed: int = option(1234, "seed of initial weights, order of trials, crops and dropout", at_least_0)


@dataclass(frozen=True)
class OptimizerConfig:
    lr: float | None = option(None, "learning rate", rate)
    core_lr: float | None = option(None, "learning rate of the core; 0 freezes it", rate)
    weight_decay: float | None = option(None, "weight decay", rate)
    core_weight_decay: float | None = option(None, "weight decay of the core", rate)
    schedule_free: bool = option(False, "schedule-free AdamW instead of AdamW with a plateau schedule", flag=True)
    lr_schedule: str = option(
        "plateau",
        "rates of AdamW: cut when validation stalls, or a cosine over all epochs (not for schedule-free)",
        one_of("plateau", "cosine"),
    )
    ema: float = option(
        0.0,
        "decay per step of an average of the weights that is evaluated in their place, with --lr_schedule cosine; "
        "0: none",
        number(float, 0, 0.999999),
    )
    adam_beta1: float = option(0.9, "decay of the first moment", number(float, 0, 0.9999))
    adam_beta2: float = option(0.999, "decay of the second moment", number(float, 0, 0.999999))
    adam_eps: float = option(1e-8, "added to the denominator", rate)
    adam_warmup_steps: int = option(400, "steps of linear warm-up, schedule-free and cosine", at_least_0)
    adam_r: float = option(0.0, "power of the step in the average, schedule-free", rate)
    adam_weight_lr_power: float = option(2.0, "power of the rate in the average, schedule-free", rate)
    clip_grad: float = option(-1.0, "gradient norm limit; -1: 10th percentile of earlier norms, 0: none", clip_limit)


@dataclass(frozen=True)
class ComputeConfig:
    device: str = option("", "cuda, mps or cpu; empty: the best there is")
    autocast: str = option(
        "auto", "bfloat16 in the core; auto: where the hardware has it", one_of("auto", "disable", "enable")
    )
    compile: bool = option(False, "compile the core", flag=True)
    grad_checkpointing: bool = option(False, "recompute activations instead of keeping them, 0 or 1", switch)
    deterministic: bool = option(False, "deterministic algorithms only", flag=True)


@dataclass(frozen=True)
class LogConfig:
    verbose: int = option(
        2, "0: errors only, 1: one line per epoch, 2: progress bars, 3: also the model", number(int, 0, 3)
    )
    wandb: str | None = option(None, "also log to this group of Weights & Biases")
    wandb_id: str | None = option(None, "continue this Weights & Biases run")


PARTS = {
    "data": DataConfig,
    "run": RunConfig,
    "fit": FitConfig,
    "optimizer": OptimizerConfig,
    "compute": ComputeConfig,
    "log": LogConfig,
}
TITLES = {
    "data": "data",
    "run": "run folder",
    "fit": "training",
    "optimizer": "optimiser",
    "compute": "computation",
    "log": "output",
}

# lr, core_lr, weight_decay, core_weight_decay as published for each core; of stacked2d and dwise our own
RATES = {
    "vivit": (0.0073, 0.0126, 0.6893, 0.0783),
    "v1t": (0.001647, 0.001647, 0.3939, 0.1789),
    "bvivit": (0.0036, 0.0048, 0.3939, 0.1789),
    "linear": (0.005, 0.005, 0.0, 0.0),
    "gru_baseline": (0.005, 0.005, 0.0, 0.0),
    "fcnn": (0.005, 0.005, 0.0, 0.0),
    "stacked2d": (0.005, 0.005, 0.0, 0.0),
    "dwise": (0.002, 0.002, 0.05, 0.05),
}
OTHER_RATES = (0.001, 0.001, 0.0, 0.0)

# one-off instructions, not part of what a run is
TRANSIENT = ("clear_output_dir", "resume", "config", "dry_run")
# may differ when a run is continued: where it runs and how far, not what it computes
MOVABLE = (
    "data_dir", "cache_dir", "output_dir", "num_workers", "epochs", "save_every", "micro_batch_size", "device",
    "compile", "grad_checkpointing", "deterministic", "verbose", "wandb", "wandb_id", "restore", "pretrained_core",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    data: DataConfig
    run: RunConfig
    fit: FitConfig
    optimizer: OptimizerConfig
    compute: ComputeConfig
    log: LogConfig
    model: ModelConfig

    @classmethod
    def from_flags(cls, flags: dict) -> "TrainConfig":
        """From a flat dict of flag values; learning rates that are missing are those published for the core."""
        model = ModelConfig.from_flags(flags)
        given = {name: value for name, value in flags.items() if value is not None}
        flags = {**flags, **default_rates(model.core, given), **given}
        config = cls(**{name: take_options(part, flags) for name, part in PARTS.items()}, model=model)
        config.check()
        return config

    def check(self) -> None:
        """Refuse combinations that cannot work before any data are read."""
        if self.run.output_dir is None:
            raise UserError("--output_dir is missing: name the run folder to write, such as runs/001_viv1t.")
        if self.run.restore and self.run.pretrained_core:
            raise UserError("--restore and --pretrained_core exclude each other: choose where the core comes from.")
        if CRITERIONS[self.fit.criterion].needs_positive and self.model.output_mode == "identity":
            raise UserError(
                f"--criterion {self.fit.criterion} takes the logarithm of predictions, which --output_mode identity "
                "lets be negative: use --output_mode elu or --criterion mse."
            )
        if self.optimizer.ema and (self.optimizer.schedule_free or self.optimizer.lr_schedule != "cosine"):
            raise UserError(
                "--ema averages the weights of AdamW with --lr_schedule cosine; --schedule_free averages them itself, "
                "and the plateau schedule takes weights back."
            )
        if 0 < self.data.crop_frame <= self.fit.loss_skip:
            raise UserError(
                f"--loss_skip {self.fit.loss_skip} leaves nothing of clips of {self.data.crop_frame} frames."
            )

    def to_flags(self) -> dict:
        """Flat dict of words that `from_flags` takes, without one-off instructions."""
        flags = {}
        for name in PARTS:
            flags |= dataclasses.asdict(getattr(self, name))
        flags |= self.model.to_flags()
        return {name: value for name, value in flags.items() if name not in TRANSIENT}


def differences(stored: dict, flags: dict) -> list[str]:
    """Flags by which a stored run is another than the one asked for, as text."""
    fixed = [name for name in flags if name not in MOVABLE or (name == "epochs" and flags["lr_schedule"] == "cosine")]
    names = [name for name in fixed if name in stored and stored[name] != flags[name]]
    return [f"--{name} {stored[name]} (now {flags[name]})" for name in names]


def default_rates(core: str, given: dict) -> dict[str, float]:
    """Published learning rates and decays of a core; a core without its own rate follows --lr."""
    rates = dict(
        zip(("lr", "core_lr", "weight_decay", "core_weight_decay"), RATES.get(core, OTHER_RATES), strict=True)
    )
    if rates["core_lr"] == rates["lr"] and "lr" in given:
        rates["core_lr"] = given["lr"]
    return rates


class TrainParser(cli.Parser):
    """Parser whose flags depend on the core and readout that were chosen, by flag, preset or --config."""

    def __init__(self, description: str | None = None, **kwargs):
        super().__init__(
            description,
            usage="%(prog)s --output_dir RUN [@preset.txt] [flags]",
            epilog="Listed are the flags of one core and one readout; those of others: --core NAME --readout NAME "
            f"--help.\n\ncores:\n{summary(CORES)}\n\nreadouts:\n{summary(READOUTS)}",
            **kwargs,
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace=None):
        chosen, _ = _choices(cli.Parser(prog=self.prog, add_help=False)).parse_known_args(args)
        try:
            stored = io.read_json(chosen.config) if chosen.config else {}
            core = chosen.core or stored.get("core", "vivit")
            readout = chosen.readout or stored.get("readout", "gaussian")
            self.add_flags(core, readout)
        except UserError as error:
            self.error(str(error))
        self.chosen = {"core": core, "readout": readout}
        self.set_defaults(**{name: value for name, value in stored.items() if name in self.flags()})
        return super().parse_args(args, namespace)

    def why_unknown(self, name: str) -> str:
        """Whose flag it is, if not that of the chosen core and readout; else the nearest of all flags."""
        tables = {"core": CORES, "readout": READOUTS}
        for kind, table in tables.items():
            owners = [word for word, config in table.items() if name in flags_of(kind, config)]
            if owners:
                return f"{name} is a flag of --{kind} {', '.join(owners)}; this is --{kind} {self.chosen[kind]}."
        flags = [flag for action in self._actions for flag in action.option_strings]
        for kind, table in tables.items():
            flags += [flag for config in table.values() for flag in flags_of(kind, config)]
        return f"unknown argument {name}{did_you_mean(name, flags)}. See --help."

    def add_flags(self, core: str, readout: str) -> None:
        group = self.add_argument_group("model")
        _choices(group, core, readout)
        group.add_argument(
            "--output_mode", type=OUTPUT_MODES, default="elu", metavar="WORD",
            help=f"output activation: {OUTPUT_MODES} (default: elu)",
        )  # fmt: skip
        group.add_argument(
            "--softplus_beta", type=number(float, 1e-3), default=1.0, metavar="X",
            help="steepness at which the softplus of --output_mode softplus starts; it is learned (default: 1.0)",
        )  # fmt: skip
        add_model_options(self, core, readout)
        for name, part in PARTS.items():
            add_options(self, part, TITLES[name])
        rates = default_rates(core, {})
        for action in self._actions:
            if action.dest in rates:
                action.help = action.help.replace("none", f"{rates[action.dest]} for {core}")

    def flags(self) -> set[str]:
        return {action.dest for action in self._actions} - set(TRANSIENT)


def flags_of(kind: str, config: type) -> list[str]:
    """The flags of a core or readout."""
    return [f"--{kind}_{field.name}" for field in dataclasses.fields(config)]


def summary(table: dict[str, type]) -> str:
    """What there is to choose from, with the first line of each docstring."""
    return "\n".join(f"  {name:<14} {config.__doc__.strip().splitlines()[0]}" for name, config in table.items())


def _choices(parser, core: str | None = None, readout: str | None = None):
    """The flags that decide which other flags there are."""
    parser.add_argument("--core", default=core, help=f"core: {', '.join(CORES)} (default: vivit)")
    parser.add_argument("--readout", default=readout, help=f"readout: {', '.join(READOUTS)} (default: gaussian)")
    if isinstance(parser, argparse.ArgumentParser):
        parser.add_argument("--config", type=Path)
    return parser
