"""What a sweep searches: flags of train.py and the values they may take, checked before anything starts.

A space is a small YAML file, one flag a line (presets/sweep.yaml):

  core_lr: {log_uniform: [0.001, 0.02]}       between two positive numbers, evenly in the logarithm
  core_p_dropout: {uniform: [0, 0.4]}         between two numbers
  core_spatial_depth: {int: [1, 4]}           whole numbers, both ends included
  criterion: {choice: [poisson, gamma]}       one of a list; true and false for flags that take no value
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from viv1t.cli import did_you_mean
from viv1t.errors import UserError
from viv1t.training.config import TRANSIENT, TrainConfig, TrainParser

KINDS = ("log_uniform", "uniform", "int", "choice")
OWN = {"output_dir", "epochs", *TRANSIENT}  # the sweep's to set


@dataclass(frozen=True)
class Dimension:
    """One flag. values: (low, high), or all there are to choose from."""

    name: str
    kind: str
    values: tuple

    def draw(self, rng: np.random.Generator):
        """A value at random."""
        if self.kind == "choice":
            return self.values[rng.integers(len(self.values))]
        low, high = self.values
        if self.kind == "int":
            return int(rng.integers(low, high, endpoint=True))
        if self.kind == "log_uniform":
            return float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return float(rng.uniform(low, high))


def read_space(path: Path | str) -> list[Dimension]:
    """The dimensions of a file; UserError names the flag that is written wrongly."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--space {path}: no such file; presets/sweep.yaml is an example.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--space {path}: not valid YAML ({str(error).splitlines()[0]}).") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"--space {path}: holds no flags; presets/sweep.yaml is an example.")
    return [_dimension(path, name, written) for name, written in content.items()]


def _dimension(path: Path | str, name: str, written) -> Dimension:
    if not (isinstance(written, dict) and len(written) == 1 and isinstance(*written.values(), list)):
        raise UserError(f"--space {path}: {name} needs one of {', '.join(KINDS)} and a list: {name}: {{int: [1, 4]}}.")
    ((kind, values),) = written.items()
    if kind not in KINDS:
        raise UserError(f"--space {path}: {name}: {kind} is unknown{did_you_mean(kind, KINDS)}; {', '.join(KINDS)}.")
    if kind == "choice":
        if not values or not all(isinstance(value, str | int | float) for value in values):
            raise UserError(f"--space {path}: {name}: choice needs a list of words, numbers, true or false.")
        return Dimension(name, kind, tuple(values))
    try:
        low, high = (int(str(value)) if kind == "int" else float(value) for value in values)
    except (TypeError, ValueError):
        whole = "whole " if kind == "int" else ""
        raise UserError(f"--space {path}: {name}: {kind} needs two {whole}numbers, not {values}.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (kind == "log_uniform" and low <= 0):
        least = "0 < low < high" if kind == "log_uniform" else "low < high"
        raise UserError(f"--space {path}: {name}: {kind} needs [low, high] with {least}, not {values}.")
    return Dimension(name, kind, (low, high))


def check_space(path: Path | str, space: Sequence[Dimension], common: Sequence[str]) -> None:
    """Every flag must be one of train.py, and every choice and limit a value that it takes.

    common: the flags of all trials. Errors of theirs leave with one line and exit code 2, as in train.py.
    """
    for i in range(max(len(dimension.values) for dimension in space)):
        params = {dimension.name: dimension.values[min(i, len(dimension.values) - 1)] for dimension in space}
        check_params(f"--space {path}", params, common)


def check_params(source: str, params: dict, common: Sequence[str]) -> None:
    """One trial: its flags are known to train.py, together with those of all trials."""
    for flag in common:
        if flag.split("=")[0] in ("--output_dir", "--clear_output_dir", "--resume", "--dry_run"):
            raise UserError(f"{flag.split('=')[0]}: the sweep's own to set for every trial; leave it out after '--'.")
    parser = TrainParser()
    parser.parse_args(common)
    for name in params:
        if name in OWN:
            raise UserError(f"{source}: {name} is the sweep's own to set; leave it out.")
        if name not in parser.flags():
            raise UserError(f"{source}: {name} is no flag of train.py{did_you_mean(name, sorted(parser.flags()))}.")
    args = vars(TrainParser().parse_args([*common, *to_flags(params), "--output_dir=trial"]))
    for name, value in params.items():
        if isinstance(value, bool) and args[name] != value:
            raise UserError(f"{source}: {name} cannot be {value}, because --{name} is given for all trials.")
    TrainConfig.from_flags(args)


def epochs_of(common: Sequence[str]) -> int:
    """What the flags of all trials say of --epochs."""
    return TrainParser().parse_args(common).epochs


def to_flags(params: dict) -> list[str]:
    """Command line of some values: --name=value, or --name alone where the value is true."""
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in params.items() if value is not False
    ]
