"""Draw time courses of example neurons, by kind of surround and contrast.

reads   RUN/contextual_modulation/traces_mouse<ID>.h5 (predict_gratings.py --traces --neurons ..., or
        read_recording.py --traces)
writes  RUN/figures/contextual_responses_mouse<ID>.{pdf,png,csv}
next    report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.constants import FPS
from viv1t.errors import UserError
from viv1t.measurements import Measurement
from viv1t.plotting import contexts, style
from viv1t.results import find_mice, require
from viv1t.stimulus.contexts import KINDS

EXAMPLES, MOST = 4, 6  # columns of the figure
PATTERN = 1.0  # s


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--output_dir", required=True, metavar="RUN", help="folder with contextual_modulation/traces_*"
    )
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all with time courses)")
    parser.add_argument("--neurons", type=cli.number(int, 0), nargs="+", metavar="N",
                        help=f"rows in the recording (default: the first {EXAMPLES} that were kept)")  # fmt: skip
    parser.add_argument("--size", type=cli.number(float, 1, 180), default=20.0, metavar="DEG",
                        help="diameter of the disc; the nearest that was shown is drawn (default: 20)")  # fmt: skip
    return parser


def main(args) -> None:
    if len(args.neurons or ()) > MOST:
        raise UserError(f"--neurons: {MOST} fit into the figure, {len(args.neurons)} are named. Name fewer.")
    for mouse_id in find_mice(args.output_dir, "context_traces", args.mouse_ids):
        with Measurement(require(args.output_dir, "context_traces", mouse_id)) as measurement:
            write_examples(Path(args.output_dir), mouse_id, measurement, args)


def write_examples(run_dir: Path, mouse_id: str, measurement: Measurement, args) -> None:
    examples = choose(mouse_id, measurement, args.neurons)
    table, size = at_size(measurement.conditions, args.size)
    contrasts = sorted(table["contrast"].unique(), reverse=True)
    fig, axes = style.figure(len(contrasts), len(examples), height=40 * len(contrasts) + 14, below=8, sharex=True)
    seconds, numbers = np.arange(measurement.responses.shape[2]) / FPS, []
    for column, row in enumerate(examples):
        above = measurement.responses[:, row] - measurement.spontaneous[row]  # (conditions, frames)
        for ax, contrast in zip(axes[:, column], contrasts, strict=True):
            own = table[table["contrast"] == contrast]
            means = {
                kind: above[own.index[own["kind"] == kind]].mean(axis=0) for kind in KINDS if kind in set(own["kind"])
            }
            contexts.time_courses(ax, seconds, means, PATTERN)
            told = {"neuron": measurement.neurons[row], "contrast": contrast, "seconds": seconds}
            numbers.append(pd.DataFrame(told | means))
        axes[0, column].set_title(f"neuron {measurement.neurons[row]}", loc="left")
        axes[-1, column].set_xlabel("time from onset (s)")
    for ax, contrast in zip(axes[:, 0], contrasts, strict=True):
        ax.set_ylabel(f"contrast {contrast:g}\nresponse (recorded units)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="lower left", ncols=len(names))
    disc = "its own disc" if np.isnan(size) else f"a disc of {size:g} deg"
    caption = (
        f"Mouse {mouse_id}, {measurement.about['source']}: time courses of {len(examples)} neurons above grey, mean "
        f"over phases and repeats, for {disc} and its surround; the grey bar marks the pattern."
    )
    name = f"contextual_responses_mouse{mouse_id}"
    for path in style.save(fig, run_dir / "figures" / name, pd.concat(numbers).round(6), caption):
        print(path)


def choose(mouse_id: str, measurement: Measurement, neurons: list[int] | None) -> np.ndarray:
    """Positions of the examples among the measured neurons."""
    kept = np.flatnonzero(measurement.shown & np.isfinite(measurement.spontaneous))
    if not len(kept):
        raise UserError(f"{measurement.path}: no neuron has responses. Make it again, for other --neurons.")
    known = measurement.neurons[kept]
    unknown = sorted(set(neurons or ()) - set(known))
    if unknown:
        raise UserError(
            f"--neurons {unknown[0]}: mouse {mouse_id} has time courses of {', '.join(map(str, known[:20]))}."
        )
    return kept[:EXAMPLES] if neurons is None else kept[np.isin(known, neurons)]


def at_size(table: pd.DataFrame, size: float) -> tuple[pd.DataFrame, float]:
    """Conditions with the disc nearest to a size, and its diameter (NaN: each neuron has its own)."""
    sizes = np.unique(table["size_deg"].dropna())
    nearest = sizes[abs(sizes - size).argmin()] if len(sizes) else np.nan
    return table[table["size_deg"].isna() | (table["size_deg"] == nearest)], nearest


if __name__ == "__main__":
    cli.run(main, get_parser())
