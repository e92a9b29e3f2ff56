"""Show each neuron its best classical and its best inverse grating, in many phases, and keep the time courses.

reads   RUN/ckpt (or, with --animal, <data_dir>/<lab>/<mouse>/truth/animal.json); RUN/aRF.csv; RUN/size_tuning.csv
        (estimate_size_tuning.py); unless --directions names some, RUN/selectivity_gratings.csv
writes  RUN/feedbackRF/onset_mouse<ID>.h5: responses (condition, neuron, frame) from onset. Goes on where
        it was stopped.
next    estimate_onset.py

Sizes are those that each neuron prefers, rounded to --size_step; neurons that are not inverse-tuned see the grey disc
of their largest response. Neurons without size tuning are shown nothing. As published: --directions 90 270 --size 20.
"""

from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import pandas as pd

from viv1t import cli, distributed
from viv1t.constants import FPS
from viv1t.experiment import Experiment, run
from viv1t.presentation import Timeline
from viv1t.results import locate, read_table
from viv1t.stimulus.contexts import context
from viv1t.subjects import add_subject_flags, open_subjects
from viv1t.targets import add_target_flags, audiences, read_targets


@dataclass(frozen=True)
class Protocol:
    """Change the experiment here or with the flags; nothing below knows a number."""

    size: float | None = None  # degrees, of all discs; None: what each neuron prefers
    size_step: float = 10.0
    directions: tuple | None = None  # None: each neuron's own
    phases: int = 8  # equally spaced: a simple cell answers to every phase at another time
    cpd: float = 0.04
    hertz: float = 2.0
    contrast: float = 1.0
    seconds: float = 0.6


SIZE = {"centre": "classical_deg", "inverse": "inverse_deg"}  # which of a neuron's sizes a kind of stimulus takes


def get_parser() -> cli.Parser:
    parser, protocol = cli.Parser(__doc__), Protocol()
    add_subject_flags(parser)
    add_target_flags(parser)
    group = parser.add_argument_group("what is shown")
    group.add_argument("--size", type=cli.number(float, 1, 179), metavar="DEG",
                       help="diameter of all discs (default: what each neuron prefers)")  # fmt: skip
    for name, kind, help in (
        ("size_step", cli.number(float, 1, 90), "preferred sizes are rounded to multiples of this"),
        ("phases", cli.number(int, 1), "phases of every grating"),
        ("contrast", cli.number(float, 0, 1), "Michelson contrast"),
    ):
        default = getattr(protocol, name)
        group.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{help} (default: {default:g})")
    return parser


def make_conditions(protocol: Protocol) -> pd.DataFrame:
    """One row for each pattern; NaN where direction or size are each neuron's own."""
    phases = np.arange(protocol.phases) * 360 / protocol.phases
    rows = product(SIZE, protocol.directions or (np.nan,), phases)
    table = pd.DataFrame(rows, columns=["kind", "direction_deg", "phase_deg"])
    return table.assign(
        size_deg=np.nan if protocol.size is None else protocol.size, sf_cpd=protocol.cpd, tf_hz=protocol.hertz,
        contrast=protocol.contrast, frames=round(protocol.seconds * FPS),
    )  # fmt: skip


def draw(monitor, condition, audience) -> np.ndarray:
    """One grating in, or around, a disc (frames, H, W), as contrast."""
    kind, own = condition["kind"], audience.own
    return context(
        monitor, audience.centre, kind, own.get(SIZE[kind], condition["size_deg"]),
        own.get("direction_deg", condition["direction_deg"]), condition["sf_cpd"], condition["tf_hz"],
        condition["frames"], condition["phase_deg"], condition["contrast"],
    )  # fmt: skip


def own_sizes(sizes: pd.DataFrame, step: float) -> pd.DataFrame:
    """`classical_deg` and `inverse_deg` of every `neuron`, whole steps; NaN for neurons that do not respond."""
    inverse = sizes["inverse_size_deg"].fillna(sizes["best_inverse_size_deg"])
    own = {"classical_deg": sizes["preferred_size_deg"], "inverse_deg": inverse}
    return sizes[["neuron"]].assign(**{name: (np.rint(deg / step) * step).clip(step) for name, deg in own.items()})


def main(args) -> None:
    directions = tuple(args.directions) if args.directions else None
    protocol = Protocol(args.size, args.size_step, directions, args.phases, contrast=args.contrast)
    experiment = Experiment(
        make_conditions(protocol),
        draw,
        Timeline(pattern=round(protocol.seconds * FPS)),
        None,
        {"experiment": "feedbackRF onset", "centre": args.centre, "protocol": asdict(protocol)},
    )
    own = [] if args.size else list(SIZE.values())
    with distributed.joined():
        for subject in open_subjects(args):
            targets = read_targets(args, subject.id)
            if own:
                sizes = read_table(args.output_dir, "size_tuning", [subject.id])
                targets = targets.merge(own_sizes(sizes, args.size_step), on="neuron", how="left")
            seen_by = audiences(args, subject, targets, own)
            run(subject, experiment, seen_by, locate(args.output_dir, "onset", subject.id), args.batch_size)


if __name__ == "__main__":
    cli.run(main, get_parser())
