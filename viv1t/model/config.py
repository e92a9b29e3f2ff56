"""What a model is made of: one core, one readout, shifter and output activation, and their options."""

import argparse
import dataclasses
from dataclasses import dataclass

from viv1t.cli import Words, add_options, did_you_mean, take_options
from viv1t.errors import UserError
from viv1t.model.options import CORES, READOUTS, CoreConfig, ReadoutConfig, ShifterConfig

OUTPUT_MODES = Words("identity", "elu", "exp", "softplus", "sigmoid")


@dataclass(frozen=True)
class ModelConfig:
    """Core, readout, shifter and output activation of one model, for any number of mice."""

    core: str
    readout: str
    output_mode: str
    core_config: CoreConfig
    readout_config: ReadoutConfig
    shifter_config: ShifterConfig
    softplus_beta: float = 1.0
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
        if not READOUTS[readout].local:
            flags = {"shifter_mode": "none"} | flags
            if str(flags["shifter_mode"]) not in ("none", "0"):
                raise UserError(
                    f"--readout {readout} reads no positions that gaze could shift: use --shifter_mode none."
                )
        return cls(
            core=core,
            readout=readout,
            output_mode=output_mode,
            core_config=take_options(CORES[core], flags, "core_"),
            readout_config=take_options(READOUTS[readout], flags, "readout_"),
            shifter_config=take_options(ShifterConfig, flags, "shifter_"),
            softplus_beta=float(flags.get("softplus_beta", 1.0)),
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
        return flags | {"softplus_beta": self.softplus_beta, "max_frame": self.max_frame}


def add_model_options(parser: argparse.ArgumentParser, core: str, readout: str) -> None:
    """The flag groups of one core, one readout, the shifter, and the output activation."""
    add_options(parser, CORES[_known("core", core, CORES)], f"core {core}", "core_")
    add_options(parser, READOUTS[_known("readout", readout, READOUTS)], f"readout {readout}", "readout_")
    add_options(parser, ShifterConfig, "shifter", "shifter_")
    if not READOUTS[readout].local:
        parser.set_defaults(shifter_mode="none")
        (mode,) = (action for action in parser._actions if action.dest == "shifter_mode")
        mode.help = f"{mode.help.split(':')[0]}: none, since this readout reads no positions"


def _known(kind: str, name: str, table: dict) -> str:
    name = str(name).lower()
    if name not in table:
        raise UserError(f"--{kind} {name} is unknown{did_you_mean(name, list(table))}. Known: {', '.join(table)}.")
    return name
