"""Compare estimated receptive fields and maps of the cortex with the truth of simulated mice.

reads   RUN/aRF.csv, RUN/retinotopy/ (predict_noise.py, fit_aRFs.py); RUN/retinotopy.csv, gaze.csv, fields_<source>.csv
        and spatial_tuning_<source>.csv where they are there; <data_dir>/<lab>/<mouse>/truth/; of a twin,
        RUN/evaluation_neurons.csv (evaluate.py)
writes  RUN/figures/truth_retinotopy.{pdf,png,csv}, one row per neuron; RUN/validation/retinotopy.csv, the numbers that
        are printed
next    report.py

Centres are judged where the field was accepted, and apart on those of them that a twin predicts well; how many
driven and undriven neurons have a field is told. Widths are judged where contrast excites. The animal's own map of
the cortex is the regression of the true centres of the same neurons. The truth of selectivity for dots is what the
animal answers without noise.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from viv1t import cli, io
from viv1t.data.mice import find_recordings
from viv1t.estimators.cortical_map import fit_cortical_map
from viv1t.estimators.receptive_field import FWHM
from viv1t.geometry import Monitor
from viv1t.measurements import Measurement
from viv1t.plotting import panels, style, tuning
from viv1t.results import locate, read_fields, read_table, require
from viv1t.shown import SOURCES
from viv1t.subjects import animal_file
from viv1t.truth import read_truth, row, well_predicted, write_comparison

WITHIN = (1, 2)  # pixels
KINDS = ("gabor", "luminance", "isotropic")  # of driven neurons
ELEMENTS = ("azimuth_per_x", "azimuth_per_y", "elevation_per_x", "elevation_per_y")
OTHERS = {"fields": "movies", "spatial_tuning": "dots"}  # tables of fields from recorded trials


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with aRF.csv")
    parser.add_argument("--data_dir", default="data", help="simulated mice (default: data)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    return parser


def main(args) -> None:
    run_dir, parts, rows = Path(args.output_dir), [], []
    twin = locate(run_dir, "config").is_file()
    for mouse_id, fields in read_fields(run_dir, args.mouse_ids).groupby("mouse", sort=False):
        setting = read_setting(args.data_dir, mouse_id)
        own = with_truth(run_dir, args.data_dir, fields.reset_index(drop=True), setting)
        parts.append(own)
        rows += judge_fields(mouse_id, own, twin) + judge_map(run_dir, mouse_id, own)
        rows += judge_gaze(run_dir, mouse_id, setting) + judge_recorded(run_dir, args.data_dir, mouse_id)
    table = pd.concat(parts, ignore_index=True)
    write_comparison(run_dir, "retinotopy", rows)
    for path in style.save(
        draw(table), run_dir / "figures" / "truth_retinotopy", table.round(6), caption(table, twin)
    ):
        print(path)


def read_setting(data_dir: str, mouse_id: str) -> dict:
    """What all neurons of a simulated mouse share, see `viv1t.simulate.animal.Setting`."""
    return io.read_json(animal_file(find_recordings(data_dir, [mouse_id])[mouse_id]))["setting"]


def gaze_slope(setting: dict) -> np.ndarray:
    """(2, 2): pixels to the right and down that fields move for each camera pixel of the pupil centre (x, y)."""
    monitor = Monitor(**setting["monitor"])
    return np.diag([1, -1]) @ np.array(setting["gaze"]) / monitor.degrees_per_pixel


def with_truth(run_dir: Path, data_dir: str, fields: pd.DataFrame, setting: dict) -> pd.DataFrame:
    """Fields beside their truth: true_x, true_y (px) at the gaze that was held, degrees, width (sd, deg), and kind."""
    mouse_id, neurons = fields["mouse"][0], fields["neuron"].to_numpy()
    truth = read_truth(data_dir, mouse_id, neurons)
    with Measurement(require(run_dir, "retinotopy", mouse_id)) as measurement:
        turn = np.array(measurement.about["pupil_center"]) - setting["pupil_center"]
        monitor = measurement.monitor
    centre = truth[["x_px", "y_px"]].to_numpy() + gaze_slope(setting) @ turn
    azimuth, elevation = monitor.to_degrees(centre).T
    return fields.assign(
        true_x=centre[:, 0],
        true_y=centre[:, 1],
        true_azimuth_deg=azimuth,
        true_elevation_deg=elevation,
        sigma_deg=np.sqrt(fields["fwhm_major_deg"] * fields["fwhm_minor_deg"]) / FWHM,
        true_sigma_deg=truth["sigma_deg"] * np.sqrt(truth["aspect"]),
        kind=truth["kind"],
        error_px=np.hypot(fields["x"] - centre[:, 0], fields["y"] - centre[:, 1]),
        well_predicted=well_predicted(run_dir, mouse_id, neurons),
    )


def judge_fields(mouse_id: str, table: pd.DataFrame, twin: bool) -> list[dict]:
    driven, undriven = table[table["kind"] != "undriven"], table[table["kind"] == "undriven"]
    rows = [
        row(mouse_id, "field accepted", "share", (~part["bad_fit"]).mean(), len(part), name)
        for name, part in (("driven", driven), ("undriven", undriven))
    ]
    good = driven[~driven["bad_fit"]]
    selections = {"accepted": good} | {kind: good[good["kind"] == kind] for kind in KINDS}
    if twin:
        rows.append(row(mouse_id, "well predicted", "share", driven["well_predicted"].mean(), len(driven), "driven"))
        well = driven[driven["well_predicted"]]
        rows.append(row(mouse_id, "field accepted", "share", (~well["bad_fit"]).mean(), len(well), "well predicted"))
        selections["well predicted"] = well[~well["bad_fit"]]
    for name, part in selections.items():
        rows += centre_rows(mouse_id, "centre (px)", part["error_px"], name)
    for name in ("accepted", *(["well predicted"] if twin else [])):
        part = selections[name][selections[name]["sign"] > 0]
        rank = spearmanr(part["sigma_deg"], part["true_sigma_deg"])[0] if len(part) > 2 else np.nan
        ratio = (part["sigma_deg"] / part["true_sigma_deg"]).median()
        rows.append(row(mouse_id, "width (sd, deg)", "rank correlation", rank, len(part), name))
        rows.append(row(mouse_id, "width (sd, deg)", "median ratio", ratio, len(part), name))
    return rows


def centre_rows(mouse_id: str, quantity: str, error: pd.Series, selection: str) -> list[dict]:
    shares = [
        row(mouse_id, quantity, f"share within {limit}", (error <= limit).mean(), len(error), selection)
        for limit in WITHIN
    ]
    return [row(mouse_id, quantity, "median error", error.median(), len(error), selection), *shares]


def judge_map(run_dir: Path, mouse_id: str, table: pd.DataFrame) -> list[dict]:
    """Elements of the map and its scatter against those of the true centres of the same neurons."""
    if not locate(run_dir, "cortical_map").is_file():
        return []
    found = read_table(run_dir, "cortical_map", [mouse_id]).iloc[0]
    good = table[~table["bad_fit"]]
    truth = fit_cortical_map(good[["true_azimuth_deg", "true_elevation_deg"]], good[["x_um", "y_um"]])
    size = np.linalg.norm(truth.jacobian)
    rows = [
        row(mouse_id, f"{name} (deg/mm)", statistic, value, int(found["used"]), "accepted")
        for name, true in zip(ELEMENTS, truth.jacobian.ravel(), strict=True)
        for statistic, value in (("estimate", found[name]), ("truth", true))
    ]
    jacobian = found[list(ELEMENTS)].to_numpy(float).reshape(2, 2)
    error = np.linalg.norm(jacobian - truth.jacobian) / size
    return [
        *rows,
        row(mouse_id, "map of cortex", "relative error", error, int(found["used"]), "accepted"),
        row(mouse_id, "scatter (deg)", "error", found["scatter_deg"] - truth.scatter, int(found["used"]), "accepted"),
    ]


def judge_gaze(run_dir: Path, mouse_id: str, setting: dict) -> list[dict]:
    """Displacement of fields along the true one, as a share of it, and the angle between both."""
    if not locate(run_dir, "gaze").is_file():
        return []
    table, rows = read_table(run_dir, "gaze"), []
    for _, line in table[table["mouse"] == mouse_id].iterrows():
        turn = line[["pupil_dx", "pupil_dy"]].to_numpy(float)
        true, found = gaze_slope(setting) @ turn, line[["field_dx", "field_dy"]].to_numpy(float)
        slope = found @ true / (true @ true)
        angle = np.degrees(np.angle(complex(*found) / complex(*true)))
        name = f"fields, pupil moved by {turn[0]:+.0f}, {turn[1]:+.0f} px"
        rows.append(row(mouse_id, name, "slope of displacement on truth", slope, line["n"], "accepted"))
        rows.append(row(mouse_id, name, "angle to the truth (deg)", angle, line["n"], "accepted"))
    return rows


def judge_recorded(run_dir: Path, data_dir: str, mouse_id: str) -> list[dict]:
    """Fields from recorded movies and dots, and selectivity for dots, where they were estimated."""
    rows = []
    for name, source in ((name, source) for name in OTHERS for source in SOURCES):
        table = read_if_there(run_dir, f"{name}_{source}", mouse_id)
        if table is None:
            continue
        truth = read_truth(data_dir, mouse_id, table["neuron"].to_numpy())
        driven, good = truth["kind"] != "undriven", ~table["bad_fit"]
        error, what = np.hypot(table["x"] - truth["x_px"], table["y"] - truth["y_px"]), f"{OTHERS[name]}, {source}"
        for part, kind in ((driven, "driven"), (~driven, "undriven")):
            rows.append(row(mouse_id, f"field accepted, {what}", "share", good[part].mean(), part.sum(), kind))
        rows += centre_rows(mouse_id, f"centre (px), {what}", error[good & driven], "accepted")
    animal = read_if_there(run_dir, "spatial_tuning_animal", mouse_id)
    for source in ("recording", "twin"):
        table = read_if_there(run_dir, f"spatial_tuning_{source}", mouse_id)
        if table is None or animal is None:
            continue
        both = table.merge(animal, on="neuron", suffixes=("", "_animal"))
        both = both[both["tuned"] & both["tuned_animal"]]
        for name in ("ssi", "ssi_published"):
            pair = both[[name, f"{name}_animal"]].dropna()
            rank = spearmanr(pair)[0] if len(pair) > 2 else np.nan
            rows.append(row(mouse_id, f"{name}, {source}", "rank correlation with animal", rank, len(pair), "tuned"))
    return rows


def read_if_there(run_dir: Path, name: str, mouse_id: str) -> pd.DataFrame | None:
    """The rows of a mouse in a table that need not exist."""
    if not locate(run_dir, name).is_file():
        return None
    table = read_table(run_dir, name)
    table = table[table["mouse"] == mouse_id].reset_index(drop=True)
    return table if len(table) else None


def caption(table: pd.DataFrame, twin: bool) -> str:
    driven = table[table["kind"] != "undriven"]
    good = driven[~driven["bad_fit"]]
    well = f" Blue: the {good['well_predicted'].sum()} that the twin predicts well; grey: others." if twin else ""
    return (
        f"Estimated against true receptive fields of {table['mouse'].nunique()} simulated mice: centre (a, b), "
        f"width (c), and the distance of both centres by kind of neuron (d). {len(good)} of {len(driven)} driven and "
        f"{(~table['bad_fit']).sum() - len(good)} of {len(table) - len(driven)} undriven neurons have a field; only "
        f"driven ones are drawn.{well}"
    )


def draw(table: pd.DataFrame):
    fig, axes = style.figure(2, 2, width=125, height=125)
    *scatters, distances = axes.flat
    good = table[(table["kind"] != "undriven") & ~table["bad_fit"]]
    good = good.assign(sigma_deg=good["sigma_deg"].where(good["sign"] > 0))
    well = good[good["well_predicted"]]
    labels = {"azimuth_deg": "azimuth (deg)", "elevation_deg": "elevation (deg)", "sigma_deg": "width (sd, deg)"}
    for ax, (name, label) in zip(scatters, labels.items(), strict=True):
        tuning.by_prediction(ax, good, f"true_{name}", name, label)
        both = good[[f"true_{name}", name]].dropna().to_numpy()
        if len(both):
            ax.set(xlim=(both.min(), both.max()), ylim=(both.min(), both.max()))
    for kind, color in zip(KINDS, style.CYCLE, strict=False):
        error = well.loc[well["kind"] == kind, "error_px"]
        if len(error):
            distances.ecdf(error, color=color, label=f"{kind}, {len(error)}")
    distances.axvline(WITHIN[0], color=style.GREY, linestyle="--", linewidth=0.8)
    distances.set(xlim=(0, 4), xlabel="distance of centres (px)", ylabel="share of neurons")
    distances.set_box_aspect(1)
    distances.set_title(f"median {well['error_px'].median():.2f} px\n{panels.told(well)}", loc="left")
    if len(well):
        distances.legend(loc="lower right")
    for ax, text in zip(axes.flat, "abcd", strict=True):
        style.letter(ax, text)
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
