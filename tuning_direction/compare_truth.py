"""Compare estimated tuning for motion with the truth of simulated mice.

reads   RUN/selectivity_<source>.csv (estimate_selectivity.py); <data_dir>/<lab>/<mouse>/truth/neurons.csv; of a twin,
        RUN/evaluation_neurons.csv (evaluate.py)
writes  RUN/figures/truth_direction_<source>.{pdf,png,csv}, one row per neuron; RUN/validation/direction_<source>.csv,
        the numbers that are printed
next    report.py

Tuning is judged on responsive neurons with an oriented field, and apart on those of them that a twin predicts well.
The others, unoriented or undriven, tell how often untuned neurons are called selective.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from viv1t import cli
from viv1t.errors import UserError
from viv1t.estimators.similarity import tuning_similarity
from viv1t.plotting import style, tuning
from viv1t.results import locate, read_selectivity
from viv1t.stats import circular_difference
from viv1t.truth import read_truth, row, well_predicted, write_comparison

DIRECTED = 0.4  # direction selectivity of the filters from which a preferred direction is judged
CIRCULAR = {  # column -> label, period, limits of the errors (deg) whose share is told
    "preferred_orientation_deg": ("preferred\naxis (deg)", 180.0, (10, 22.5)),
    "preferred_direction_deg": ("preferred\ndirection (deg)", 360.0, (22.5, 45)),
}
LINEAR = {  # estimate -> truth, label
    "gosi": ("gosi", "gOSI"),
    "gdsi": ("gdsi", "gDSI"),
    "dsi": ("direction_selectivity", "DSI"),
    "preferred_sf_cpd": ("preferred_sf_cpd", "preferred SF\n(cycles/deg)"),
    "preferred_tf_hz": ("preferred_tf_hz", "preferred TF\n(Hz)"),
}
TRUTH = ["kind", "direction_selectivity", *CIRCULAR, "gosi", "gdsi", "preferred_sf_cpd", "preferred_tf_hz"]
AXES = ("preferred_orientation_deg", "true_preferred_orientation_deg")  # estimated, true
EDGES = (0, 50, 100, 150, 200, 300)  # um, of the similarity of preferred axes
SEED = 1


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with selectivity_<source>.csv")
    parser.add_argument("--data_dir", default="data", help="simulated mice (default: data)")
    words = cli.Words("gratings", "recording", "twin", "animal")
    parser.add_argument("--source", type=words, default="gratings", metavar="WORD", help=f"{words} (default: 0)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the source)")
    return parser


def main(args) -> None:
    run_dir, parts, rows = Path(args.output_dir), [], []
    twin = locate(run_dir, "config").is_file() and args.source in ("gratings", "twin")
    for mouse_id, estimates in read_selectivity(run_dir, args.source, args.mouse_ids).groupby("mouse", sort=False):
        neurons = estimates["neuron"].to_numpy()
        truth = read_truth(args.data_dir, mouse_id, neurons)[TRUTH].add_prefix("true_")
        own = estimates.reset_index(drop=True).join(truth)
        for name in (
            "sf",
            "tf",
        ):  # a preference beyond the frequencies that were shown is known to lie there, not more
            for column in (c for c in own if c.startswith(f"preferred_{name}_")):
                own.loc[~own[f"{name}_inside"].astype(bool), column] = np.nan
        own["well_predicted"] = well_predicted(run_dir, mouse_id, neurons) if twin else True
        parts.append(own)
        rows += judge(mouse_id, own, twin)
    table = pd.concat(parts, ignore_index=True)
    if tuned(table).sum() < 2:
        raise UserError(f"{run_dir}: no neuron with an oriented field responds ({args.source}); nothing to compare.")
    write_comparison(run_dir, f"direction_{args.source}", rows)
    fig, caption = draw(table, args.source, twin)
    for path in style.save(fig, run_dir / "figures" / f"truth_direction_{args.source}", table.round(6), caption):
        print(path)


def tuned(table: pd.DataFrame) -> pd.Series:
    return table["responsive"] & (table["true_kind"] == "gabor")


def judge(mouse_id: str, table: pd.DataFrame, twin: bool) -> list[dict]:
    """The numbers of one mouse."""
    oriented, untuned = table[tuned(table)], table[table["true_kind"] != "gabor"]
    selections = {"responsive": oriented}
    rows = []
    if twin:
        selections["well predicted"] = oriented[oriented["well_predicted"]]
        share = oriented["well_predicted"].mean()
        rows.append(row(mouse_id, "well predicted", "share", share, len(oriented), "responsive"))
    driven = table[table["true_kind"] == "gabor"]["responsive"]
    rows.append(row(mouse_id, "called responsive", "share", driven.mean(), len(driven), "oriented"))
    for name, chosen in selections.items():
        rows += errors(mouse_id, name, chosen) + agreement(mouse_id, name, chosen)
    for tuning_name in ("orientation", "direction"):
        share = untuned[f"{tuning_name}_selective"].mean()
        rows.append(row(mouse_id, f"called {tuning_name}-selective", "share", share, len(untuned), "untuned"))
        p = untuned.get(f"p_{tuning_name[0]}si")
        if p is not None:
            rows.append(row(mouse_id, f"{tuning_name}, p < 0.01", "share", (p < 0.01).mean(), len(p), "untuned"))
    return rows


def errors(mouse_id: str, name: str, chosen: pd.DataFrame) -> list[dict]:
    rows = []
    for column, (label, period, limits) in CIRCULAR.items():
        own = directed(chosen) if period == 360 else chosen
        error = abs(circular_difference(own[column], own[f"true_{column}"], period))
        error = error[np.isfinite(error)]
        label = label.replace("\n", " ")
        rows.append(row(mouse_id, label, "median error", np.median(error) if len(error) else np.nan, len(error), name))
        rows += [
            row(mouse_id, label, f"share within {limit:g}", np.mean(error <= limit) if len(error) else np.nan,
                len(error), name) for limit in limits
        ]  # fmt: skip
    return rows


def directed(chosen: pd.DataFrame) -> pd.DataFrame:
    return chosen[chosen["true_direction_selectivity"] > DIRECTED]


def agreement(mouse_id: str, name: str, chosen: pd.DataFrame) -> list[dict]:
    rows = []
    for column, (truth, label) in LINEAR.items():
        if column in chosen:
            pair = chosen[[column, f"true_{truth}"]].dropna()
            rho = spearmanr(*pair.to_numpy().T).statistic if len(pair) > 2 else np.nan
            rows.append(row(mouse_id, label.replace("\n", " "), "Spearman", rho, len(pair), name))
    known = chosen.dropna(subset=AXES)
    if len(known) > 1:
        estimated, true = (similarity_of_axes(known, column)["mean"][:2].mean() for column in AXES)
        quantity = f"similarity of axes, pairs below {EDGES[2]} um"
        rows.append(row(mouse_id, quantity, "estimated - true", estimated - true, len(known), name))
    return rows


def similarity_of_axes(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean cos 2 (difference in preferred axis) of pairs over their distance, as the similarity of cosine curves."""
    angles = np.arange(0, 180, 22.5)
    curves = np.cos(2 * np.radians(angles - table[[column]].to_numpy()))
    rng = np.random.default_rng(SEED)
    return tuning_similarity(curves, table[["x_um", "y_um", "z_um"]].to_numpy(), EDGES, rng=rng, shuffles=100).bins


def draw(table: pd.DataFrame, source: str, twin: bool):
    fig, axes = style.figure(3, 3, height=170)
    shown, drawn = table[tuned(table)], axes.flat
    for column, (label, period, _) in CIRCULAR.items():
        own = directed(shown) if period == 360 else shown
        tuning.by_prediction(next(drawn), own, f"true_{column}", column, label, period)
    for column, (truth, label) in LINEAR.items():
        ax = next(drawn)
        if column in shown:
            tuning.by_prediction(ax, shown, f"true_{truth}", column, label)
        else:
            ax.set_visible(False)
    axes.flat[4].set_xlabel("direction selectivity of the filter")
    draw_similarity(next(drawn), shown)
    next(drawn).set_visible(False)
    for ax, text in zip(axes.flat, "abcdefgh", strict=False):
        style.letter(ax, text)
    mice = table["mouse"].nunique()
    chosen = f"Blue: well-predicted neurons ({int(shown['well_predicted'].sum())} of {len(shown)}); grey: others. "
    caption = (
        f"Tuning for motion estimated from {source} against the truth of {mice} simulated "
        f"{'mouse' if mice == 1 else 'mice'}: {len(shown)} responsive neurons with an oriented field; {chosen * twin}"
        f"b: direction selectivity of the filters above {DIRECTED}. e: DSI beside that selectivity. f, g: neurons "
        "that prefer a frequency within those shown. h: similarity of all preferred axes, cos 2 (difference), over "
        "the distance of pairs in cortex. Truth is measured with gratings on each neuron's own field. r, bias (median "
        "difference) and n: of the coloured neurons."
    )
    return fig, caption


def draw_similarity(ax, table: pd.DataFrame) -> None:
    """Means over mice of the similarity of true and of estimated axes."""
    for column, name, color in zip(AXES, ("estimated", "true"), (style.BLUE, style.VERMILION), strict=True):
        mice = [own for _, own in table.dropna(subset=AXES).groupby("mouse", sort=False) if len(own) > 1]
        bins = [similarity_of_axes(own, column) for own in mice]
        mean = pd.concat(bins).groupby("low")[["distance", "mean"]].mean()
        ax.plot(mean["distance"], mean["mean"], "o-", color=color, markersize=3, label=name)
    ax.axhline(0, color=style.GREY, linewidth=0.6)
    ax.set(xlabel="cortical distance (µm)", ylabel="similarity of axes", box_aspect=1)
    ax.legend(loc="upper right")


if __name__ == "__main__":
    cli.run(main, get_parser())
