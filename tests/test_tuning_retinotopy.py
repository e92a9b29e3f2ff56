"""tuning_retinotopy/: all commands of its README, known fields recovered, and nothing found where nothing is."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.estimators.movie_fields import MovieMaps, fit_movie_fields
from viv1t.results import RESULTS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tuning_retinotopy"
README = (FOLDER / "README.md").read_text()
COMMANDS = re.findall(r"^python (tuning_retinotopy/\S+\.py.*)$", README, re.MULTILINE)


def run(script: str, *flags) -> None:
    names = runpy.run_path(str(FOLDER / f"{script}.py"))
    names["main"](names["get_parser"]().parse_args([str(flag) for flag in flags]))


def run_commands(run_name: str, run_dir: Path, data_dir: Path, **smaller) -> None:
    """The README's commands for one run, in its order; smaller: flags for those that take them."""
    for command in (c for c in COMMANDS if f" runs/{run_name}" in c):
        script, *flags = shlex.split(command.replace(f"runs/{run_name}", str(run_dir)))
        names = runpy.run_path(str(ROOT / script))
        parser = names["get_parser"]()
        known = {option for action in parser._actions for option in action.option_strings}
        for name, value in ({"data_dir": data_dir} | smaller).items():
            flags += [f"--{name}", str(value)] if f"--{name}" in known else []
        names["main"](parser.parse_args(flags))


@pytest.fixture(scope="module")
def animal(lab, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("retinotopy") / "animal"
    run_commands("animal", run_dir, lab, resamples=20, batch_size=64, patterns=1000)
    return run_dir


@pytest.fixture(scope="module")
def twin(lab, lab_twin, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("retinotopy") / "demo"
    shutil.copytree(lab_twin, run_dir)
    run_commands("demo", run_dir, lab, resamples=20, patterns=100, permutations=120)
    return run_dir


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"mouse": str})


def with_truth(path: Path, lab: Path) -> pd.DataFrame:
    table = read(path)
    folders = find_recordings(lab)
    truth = [pd.read_csv(folders[id] / "truth" / "neurons.csv").assign(mouse=id) for id in table["mouse"].unique()]
    return table.merge(
        pd.concat(truth).add_prefix("true_"), left_on=["mouse", "neuron"], right_on=["true_mouse", "true_neuron"]
    )


def numbers(run_dir: Path) -> pd.Series:
    """What compare_truth.py told, by mouse, quantity, statistic and selection."""
    table = read(run_dir / "validation" / "retinotopy.csv")
    return table.set_index(["mouse", "quantity", "statistic", "selection"])["value"].sort_index()


def test_commands_write_what_the_readme_says(animal, twin):
    assert {ROOT / command.split()[0] for command in COMMANDS} == set(FOLDER.glob("*.py"))
    shared = {"aRFs_mousesimA", "aRFs_mousesimB", "retinotopy_mousesimA", "truth_retinotopy"}
    for folder, more in ((animal, {"gaze"}), (twin, {"spatial_tuning_mousesimA"})):
        assert shared | more <= {path.stem for path in (folder / "figures").glob("*.pdf")}
        for name in shared | more:
            assert (folder / "figures" / f"{name}.png").stat().st_size > 5000
            assert len(read(folder / "figures" / f"{name}.csv")) or folder == twin  # which is untrained
    columns = set(re.findall(r"`(\w+)`", README[README.index("## Columns") : README.index("## Differences")]))
    for path in (animal / "aRF.csv", animal / "gaze.csv", *twin.glob("fields_*.csv"), *twin.glob("spatial_*.csv")):
        undocumented = set(read(path)) - columns
        assert undocumented <= {"folder", *(f"field_d{axis}_{end}" for axis in "xy" for end in ("low", "high"))}, path


@pytest.mark.parametrize("mouse", ["simA", "simB"])
def test_fields_of_the_animal_are_where_they_are(animal, mouse):
    told = numbers(animal)[mouse]
    assert told["field accepted", "share", "driven"] >= 0.98 and told["field accepted", "share", "undriven"] <= 0.05
    for kind in ("accepted", "gabor", "luminance", "isotropic"):
        assert told["centre (px)", "share within 1", kind] >= 0.95
    assert told["centre (px)", "median error", "accepted"] < 0.3
    assert told["width (sd, deg)", "rank correlation", "accepted"] > 0.6
    assert told["width (sd, deg)", "median ratio", "accepted"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("mouse", ["simA", "simB"])
def test_map_of_cortex_is_that_of_the_animal(animal, mouse):
    told = numbers(animal)[mouse]
    assert told["map of cortex", "relative error", "accepted"] < 0.1
    assert abs(told["scatter (deg)", "error", "accepted"]) < 0.5
    table = read(animal / "retinotopy.csv").set_index("mouse").loc[mouse]
    for name in ("azimuth_per_x", "elevation_per_y", "scatter_deg"):
        assert table[f"{name}_low"] <= table[name] <= table[f"{name}_high"]


@pytest.mark.parametrize("mouse", ["simA", "simB"])
def test_fields_follow_the_eye(animal, mouse):
    told = numbers(animal)[mouse]
    quantity = "fields, pupil moved by +10, +0 px"
    assert told[quantity, "slope of displacement on truth", "accepted"] == pytest.approx(1, abs=0.1)
    assert abs(told[quantity, "angle to the truth (deg)", "accepted"]) < 6


def test_movies_show_the_fields_that_noise_shows(lab, animal, tmp_path):
    """The lab's animals saw few movies, but without noise in the responses those tell where fields are."""
    run("fit_recorded_fields", "--output_dir", tmp_path, "--data_dir", lab, "--source", "animal")
    table = with_truth(tmp_path / "fields_animal.csv", lab)
    good = table[~table["bad_fit"]]
    error = np.hypot(good["x"] - good["true_x_px"], good["y"] - good["true_y_px"])
    assert len(good) > 10 and error.median() < 1.5 and "undriven" not in set(good["true_kind"])


def test_movie_maps_find_a_field_amid_correlated_contrast():
    """Contrast is shared by all places but for a little, which alone tells where a neuron looks."""
    rng = np.random.default_rng(0)
    maps, places = MovieMaps(3, 36, 64), ((20, 15), (44, 21))
    for _ in range(40):
        strength = np.repeat(rng.gamma(1, 1, (15, 6, 8)), 10, axis=0) + 2 * np.repeat(
            rng.gamma(1, 1, (15, 1, 1)), 10, axis=0
        )
        strength = np.kron(strength, np.ones((1, 6, 8)))
        video = 127 + 20 * strength * rng.choice((-1, 1), (150, 36, 64))
        y, x = np.mgrid[:36, :64]
        windows = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3.0**2)) for px, py in places]
        drive = np.stack([(strength * window).sum(axis=(1, 2)) for window in windows] + [rng.gamma(1, 20, 150)])
        maps.update(video.clip(0, 255), np.square(np.pad(drive, ((0, 0), (1, 0)))[:, :-1]))
    table = fit_movie_fields(maps)
    assert not table["bad_fit"][:2].any() and table["bad_fit"][2] and (table["sign"][:2] == 1).all()
    assert np.hypot(*(table[["x", "y"]][:2].to_numpy() - places).T).max() < 2


def test_dots_are_read_and_place_the_fields(lab, twin):
    table = with_truth(twin / "spatial_tuning_animal.csv", lab)
    assert set(table["mouse"]) == {"simA"}
    driven = table["true_kind"] != "undriven"
    assert table.loc[driven, "tuned"].mean() > 0.9 and not table.loc[~driven, "tuned"].any()
    good = table[~table["bad_fit"]]
    error = np.hypot(good["x"] - good["true_x_px"], good["y"] - good["true_y_px"])
    assert len(good) > 0.4 * len(table) and error.median() < 1.5
    assert good["latency_s"].between(1 / 30 - 1e-9, 0.2 + 1e-9).all()


def test_recorded_selectivity_is_that_without_noise(twin):
    told = numbers(twin)["simA"]
    for name in ("ssi", "ssi_published"):
        assert told[f"{name}, recording", "rank correlation with animal", "tuned"] > 0.5


def test_shuffled_neurons_have_no_truth_and_cortex_no_map(animal, lab):
    run("fit_aRFs", "--output_dir", animal, "--shuffle", 1)
    table = with_truth(animal / "aRF_shuffled.csv", lab)
    table = table[~table["bad_fit"]]
    for name in ("x", "y"):
        rank = table[name].corr(table[f"true_{name}_px"], method="spearman")
        assert abs(rank) < 3 / np.sqrt(len(table))
    before = (animal / "retinotopy.csv").read_bytes()
    run("estimate_retinotopy", "--output_dir", animal, "--shuffle", 1, "--resamples", 20)
    assert read(animal / "retinotopy_shuffled.csv")[["r2_azimuth", "r2_elevation"]].max(axis=None) < 0.25
    assert (animal / "retinotopy.csv").read_bytes() == before


def test_shuffled_dots_tune_as_many_neurons_as_the_level_says(lab, tmp_path):
    run("estimate_spatial_tuning", "--output_dir", tmp_path, "--data_dir", lab, "--shuffle", 3, "--level", 0.05)
    table = read(tmp_path / "spatial_tuning_recording_shuffled.csv")
    assert table["tuned"].mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(table))
    assert not (tmp_path / "retinotopy").exists()


def test_results_do_not_depend_on_the_call(animal, lab, tmp_path):
    shutil.copytree(animal / "retinotopy", tmp_path / "retinotopy")
    run("fit_aRFs", "--output_dir", tmp_path)
    assert (tmp_path / "aRF.csv").read_bytes() == (animal / "aRF.csv").read_bytes()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        run("estimate_spatial_tuning", "--output_dir", tmp_path / folder, "--data_dir", lab, "--permutations", 20)
    one, other = ((tmp_path / f / "spatial_tuning_recording.csv").read_bytes() for f in ("a", "b"))
    assert one == other


BAD = {
    "no fields": ("visualize_aRFs", [], r"aRF.csv .*fit_aRFs.py --output_dir"),
    "no responses to noise": ("fit_aRFs", [], r"responses to noise.*predict_noise.py --output_dir"),
    "no fields for a map": ("estimate_retinotopy", [], r"fit_aRFs.py"),
    "no recorded fields": ("estimate_retinotopy", ["--fields", "recording"], r"recorded_fields.py --source recording"),
    "no map": ("visualize_retinotopy", [], r"estimate_retinotopy.py"),
    "no dots": ("visualize_spatial_tuning", [], r"estimate_spatial_tuning.py --source recording"),
    "nothing to compare": ("compare_truth", ["--data_dir", "DATA"], r"fit_aRFs.py"),
    "no other gaze": ("compare_gaze", ["--others", "nowhere"], r"fit_aRFs.py"),
    "mouse that saw no dots": ("estimate_spatial_tuning", ["--mouse_ids", "simB", "--data_dir", "DATA"], r"no trial"),
    "unknown mouse": ("fit_recorded_fields", ["--mouse_ids", "simC", "--data_dir", "DATA"], r"simC is not below"),
    "folder without a twin": ("fit_recorded_fields", ["--source", "twin", "--data_dir", "DATA"], r"train.py"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_and_nothing_is_written(case, lab, tmp_path):
    script, flags, message = BAD[case]
    with pytest.raises(UserError, match=message):
        run(script, "--output_dir", tmp_path, *(lab if flag == "DATA" else flag for flag in flags))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="no such run folder"):
        run(script, "--output_dir", tmp_path / "nowhere", *(lab if flag == "DATA" else flag for flag in flags))


def test_mice_without_a_field_table_row_are_told(animal, capsys):
    with pytest.raises(UserError, match="simC: not in .*simA, simB"):
        run("visualize_aRFs", "--output_dir", animal, "--mouse_ids", "simC")
    with pytest.raises(UserError, match="looks where it does"):
        run("compare_gaze", "--output_dir", animal, "--others", animal)
    with pytest.raises(SystemExit) as stopped:
        run("estimate_spatial_tuning", "--output_dir", animal, "--source", "recordings")
    assert stopped.value.code == 2 and "did you mean 'recording'" in capsys.readouterr().err


def test_every_result_names_a_script_that_is_there():
    for result in RESULTS.values():
        script, *flags = result.made_by.split()
        if script.startswith("tuning_retinotopy/"):
            parser = runpy.run_path(str(ROOT / script))["get_parser"]()
            assert all(flag in parser.format_help() for flag in flags if flag.startswith("--"))


def test_recordings_without_a_monitor_have_fields_in_pixels(lab, tmp_path):
    folder = tmp_path / "data" / "unknown_lab" / "simA"
    shutil.copytree(find_recordings(lab)["simA"], folder)
    (folder / "meta" / "monitor.json").unlink()
    assert Recording(folder).monitor is None
    flags = ("--output_dir", tmp_path, "--data_dir", tmp_path / "data")
    run("fit_recorded_fields", *flags)
    table = read(tmp_path / "fields_recording.csv")
    assert table["azimuth_deg"].isna().all() and table["x"].notna().any()
    with pytest.raises(UserError, match="Give --monitor"):
        run("estimate_spatial_tuning", *flags)
    run("estimate_spatial_tuning", *flags, "--monitor", "sensorium", "--permutations", 20)
