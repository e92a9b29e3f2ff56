"""Estimate where flashed dots drive every neuron, at which latency, and how compact that place is.

From recorded trials of Gaussian dots: as they were recorded, as the twin predicts them, or as the simulated animal
answered without noise. Which dot was shown when is read from the frames.

reads   <data_dir>/<lab>/<recording>/; with --source twin, RUN/responses/ (predict.py of the bonus tiers)
writes  RUN/spatial_tuning_<source>.csv, one row per neuron; RUN/retinotopy/dots_<source>_mouse<ID>.npz, the maps
next    visualize_spatial_tuning.py, compare_truth.py

With --shuffle, a control, presentations exchange their responses, and only spatial_tuning_<source>_shuffled.csv is
written: no neuron should then be tuned, but for the --level of the test.
"""

import io as memory
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from viv1t import cli, io
from viv1t.constants import STIMULI
from viv1t.data.cache import open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.estimators.receptive_field import LEAST_R2, fit_gaussians, signed_root
from viv1t.estimators.spatial_tuning import (
    LATENCIES,
    DotMaps,
    dot_maps,
    response_weighted_average,
    spatial_selectivity,
)
from viv1t.geometry import Monitor
from viv1t.origin import origin_of
from viv1t.results import locate
from viv1t.shown import SOURCES, Shown
from viv1t.stats import permutation_p
from viv1t.stimulus.dots import gaussian_dot
from viv1t.stimulus.reading import read_dots, snap_dots
from viv1t.subjects import monitor_of

STIMULUS = "gaussian_dots"
THRESHOLD = 1.0  # sd of a map; 2 sd leave pixels of noise (rank correlation with noiseless responses 0.6, not 0.8)
MAPS = ("on", "off", "columns_px", "rows_px")  # what is kept of the maps


def get_parser() -> cli.Parser:
    parser, words = cli.Parser(__doc__), cli.Words(*SOURCES)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder, which takes the results")
    parser.add_argument("--source", type=words, default="recording", metavar="WORD",
                        help=f"whose responses: {words} (default: recording)")  # fmt: skip
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all that were shown dots)")
    parser.add_argument("--data_dir", default="data", help="recordings (default: data)")
    parser.add_argument("--cache_dir", help="folder of the compact copies (default: .cache beside the recording)")
    parser.add_argument("--monitor", type=monitor_of, metavar="WORD",
                        help="sensorium, rochefort, or WIDTHxHEIGHT@DISTANCE (default: the recording's)")  # fmt: skip
    parser.add_argument("--permutations", type=cli.number(int, 20), default=200, metavar="N",
                        help="of the presentations, to test a neuron's tuning (default: 200)")  # fmt: skip
    parser.add_argument("--level", type=cli.number(float, 0, 1), default=0.01, metavar="P",
                        help="of that test (default: 0.01)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N", help="(default: 1234)")
    parser.add_argument("--shuffle", type=cli.number(int, 0), metavar="SEED", help="control: exchange presentations")
    return parser


def main(args) -> None:
    run_dir, tables = Path(args.output_dir), []
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such run folder. Train a twin, or show patterns to one, first.")
    rows = origin_of(run_dir).neurons if args.source == "twin" else {}
    for mouse_id, folder in shown_dots(args, list(rows) or None).items():
        with Shown(STIMULUS, args.source, folder, mouse_id, run_dir, args.cache_dir) as shown:
            if mouse_id in rows:
                shown.of(rows[mouse_id])
            monitor = monitor_for(shown, mouse_id, args)
            blocks, dots = read_presentations(shown, mouse_id, monitor)
            if args.shuffle is not None:
                blocks = blocks[..., np.random.default_rng(args.shuffle).permutation(len(dots))]
            table, maps = tune(blocks, dots, monitor, shown.recording.fps, args, f"mouse {mouse_id}: test")
            x, y, z = shown.recording.coordinates[shown.neurons].T
        identity = {"mouse": mouse_id, "neuron": shown.neurons, "x_um": x, "y_um": y, "z_um": z}
        tables.append(pd.DataFrame(identity).join(table))
        report(tables[-1], dots, mouse_id)
        if args.shuffle is None:
            write_maps(locate(run_dir, f"dots_{args.source}", mouse_id), maps)
    path = locate(run_dir, f"spatial_tuning_{args.source}")
    path = path if args.shuffle is None else path.with_stem(f"{path.stem}_shuffled")
    io.write_table(path, pd.concat(tables, ignore_index=True))
    print(path)


def shown_dots(args, mouse_ids: list[str] | None) -> dict[str, Path]:
    """Folders of the mice asked for, or of all that were shown dots."""
    found = find_recordings(args.data_dir, args.mouse_ids or mouse_ids)
    if args.mouse_ids:
        return found
    kept = {}
    for mouse_id, folder in found.items():
        stimuli = open_cache(Recording(folder, mouse_id), args.cache_dir).stimulus_ids
        if (stimuli == STIMULI.index(STIMULUS)).any():
            kept[mouse_id] = folder
        else:
            print(f"mouse {mouse_id}: left out, it was shown no Gaussian dots.")
    if not kept:
        raise UserError(f"{args.data_dir}: no mouse was shown Gaussian dots. Name another folder with --data_dir.")
    return kept


def monitor_for(shown: Shown, mouse_id: str, args) -> Monitor:
    monitor = args.monitor or shown.recording.monitor
    if monitor is None:
        raise UserError(f"mouse {mouse_id}: its recording names no monitor, so degrees mean nothing. Give --monitor.")
    height, width = shown.recording.frame_size
    return replace(monitor, height=height, width=width)


def read_presentations(shown: Shown, mouse_id: str, monitor: Monitor) -> tuple[np.ndarray, pd.DataFrame]:
    """Responses (latency, neuron, presentation), and the dot of each presentation, on the lattice of all clips."""
    try:
        found = [
            read_dots(shown.video(clip), monitor).assign(clip=clip)
            for clip in tqdm(shown.clips, desc=f"mouse {mouse_id}: reading dots", unit="clip", disable=None)
        ]
        lattice = snap_dots(pd.concat(found, ignore_index=True))
    except ValueError as error:
        raise UserError(f"mouse {mouse_id}: {error}. Correct the labels of its trials.") from None
    tables = dict(iter(lattice.groupby("clip")))
    blocks, dots = zip(*(shown.blocks(tables, latency) for latency in LATENCIES), strict=True)
    keys = [pd.MultiIndex.from_frame(table[["trial", "start"]]) for table in dots]
    known = [np.logical_and.reduce([key.isin(other) for other in keys]) for key in keys]  # at every latency
    responses = np.stack([block[rows].T for block, rows in zip(blocks, known, strict=True)])
    return responses.astype(np.float64), dots[0][known[0]].reset_index(drop=True)


def tune(
    blocks: np.ndarray, dots: pd.DataFrame, monitor: Monitor, fps: float, args, desc: str
) -> tuple[pd.DataFrame, DotMaps]:
    """One row per neuron, and the maps. Maps are of the root of responses, whose tails are heavy."""
    places = dots["x"].to_numpy(), dots["y"].to_numpy(), dots["is_black"].to_numpy(bool)
    root, rng = signed_root(blocks), np.random.default_rng(args.seed)
    maps, null = dot_maps(root, *places), []
    for _ in tqdm(range(args.permutations), desc=desc, unit="permutation", disable=None):
        order = rng.permutation(len(dots))
        null.append(spread(dot_maps(root, *(values[order] for values in places))))
    p = permutation_p(spread(maps), np.array(null))
    fit = fit_gaussians(filled((maps.on + maps.off) / 2), maps.columns_px, maps.rows_px)
    centre = fit[["x", "y"]].to_numpy()
    first, last = (np.array([maps.columns_px[i], maps.rows_px[i]]) for i in (0, -1))
    inside = ((first <= centre) & (centre <= last)).all(axis=1)
    azimuth, elevation = monitor.to_degrees(centre).T
    best = blocks[maps.latency, np.arange(len(fit))]  # (N, n)
    table = fit.assign(
        azimuth_deg=azimuth,
        elevation_deg=elevation,
        preferred_x=maps.x,
        preferred_y=maps.y,
        prefers_on=maps.prefers_on,
        latency_s=np.array(LATENCIES)[maps.latency] / fps,
        p_tuned=p,
        tuned=p <= args.level,
        bad_fit=~((p <= args.level) & inside & (fit["r2"] >= LEAST_R2)),
        **selectivity(best, dots, monitor),
    )
    return table, maps


def spread(maps: DotMaps) -> np.ndarray:
    """Variance (N,) over places and polarities, by which a neuron is tuned."""
    return np.nanvar(np.stack([maps.on, maps.off]), axis=(0, 2, 3))


def filled(maps: np.ndarray) -> np.ndarray:
    """Maps (N, rows, columns) in which places without a dot take the mean of their neighbours."""
    known = np.isfinite(maps)
    if known.all():
        return maps
    near, weight = (gaussian_filter(values.astype(float), (0, 1, 1)) for values in (np.where(known, maps, 0), known))
    return np.where(known, maps, near / np.maximum(weight, 1e-9))


def selectivity(responses: np.ndarray, dots: pd.DataFrame, monitor: Monitor) -> dict:
    """Spatial selectivity (N,) of responses (N, n) to all dots, to bright and to dark ones, and as published.

    Stimuli are averaged with what the root of a response is above the neuron's mean as weight, which leaves less of
    the average of all dots behind; pixels count from THRESHOLD on. As published: dark dots, whole responses, all
    pixels.
    """
    black, sigma = dots["is_black"].to_numpy(bool), float(dots["sigma_deg"].median())
    places, place = np.unique(dots[["x", "y"]].to_numpy(), axis=0, return_inverse=True)
    frames = np.stack([gaussian_dot(monitor, xy, sigma, 1, frames=1)[0] for xy in places])[place.ravel()]
    root = signed_root(responses)
    above = np.maximum(root - root.mean(axis=1, keepdims=True), 0)
    kinds = {"ssi": np.ones(len(dots), bool), "ssi_on": ~black, "ssi_off": black}
    found = {
        name: spatial_selectivity(response_weighted_average(above[:, rows], frames[rows]), THRESHOLD)
        for name, rows in kinds.items()
    }
    published = response_weighted_average(responses[:, black], frames[black])
    return found | {"ssi_published": spatial_selectivity(published, None)}


def report(table: pd.DataFrame, dots: pd.DataFrame, mouse_id: str) -> None:
    conditions = dots.groupby(["column", "row", "is_black"]).size()
    tuned, good = table[table["tuned"]], table[~table["bad_fit"]]
    print(
        f"mouse {mouse_id}: {len(conditions)} conditions, {conditions.min()} to {conditions.max()} showings each; "
        f"{len(tuned)} of {len(table)} neurons tuned to place, {tuned['prefers_on'].mean():.0%} of them prefer bright "
        f"dots, {len(good)} have a field; median latency {1000 * tuned['latency_s'].median():.0f} ms, "
        f"SSI {tuned['ssi'].median():.1f}"
    )


def write_maps(path: Path, maps: DotMaps) -> None:
    content = memory.BytesIO()  # the same content gives the same bytes
    np.savez(content, **{name: values for name, values in asdict(maps).items() if name in MAPS})
    with io.replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


if __name__ == "__main__":
    cli.run(main, get_parser())
