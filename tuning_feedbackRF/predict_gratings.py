"""Show drifting gratings in discs of many sizes, and around grey discs, to a trained twin or to the simulated animals.

Classical (`centre`): a grating in a disc, grey around it. Inverse: a grey disc, the grating around it, up to the
edges of the screen; without a disc (size 0) it is the full-field grating. Both lie on each neuron's own field and
drift in its preferred direction.

reads   RUN/ckpt (or, with --animal, <data_dir>/<lab>/<mouse>/truth/animal.json); RUN/aRF.csv; unless --directions
        names some, RUN/selectivity_gratings.csv
writes  RUN/feedbackRF/mouse<ID>.h5: responses (condition, neuron), means from 0.5 s to 1 s, which is one whole cycle
        of the grating. Goes on where it was stopped.
next    estimate_size_tuning.py

A twin gives the same answer to the same frames: --repeats only makes sense for animals with --noise, i.e. for a
recording. As published: --directions 90 270 --sizes 10 20 30 40 50 60 70 80 90 --phases 12.
"""

from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import pandas as pd

from viv1t import cli, distributed
from viv1t.constants import FPS
from viv1t.errors import UserError
from viv1t.experiment import Experiment, run
from viv1t.presentation import Timeline, Window
from viv1t.results import locate
from viv1t.stimulus.contexts import context
from viv1t.subjects import add_subject_flags, open_subjects
from viv1t.targets import add_target_flags, audiences, read_targets


@dataclass(frozen=True)
class Protocol:
    """Change the experiment here or with the flags; nothing below knows a number."""

    sizes: tuple = (5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 80)  # diameters of the disc, degrees
    directions: tuple | None = None  # None: each neuron's own
    phases: int = 2  # equally spaced; the window is one cycle, so that phase hardly matters
    repeats: int = 1
    cpd: float = 0.04
    hertz: float = 2.0
    contrast: float = 1.0
    seconds: float = 1.0
    onset: float = 0.5  # s that are left out, as in vivo


def get_parser() -> cli.Parser:
    parser, protocol = cli.Parser(__doc__), Protocol()
    add_subject_flags(parser)
    add_target_flags(parser)
    group = parser.add_argument_group("what is shown")
    group.add_argument("--sizes", type=cli.number(float, 1, 179), nargs="+", default=protocol.sizes, metavar="DEG",
                       help=f"diameters of the disc (default: {' '.join(map(str, protocol.sizes))})")  # fmt: skip
    for name, kind, help in (
        ("phases", cli.number(int, 1), "phases of every grating"),
        ("contrast", cli.number(float, 0, 1), "Michelson contrast"),
        ("repeats", cli.number(int, 1), "presentations of every pattern, for --animal with --noise"),
    ):
        default = getattr(protocol, name)
        group.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{help} (default: {default})")
    return parser


def make_conditions(protocol: Protocol) -> pd.DataFrame:
    """One row for each pattern; `direction_deg` is NaN where it is each neuron's own."""
    discs = [*product(["centre"], protocol.sizes), *product(["inverse"], (0, *protocol.sizes))]
    phases = np.arange(protocol.phases) * 360 / protocol.phases
    rows = product(discs, protocol.directions or (np.nan,), phases, range(protocol.repeats))
    table = pd.DataFrame(
        [(*disc, *rest) for disc, *rest in rows], columns=["kind", "size_deg", "direction_deg", "phase_deg", "repeat"]
    )
    frames = round(protocol.seconds * FPS)
    return table.astype({"size_deg": float}).assign(
        sf_cpd=protocol.cpd, tf_hz=protocol.hertz, contrast=protocol.contrast, frames=frames
    )


def draw(monitor, condition, audience) -> np.ndarray:
    """One grating in, or around, a disc (frames, H, W), as contrast."""
    return context(
        monitor, audience.centre, condition["kind"], condition["size_deg"],
        audience.own.get("direction_deg", condition["direction_deg"]), condition["sf_cpd"], condition["tf_hz"],
        condition["frames"], condition["phase_deg"], condition["contrast"],
    )  # fmt: skip


def main(args) -> None:
    if args.repeats > 1 and not args.noise:
        raise UserError("--repeats: without noise all repeats are equal. Leave it, or add --animal --noise 1.")
    directions = tuple(args.directions) if args.directions else None
    protocol = Protocol(tuple(sorted(set(args.sizes))), directions, args.phases, args.repeats, contrast=args.contrast)
    experiment = Experiment(
        make_conditions(protocol),
        draw,
        Timeline(pattern=round(protocol.seconds * FPS)),
        Window(protocol.onset, protocol.seconds),
        {"experiment": "feedbackRF", "centre": args.centre, "protocol": asdict(protocol)},
    )
    with distributed.joined():
        for subject in open_subjects(args):
            seen_by = audiences(args, subject, read_targets(args, subject.id))
            run(subject, experiment, seen_by, locate(args.output_dir, "sizes", subject.id), args.batch_size)


if __name__ == "__main__":
    cli.run(main, get_parser())
