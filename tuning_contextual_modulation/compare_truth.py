"""Compare estimated surround modulation with the truth of simulated mice.

reads   RUN/contextual_modulation.csv, RUN/contextual_flips.csv (estimate_contextual_modulation.py);
        <data_dir>/<lab>/<mouse>/truth/neurons.csv; of a twin, RUN/evaluation_neurons.csv (evaluate.py)
writes  RUN/figures/truth_contextual.{pdf,png,csv}, one row per neuron; RUN/validation/contextual.csv, the numbers that
        are printed
next    report.py

Judged on responsive, centred neurons with an oriented field, at the disc that fits each best, and apart on those of
them that a twin predicts well. There are two truths, both noiseless and in closed form: the answer to the gratings
that were shown, and that to gratings of each neuron's own frequencies and true preferred size. How a surround changes
a response depends much on how well the disc fits: the second also judges the choice of the stimulus.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from viv1t import cli
from viv1t.data.mice import find_recordings
from viv1t.errors import UserError
from viv1t.estimators.contextual import modulation_index, turns
from viv1t.measurements import Measurement
from viv1t.plotting import panels, style, tuning
from viv1t.results import locate, read_table, require
from viv1t.simulate.animal import Animal
from viv1t.simulate.tuning import measure_contexts
from viv1t.subjects import animal_file
from viv1t.truth import read_truth, row, well_predicted, write_comparison

LOW, HIGH = 0.05, 1.0  # contrasts of the truth between which preferences turn
CONTRASTS = (LOW, 0.2, HIGH)
PARAMETERS = ["kind", "surround_strength", "surround_tuning", "facilitation"]
MEASURED = [f"{name}_{contrast:g}" for contrast in CONTRASTS for name in ("centre", "iso", "cross", "cmi")]
SCATTERS = {  # estimate -> truth, label
    "cmi_1": ("true_cmi_1", "CMI, contrast 1"),
    "cmi_0.05": ("true_cmi_0.05", "CMI, contrast 0.05"),
    "interaction": ("true_interaction", "CMI, 1 minus 0.05"),
    "mi_iso_1": ("true_mi_iso_1", "iso index, contrast 1"),
}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with contextual_modulation.csv")
    parser.add_argument("--data_dir", default="data", help="simulated mice (default: data)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the run)")
    return parser


def main(args) -> None:
    run_dir, parts, rows = Path(args.output_dir), [], []
    twin = locate(run_dir, "config").is_file()
    table = read_table(run_dir, "contextual_modulation", args.mouse_ids)
    flips = read_table(run_dir, "contextual_flips") if locate(run_dir, "contextual_flips").is_file() else None
    for mouse_id, estimates in table[table["chosen"]].groupby("mouse", sort=False):
        own = one_row_each(estimates, flips)
        neurons = own["neuron"].to_numpy()
        own = own.join(true_values(args.data_dir, mouse_id, neurons))
        own = own.join(answers_to_shown(run_dir, args.data_dir, mouse_id, own))
        own["well_predicted"] = well_predicted(run_dir, mouse_id, neurons) if twin else True
        parts.append(own)
        rows += judge(mouse_id, own, twin)
    table = pd.concat(parts, ignore_index=True)
    if judged(table).sum() < 2:
        raise UserError(f"{run_dir}: no centred neuron with an oriented field responds; nothing to compare.")
    write_comparison(run_dir, "contextual", rows)
    fig, caption = draw(table, twin)
    for path in style.save(fig, run_dir / "figures" / "truth_contextual", table.round(6), caption):
        print(path)


def one_row_each(estimates: pd.DataFrame, flips: pd.DataFrame | None) -> pd.DataFrame:
    """A row for each neuron: `<index>_<contrast>` at the contrasts of the truth, and what is known of its flip."""
    named = ["mouse", "neuron", "x_um", "y_um", "z_um", "centred", "responsive", "size_deg"]
    table = estimates.drop_duplicates("neuron")[named]
    for contrast in CONTRASTS:
        own = estimates[np.isclose(estimates["contrast"], contrast)]
        found = own.set_index("neuron")[["cmi", "mi_iso", "underfilled"]].add_suffix(f"_{contrast:g}")
        table = table.join(found, on="neuron") if len(own) else table
    if flips is not None and np.isclose(flips[["low_contrast", "high_contrast"]], (LOW, HIGH)).all():
        told = flips.set_index(["mouse", "neuron"])[["interaction", "flip", "flip_by_threshold", "chance"]]
        table = table.join(told, on=["mouse", "neuron"])
    return table.reset_index(drop=True)


def true_values(data_dir: str, mouse_id: str, neurons: np.ndarray) -> pd.DataFrame:
    truth = read_truth(data_dir, mouse_id, neurons)[PARAMETERS + MEASURED]
    truth["interaction"] = truth[f"cmi_{HIGH:g}"] - truth[f"cmi_{LOW:g}"]
    truth["flip"] = turns(truth[f"cmi_{HIGH:g}"], truth[f"cmi_{LOW:g}"])
    for contrast in CONTRASTS:
        iso, centre = (truth[f"{kind}_{contrast:g}"] for kind in ("iso", "centre"))
        truth[f"mi_iso_{contrast:g}"] = modulation_index(iso, centre)
    return truth.add_prefix("true_")


def answers_to_shown(run_dir: Path, data_dir: str, mouse_id: str, table: pd.DataFrame) -> pd.DataFrame:
    """The animal's answers to the gratings that each neuron was shown, where they were its own (not one for all)."""
    with Measurement(require(run_dir, "context", mouse_id)) as measurement:
        shown, about = measurement.conditions, measurement.about
    protocol = about.get("protocol", {})
    own = about.get("centre") == "field" and protocol.get("directions") is None
    if not own or protocol.get("outer") is not None or protocol.get("gap"):
        return pd.DataFrame(index=table.index)
    animal = Animal.load(animal_file(find_recordings(data_dir, [mouse_id])[mouse_id]))
    sizes = table.set_index("neuron")["size_deg"].reindex(range(animal.num_neurons)).to_numpy()
    answers = measure_contexts(animal, sizes, shown["sf_cpd"].iloc[0], shown["tf_hz"].iloc[0], (LOW, HIGH))
    answers = answers.iloc[table["neuron"]].reset_index(drop=True)
    cmi = {contrast: answers[f"cmi_{contrast:g}"] for contrast in (LOW, HIGH)}
    found = {f"shown_cmi_{contrast:g}": values for contrast, values in cmi.items()}
    return pd.DataFrame(found | {"shown_flip": turns(cmi[HIGH], cmi[LOW])})


def judged(table: pd.DataFrame) -> pd.Series:
    return table["responsive"] & table["centred"] & (table["true_kind"] == "gabor")


def judge(mouse_id: str, table: pd.DataFrame, twin: bool) -> list[dict]:
    """The numbers of one mouse."""
    oriented, undriven = table[table["true_kind"] == "gabor"], table[table["true_kind"] == "undriven"]
    rows = [
        row(mouse_id, "centred within the limit", "share", oriented["centred"].mean(), len(oriented), "oriented"),
        row(mouse_id, "called responsive", "share", oriented["responsive"].mean(), len(oriented), "oriented"),
    ]
    if len(undriven):
        rows.append(
            row(mouse_id, "called responsive", "share", undriven["responsive"].mean(), len(undriven), "undriven")
        )
    selections = {"responsive": table[judged(table)]}
    if twin:
        good = selections["responsive"]["well_predicted"]
        rows.append(row(mouse_id, "well predicted", "share", good.mean(), len(good), "responsive"))
        selections["well predicted"] = selections["responsive"][good]
    for name, chosen in selections.items():
        rows += (
            agreement(mouse_id, name, chosen) + suppression(mouse_id, name, chosen) + turned(mouse_id, name, chosen)
        )
    return rows


def agreement(mouse_id: str, name: str, chosen: pd.DataFrame) -> list[dict]:
    rows = []
    for column, (truth, label) in SCATTERS.items():
        if column in chosen:
            rows.append(correlate(mouse_id, label, chosen[[column, truth]], name))
    for contrast in (HIGH, LOW):
        pair = [f"cmi_{contrast:g}", f"shown_cmi_{contrast:g}"]
        if chosen.columns.isin(pair).sum() == 2:
            rows.append(correlate(mouse_id, f"CMI, contrast {contrast:g}, of the grating shown", chosen[pair], name))
    if "cmi_1" in chosen:
        tuned = chosen.loc[chosen["true_surround_strength"] > 0, ["cmi_1", "true_surround_tuning"]]
        rows.append(
            correlate(mouse_id, "CMI, contrast 1, with the surround's tuning", tuned, f"{name}, with surround")
        )
    return rows


def correlate(mouse_id: str, label: str, pair: pd.DataFrame, name: str) -> dict:
    pair = pair.dropna()
    rho = spearmanr(*pair.to_numpy().T).statistic if len(pair) > 2 else np.nan
    return row(mouse_id, label, "Spearman", rho, len(pair), name)


def suppression(mouse_id: str, name: str, chosen: pd.DataFrame) -> list[dict]:
    if "mi_iso_1" not in chosen:
        return []
    fills = chosen[(chosen["true_surround_strength"] > 0) & ~chosen["underfilled_1"].astype(bool)]
    known = fills["mi_iso_1"].dropna()
    share = (known < 0).mean()
    return [
        row(mouse_id, "iso < centre, contrast 1", "share", share, len(known), f"{name}, with surround, disc fills")
    ]


def turned(mouse_id: str, name: str, chosen: pd.DataFrame) -> list[dict]:
    """Flips against those that each truth shows by the same rule."""
    if "flip" not in chosen:
        return []
    rows = [row(mouse_id, "flips, labels of contrast exchanged", "share", chosen["chance"].mean(), len(chosen), name)]
    for truth, of in (("true_flip", ""), ("shown_flip", ", of the grating shown")):
        if truth not in chosen:
            continue
        true = chosen[truth].astype(bool)
        rows.append(row(mouse_id, f"flips{of}", "true share", true.mean(), len(chosen), name))
        for column, label in (("flip", "flips, tested"), ("flip_by_threshold", "flips, by threshold")):
            found = chosen[column].astype(bool)
            rows += [
                row(mouse_id, label + of, "precision", true[found].mean(), int(found.sum()), name),
                row(mouse_id, label + of, "recall", found[true].mean(), int(true.sum()), name),
            ]
    return rows


def draw(table: pd.DataFrame, twin: bool):
    fig, axes = style.figure(2, 3, height=125)
    shown, drawn = table[judged(table)], axes.flat
    for column, (truth, label) in SCATTERS.items():
        ax = next(drawn)
        if column in shown:
            tuning.by_prediction(ax, shown, truth, column, label)
        else:
            ax.set_visible(False)
    draw_tuning(next(drawn), shown)
    draw_flips(next(drawn), shown)
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        style.letter(ax, text)
    mice = table["mouse"].nunique()
    chosen = f"Blue: well-predicted neurons ({int(shown['well_predicted'].sum())} of {len(shown)}); grey: others. "
    caption = (
        f"Surround modulation against the truth of {mice} simulated {'mouse' if mice == 1 else 'mice'}: {len(shown)} "
        f"responsive, centred neurons with an oriented field, at the disc that fits each best. {chosen * twin}"
        "a, b: CMI, (cross - iso) / (cross + iso). c: its change with contrast. d: (iso - centre) / (iso + centre). "
        "e: CMI over the generative tuning of the surround, 0 untuned, 1 own orientation only; neurons with a "
        "surround. f: neurons whose preference turns from cross to iso as contrast falls, tested against what the "
        "animal's answers to the same gratings show by the same rule. r, bias (median difference) and n: of the "
        "coloured neurons."
    )
    return fig, caption


def draw_tuning(ax, shown: pd.DataFrame) -> None:
    if "cmi_1" not in shown:
        ax.set_visible(False)
        return
    surround = shown[shown["true_surround_strength"] > 0].dropna(subset=["cmi_1"])
    for good, color in ((False, style.COLORS["repeats"]), (True, style.BLUE)):
        own = surround[surround["well_predicted"] == good]
        panels.against_ceiling(ax, own["true_surround_tuning"], own["cmi_1"], color=color)
    ax.set(xlabel="true tuning of the surround", ylabel="estimated CMI, contrast 1", box_aspect=1)
    own = surround[surround["well_predicted"]]
    rho = spearmanr(own["true_surround_tuning"], own["cmi_1"]).statistic if len(own) > 2 else np.nan
    ax.set_title(f"Spearman {rho:.2f}\n{panels.told(own)}", loc="left")


def draw_flips(ax, shown: pd.DataFrame) -> None:
    if "flip" not in shown:
        ax.set_visible(False)
        return
    found, true = shown["flip"].astype(bool), shown.get("shown_flip", shown["true_flip"]).astype(bool)
    counts = {"found": found & true, "missed": ~found & true, "false": found & ~true, "neither": ~found & ~true}
    panels.bars(ax, {name: int(which.sum()) for name, which in counts.items()}, "neurons")
    ax.set_title(f"flips\n{panels.told(shown)}", loc="left")


if __name__ == "__main__":
    cli.run(main, get_parser())
