"""Find every neuron's artificial receptive field: a Gaussian fitted to its map, and how far to trust it.

reads   RUN/retinotopy/mouse<ID>.h5 (predict_noise.py)
writes  RUN/aRF.csv, one row per neuron; RUN/retinotopy/maps_mouse<ID>.npy: the maps (neuron, height, width)
next    visualize_aRFs.py, estimate_retinotopy.py, compare_truth.py; experiments at the neurons' fields

With --shuffle, a control, neurons change places after they have answered, and only RUN/aRF_shuffled.csv is written.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from viv1t import cli, io
from viv1t.estimators.receptive_field import (
    SMOOTH,
    WeightedMaps,
    combined_orders,
    fit_receptive_fields,
    fwhm_deg,
    lattice_blur,
    signed_root,
)
from viv1t.measurements import Measurement
from viv1t.results import find_mice, locate, require
from viv1t.stimulus.series import CELL, noise_pattern

CHUNK = 250  # patterns at a time


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with retinotopy/")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all in retinotopy/)")
    parser.add_argument("--shuffle", type=cli.number(int, 0), metavar="SEED", help="control: exchange the neurons")
    return parser


def gather_maps(measurement: Measurement, desc: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Maps (N, H, W), those of two halves of the patterns, null maps, and the blur that the stimulus adds."""
    protocol, monitor = measurement.about["protocol"], measurement.monitor
    number, white = len(measurement.conditions), protocol["stimulus"] == "white"
    shape = (len(measurement.neurons), monitor.height, monitor.width)
    orders = [WeightedMaps(*shape) for _ in range(1 + white)]
    for start in tqdm(range(0, number, CHUNK), desc=desc, unit=f"{CHUNK} patterns", disable=None):
        responses = measurement.responses[start : start + CHUNK] - measurement.spontaneous
        patterns = [
            noise_pattern(monitor, protocol["stimulus"], i, protocol["seed"])
            for i in measurement.conditions["pattern"][start : start + CHUNK]
        ]
        contrast = np.stack(patterns)
        regressors = (contrast, np.square(contrast)) if white else (contrast != 0,)
        for maps, regressor in zip(orders, regressors, strict=True):
            maps.update(responses if white else signed_root(responses), regressor)
    if white:
        return *combined_orders(*orders), SMOOTH
    return orders[0].value(), orders[0].halves(), orders[0].nulls(), lattice_blur(CELL)


def fit(measurement: Measurement, mouse_id: str) -> tuple[pd.DataFrame, np.ndarray]:
    """One row per neuron, and the maps; neurons that were shown nothing have NaN and a bad fit."""
    maps, halves, nulls, blur = gather_maps(measurement, f"mouse {mouse_id}")
    table = fit_receptive_fields(maps, halves, nulls, blur=blur)
    azimuth, elevation = measurement.monitor.to_degrees(table[["x", "y"]].to_numpy()).T
    widths = fwhm_deg(table, measurement.monitor).T
    table = table.assign(
        azimuth_deg=azimuth, elevation_deg=elevation, fwhm_major_deg=widths[0], fwhm_minor_deg=widths[1]
    )
    x, y, z = measurement.coordinates.T
    identity = {"mouse": mouse_id, "neuron": measurement.neurons, "x_um": x, "y_um": y, "z_um": z}
    return pd.DataFrame(identity).join(table), maps


def shuffled(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same fields, given to other neurons of the mouse."""
    identity = table[["mouse", "neuron", "x_um", "y_um", "z_um"]]
    order = np.random.default_rng(seed).permutation(len(table))
    return identity.join(table.drop(columns=identity.columns).iloc[order].reset_index(drop=True))


def report(table: pd.DataFrame, mouse_id: str) -> None:
    good = table[~table["bad_fit"]]
    print(
        f"mouse {mouse_id}: {len(good)} of {len(table)} neurons have a field, {(good['sign'] < 0).sum()} of them one "
        f"that suppresses; median R2 {good['r2'].median():.2f}, "
        f"distance between halves {good['half_distance'].median():.2f} px, "
        f"width {good['fwhm_major_deg'].median():.0f} x {good['fwhm_minor_deg'].median():.0f} deg"
    )


def main(args) -> None:
    run_dir, tables = Path(args.output_dir), []
    for mouse_id in find_mice(run_dir, "retinotopy", args.mouse_ids):
        with Measurement(require(run_dir, "retinotopy", mouse_id)) as measurement:
            table, maps = fit(measurement, mouse_id)
        report(table, mouse_id)
        if args.shuffle is None:
            io.write_array(locate(run_dir, "maps", mouse_id), maps.astype(np.float32))
        tables.append(table if args.shuffle is None else shuffled(table, args.shuffle))
    path = locate(run_dir, "fields")
    path = path if args.shuffle is None else path.with_stem(f"{path.stem}_shuffled")
    io.write_table(path, pd.concat(tables, ignore_index=True))
    print(path)


if __name__ == "__main__":
    cli.run(main, get_parser())
