"""Command lines: flat flags generated from dataclasses, words with integer aliases, errors in one line.

A script is `cli.run(main, parser)`: parse, call `main(args)`, turn a UserError into one line and exit code 2.
"""

import argparse
import dataclasses
import difflib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from viv1t.errors import UserError
from viv1t.io import NO_SPACE


class Words:
    """A choice by word; the position of a word in the tuple is its integer code in the reference's commands."""

    metavar = "WORD"

    def __init__(self, *words: str):
        self.words = words

    def __call__(self, text: Any) -> str:
        text = str(text).strip().lower()
        if text.isdigit() and int(text) < len(self.words):
            return self.words[int(text)]
        if text in self.words:
            return text
        raise argparse.ArgumentTypeError(f"'{text}' is unknown{did_you_mean(text, self.words)}; one of {self}")

    def __str__(self) -> str:
        return ", ".join(f"{word} ({code})" for code, word in enumerate(self.words))


def switch(text: Any) -> bool:
    """1/0, true/false, yes/no, on/off."""
    text = str(text).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither 0 nor 1")


switch.metavar = "0|1"


def number(
    kind: type, low: float | None = None, high: float | None = None, even: bool = False, odd: bool = False
) -> Callable:
    """An int or float within [low, high]."""

    def parse(text: Any):
        try:
            value = kind(text)
        except (TypeError, ValueError):
            raise argparse.ArgumentTypeError(f"'{text}' is not a valid {kind.__name__}") from None
        if value != value or (low is not None and value < low) or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text} is outside [{low}, {high}]")
        if even and value % 2:
            raise argparse.ArgumentTypeError(f"{text} is odd; it must be even")
        if odd and not value % 2:
            raise argparse.ArgumentTypeError(f"{text} is even; it must be odd")
        return value

    parse.metavar = "N" if kind is int else "X"
    return parse


def numbers(text: Any) -> str:
    """Whole numbers from 1 on with commas between them, as text without spaces."""
    parts = [part.strip() for part in str(text).split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers such as 64,64,128")
    return ",".join(parts)


numbers.metavar = "N,N,..."


def option(default: Any, help: str, type: Callable = str, flag: bool = False, nargs: str | None = None):
    """A dataclass field that knows its flag: `flag=True` for a bare switch, `type` parses and checks the text."""
    metadata = {"help": help, "type": type, "flag": flag, "nargs": nargs}
    return dataclasses.field(default=default, metadata=metadata)


def add_options(parser: argparse.ArgumentParser, config: type, title: str, prefix: str = "") -> None:
    """One argparse group with a flag `--<prefix><field>` for every field of a dataclass made of `option`s."""
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(config):
        if not field.metadata:
            continue
        name, help = f"--{prefix}{field.name}", field.metadata["help"].replace("%", "%%")
        if field.metadata["flag"]:
            default = {"dest": f"{prefix}{field.name}", "default": field.default}
            group.add_argument(name, action="store_true", help=f"{help} (default: {_on(field.default)})", **default)
            # to take back what a preset says
            group.add_argument(f"--no-{name[2:]}", action="store_false", help=argparse.SUPPRESS, **default)
        else:
            kind = field.metadata["type"]
            if isinstance(kind, Words):
                help = f"{help}: {kind}"
            default = int(field.default) if kind is switch else field.default
            group.add_argument(
                name,
                type=kind,
                default=field.default,
                nargs=field.metadata["nargs"],
                help=f"{help} (default: {'none' if default is None else default})",
                metavar=getattr(kind, "metavar", None),
            )


def _on(value: bool) -> str:
    return "on" if value else "off"


def take_options(config: type, values: dict, prefix: str = ""):
    """Build the dataclass from a flat dict of flag values (words or codes); missing fields keep their default."""
    taken = {}
    for field in dataclasses.fields(config):
        key = f"{prefix}{field.name}"
        if not field.metadata or key not in values:
            continue
        value = values[key]
        if value is not None and not field.metadata["flag"]:
            try:
                value = (
                    [field.metadata["type"](v) for v in value]
                    if field.metadata["nargs"]
                    else field.metadata["type"](value)
                )
            except (argparse.ArgumentTypeError, ValueError, TypeError) as error:
                raise UserError(f"{key}: {error}") from None
        taken[field.name] = value
    return config(**taken)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


class Parser(argparse.ArgumentParser):
    """argparse with presets (@file), the nearest match for unknown flags, and one line per error (exit code 2)."""

    def __init__(self, description: str | None = None, **kwargs):
        super().__init__(
            description=description,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36),
            fromfile_prefix_chars="@",
            allow_abbrev=False,
            **kwargs,
        )

    def convert_arg_line_to_args(self, line: str) -> list[str]:
        return line.split("#")[0].split()

    def parse_args(self, args=None, namespace=None):
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self.why_unknown(unknown[0].split("=")[0]))
        return parsed

    def why_unknown(self, name: str) -> str:
        """One line about an argument that is none of this parser's."""
        known = [flag for action in self._actions for flag in action.option_strings]
        return f"unknown argument {name}{did_you_mean(name, known)}. See --help."

    def error(self, message: str):
        if os.environ.get("RANK", "0") == "0":  # of several processes with one command line, one says it
            print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


def cure_of(error: OSError) -> str | None:
    """What a user can do about a disk that is full, or a place that cannot be written to; None for other errors."""
    if error.errno in NO_SPACE:
        return "Free some space and run the command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Change its permissions, or name another folder."
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
        return "Name another folder."
    return None


_endings: list[Callable[[int], None]] = []


def at_end(end: Callable[[int], None]) -> None:
    """Let `end(exit code)` end the process when `run` is done, unless a bug ends it."""
    _endings.append(end)


def run(main: Callable, parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> None:
    """Parse, run, and leave with exit code 2 and one line if the user can cure what went wrong."""
    args, code = parser.parse_args(argv), 0
    try:
        _run(main, args, parser)
    except SystemExit as left:
        if not _endings:
            raise
        code = left.code or 0
    for end in _endings:
        end(code)


def _run(main: Callable, args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    try:
        main(args)
    except UserError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        cure = cure_of(error)
        if cure is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"{parser.prog}: {where}{os.strerror(error.errno).lower()}. {cure}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped.", file=sys.stderr)
        raise SystemExit(130) from None
