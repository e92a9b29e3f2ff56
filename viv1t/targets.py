"""Where stimuli are centred and which way they drift: each neuron's own field and preference, or one for all.

A stimulus that misses the field by more than 2 pixels, or drifts across the preferred axis, measures something else
than size tuning or surround suppression: neurons without an accepted field and preference are shown nothing.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.errors import UserError
from viv1t.experiment import Audience, at_fields
from viv1t.results import read_fields, read_selectivity
from viv1t.subjects import Subject


def add_target_flags(parser: cli.Parser) -> None:
    group = parser.add_argument_group("where it is shown, and which way it drifts")
    group.add_argument("--centre", type=cli.Words("field", "population"), default="field", metavar="WORD",
                       help="on each neuron's field, or on the median of all (default: field)")  # fmt: skip
    group.add_argument("--directions", type=float, nargs="+", metavar="DEG",
                       help="directions shown to all, as published 90 270 (default: each neuron's own)")  # fmt: skip
    group.add_argument("--direction_step", type=cli.number(float, 1, 90), default=15.0, metavar="DEG",
                       help="own directions are rounded to multiples of this (default: 15)")  # fmt: skip
    group.add_argument("--field_step", type=cli.number(float, 0.25, 8), default=1.0, metavar="PX",
                       help="fields within one square of this size share a centre (default: 1)")  # fmt: skip


def read_targets(args, mouse_id: str) -> pd.DataFrame:
    """One row for each `neuron` of a mouse: `x`, `y` (px), `bad_fit`; `direction_deg` unless some are shown to all."""
    table = read_fields(args.output_dir, [mouse_id]).set_index("neuron")[["x", "y", "bad_fit"]]
    if args.directions is None:
        tuned = read_selectivity(args.output_dir, "gratings", [mouse_id]).set_index("neuron")
        step = args.direction_step
        own = np.rint(tuned["preferred_direction_deg"] / step) * step % 360
        table = table.join(own.rename("direction_deg"))
    return table.reset_index()


def audiences(args, subject: Subject, targets: pd.DataFrame, own: Sequence[str] = ()) -> list[Audience]:
    """Neurons that see the same frames; `own` names further columns of `targets` that stimuli are made from.

    `Audience.own` holds `direction_deg` unless directions are shown to all.
    """
    own = [*([] if args.directions else ["direction_deg"]), *own]
    if args.centre == "field":
        return at_fields(subject, targets, args.field_step, own)
    return at_fields(subject, at_population(subject, targets), 1e-3, own)


def at_population(subject: Subject, targets: pd.DataFrame) -> pd.DataFrame:
    """The targets with every accepted field moved to the median of all; UserError where there is none."""
    usable = targets[~targets["bad_fit"].astype(bool)]
    if not len(usable):
        raise UserError(f"mouse {subject.id}: no neuron has an accepted field, see aRF.csv.")
    return targets.assign(**usable[["x", "y"]].median())
