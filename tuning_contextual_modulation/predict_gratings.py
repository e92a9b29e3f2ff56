"""Show gratings in a disc and around it, at several contrasts, to a trained twin or to the simulated animals.

Each neuron sees them on its own receptive field, drifting its own way, unless one centre (`--centre population`) or
some directions (`--directions 90 270`) are shown to all. Without noise nothing needs repeating, and responses differ
between equally spaced phases only; a simulated recording is `--animal --noise 1 --repeats 20`.

reads   RUN/ckpt (or, with --animal, <data_dir>/<lab>/<mouse>/truth/animal.json); RUN/aRF.csv;
        RUN/selectivity_gratings.csv unless --directions are given; RUN/size_tuning.csv with --sizes own
writes  RUN/contextual_modulation/mouse<ID>.h5: responses (condition, neuron), means over the window. With --traces,
        RUN/contextual_modulation/traces_mouse<ID>.h5: (condition, neuron, frame), until half a second after the
        pattern. Goes on where it was stopped.
next    estimate_contextual_modulation.py; visualize_responses.py for traces
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
from viv1t.results import locate, read_table
from viv1t.stimulus.contexts import KINDS, context
from viv1t.stimulus.gratings import whole_frames
from viv1t.subjects import add_subject_flags, open_subjects
from viv1t.targets import add_target_flags, audiences, read_targets

OWN_STEP = 5.0  # deg, to which the neurons' own sizes are rounded
BEYOND = 10.0  # deg, what a disc may exceed the classical field by
SMALLEST, LARGEST = 5.0, 90.0  # deg, of a disc
AFTER = 15  # frames of grey that time courses go on for


@dataclass(frozen=True)
class Protocol:
    """Change the experiment here or with the flags; nothing below knows a number."""

    contrasts: tuple = (0.05, 1.0)  # Michelson
    sizes: tuple | None = (10.0, 20.0, 30.0, 40.0, 50.0)  # degrees, of the disc; None: each neuron's own
    kinds: tuple = tuple(KINDS)
    directions: tuple | None = None  # None: each neuron's own
    phases: int = 4  # equally spaced, to whole frames
    repeats: int = 1
    cpd: float = 0.04  # cycles per degree
    hertz: float = 2.0
    outer: float | None = None  # degrees; None: surrounds fill the screen
    gap: float = 0.0  # degrees between disc and surround
    seconds: float = 1.0
    window: tuple = (0.0, 1.0)  # s after onset that are averaged


def get_parser() -> cli.Parser:
    parser, protocol = cli.Parser(__doc__), Protocol()
    add_subject_flags(parser)
    add_target_flags(parser)
    group = parser.add_argument_group("what is shown")
    group.add_argument("--contrasts", type=cli.number(float, 0, 1), nargs="+", default=protocol.contrasts,
                       metavar="X", help="Michelson contrasts (default: 0.05 1)")  # fmt: skip
    group.add_argument("--sizes", type=size_of, nargs="+", default=protocol.sizes, metavar="DEG",
                       help="diameters of discs, or 'own', each neuron's (default: 10 20 30 40 50)")  # fmt: skip
    group.add_argument("--kinds", choices=list(KINDS), nargs="+", default=protocol.kinds, metavar="WORD",
                       help=f"{', '.join(KINDS)} (default: all)")  # fmt: skip
    group.add_argument("--phases", type=cli.number(int, 1), default=protocol.phases, metavar="N",
                       help="phases of every grating (default: 4)")  # fmt: skip
    for name, low, high, help in (("cpd", 0.001, 1, "cycles per degree"), ("hertz", 0, 15, "cycles per second")):
        default = getattr(protocol, name)
        group.add_argument(f"--{name}", type=cli.number(float, low, high), default=default, metavar="X",
                           help=f"{help} (default: {default:g})")  # fmt: skip
    group.add_argument("--repeats", type=cli.number(int, 1), default=1, metavar="N",
                       help="with --noise: presentations of every pattern (default: 1)")  # fmt: skip
    group.add_argument("--outer", type=cli.number(float, 1, 179), metavar="DEG",
                       help="diameter at which surrounds end (default: they fill the screen)")  # fmt: skip
    group.add_argument("--gap", type=cli.number(float, 0, 60), default=0.0, metavar="DEG",
                       help="grey between disc and surround (default: 0)")  # fmt: skip
    group = parser.add_argument_group("what is kept")
    group.add_argument("--window", type=cli.number(float, 0, protocol.seconds), nargs=2, default=protocol.window,
                       metavar=("START", "STOP"), help="s that are averaged, from onset (default: 0 1)")  # fmt: skip
    group.add_argument("--traces", action="store_true", help="keep whole time courses, in a file of their own")
    return parser


def size_of(text: str) -> float | None:
    return None if text == "own" else cli.number(float, SMALLEST, LARGEST)(text)


def draw(monitor, condition: dict, audience) -> np.ndarray:
    """One pattern (frames, H, W), as contrast; what the condition leaves open is the audience's own."""
    shown = {name: value for name, value in condition.items() if value == value} | audience.own
    return context(
        monitor, audience.centre, shown["kind"], shown.get("size_deg", 0.0), shown["direction_deg"], shown["sf_cpd"],
        shown["tf_hz"], shown["frames"], shown["phase_deg"], shown["contrast"], shown.get("outer_deg"),
        shown["gap_deg"], shown["side"],
    )  # fmt: skip


def make_conditions(protocol: Protocol) -> pd.DataFrame:
    """One row for each pattern; NaN where it is the neuron's own, and where size means nothing: iso without a border.

    A cross surround has two directions of drift; one is shown at even phases, the other at odd ones.
    """
    bordered = protocol.gap > 0 or protocol.outer is not None
    rows = product(range(protocol.repeats), protocol.contrasts, protocol.kinds, protocol.sizes or (np.nan,),
                   protocol.directions or (np.nan,), range(protocol.phases))  # fmt: skip
    table = pd.DataFrame(rows, columns=["repeat", "contrast", "kind", "size_deg", "direction_deg", "phase"])
    if not bordered:
        table.loc[table["kind"] == "iso", "size_deg"] = np.nan
        table = table.drop_duplicates(ignore_index=True)
    return table.assign(
        phase_deg=whole_frames(protocol.phases, protocol.hertz)[table["phase"]],
        side=np.where(table["phase"] % 2, -1.0, 1.0),
        sf_cpd=protocol.cpd,
        tf_hz=protocol.hertz,
        outer_deg=np.nan if protocol.outer is None else protocol.outer,
        gap_deg=protocol.gap,
        frames=round(protocol.seconds * FPS),
    ).drop(columns="phase")


def take_protocol(args) -> Protocol:
    own = None in args.sizes
    if own and len(args.sizes) > 1:
        raise UserError("--sizes: 'own' stands alone. Name sizes, or 'own'.")
    sizes = None if own else tuple(sorted(set(args.sizes)))
    largest = LARGEST if own else sizes[-1]
    if args.outer is not None and args.outer <= largest + 2 * args.gap:
        raise UserError(f"--outer {args.outer:g}: no room around a disc of {largest:g} deg and its gap. Raise it.")
    if args.window[0] + 1 / FPS > args.window[1]:
        raise UserError(f"--window {args.window[0]:g} {args.window[1]:g}: holds no frame. Give start and stop in s.")
    if args.repeats > 1 and not args.noise:
        raise UserError("--repeats: answers without noise are all alike. Add --animal --noise 1, or leave it.")
    return Protocol(
        contrasts=tuple(sorted(set(args.contrasts))),
        sizes=sizes,
        kinds=tuple(dict.fromkeys(args.kinds)),
        directions=tuple(args.directions) if args.directions else None,
        phases=args.phases,
        repeats=args.repeats,
        cpd=args.cpd,
        hertz=args.hertz,
        outer=args.outer,
        gap=args.gap,
        window=tuple(args.window),
    )


def own_sizes(args, mouse_id: str) -> pd.Series:
    """Preferred size of every neuron, rounded up (deg): discs that do not fill the field are worse than larger ones.

    NaN where it has none. Where nothing suppresses a neuron its preferred size is the largest shown, and no surround
    would be left: discs end a little beyond where 95 % of the peak are reached.
    """
    table = read_table(args.output_dir, "size_tuning", [mouse_id]).set_index("neuron")
    size = np.minimum(table["preferred_size_deg"], table["ffrf_size_deg"] + BEYOND)
    return (np.ceil(size / OWN_STEP) * OWN_STEP).clip(SMALLEST, LARGEST).rename("size_deg")


def main(args) -> None:
    protocol = take_protocol(args)
    timeline = Timeline(pattern=round(protocol.seconds * FPS), after=AFTER if args.traces else 0)
    window = None if args.traces else Window(*protocol.window)
    result = "context_traces" if args.traces else "context"
    with distributed.joined():
        for subject in open_subjects(args):
            targets, about = read_targets(args, subject.id), {}
            if protocol.sizes is None:
                sizes = own_sizes(args, subject.id)
                targets = targets.join(sizes, on="neuron")
                about = {
                    "own_size_deg": sizes.reindex(subject.neurons).astype(object).where(sizes.notna(), None).tolist()
                }
            seen_by = audiences(args, subject, targets, ["size_deg"] if protocol.sizes is None else [])
            experiment = Experiment(
                make_conditions(protocol), draw, timeline, window,
                {"experiment": "contextual_modulation", "centre": args.centre, "protocol": asdict(protocol)} | about,
            )  # fmt: skip
            run(subject, experiment, seen_by, locate(args.output_dir, result, subject.id), args.batch_size)


if __name__ == "__main__":
    cli.run(main, get_parser())
