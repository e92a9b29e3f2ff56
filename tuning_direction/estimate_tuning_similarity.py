"""Estimate how alike the tuning of two neurons is, over their distance in cortex (Ringach et al. 2016).

reads   RUN/selectivity_<source>.csv, RUN/direction/curves_<source>_mouse<ID>.npz (estimate_selectivity.py)
writes  RUN/tuning_similarity_<source>.csv: per mouse and tuning (orientation, direction) one row for each bin of the
        distance in three dimensions (no depth_low) and for each bin of horizontal distance and difference in depth
next    visualize_similarity.py

Similarity is the correlation of two tuning curves. Pairs that may be one cell in two planes are left out. The null
exchanges neurons within the mouse; intervals resample neurons. Columns: low, high, depth_low, depth_high (um),
distance (mean, um), mean, ci_low, ci_high, n (pairs), p; label (who answered), chance (mean of all pairs), neurons,
shuffles; length_um, length_low, length_high, amplitude, floor of the exponential decay through the bins in 3-D.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.curves import Curves
from viv1t.errors import UserError
from viv1t.estimators.similarity import fit_decay, tuning_similarity
from viv1t.results import locate, read_selectivity, require

TUNINGS = ("orientation", "direction")
DISTANCES = (0, 25, 50, 75, 100, 125, 150, 175, 200, 250, 300)  # um
DEPTHS = (0, 37.5, 87.5, 137.5)  # um, differences; planes are 25 um apart


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with selectivity_<source>.csv")
    words = cli.Words("gratings", "recording", "twin", "animal")
    parser.add_argument("--source", type=words, default="gratings", metavar="WORD", help=f"{words} (default: 0)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the source)")
    parser.add_argument("--all", action="store_true", help="all responsive neurons instead of the selective ones")
    distance, told = cli.number(float, 0), " ".join(map(str, DISTANCES))
    parser.add_argument(
        "--distances", type=distance, nargs="+", default=DISTANCES, metavar="UM", help=f"edges (default: {told})"
    )
    told = " ".join(map(str, DEPTHS))
    parser.add_argument(
        "--depths", type=distance, nargs="+", default=DEPTHS, metavar="UM", help=f"edges (default: {told})"
    )
    parser.add_argument("--exclude", type=distance, default=15.0, metavar="UM", help="pairs of adjacent planes closer "
                        "than this horizontally may be one cell, and are left out (default: 15)")  # fmt: skip
    parser.add_argument("--shuffles", type=cli.number(int, 20), default=1000, metavar="N", help="default: 1000")
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N", help="default: 1234")
    parser.add_argument("--shuffle", type=cli.number(int, 0), metavar="SEED", help="control: exchange the neurons "
                        "first; writes tuning_similarity_<source>_shuffled.csv")  # fmt: skip
    return parser


def main(args) -> None:
    run_dir, tables = Path(args.output_dir), []
    for name in ("distances", "depths"):
        if len(edges := getattr(args, name)) < 2 or np.diff(edges).min() <= 0:
            raise UserError(f"--{name} {' '.join(map(str, edges))}: give at least two edges of bins, ascending.")
    for mouse_id, own in read_selectivity(run_dir, args.source, args.mouse_ids).groupby("mouse", sort=False):
        curves = Curves.read(require(run_dir, f"curves_{args.source}", mouse_id))
        for tuning in TUNINGS:
            flag = "responsive" if args.all else f"{tuning}_selective"
            chosen = curves.of(own.loc[own[flag], "neuron"].to_numpy())
            if len(chosen.neurons) < 2:
                print(
                    f"mouse {mouse_id}, {tuning}: {len(chosen.neurons)} neurons are {flag.replace('_', '-')}, no pair"
                )
                continue
            tables.append(compare_pairs(chosen, tuning, args).assign(mouse=mouse_id, tuning=tuning))
            report(tables[-1])
    if not tables:
        raise UserError(f"{run_dir}: no mouse has a pair of selective neurons ({args.source}). Give --all, or lower "
                        "--least of estimate_selectivity.py.")  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    path = locate(run_dir, f"similarity_{args.source}")
    path = path if args.shuffle is None else path.with_stem(f"{path.stem}_shuffled")
    io.write_table(path, table[["mouse", "tuning", *table.columns.drop(["mouse", "tuning"])]])
    print(path)


def compare_pairs(curves: Curves, tuning: str, args) -> pd.DataFrame:
    """Bins of the distance in three dimensions, then of horizontal distance for each difference in depth."""
    responses, rng = curves.mean, np.random.default_rng(args.seed)
    if tuning == "orientation":
        responses = 0.5 * (responses + np.roll(responses, responses.shape[1] // 2, axis=1))
    if args.shuffle is not None:
        responses = responses[np.random.default_rng(args.shuffle).permutation(len(responses))]
    tables = []
    for depths in (None, args.depths):
        options = {"rng": rng, "exclude_um": args.exclude, "shuffles": args.shuffles}
        found = tuning_similarity(responses, curves.coordinates, args.distances, depths, **options)
        about = {"label": curves.label, "chance": found.chance, "neurons": found.neurons, "shuffles": found.shuffles}
        if depths is None:
            decay = asdict(fit_decay(found))
            found.bins[["depth_low", "depth_high"]] = np.nan
        tables.append(found.bins.assign(**about, **decay))
    return pd.concat(tables, ignore_index=True)


def report(table: pd.DataFrame) -> None:
    first = table.iloc[0]
    print(
        f"mouse {first['mouse']}, {first['tuning']}: {first['neurons']} neurons; similarity {first['mean']:.2f} below "
        f"{first['high']:.0f} um (p = {first['p']:.3f}, {first['n']} pairs), {first['chance']:.3f} over all pairs; "
        f"length {first['length_um']:.0f} um [{first['length_low']:.0f}, {first['length_high']:.0f}]"
    )


if __name__ == "__main__":
    cli.run(main, get_parser())
