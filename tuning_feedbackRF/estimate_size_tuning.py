"""Estimate every neuron's size tuning, suppression by its surround, and tuning for inverse gratings.

reads   RUN/feedbackRF/mouse<ID>.h5 (predict_gratings.py), RUN/aRF.csv
writes  RUN/size_tuning.csv, one row per neuron
next    visualize_size_tuning.py, predict_onset.py, compare_truth.py; tuning_contextual_modulation/predict_gratings.py

All amplitudes are above the response to grey. A response is significant beside its standard error over repeats or,
where nothing was repeated, over phases. Neurons further than --most_offset from the centre of what they were shown
have no size tuning: it changes beyond recognition when a stimulus misses the field.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.estimators.size_tuning import Criteria, size_curves, size_tuning
from viv1t.measurements import Measurement
from viv1t.results import find_mice, locate, read_fields, require


def get_parser() -> cli.Parser:
    parser, criteria = cli.Parser(__doc__), Criteria()
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with feedbackRF/")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all that were shown gratings)")
    for name, help in (
        ("significant", "standard errors that a response, or a difference, must reach"),
        ("least_rise", "responsive: peak so many times the grey response above it"),
        ("least_inverse", "inverse-tuned: inverse peak, as a share of the classical one"),
        ("least_gain", "and what it exceeds the full-field response by, as such a share"),
    ):
        default = getattr(criteria, name)
        parser.add_argument(f"--{name}", type=cli.number(float, 0), default=default, metavar="X",
                            help=f"{help} (default: {default:g})")  # fmt: skip
    parser.add_argument("--most_offset", type=cli.number(float, 0), default=2.0, metavar="PX",
                        help="from a neuron's field to the centre of the disc (default: 2)")  # fmt: skip
    parser.add_argument("--shuffle", type=cli.number(int, 0), metavar="SEED",
                        help="control: exchange neurons; writes size_tuning_shuffled.csv")  # fmt: skip
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    mice = find_mice(run_dir, "sizes", args.mouse_ids)
    fields = read_fields(run_dir, mice)
    tables = [estimate(run_dir, mouse_id, fields[fields["mouse"] == mouse_id], args) for mouse_id in mice]
    path = locate(run_dir, "size_tuning")
    if args.shuffle is not None:
        path = path.with_stem(f"{path.stem}_shuffled")
    io.write_table(path, pd.concat(tables, ignore_index=True))
    print(path)


def estimate(run_dir: Path, mouse_id: str, fields: pd.DataFrame, args) -> pd.DataFrame:
    """One row for each neuron of a mouse."""
    with Measurement(require(run_dir, "sizes", mouse_id)) as measurement:
        shown, responses, grey = measurement.shown, measurement.responses[:], measurement.spontaneous
        if args.shuffle is not None:
            rows = np.flatnonzero(shown)
            exchanged = np.random.default_rng(args.shuffle).permutation(rows)
            responses[:, rows], grey[rows] = responses[:, exchanged], grey[exchanged]
        curves = size_curves(measurement.conditions, responses, grey)
        x, y, z = measurement.coordinates.T
        offset = np.hypot(*(own_fields(fields, measurement.neurons) - measurement.centre).T)
        table = pd.DataFrame({"mouse": mouse_id, "neuron": measurement.neurons, "x_um": x, "y_um": y, "z_um": z})
    criteria = Criteria(args.significant, args.least_rise, args.least_inverse, args.least_gain)
    centred = offset <= args.most_offset
    table = table.assign(offset_px=offset, centred=centred).join(size_tuning(curves, grey, criteria))
    table = blanked(blanked(table, shown & ~centred, "not centred"), ~shown, "not shown")
    report(table)
    return table


def own_fields(fields: pd.DataFrame, neurons: np.ndarray) -> np.ndarray:
    """Pixel (x, y) of the field of each of these neurons, (N, 2)."""
    return fields.set_index("neuron")[["x", "y"]].reindex(neurons).to_numpy()


def blanked(table: pd.DataFrame, rows: np.ndarray, name: str) -> pd.DataFrame:
    """The table without any tuning in these rows, whose class is `name`."""
    tuning = table.columns[table.columns.get_loc("centred") + 1 :]
    numbers = [column for column in tuning if table[column].dtype.kind == "f"]
    flags = [column for column in tuning if table[column].dtype.kind == "b"]
    table.loc[rows, numbers], table.loc[rows, flags], table.loc[rows, "class"] = np.nan, False, name
    return table


def report(table: pd.DataFrame) -> None:
    responsive, tuned = table[table["responsive"]], table[table["inverse_tuned"]]
    middle, inverse = (own.median(numeric_only=True) for own in (responsive, tuned))
    classes = ", ".join(f"{n} {name}" for name, n in table["class"].value_counts().items())
    print(
        f"mouse {table['mouse'].iloc[0]}: {len(table)} neurons: {classes}. Medians of responsive neurons: preferred "
        f"size {middle['preferred_size_deg']:.0f} deg ({(~responsive['size_fitted']).sum()} without a fit), "
        f"suppression index {middle['suppression_index']:.2f}; of inverse-tuned ones: size "
        f"{inverse['inverse_size_deg']:.0f} deg, inverse tuning index {inverse['inverse_tuning_index']:.2f}"
    )


if __name__ == "__main__":
    cli.run(main, get_parser())
