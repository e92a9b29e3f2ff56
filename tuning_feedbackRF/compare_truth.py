"""Compare estimated size tuning, inverse tuning and response onsets with the truth of simulated mice.

reads   RUN/size_tuning.csv (estimate_size_tuning.py); RUN/response_onset.csv (estimate_onset.py), if there is one;
        <data_dir>/<lab>/<mouse>/truth/neurons.csv; of a twin, RUN/evaluation_neurons.csv (evaluate.py)
writes  RUN/figures/truth_feedbackRF.{pdf,png,csv}, one row per neuron; RUN/validation/feedbackRF.csv, the numbers that
        are printed
next    report.py

Judged on responsive neurons with an oriented field, and apart on those of them that a twin predicts well. There are
two truths of sizes, both noiseless and in closed form: that of the grating which all were shown, and that of each
neuron's own spatial and temporal frequency. Classical and inverse gratings drive different filters, which makes their
onsets differ even without a delay: the median lag of neurons whose feedback is not delayed is subtracted from all lags
of a mouse.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu, spearmanr

from viv1t import cli
from viv1t.constants import FPS
from viv1t.data.mice import find_recordings
from viv1t.errors import UserError
from viv1t.measurements import Measurement
from viv1t.plotting import panels, sizes, style, tuning
from viv1t.results import locate, read_table, require
from viv1t.simulate.animal import Animal
from viv1t.simulate.tuning import measure_sizes
from viv1t.subjects import animal_file
from viv1t.truth import read_truth, row, well_predicted, write_comparison

TRUTH = ["kind", "preferred_size_deg", "suppression_index", "surround_strength", "inverse_size_deg", "feedback",
         "feedback_delay"]  # fmt: skip
NEAR = 10  # deg, of the true preferred size
DELAY = "true_delay_ms"


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with size_tuning.csv")
    parser.add_argument("--data_dir", default="data", help="simulated mice (default: data)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    return parser


def main(args) -> None:
    run_dir, parts, rows = Path(args.output_dir), [], []
    twin = locate(run_dir, "config").is_file()
    for mouse_id, estimates in read_estimates(run_dir, args.mouse_ids).groupby("mouse", sort=False):
        neurons = estimates["neuron"].to_numpy()
        truth = read_truth(args.data_dir, mouse_id, neurons)[TRUTH].add_prefix("true_")
        own = estimates.reset_index(drop=True).join(truth)
        own = own.join(sizes_of_shown(run_dir, args.data_dir, mouse_id, neurons))
        own[DELAY] = own["true_feedback_delay"] * 1000 / FPS
        own["lag_corrected_ms"] = own["lag_ms"] - control(own)
        own["well_predicted"] = well_predicted(run_dir, mouse_id, neurons) if twin else True
        parts.append(own)
        rows += judge(mouse_id, own, twin)
    table = pd.concat(parts, ignore_index=True)
    if judged(table).sum() < 2:
        raise UserError(f"{run_dir}: no neuron with an oriented field responds; nothing to compare.")
    write_comparison(run_dir, "feedbackRF", rows)
    fig, caption = draw(table, twin)
    for path in style.save(fig, run_dir / "figures" / "truth_feedbackRF", table.round(6), caption):
        print(path)


def sizes_of_shown(run_dir: Path, data_dir: str, mouse_id: str, neurons: np.ndarray) -> pd.DataFrame:
    """Preferred size and suppression of the animal itself, for the frequencies that all neurons were shown."""
    with Measurement(require(run_dir, "sizes", mouse_id)) as measurement:
        protocol = measurement.about["protocol"]
    animal = Animal.load(animal_file(find_recordings(data_dir, [mouse_id])[mouse_id]))
    found = measure_sizes(animal, protocol["cpd"], protocol["hertz"])[["preferred_size_deg", "suppression_index"]]
    return found.iloc[neurons].reset_index(drop=True).add_prefix("shown_")


def read_estimates(run_dir: Path, mouse_ids) -> pd.DataFrame:
    """Size tuning, and the lag of the inverse response; NaN where onsets were not measured."""
    table = read_table(run_dir, "size_tuning", mouse_ids)
    if not locate(run_dir, "response_onset").is_file():
        print(f"{run_dir}: no response_onset.csv, so lags are left out. See predict_onset.py and estimate_onset.py.")
        return table.assign(lag_ms=np.nan)
    onset = read_table(run_dir, "response_onset")[["mouse", "neuron", "lag_ms"]]
    return table.merge(onset, on=["mouse", "neuron"], how="left")


def judged(table: pd.DataFrame) -> pd.Series:
    return table["responsive"] & (table["true_kind"] == "gabor")


def delayed(table: pd.DataFrame) -> pd.DataFrame:
    """Neurons with a feedback field that was found: those whose lag can be known."""
    return table[judged(table) & table["inverse_tuned"] & (table["true_feedback"] > 0)]


def control(table: pd.DataFrame) -> float:
    """Median lag of neurons whose feedback is not delayed."""
    lags = delayed(table)
    return lags.loc[lags[DELAY] == 0, "lag_ms"].median()


def judge(mouse_id: str, table: pd.DataFrame, twin: bool) -> list[dict]:
    """The numbers of one mouse."""
    oriented, driven = table[judged(table)], table[(table["true_kind"] == "gabor") & table["centred"]]
    share = driven["responsive"].mean()
    rows = [row(mouse_id, "called responsive", "share", share, len(driven), "oriented")]
    selections = {"responsive": oriented}
    if twin:
        selections["well predicted"] = oriented[oriented["well_predicted"]]
        share = oriented["well_predicted"].mean()
        rows.append(row(mouse_id, "well predicted", "share", share, len(oriented), "responsive"))
    for name, chosen in selections.items():
        for found in (size_rows, feedback_rows, onset_rows):
            rows += [row(mouse_id, *told, name) for told in found(chosen)]
    return rows


def size_rows(table: pd.DataFrame) -> list[tuple]:
    """Quantity, statistic, value, n."""
    rows = []
    for truth, of in (("true", ""), ("shown", " of the grating shown")):
        error = abs(table["preferred_size_deg"] - table[f"{truth}_preferred_size_deg"]).dropna()
        name, n = f"preferred size{of} (deg)", len(error)
        rows += [
            (name, "median error", error.median(), n),
            (name, f"share within {NEAR}", (error <= NEAR).mean(), n),
        ]
    pair = table[["suppression_index", "shown_suppression_index"]].dropna()
    rows.append(("suppression index of the grating shown", "Spearman", spearman(pair), len(pair)))
    for truth, label in (("suppression_index", "suppression index"), ("surround_strength", "and surround strength")):
        pair = table[["suppression_index", f"true_{truth}"]].dropna()
        quantity = label if truth == "suppression_index" else f"suppression index {label}"
        rows.append((quantity, "Spearman", spearman(pair), len(pair)))
    return rows


def feedback_rows(table: pd.DataFrame) -> list[tuple]:
    fed = table["true_feedback"] > 0
    with_field, without = table[fed], table[~fed]
    rows = [("inverse-tuned", "sensitivity", with_field["inverse_tuned"].mean(), len(with_field)),
            ("inverse-tuned", "false positives", without["inverse_tuned"].mean(), len(without))]  # fmt: skip
    for column, label in (("inverse_tuning_index", "inverse tuning index"), ("inverse_rise", "rise with the disc")):
        rows.append(
            (label, "area under the ROC curve", area_under_roc(with_field[column], without[column]), len(table))
        )
    for name, own in (("with feedback", with_field), ("without feedback", without)):
        index = own["inverse_tuning_index"].dropna()
        rows.append(("inverse tuning index", f"median {name}", index.median(), len(index)))
    return rows


def area_under_roc(positive: pd.Series, negative: pd.Series) -> float:
    """Chance that a neuron with the property has the larger index; one without an index counts as 0."""
    if not len(positive) or not len(negative):
        return np.nan
    return mannwhitneyu(positive.fillna(0), negative.fillna(0)).statistic / len(positive) / len(negative)


def onset_rows(table: pd.DataFrame) -> list[tuple]:
    """How the lag, corrected by the controls of the whole mouse, follows the delay of the feedback."""
    lags = delayed(table)
    known = lags[[DELAY, "lag_ms", "lag_corrected_ms"]].dropna()
    if known[DELAY].nunique() < 2:
        return []
    slope, intercept = np.polyfit(known[DELAY], known["lag_corrected_ms"], 1)
    scatter = (known["lag_corrected_ms"] - slope * known[DELAY] - intercept).std(ddof=2)
    still, n = known[known[DELAY] == 0], len(known)
    return [
        ("lag of the inverse response", "undefined share", lags["lag_ms"].isna().mean(), len(lags)),
        ("lag of the inverse response (ms)", "median without delay", still["lag_ms"].median(), len(still)),
        ("corrected lag over feedback delay", "slope", slope, n),
        ("corrected lag over feedback delay (ms)", "intercept", intercept, n),
        ("corrected lag over feedback delay (ms)", "sd of residuals", scatter, n),
        ("corrected lag and feedback delay", "Spearman", spearman(known[["lag_corrected_ms", DELAY]]), n),
    ]


def spearman(pair: pd.DataFrame) -> float:
    return spearmanr(*pair.to_numpy().T).statistic if len(pair) > 2 else np.nan


def draw(table: pd.DataFrame, twin: bool):
    fig, axes = style.figure(2, 3, height=125)
    shown = table[judged(table)]
    drawn = axes.flat
    for column, label in (("preferred_size_deg", "preferred\nsize (deg)"), ("suppression_index", "suppression index"),
                          ("inverse_size_deg", "preferred\ngrey disc (deg)")):  # fmt: skip
        tuning.by_prediction(next(drawn), shown, f"true_{column}", column, label)
    draw_strength(next(drawn), shown)
    draw_feedback(next(drawn), shown)
    draw_lags(next(drawn), delayed(table))
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        style.letter(ax, text)
    chosen = f"Blue: well-predicted neurons ({int(shown['well_predicted'].sum())} of {len(shown)}); grey: others. "
    caption = (
        f"Size and inverse tuning against the truth of simulated mice: {panels.told(shown)}, responsive with an "
        f"oriented field. {chosen * twin}True sizes were measured at each neuron's own frequencies. c: inverse-tuned "
        "neurons. d: suppression index over the strength of the divisive surround. e: largest rise of the response "
        "while the grey disc grows, in shares of the classical peak, of neurons without (black) and with a feedback "
        "field; more than 2 in the last bin. f: lag of the inverse response, above that of neurons without delay, "
        "over the delay of the feedback; line: equality; bars: medians."
    )
    return fig, caption


def draw_strength(ax, table: pd.DataFrame) -> None:
    for good, color in ((False, style.COLORS["repeats"]), (True, style.BLUE)):
        own = table[table["well_predicted"] == good]
        panels.against_ceiling(ax, own["true_surround_strength"], own["suppression_index"], color=color)
    rho = spearman(table.loc[table["well_predicted"], ["suppression_index", "true_surround_strength"]].dropna())
    ax.set(xlabel="true surround strength", ylabel="suppression index", box_aspect=1)
    ax.set_title(f"Spearman {rho:.2f}\n{panels.told(table[table['well_predicted']])}", loc="left")


def draw_feedback(ax, table: pd.DataFrame) -> None:
    fed = table["true_feedback"] > 0
    rise = {"classical": table.loc[~fed, "inverse_rise"], "inverse": table.loc[fed, "inverse_rise"]}
    sizes.distributions(ax, {name: own.to_numpy() for name, own in rise.items()}, np.linspace(0, 2, 26))
    ax.set(xlabel="rise with the grey disc\n(shares of the classical peak)", box_aspect=1)
    ax.set_title(f"without / with feedback\n{panels.told(table[~fed], table[fed])}", loc="left")


def draw_lags(ax, table: pd.DataFrame) -> None:
    known = table.dropna(subset=["lag_corrected_ms"])
    jitter = np.random.default_rng(0).uniform(-8, 8, len(known))
    panels.against_ceiling(ax, known[DELAY] + jitter, known["lag_corrected_ms"], color=style.BLUE)
    for delay, own in known.groupby(DELAY):
        ax.plot([delay - 12, delay + 12], 2 * [own["lag_corrected_ms"].median()], color=style.BLACK, linewidth=1.8)
    ends = [0, max(known[DELAY].max(), 1) if len(known) else 1]
    ax.plot(ends, ends, color=style.GREY, linewidth=0.8, linestyle="--", zorder=0)
    ax.set(xlabel="true feedback delay (ms)", ylabel="lag - lag without delay (ms)", box_aspect=1)
    ax.set_title(panels.told(known), loc="left")


if __name__ == "__main__":
    cli.run(main, get_parser())
