"""Estimate the map from cortex to visual field: receptive-field centres regressed on cortical coordinates.

reads   RUN/aRF.csv (fit_aRFs.py), or, with --fields, RUN/fields_<source>.csv (fit_recorded_fields.py)
writes  RUN/retinotopy.csv, or retinotopy_<source>.csv: one row per mouse
next    visualize_retinotopy.py, compare_truth.py

With --shuffle, a control, the neurons of a mouse exchange their places in cortex, and only RUN/retinotopy_shuffled.csv
is written: a map of nothing.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from viv1t import cli, io
from viv1t.estimators.cortical_map import CorticalMap, fit_cortical_map
from viv1t.results import locate, read_table

FIELDS = ("aRF", "recording", "twin", "animal")
CORTEX, CENTRE = ["x_um", "y_um"], ["azimuth_deg", "elevation_deg"]
LEVEL = 0.95  # of the intervals


def get_parser() -> cli.Parser:
    parser, words = cli.Parser(__doc__), cli.Words(*FIELDS[1:])
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with aRF.csv")
    parser.add_argument("--fields", type=words, metavar="WORD", help=f"fields from recorded movies instead: {words}")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all that have fields)")
    parser.add_argument("--resamples", type=cli.number(int, 20), default=200, metavar="N",
                        help="of the neurons, for intervals (default: 200)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N", help="(default: 1234)")
    parser.add_argument("--shuffle", type=cli.number(int, 0), metavar="SEED", help="control: exchange the neurons")
    return parser


def main(args) -> None:
    run_dir, rows = Path(args.output_dir), []
    fields = read_table(run_dir, f"fields_{args.fields}" if args.fields else "fields", args.mouse_ids)
    for mouse_id, table in fields.groupby("mouse", sort=False):
        good = table[~table["bad_fit"]]
        centres, cortex = good[CENTRE].to_numpy(), good[CORTEX].to_numpy()
        if args.shuffle is not None:
            cortex = np.random.default_rng(args.shuffle).permutation(cortex)
        found = describe(fit_cortical_map(centres, cortex))
        limits = intervals(centres, cortex, args, f"mouse {mouse_id}")
        rows.append({"mouse": mouse_id, "neurons": len(table), "fields": len(good)} | found | limits)
        report(rows[-1])
    table = pd.DataFrame(rows)
    print(
        f"mean of {len(table)} mice: R2 azimuth {table['r2_azimuth'].mean():.2f}, elevation "
        f"{table['r2_elevation'].mean():.2f}; scatter {table['scatter_deg'].mean():.1f} deg"
    )
    path = locate(run_dir, "cortical_map")
    suffix = "shuffled" if args.shuffle is not None else args.fields
    path = path.with_stem(f"{path.stem}_{suffix}") if suffix else path
    io.write_table(path, table)
    print(path)


def describe(found: CorticalMap) -> dict:
    """Numbers of one map: deg of azimuth and elevation per mm of cortical x and y; intercepts in deg."""
    (azimuth_x, azimuth_y), (elevation_x, elevation_y) = found.jacobian
    return {
        "used": int(found.inliers.sum()),
        "azimuth_per_x": azimuth_x,
        "azimuth_per_y": azimuth_y,
        "elevation_per_x": elevation_x,
        "elevation_per_y": elevation_y,
        "azimuth_at_0": found.intercept[0],
        "elevation_at_0": found.intercept[1],
        "r2_azimuth": found.r2[0],
        "r2_elevation": found.r2[1],
        "scatter_azimuth_deg": found.scatter_deg[0],
        "scatter_elevation_deg": found.scatter_deg[1],
        "scatter_deg": found.scatter,
    }


def intervals(centres: np.ndarray, cortex: np.ndarray, args, desc: str) -> dict:
    """Bootstrap over neurons: `<name>_low` and `<name>_high` of everything in `describe` but counts."""
    rng, draws = np.random.default_rng(args.seed), []
    for _ in tqdm(range(args.resamples), desc=desc, unit="resample", disable=None):
        rows = rng.integers(len(centres), size=len(centres)) if len(centres) else []
        draws.append(describe(fit_cortical_map(centres[rows], cortex[rows])))
    draws = pd.DataFrame(draws).drop(columns="used")
    low, high = (draws.quantile((1 + sign * LEVEL) / 2) for sign in (-1, 1))
    return {f"{name}_{end}": limit[name] for name in draws for end, limit in (("low", low), ("high", high))}


def report(row: dict) -> None:
    print(
        f"mouse {row['mouse']}: {row['used']} of {row['fields']} fields used ({row['neurons']} neurons); azimuth "
        f"{row['azimuth_per_x']:+.0f}, {row['azimuth_per_y']:+.0f}, elevation {row['elevation_per_x']:+.0f}, "
        f"{row['elevation_per_y']:+.0f} deg per mm of x, y; R2 {row['r2_azimuth']:.2f}, {row['r2_elevation']:.2f}; "
        f"scatter {row['scatter_azimuth_deg']:.1f}, {row['scatter_elevation_deg']:.1f} deg"
    )


if __name__ == "__main__":
    cli.run(main, get_parser())
