"""Estimate every neuron's selectivity for direction and orientation of motion.

From gratings shown to a twin or an animal, or from recorded trials of drifting Gabors: as they were recorded, as the
twin predicts them, or as the simulated animal answered without noise. What a Gabor showed is read from its frames.

reads   RUN/direction/mouse<ID>.h5 (predict_gratings.py) with --source gratings; else <data_dir>/<lab>/<recording>/
        and, for twins, RUN/responses/ (predict.py)
writes  RUN/selectivity_<source>.csv, one row per neuron; RUN/direction/curves_<source>_mouse<ID>.npz (`viv1t.curves`)
next    visualize_selectivity.py, visualize_tuning_curves.py, estimate_tuning_similarity.py, compare_truth.py

Gratings: the curve at the spatial and temporal frequency of the largest response, above the response to grey. There is
no noise, and nothing to test; a neuron is responsive if its peak exceeds the response to grey enough. Gabors: the mean
over frequencies, without a baseline, which compresses all indices; neurons are responsive if their responses differ
between conditions (F-test of ranks, q), and selectivity is tested by shuffling directions at each pair of frequencies.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import f_oneway, rankdata
from tqdm import tqdm

from viv1t import cli, io
from viv1t.constants import STIMULI
from viv1t.curves import Curves
from viv1t.data.cache import open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.estimators.selectivity import (
    circular_tuning,
    fit_frequencies,
    fit_von_mises,
    mean_curves,
    permutation_test,
    selectivity_intervals,
    sf_tf_preference,
    split_half_reliability,
)
from viv1t.measurements import Measurement
from viv1t.origin import origin_of
from viv1t.results import find_mice, locate, require
from viv1t.shown import Shown
from viv1t.stats import benjamini_hochberg
from viv1t.stimulus.reading import read_gabors, snap_gabors
from viv1t.subjects import monitor_of

LABELS = {"recording": "recorded", "twin": "twin", "animal": "animal"}
FREQUENCIES, CONDITION = ["sf_cpd", "tf_hz"], ["sf_cpd", "tf_hz", "direction_deg"]
LEAST_LEVELS = 3  # frequencies, from which a preference is fitted; directions, from which a curve is made
ROUNDING = 1e-5  # of the response to grey, below which a difference from it is none


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder")
    parser.add_argument("--source", type=cli.Words("gratings", *LABELS), default="gratings", metavar="WORD",
                        help="gratings, or Gabors: recording, twin, animal (default: gratings)")  # fmt: skip
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all that were shown them)")
    parser.add_argument("--least", type=cli.number(float, 0, 1), default=0.2, metavar="X",
                        help="index from which a neuron is called selective (default: 0.2)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N",
                        help="of shuffles and resamples (default: 1234)")  # fmt: skip
    parser.add_argument("--shuffle", type=cli.number(int, 0), metavar="SEED", help="control: exchange neurons "
                        "(gratings) or labels of Gabors; writes selectivity_<source>_shuffled.csv")  # fmt: skip
    group = parser.add_argument_group("gratings")
    group.add_argument("--least_rise", type=cli.number(float, 0), default=1.0, metavar="X",
                       help="responsive: peak so many times the grey response above it (default: 1)")  # fmt: skip
    group = parser.add_argument_group("recorded Gabors")
    group.add_argument("--data_dir", default="data", help="recordings (default: data)")
    group.add_argument("--cache_dir", help="folder of the compact copies (default: .cache beside the recording)")
    group.add_argument("--monitor", type=monitor_of, metavar="WORD",
                       help="sensorium, rochefort, or WIDTHxHEIGHT@DISTANCE in cm (default: as recorded)")  # fmt: skip
    group.add_argument("--latency", type=cli.number(int, 0, 24), default=3, metavar="N",
                       help="frames from a Gabor to its response (default: 3)")  # fmt: skip
    group.add_argument("--skip", type=cli.number(int, 0), default=0, metavar="N",
                       help="leave out Gabors that begin before this frame of a trial (default: 0)")  # fmt: skip
    group.add_argument("--baseline", type=cli.Words("none", "minimum"), default="none", metavar="WORD",
                       help="subtract nothing, or each neuron's smallest mean response (default: none)")  # fmt: skip
    group.add_argument("--permutations", type=cli.number(int, 20), default=1000, metavar="N",
                       help="shuffles of the directions (default: 1000)")  # fmt: skip
    group.add_argument("--q", type=cli.number(float, 0, 1), default=0.05, metavar="X",
                       help="false discovery rate of tests over the neurons of a mouse (default: 0.05)")  # fmt: skip
    return parser


def main(args) -> None:
    run_dir, found = Path(args.output_dir), {}
    measured = from_gratings(run_dir, args) if args.source == "gratings" else from_gabors(run_dir, args)
    for mouse_id, curves, table in measured:
        found[mouse_id] = curves, table
        report(mouse_id, table)
    path = locate(run_dir, f"selectivity_{args.source}")
    if args.shuffle is not None:
        path = path.with_stem(f"{path.stem}_shuffled")
    else:
        for mouse_id, (curves, _) in found.items():
            curves.write(locate(run_dir, f"curves_{args.source}", mouse_id))
    io.write_table(path, pd.concat([table for _, table in found.values()], ignore_index=True))
    print(path)


def report(mouse_id: str, table: pd.DataFrame) -> None:
    responsive = table[table["responsive"]]
    undefined = int(table["gosi"].isna().sum())
    print(
        f"mouse {mouse_id}: {len(responsive)} of {len(table)} neurons responsive, {undefined} without a response; "
        f"selective for orientation {table['orientation_selective'].sum()}, for direction "
        f"{table['direction_selective'].sum()}; responsive neurons: median gOSI {responsive['gosi'].median():.2f}, "
        f"gDSI {responsive['gdsi'].median():.2f}, half width {responsive['half_width_deg'].median():.0f} deg"
    )


def from_gratings(run_dir: Path, args) -> Iterator[tuple[str, Curves, pd.DataFrame]]:
    for mouse_id in find_mice(run_dir, "direction", args.mouse_ids):
        with Measurement(require(run_dir, "direction", mouse_id)) as measurement:
            levels, responses = cube(measurement)
            rows = np.arange(len(measurement.neurons))
            if args.shuffle is not None:
                rows = np.random.default_rng(args.shuffle).permutation(rows)
            yield mouse_id, *tune(levels, responses[rows], measurement.spontaneous[rows], mouse_id, measurement, args)


def cube(measurement: Measurement) -> tuple[list[np.ndarray], np.ndarray]:
    """Levels of CONDITION, and responses (N, SF, TF, D) averaged over phases."""
    table = measurement.conditions
    levels = [np.unique(table[name]) for name in CONDITION]
    order = table.sort_values([*CONDITION, "phase_deg"]).index.to_numpy()
    shape = [len(level) for level in levels]
    responses = measurement.responses[:][order].reshape(*shape, -1, len(measurement.neurons)).mean(axis=3)
    return levels, np.moveaxis(responses, -1, 0)


def tune(levels, responses, grey, mouse_id: str, measurement: Measurement, args) -> tuple[Curves, pd.DataFrame]:
    (sf, tf, angles), N = levels, len(responses)
    background = grey[:, None, None, None]
    responses = np.where(abs(responses - background) <= ROUNDING * abs(background), background, responses)
    above = np.maximum(responses - background, 0)
    best = above.reshape(N, -1).argmax(axis=1)
    s, f, d = np.unravel_index(best, above.shape[1:])
    every = np.arange(N)
    curve = responses[every, s, f]
    curves = Curves(
        measurement.about["source"], measurement.neurons, measurement.coordinates, angles, grey, curve,
        np.full_like(curve, np.nan), np.stack([curve, curve]), np.ones(N),
    )  # fmt: skip
    table = describe(mouse_id, curves)
    answers = table["peak"] > 0
    table = table.assign(sf_cpd=np.where(answers, sf[s], np.nan), tf_hz=np.where(answers, tf[f], np.nan))
    if min(len(sf), len(tf)) >= LEAST_LEVELS:
        table = table.join(sf_tf_preference(above[every, :, :, d], sf, tf))
    responsive = answers & (table["peak"] >= args.least_rise * grey)
    return curves, flagged(table, responsive, responsive, responsive, args.least)


def from_gabors(run_dir: Path, args) -> Iterator[tuple[str, Curves, pd.DataFrame]]:
    rows = origin_of(run_dir).neurons if args.source == "twin" else {}
    found = find_recordings(args.data_dir, args.mouse_ids or list(rows) or None)
    if args.mouse_ids is None:
        found = {mouse_id: folder for mouse_id, folder in found.items() if showed_gabors(mouse_id, folder, args)}
        if not found:
            raise UserError(f"{args.data_dir}: no mouse was shown drifting Gabors. Use --source gratings.")
    for mouse_id, folder in found.items():
        with Shown("drifting_gabor", args.source, folder, mouse_id, run_dir, args.cache_dir) as shown:
            if mouse_id in rows:
                shown.of(rows[mouse_id])
            yield mouse_id, *judge(shown, mouse_id, args)


def showed_gabors(mouse_id: str, folder: Path, args) -> bool:
    stimuli = open_cache(Recording(folder, mouse_id), args.cache_dir).stimulus_ids
    shown = bool((stimuli == STIMULI.index("drifting_gabor")).any())
    if not shown:
        print(f"mouse {mouse_id}: left out, it was shown no drifting Gabors.")
    return shown


def judge(shown: Shown, mouse_id: str, args) -> tuple[Curves, pd.DataFrame]:
    responses, gabors = shown.blocks(read_tables(shown, mouse_id, args), args.latency)
    angles = np.unique(gabors["direction_deg"]) if len(gabors) else np.empty(0)
    if len(angles) < LEAST_LEVELS or not np.allclose(np.diff(angles), 360 / len(angles)):
        raise UserError(f"mouse {mouse_id}: Gabors of {len(angles)} directions make no tuning curve. Lower --skip.")
    if args.shuffle is not None:
        order = np.random.default_rng(args.shuffle).permutation(len(gabors))
        gabors[CONDITION] = gabors[CONDITION].to_numpy()[order]
    conditions = gabors.groupby(CONDITION).indices.values()
    repeats = min(map(len, conditions))
    print(f"mouse {mouse_id}: {len(gabors)} Gabors, {len(conditions)} conditions, {repeats} or more repeats")
    samples, directions = balanced(responses, gabors, repeats)
    curves = curves_of(shown, samples, directions, args)
    table = describe(mouse_id, curves)
    frequencies = np.unique(gabors["sf_cpd"])
    if len(frequencies) >= LEAST_LEVELS:
        space = fit_frequencies(mean_curves(responses.T, gabors["sf_cpd"])[0], frequencies)
        table = table.assign(preferred_sf_cpd=space["preferred"], sf_r2=space["r2"], sf_inside=space["inside"])
    rng = np.random.default_rng(args.seed)
    strata = gabors[FREQUENCIES].to_numpy()
    p = permutation_test(responses.T, gabors["direction_deg"], rng, args.permutations, strata, curves.baseline)
    limits = selectivity_intervals(samples, directions, rng, baseline=curves.baseline)
    ranks = rankdata(responses, axis=0)  # rare large events would make too many neurons responsive
    differs = f_oneway(*(ranks[rows] for rows in conditions)).pvalue if repeats > 1 else np.nan
    table = table.join([limits, p]).assign(reliability=curves.reliability, p_responsive=differs)
    for name in ("osi", "dsi", "responsive"):
        table[f"q_{name}"] = benjamini_hochberg(table[f"p_{name}"].to_numpy())
    return curves, flagged(table, *(table[f"q_{name}"] < args.q for name in ("responsive", "osi", "dsi")), args.least)


def read_tables(shown: Shown, mouse_id: str, args) -> dict[int, pd.DataFrame]:
    """What every clip showed: one table for each, with the levels of the whole design."""
    monitor = args.monitor or shown.recording.monitor
    if monitor is None:
        raise UserError(f"mouse {mouse_id}: its recording names no monitor, so degrees mean nothing. Give --monitor.")
    height, width = shown.recording.frame_size
    monitor, tables = replace(monitor, height=height, width=width), []
    for clip in tqdm(shown.clips, desc=f"mouse {mouse_id}: reading Gabors", unit="clip", disable=None):
        try:
            tables.append(read_gabors(shown.video(clip), monitor).assign(clip=clip))
        except ValueError as error:
            raise UserError(f"mouse {mouse_id}, clip {clip}: {error}. Correct the labels of its trials.") from None
    table = snap_gabors(pd.concat(tables, ignore_index=True))
    return {clip: rows[rows["start"] >= args.skip] for clip, rows in table.groupby("clip")}


def balanced(responses: np.ndarray, gabors: pd.DataFrame, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """One sample for each direction and repeat, the mean over its frequencies: (N, n) and directions (n,).

    All repeats, and halves of them, hold the same conditions; surplus repeats of a condition are left out.
    """
    repeat = gabors.groupby(CONDITION).cumcount()
    kept = (repeat < repeats).to_numpy()
    key = [gabors["direction_deg"].to_numpy()[kept], repeat.to_numpy()[kept]]
    means = pd.DataFrame(responses[kept]).groupby(key).mean()
    return means.to_numpy().T, means.index.get_level_values(0).to_numpy()


def curves_of(shown: Shown, samples: np.ndarray, directions: np.ndarray, args) -> Curves:
    mean, angles = mean_curves(samples, directions)
    N, D = mean.shape
    by_direction = samples.reshape(N, D, -1)  # `balanced` sorts by direction
    repeats = by_direction.shape[2]
    if repeats > 1:
        sem = by_direction.std(axis=2, ddof=1) / np.sqrt(repeats)
        halves = np.stack([by_direction[:, :, start::2].mean(axis=2) for start in (0, 1)])
    else:
        sem, halves = np.full((N, D), np.nan), np.stack([mean, mean])
    baseline = mean.min(axis=1) if args.baseline == "minimum" else np.zeros(N)
    reliability = split_half_reliability(samples, directions, np.random.default_rng(args.seed))
    coordinates = shown.recording.coordinates[shown.neurons]
    return Curves(LABELS[args.source], shown.neurons, coordinates, angles, baseline, mean, sem, halves, reliability)


def describe(mouse_id: str, curves: Curves) -> pd.DataFrame:
    """Indices, preferences and fitted width of every curve above its baseline."""
    indices = circular_tuning(curves.mean, curves.angles, curves.baseline)
    above = np.maximum(curves.mean - curves.baseline[:, None], 0)
    fit = fit_von_mises(above, curves.angles)
    x, y, z = curves.coordinates.T
    identity = {"mouse": mouse_id, "neuron": curves.neurons, "x_um": x, "y_um": y, "z_um": z}
    fitted = {"half_width_deg": fit["half_width_deg"], "von_mises_r2": fit["r2"]}
    return pd.DataFrame(identity).join(indices).assign(**fitted)


def flagged(table: pd.DataFrame, responsive, oriented, directed, least: float) -> pd.DataFrame:
    """The table with three flags; selective neurons pass their test and have an index of at least `least`."""
    return table.assign(
        responsive=responsive,
        orientation_selective=oriented & (table["gosi"] >= least),
        direction_selective=directed & (table["gdsi"] >= least),
    )


if __name__ == "__main__":
    cli.run(main, get_parser())
