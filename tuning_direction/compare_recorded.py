"""Compare direction tuning to recorded Gabors with what the twin, or the animal without noise, answers to the same.

reads   RUN/selectivity_<source>.csv, RUN/direction/curves_<source>_mouse<ID>.npz (estimate_selectivity.py) of
        recording and twin (or, with --predicted animal, animal)
writes  RUN/figures/tuning_comparison_<predicted>.{pdf,png,csv}, one row per neuron;
        RUN/validation/tuning_comparison_<predicted>.csv, the numbers that are printed
next    report.py

Chance: every recorded curve beside the predicted one of another neuron. Noise-corrected: divided by the root of the
reliability of the recorded curve, over neurons whose reliability is at least --least_reliability.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.curves import Curves, shared_neurons
from viv1t.errors import UserError
from viv1t.estimators.selectivity import noise_corrected, tuning_correlation
from viv1t.plotting import style, tuning
from viv1t.results import read_selectivity, require
from viv1t.stats import circular_difference, hierarchical_bootstrap
from viv1t.truth import row, write_comparison

STEPS = np.arange(0, 181, 22.5)  # deg, bins of the difference in preferred direction


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with selectivity_recording.csv")
    words = cli.Words("twin", "animal")
    parser.add_argument("--predicted", type=words, default="twin", metavar="WORD", help=f"{words} (default: twin)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all that both have)")
    parser.add_argument("--least_reliability", type=cli.number(float, 0, 1), default=0.3, metavar="X",
                        help="of recorded curves whose correlation is corrected for noise (default: 0.3)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N", help="default: 1234")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    recorded = read_selectivity(run_dir, "recording", args.mouse_ids)
    predicted = read_selectivity(run_dir, args.predicted, args.mouse_ids)
    both = recorded.merge(predicted, on=["mouse", "neuron"], suffixes=("_recorded", "_predicted"))
    if both.empty:
        raise UserError(
            f"{run_dir}: no mouse is in both selectivity_recording.csv and selectivity_{args.predicted}.csv."
        )
    rng = np.random.default_rng(args.seed)
    parts = [compare(run_dir, mouse_id, own, args, rng) for mouse_id, own in both.groupby("mouse", sort=False)]
    table = pd.concat(parts, ignore_index=True)
    write_comparison(run_dir, f"tuning_comparison_{args.predicted}", summarize(table, rng))
    fig, caption = draw(table, args)
    for path in style.save(fig, run_dir / "figures" / f"tuning_comparison_{args.predicted}", table.round(6), caption):
        print(path)


def compare(run_dir: Path, mouse_id: str, both: pd.DataFrame, args, rng: np.random.Generator) -> pd.DataFrame:
    """One row per neuron that both have: correlation of curves, differences of preferences, and both by chance."""
    curves = [Curves.read(require(run_dir, f"curves_{name}", mouse_id)) for name in ("recording", args.predicted)]
    neurons = np.intersect1d(shared_neurons(*curves), both["neuron"])
    recorded, predicted = (each.of(neurons) for each in curves)
    both = both.set_index("neuron").loc[neurons].reset_index()
    other = shifted(both["direction_selective_recorded"].to_numpy(), rng)
    r = tuning_correlation(recorded.mean, predicted.mean)
    reliable = recorded.reliability >= args.least_reliability
    preferred = [both[f"preferred_direction_deg_{name}"].to_numpy() for name in ("recorded", "predicted")]
    kept = [f"{name}_{who}" for name in ("gosi", "gdsi", "preferred_orientation_deg", "preferred_direction_deg",
            "orientation_selective", "direction_selective") for who in ("recorded", "predicted")]  # fmt: skip
    return both[["mouse", "neuron", *kept]].assign(
        r=r,
        r_chance=tuning_correlation(recorded.mean, predicted.mean[other]),
        reliability=recorded.reliability,
        r_corrected=np.where(reliable, noise_corrected(r, recorded.reliability), np.nan),
        difference_deg=abs(circular_difference(*preferred)),
        difference_chance_deg=abs(circular_difference(preferred[0], preferred[1][other])),
    )


def shifted(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each neuron another one, of the same group (N,) bool; none is its own."""
    other = np.arange(len(group))
    for value in (False, True):
        order = rng.permutation(np.flatnonzero(group == value))
        other[order] = np.roll(order, 1)
    return other


def summarize(table: pd.DataFrame, rng: np.random.Generator) -> list[dict]:
    rows = []
    for mouse_id, own in [*table.groupby("mouse", sort=False), ("all", table)]:
        selective = own[own["direction_selective_recorded"]]
        per_mouse = [each for _, each in selective.groupby("mouse", sort=False)]
        for column, name in (("r", "raw"), ("r_corrected", "noise-corrected"), ("r_chance", "chance")):
            found = hierarchical_bootstrap([each[column].to_numpy() for each in per_mouse], rng)
            for statistic, value in (("mean", found.mean), ("2.5 %", found.low), ("97.5 %", found.high)):
                rows.append(row(mouse_id, f"tuning-curve correlation, {name}", statistic, value, found.n, "selective"))
        difference = selective["difference_deg"].dropna()
        rows.append(row(mouse_id, "difference in preferred direction (deg)", "median", difference.median(),
                        len(difference), "selective"))  # fmt: skip
        for name in ("gosi", "gdsi"):
            pair = own[[f"{name}_recorded", f"{name}_predicted"]].dropna()
            rho = pair.corr("spearman").iloc[0, 1]
            rows.append(row(mouse_id, f"{name}, recorded and predicted", "Spearman", rho, len(pair), "all"))
    return rows if table["mouse"].nunique() > 1 else [each for each in rows if each["mouse"] != "all"]


def draw(table: pd.DataFrame, args):
    fig, axes = style.figure(2, 3, height=125)
    selective, who = table[table["direction_selective_recorded"]], args.predicted
    chance = {"chance": selective["r_chance"].to_numpy()}
    tuning.index_histogram(axes[0, 0], {who: selective["r"].to_numpy()} | chance, "tuning-curve correlation", (-1, 1))
    corrected = selective["r_corrected"].clip(-1.5, 1.5).to_numpy()
    tuning.index_histogram(axes[0, 1], {who: corrected}, "noise-corrected correlation", (-1.5, 1.5))
    axes[0, 1].axvline(1, color=style.GREY, linestyle="--", linewidth=0.8)
    draw_differences(axes[0, 2], selective, who)
    pairs = (
        ("gosi", "gOSI", table, None),
        ("gdsi", "gDSI", table, None),
        ("preferred_orientation_deg", "preferred axis (deg)", table[table["orientation_selective_recorded"]], 180.0),
    )
    for ax, (name, label, shown, period) in zip(axes[1], pairs, strict=True):
        values = (shown[f"{name}_{who}"].to_numpy() for who in ("recorded", "predicted"))
        tuning.paired_scatter(ax, *values, label, period)
        ax.set_ylabel(f"{label}, {who}")
    for ax, values in ((axes[0, 0], selective["r"]), (axes[0, 1], selective["r_corrected"])):
        ax.set_title(f"median {values.median():.2f}, n = {values.notna().sum()}", loc="left")
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        style.letter(ax, text)
    mice = table["mouse"].nunique()
    caption = (
        f"Tuning to recorded Gabors and to what the {who} answers to the same trials, {len(table)} neurons of {mice} "
        f"{'mouse' if mice == 1 else 'mice'}. a-c: {len(selective)} neurons whose recorded responses are "
        "direction-selective; grey: predictions of other such neurons. b: divided by the root of the reliability, "
        f"if that is at least {args.least_reliability:g} ({selective['r_corrected'].isna().sum()} neurons left out). "
        "c: difference in preferred direction. d, e: all neurons. f: orientation-selective ones."
    )
    return fig, caption


def draw_differences(ax, selective: pd.DataFrame, who: str) -> None:
    for name, column in ((who, "difference_deg"), ("chance", "difference_chance_deg")):
        values = selective[column].dropna()
        share = 100 * np.histogram(values, STEPS)[0] / max(len(values), 1)
        ax.stairs(share, STEPS, color=style.COLORS[name], linewidth=1.2, label=name, fill=name == who, alpha=0.6)
    ax.set(xlabel="difference in preference (deg)", ylabel="neurons (%)", xticks=STEPS[::2], xlim=(0, 180))
    ax.set_title(f"median {selective['difference_deg'].median():.0f} deg", loc="left")
    ax.legend(loc="upper right")


if __name__ == "__main__":
    cli.run(main, get_parser())
