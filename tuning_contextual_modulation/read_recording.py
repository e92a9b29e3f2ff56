"""Read a recording of centre-surround gratings: a session in the layout of closed-loop experiments (docs/data.md).

reads   <data_dir>/<lab>/<recording>/artificial_movies/: responses, names of the blocks, and meta/stimuli.csv, which
        says what each name showed; RUN/aRF.csv (or that of --fields_of), if the table does not say where
writes  RUN/contextual_modulation/mouse<ID>.h5 as predict_gratings.py, with a column `repeat`. With --traces,
        RUN/contextual_modulation/traces_mouse<ID>.h5.
next    estimate_contextual_modulation.py

The response to grey is the mean of the 15 frames before each pattern, over all patterns.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.constants import FPS
from viv1t.data.mice import first_session
from viv1t.data.session import AFTER, BEFORE, PATTERN, STIMULI, SUBFOLDER, Session, find_sessions, read_stimuli
from viv1t.errors import UserError
from viv1t.measurements import Measurement, write_measurement
from viv1t.presentation import Window
from viv1t.results import locate, read_fields
from viv1t.stimulus.contexts import KINDS


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder for the recording's results")
    parser.add_argument("--data_dir", default="data", help="recordings (default: data)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice, e.g. K_day2 (default: all with a session)")
    parser.add_argument("--subfolder", default=SUBFOLDER, metavar="NAME",
                        help=f"folder of the session in its recording (default: {SUBFOLDER})")  # fmt: skip
    parser.add_argument("--stimuli", metavar="CSV", help=f"what each name showed (default: the session's {STIMULI})")
    parser.add_argument("--fields_of", metavar="RUN2", help="run with aRF.csv, for the centre (default: RUN)")
    parser.add_argument("--window", type=cli.number(float, 0, (PATTERN + AFTER) / FPS), nargs=2, default=(0.0, 1.0),
                        metavar=("START", "STOP"), help="s that are averaged, from onset (default: 0 1)")  # fmt: skip
    parser.add_argument("--traces", action="store_true", help="keep whole time courses, in a file of their own")
    return parser


def main(args) -> None:
    if args.window[0] + 1 / FPS > args.window[1]:
        raise UserError(f"--window {args.window[0]:g} {args.window[1]:g}: holds no frame. Give start and stop in s.")
    window = None if args.traces else Window(*args.window)
    for mouse_id, folder in find_sessions(args.data_dir, args.mouse_ids, args.subfolder).items():
        path = locate(args.output_dir, "context_traces" if args.traces else "context", mouse_id)
        keep_others(path)
        session, table_path = Session(folder), Path(args.stimuli or folder / STIMULI)
        table = read_gratings(table_path, session)
        centre = find_centre(table, mouse_id, args.fields_of or args.output_dir)
        conditions, responses, grey = read_blocks(session, table, window)
        found = np.isfinite(grey)
        per_neuron = {
            "neurons": np.arange(session.num_neurons),
            "unit_ids": session.unit_ids,
            "coordinates": session.coordinates,
            "centre": np.where(found[:, None], centre, np.nan),
            "spontaneous": grey,
        }
        about = {
            "mouse": mouse_id,
            "source": "recording",
            "experiment": "contextual_modulation",
            "timeline": {"before": BEFORE, "pattern": PATTERN, "after": AFTER},
            "window": None if window is None else {"start": window.start, "stop": window.stop},
        }
        write_measurement(path, [responses], responses.shape, conditions, per_neuron, about)
        print(f"mouse {mouse_id}: {len(conditions)} patterns, {found.sum()} of {len(found)} neurons found, {path}")


def keep_others(path: Path) -> None:
    """Refuse to replace what a twin or an animal answered."""
    if path.is_file():
        with Measurement(path) as measurement:
            source = measurement.about["source"]
        if source != "recording":
            raise UserError(f"{path}: holds the responses of a {source}. Name another --output_dir for the recording.")


def read_gratings(path: Path, session: Session) -> pd.DataFrame:
    """What every name showed, by name; each must occur in the session."""
    table = read_stimuli(path).set_index("name")
    shown = set(session.names.flat)
    for name, row in table.iterrows():
        if row["kind"] not in KINDS:
            raise UserError(f"{path}: kind '{row['kind']}' of {name} is none of {', '.join(KINDS)}. Correct it.")
        if not 0 < row["contrast"] <= 1:
            raise UserError(f"{path}: contrast {row['contrast']:g} of {name} is not within 0 to 1. Correct it.")
        if row["kind"] != "iso" and not row["size_deg"] > 0:
            raise UserError(f"{path}: {name} needs the diameter of its disc, size_deg. Add it.")
        if name not in shown:
            near = cli.did_you_mean(name, sorted(shown))
            raise UserError(
                f"{path}: {name} was never shown in {session.directory}{near}. Correct the name, or drop it."
            )
    return table


def find_centre(table: pd.DataFrame, mouse_id: str, run_dir: str) -> np.ndarray:
    """Pixel (x, y) on which the gratings were centred: the table's, else the median of the mouse's accepted fields."""
    if {"x", "y"} <= set(table):
        places = table[["x", "y"]].drop_duplicates().to_numpy()
        if len(places) > 1 or not np.isfinite(places).all():
            raise UserError(f"mouse {mouse_id}: its stimuli name {len(places)} centres (x, y). Name the same for all.")
        return places[0]
    fields = read_fields(run_dir, [first_session(mouse_id)])
    return fields.loc[~fields["bad_fit"].astype(bool), ["x", "y"]].median().to_numpy()


def read_blocks(session: Session, table: pd.DataFrame, window: Window | None):
    """Conditions (P rows), responses (P, N) or (P, N, frames), and the response to grey (N,)."""
    rows, responses, grey = [], [], []
    for name, trial, block in session.blocks():
        if name in table.index:
            rows.append({"name": name, **table.loc[name], "trial": trial})
            after_onset = block[:, BEFORE:]
            responses.append(after_onset if window is None else window.mean(after_onset))
            grey.append(block[:, :BEFORE].mean(axis=1))
    conditions = pd.DataFrame(rows)
    left_out = session.names.size - len(rows)
    if left_out:
        print(f"{session.directory}: {left_out} of {session.names.size} blocks showed what the table does not name.")
    return conditions.assign(repeat=conditions.groupby("name").cumcount()), np.stack(responses), np.mean(grey, axis=0)


if __name__ == "__main__":
    cli.run(main, get_parser())
