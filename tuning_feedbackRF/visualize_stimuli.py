"""Draw classical and inverse gratings as the monitor showed them to one neuron.

reads   RUN/feedbackRF/mouse<ID>.h5 (predict_gratings.py): monitor, sizes, and where the stimuli were centred
writes  RUN/figures/feedbackRF_stimuli_mouse<ID>.{pdf,png,csv}
next    estimate_size_tuning.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.errors import UserError
from viv1t.measurements import Measurement
from viv1t.plotting import sizes, style
from viv1t.results import find_mice, require
from viv1t.stimulus.contexts import context
from viv1t.stimulus.levels import grey_levels

MOST = 5  # sizes
KINDS = {"centre": "classical", "inverse": "inverse"}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with feedbackRF/")
    parser.add_argument("--mouse_ids", nargs=1, metavar="ID", help="whose monitor (default: the first)")
    parser.add_argument("--neuron", type=cli.number(int, 0), metavar="N",
                        help="row in the recording (default: the first that was shown them)")  # fmt: skip
    parser.add_argument("--direction", type=float, default=90.0, metavar="DEG",
                        help="of the drift, 0 left, 90 down (default: 90)")  # fmt: skip
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    mouse_id = find_mice(run_dir, "sizes", args.mouse_ids)[0]
    with Measurement(require(run_dir, "sizes", mouse_id)) as measurement:
        centre, neuron = centre_of(measurement, args.neuron)
        conditions, monitor = measurement.conditions, measurement.monitor
    shown = np.unique(conditions.loc[conditions["kind"] == "centre", "size_deg"])
    shown = shown[np.unique(np.linspace(0, len(shown) - 1, min(MOST, len(shown))).round().astype(int))]
    first = conditions.iloc[0]
    fig, axes = style.figure(2, len(shown), height=52)
    numbers = []
    for row, (kind, name) in zip(axes, KINDS.items(), strict=True):
        for ax, size in zip(row, shown, strict=True):
            frame = context(monitor, centre, kind, size, args.direction, first["sf_cpd"], first["tf_hz"], 1,
                            contrast=first["contrast"])[0]  # fmt: skip
            sizes.shown_frame(ax, grey_levels(frame), centre)
            ax.set_title(f"{size:g} deg" if kind == "centre" else "", loc="center")
            numbers.append({"kind": name, "size_deg": size, "x_px": centre[0], "y_px": centre[1],
                            "share_covered": float((abs(frame) > 0).mean())})  # fmt: skip
        row[0].set_ylabel(name)
    caption = (
        f"First frames of classical (above) and inverse gratings (below) on the monitor of mouse {mouse_id}, for "
        f"discs of {', '.join(f'{size:g}' for size in shown)} degrees on the field of neuron {neuron} (cross). Discs "
        "are circles for the eye, not on the flat screen."
    )
    name = f"feedbackRF_stimuli_mouse{mouse_id}"
    for path in style.save(fig, run_dir / "figures" / name, pd.DataFrame(numbers).round(6), caption):
        print(path)


def centre_of(measurement: Measurement, neuron: int | None) -> tuple[tuple[float, float], int]:
    """Pixel (x, y) on which a neuron's stimuli were centred, and the neuron."""
    shown = measurement.neurons[measurement.shown]
    neuron = int(shown[0]) if neuron is None else neuron
    if neuron not in shown:
        raise UserError(f"--neuron {neuron}: was shown no stimuli. Name one that was, e.g. {shown[0]}.")
    return tuple(map(float, measurement.centre[measurement.neurons == neuron][0])), neuron


if __name__ == "__main__":
    cli.run(main, get_parser())
