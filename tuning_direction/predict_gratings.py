"""Show drifting gratings to a trained twin or to the simulated animals.

Every combination of direction, spatial and temporal frequency, full field or in a patch on each neuron's own receptive
field. Neurons whose fields share a pixel share the stimuli.

reads   RUN/ckpt (or, with --animal, <data_dir>/<lab>/<mouse>/truth/animal.json); RUN/aRF.csv with --centre field
writes  RUN/direction/mouse<ID>.h5: responses (condition, neuron), means from 0.1 s on. Goes on where it was stopped.
next    estimate_selectivity.py
"""

from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import pandas as pd

from viv1t import cli, distributed
from viv1t.constants import FPS
from viv1t.experiment import Experiment, at_fields, at_screen_centre, run
from viv1t.presentation import Timeline, Window
from viv1t.results import locate, read_fields
from viv1t.stimulus import gratings, windows
from viv1t.subjects import add_subject_flags, open_subjects


@dataclass(frozen=True)
class Protocol:
    """Change the experiment here or with the flags; nothing below knows a number."""

    directions: int = 16  # equally spaced; 0 drifts left, 90 down
    cpd: tuple = (0.02, 0.04, 0.08)  # cycles per degree
    hertz: tuple = (1.0, 2.0, 4.0)
    phases: int = 2  # equally spaced; two cancel the response's first harmonic
    contrast: float = 1.0
    patch: float | None = None  # degrees; None fills the screen
    seconds: float = 1.0
    onset: float = 0.1  # s that are left out: the latency of the response


def get_parser() -> cli.Parser:
    parser, protocol = cli.Parser(__doc__), Protocol()
    add_subject_flags(parser)
    group = parser.add_argument_group("what is shown")
    group.add_argument("--centre", type=cli.Words("screen", "field"), default="screen", metavar="WORD",
                       help="gratings fill the screen, or a patch on each field (default: screen)")  # fmt: skip
    group.add_argument("--patch", type=cli.number(float, 1, 180), default=30.0, metavar="DEG",
                       help="diameter of the patch (default: 30)")  # fmt: skip
    group.add_argument("--field_step", type=cli.number(float, 0.25, 8), default=1.0, metavar="PX",
                       help="fields within one square of this size share a patch (default: 1)")  # fmt: skip
    for name, kind, help in (
        ("directions", cli.number(int, 4, even=True), "number of directions"),
        ("phases", cli.number(int, 1), "phases of every grating"),
        ("contrast", cli.number(float, 0, 1), "Michelson contrast"),
    ):
        default = getattr(protocol, name)
        group.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{help} (default: {default})")
    for name, help in (("cpd", "spatial frequencies, cycles per degree"), ("hertz", "temporal frequencies")):
        default = getattr(protocol, name)
        shown = " ".join(f"{value:g}" for value in default)
        group.add_argument(f"--{name}", type=cli.number(float, 0), nargs="+", default=default, metavar="X",
                           help=f"{help} (default: {shown})")  # fmt: skip
    return parser


def draw(monitor, condition, audience) -> np.ndarray:
    """One grating (frames, H, W), as contrast."""
    grating = gratings.grating(
        monitor, condition["direction_deg"], condition["sf_cpd"], condition["tf_hz"], condition["frames"],
        phase_deg=condition["phase_deg"], contrast=condition["contrast"], centre=audience.centre,
    )  # fmt: skip
    if np.isnan(condition["patch_deg"]):
        return grating
    return grating * windows.disc(monitor, audience.centre, condition["patch_deg"])


def make_conditions(protocol: Protocol) -> pd.DataFrame:
    directions, phases = (np.arange(n) * 360 / n for n in (protocol.directions, protocol.phases))
    rows = product(protocol.cpd, protocol.hertz, directions, phases)
    table = pd.DataFrame(rows, columns=["sf_cpd", "tf_hz", "direction_deg", "phase_deg"])
    return table.assign(
        contrast=protocol.contrast,
        patch_deg=np.nan if protocol.patch is None else protocol.patch,
        frames=round(protocol.seconds * FPS),
    )


def main(args) -> None:
    at_field = args.centre == "field"
    protocol = Protocol(args.directions, tuple(args.cpd), tuple(args.hertz), args.phases, args.contrast,
                        args.patch if at_field else None)  # fmt: skip
    experiment = Experiment(
        make_conditions(protocol),
        draw,
        Timeline(pattern=round(protocol.seconds * FPS)),
        Window(protocol.onset, protocol.seconds),
        {"experiment": "direction", "centre": args.centre, "protocol": asdict(protocol)},
    )
    with distributed.joined():
        fields = read_fields(args.output_dir) if at_field else None
        for subject in open_subjects(args):
            if at_field:
                audiences = at_fields(subject, fields[fields["mouse"] == subject.id], args.field_step)
            else:
                audiences = at_screen_centre(subject)
            run(subject, experiment, audiences, locate(args.output_dir, "direction", subject.id), args.batch_size)


if __name__ == "__main__":
    cli.run(main, get_parser())
