"""Find every neuron's receptive field from responses to movies: recorded, predicted for the same trials, or noiseless.

A check on artificial fields that needs no experiment in silico: every recording has movies. Responses are regressed on
local moving contrast (`viv1t.estimators.movie_fields`), and a Gaussian is fitted to the weights.

reads   <data_dir>/<lab>/<recording>/; with --source twin, RUN/responses/ (predict.py)
writes  RUN/fields_<source>.csv: the columns of aRF.csv, with the same rule for bad fits
next    estimate_retinotopy.py --fields <source>, compare_truth.py
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from viv1t import cli, io
from viv1t.data.mice import find_recordings
from viv1t.errors import UserError
from viv1t.estimators.movie_fields import MovieMaps, fit_movie_fields
from viv1t.estimators.receptive_field import fwhm_deg
from viv1t.origin import origin_of
from viv1t.results import locate
from viv1t.shown import SOURCES, Shown


def get_parser() -> cli.Parser:
    parser, words = cli.Parser(__doc__), cli.Words(*SOURCES)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder, which takes the table")
    parser.add_argument("--source", type=words, default="recording", metavar="WORD",
                        help=f"whose responses: {words} (default: recording)")  # fmt: skip
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    parser.add_argument("--data_dir", default="data", help="recordings (default: data)")
    parser.add_argument("--cache_dir", help="folder of the compact copies (default: .cache beside the recording)")
    return parser


def main(args) -> None:
    run_dir, tables = Path(args.output_dir), []
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such run folder. Train a twin, or show patterns to one, first.")
    rows = origin_of(run_dir).neurons if args.source == "twin" else {}
    for mouse_id, folder in find_recordings(args.data_dir, args.mouse_ids or list(rows) or None).items():
        with Shown("movie", args.source, folder, mouse_id, run_dir, args.cache_dir) as shown:
            if mouse_id in rows:
                shown.of(rows[mouse_id])
            table = describe(shown, mouse_id, fit_movie_fields(gather_maps(shown, f"mouse {mouse_id}")))
        good = table[~table["bad_fit"]]
        print(
            f"mouse {mouse_id}: {len(good)} of {len(table)} neurons have a field in {len(shown.trials)} trials; "
            f"median R2 {good['r2'].median():.2f}, distance between halves {good['half_distance'].median():.2f} px"
        )
        tables.append(table)
    path = locate(run_dir, f"fields_{args.source}")
    io.write_table(path, pd.concat(tables, ignore_index=True))
    print(path)


def gather_maps(shown: Shown, desc: str) -> MovieMaps:
    maps = MovieMaps(len(shown.neurons), *shown.recording.frame_size)
    for trial, _ in tqdm(shown.trials, desc=desc, unit="trial", disable=None):
        responses = shown.responses(trial)
        first = int(np.isfinite(responses).any(axis=0).argmax())  # twins may start later
        maps.update(shown.cache.video(trial)[first:], np.nan_to_num(responses[:, first:]))
    return maps


def describe(shown: Shown, mouse_id: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table with neurons, places and degrees; degrees are NaN if the recording names no monitor."""
    x, y, z = shown.recording.coordinates[shown.neurons].T
    identity = {"mouse": mouse_id, "neuron": shown.neurons, "x_um": x, "y_um": y, "z_um": z}
    monitor, degrees = shown.recording.monitor, np.full((4, len(table)), np.nan)
    if monitor is not None:
        degrees[:2] = monitor.to_degrees(table[["x", "y"]].to_numpy()).T
        degrees[2:] = fwhm_deg(table, monitor).T
    names = ("azimuth_deg", "elevation_deg", "fwhm_major_deg", "fwhm_minor_deg")
    return pd.DataFrame(identity).join(table).assign(**dict(zip(names, degrees, strict=True)))


if __name__ == "__main__":
    cli.run(main, get_parser())
