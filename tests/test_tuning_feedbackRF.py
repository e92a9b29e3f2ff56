"""tuning_feedbackRF/: all commands of its README, known fields recovered, and nothing found where nothing is."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from viv1t import io
from viv1t.data.mice import find_recordings
from viv1t.errors import UserError
from viv1t.measurements import Measurement
from viv1t.results import locate

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tuning_feedbackRF"
README = (FOLDER / "README.md").read_text()
COMMANDS = re.findall(r"^python (tuning_feedbackRF/\S+\.py.*)$", README, re.MULTILINE)
NEURONS = range(24)  # of the 60 of each mouse
FEW = ["--phases", "1", "--sizes", "10", "20", "30", "50", "60"]  # of the untrained twin


def run(script: str, *flags) -> None:
    names = runpy.run_path(str(FOLDER / f"{script}.py"))
    names["main"](names["get_parser"]().parse_args([str(flag) for flag in flags]))


def run_commands(run_name: str, run_dir: Path, data_dir: Path, more: dict) -> None:
    """The README's commands for one run, in its order; more: flags by script."""
    for command in (c for c in COMMANDS if f" runs/{run_name}" in c):
        script, *flags = shlex.split(command.replace(f"runs/{run_name}", str(run_dir)))
        names = runpy.run_path(str(ROOT / script))
        parser = names["get_parser"]()
        takes_data = any("--data_dir" in action.option_strings for action in parser._actions)
        flags += [*(["--data_dir", str(data_dir)] if takes_data else []), *more.get(Path(script).stem, [])]
        names["main"](parser.parse_args(flags))


def truth_of(lab: Path, mouse_id: str) -> pd.DataFrame:
    return pd.read_csv(find_recordings(lab, [mouse_id])[mouse_id] / "truth" / "neurons.csv")


def write_targets(run_dir: Path, lab: Path) -> Path:
    """True fields and preferences of both mice, as earlier analyses would have found them."""
    fields, tuned = [], []
    for mouse_id in ("simA", "simB"):
        truth = truth_of(lab, mouse_id)
        same = {"mouse": mouse_id, "neuron": truth["neuron"]}
        fields.append(pd.DataFrame(same | {"x": truth["x_px"], "y": truth["y_px"], "bad_fit": False}))
        tuned.append(pd.DataFrame(same | {"preferred_direction_deg": truth["direction_deg"]}))
    io.write_table(locate(run_dir, "fields"), pd.concat(fields))
    io.write_table(locate(run_dir, "selectivity_gratings"), pd.concat(tuned))
    return run_dir


@pytest.fixture(scope="module")
def animal(lab, tmp_path_factory) -> Path:
    run_dir = write_targets(tmp_path_factory.mktemp("feedback") / "animal", lab)
    neurons = ["--neurons", *map(str, NEURONS)]
    run_commands(
        "animal",
        run_dir,
        lab,
        {"predict_gratings": [*neurons, "--phases", "1"], "predict_onset": [*neurons, "--phases", "4"]},
    )
    return run_dir


@pytest.fixture(scope="module")
def twin(lab, lab_twin, tmp_path_factory) -> Path:
    """An untrained twin, whose neurons all count as responsive and most as inverse-tuned."""
    run_dir = write_targets(shutil.copytree(lab_twin, tmp_path_factory.mktemp("feedback") / "demo"), lab)
    neurons = ["--neurons", *map(str, range(6))]
    lax = ["--least_rise", "0", "--least_inverse", "0", "--least_gain", "0", "--significant", "0"]
    more = {"predict_gratings": [*neurons, *FEW], "predict_onset": [*neurons, "--phases", "2"],
            "estimate_size_tuning": lax, "estimate_onset": ["--least_rise", "0"]}  # fmt: skip
    run_commands("demo", run_dir, lab, more)
    return run_dir


def with_truth(path: Path, lab: Path, mouse_id: str) -> pd.DataFrame:
    """Oriented neurons that were shown stimuli, with their truth."""
    table = pd.read_csv(path, dtype={"mouse": str})
    table = table[table["mouse"] == mouse_id].reset_index(drop=True).join(truth_of(lab, mouse_id).add_prefix("true_"))
    return table[table["neuron"].isin(NEURONS) & (table["true_kind"] == "gabor")]


def test_commands_write_what_the_readme_says(animal, twin):
    assert len(COMMANDS) == 15 and set(FOLDER.glob("*.py")) == {ROOT / c.split()[0] for c in COMMANDS}
    expected = {"size_tuning", "response_onset", "truth_feedbackRF", "size_curves_mousesimA", "size_curves_mousesimB"}
    for folder in (animal, twin):
        assert expected <= {path.stem for path in (folder / "figures").glob("*.pdf")}
        for path in (folder / "figures").glob("*.pdf"):
            assert len(pd.read_csv(path.with_suffix(".csv")))
        for name, questions in (("size_tuning", 2), ("onset", 1)):
            assert len(pd.read_csv(folder / "statistics" / f"{name}.csv")) == questions
    columns = set(re.findall(r"`(\w+)`", README[README.index("## Columns") : README.index("## Differences")]))
    written = set(pd.read_csv(animal / "size_tuning.csv")) | set(pd.read_csv(animal / "response_onset.csv"))
    assert written <= columns


@pytest.mark.parametrize("mouse_id", ["simA", "simB"])
def test_size_tuning_of_the_animal_is_its_truth(animal, lab, mouse_id):
    table = with_truth(animal / "size_tuning.csv", lab, mouse_id)
    assert table["responsive"].all() and table["centred"].all() and (table["offset_px"] <= np.sqrt(0.5)).all()
    suppressed = table[table["true_surround_strength"] > 0]
    error = abs(suppressed["preferred_size_deg"] - suppressed["true_preferred_size_deg"])
    assert error.median() < 5 and (error <= 10).mean() >= 0.75  # the truth was measured at other frequencies
    assert table["suppression_index"].corr(table["true_surround_strength"], "spearman") >= 0.7
    assert table["suppression_index"].corr(table["true_suppression_index"], "spearman") >= 0.7
    undriven = pd.read_csv(animal / "size_tuning.csv", dtype={"mouse": str}).query("mouse == @mouse_id")
    undriven = undriven[(truth_of(lab, mouse_id)["kind"] == "undriven").to_numpy()]
    assert not undriven["responsive"].any()


def test_feedback_of_the_animal_is_found_and_none_is_invented(animal, lab):
    table = pd.concat([with_truth(animal / "size_tuning.csv", lab, mouse_id) for mouse_id in ("simA", "simB")])
    fed, other = table[table["true_feedback"] > 0], table[table["true_feedback"] == 0]
    assert fed["inverse_tuned"].mean() >= 0.65 and other["inverse_tuned"].mean() <= 0.05
    assert other["inverse_tuning_index"].median() < 0.1 and fed["inverse_tuning_index"].median() > 0.3
    assert (fed["inverse_rise"] > 0.05).all() and (other["inverse_rise"] < 0.05).all()
    larger = fed["inverse_size_deg"] - fed["preferred_size_deg"]
    assert larger.median() > 10


def test_the_lag_of_the_inverse_response_is_the_delay_of_feedback(animal, lab):
    parts = []
    for mouse_id in ("simA", "simB"):
        table = with_truth(animal / "response_onset.csv", lab, mouse_id)
        parts.append(table[table["inverse_tuned"] & (table["true_feedback"] > 0)])
    table = pd.concat(parts)
    delay = table["true_feedback_delay"] * 1000 / 30
    assert len(table) > 10 and table["lag_ms"].notna().all() and delay.nunique() > 3
    slope, intercept = np.polyfit(delay, table["lag_ms"], 1)
    assert 0.6 < slope < 1.4 and np.std(table["lag_ms"] - slope * delay - intercept) < 40  # few neurons
    assert table["lag_ms"].corr(delay, "spearman") > 0.6
    assert table["lag_ms"].corr(table["lag_aligned_ms"]) > 0.7
    assert ((table["lag_low_ms"] <= table["lag_ms"]) & (table["lag_ms"] <= table["lag_high_ms"])).mean() > 0.9


def test_the_question_about_onset_is_answered_once_with_animals_resampled(animal):
    answer = pd.read_csv(animal / "statistics" / "onset.csv").iloc[0]
    assert answer["animals"] == 2 and answer["low"] < answer["value"] < answer["high"] and answer["low"] > 0
    table = pd.read_csv(animal / "response_onset.csv")
    assert answer["n"] == table["inverse_tuned"].sum()


def test_what_was_not_learnt_is_not_found(twin, lab):
    table = pd.concat([with_truth(twin / "size_tuning.csv", lab, mouse_id) for mouse_id in ("simA", "simB")])
    table = table[table["responsive"]]
    rho = table["suppression_index"].corr(table["true_surround_strength"], "spearman")
    assert abs(rho) < 3 / np.sqrt(len(table))


def test_exchanged_neurons_have_nothing_to_do_with_the_truth(animal, lab):
    before = (animal / "size_tuning.csv").read_bytes()
    run("estimate_size_tuning", "--output_dir", animal, "--shuffle", 4)
    for mouse_id in ("simA", "simB"):
        table = with_truth(animal / "size_tuning_shuffled.csv", lab, mouse_id)
        limit = 3 / np.sqrt(len(table))
        assert abs(table["suppression_index"].corr(table["true_surround_strength"], "spearman")) < limit
        assert abs(table["inverse_rise"].corr(table["true_feedback"], "spearman")) < limit
    assert (animal / "size_tuning.csv").read_bytes() == before


def test_the_same_command_writes_the_same_bytes(animal):
    written = {name: (animal / name).read_bytes() for name in ("size_tuning.csv", "response_onset.csv")}
    run("estimate_size_tuning", "--output_dir", animal)
    run("estimate_onset", "--output_dir", animal)
    assert {name: (animal / name).read_bytes() for name in written} == written


def test_neurons_that_miss_the_stimulus_have_no_size_tuning(animal, lab, tmp_path, capsys):
    copy = shutil.copytree(animal, tmp_path / "run")
    fields = pd.read_csv(copy / "aRF.csv", dtype={"mouse": str})
    missed = (fields["neuron"] == 5) & (fields["mouse"] == "simA")
    fields.loc[missed, "x"] += 4
    io.write_table(copy / "aRF.csv", fields)
    run("estimate_size_tuning", "--output_dir", copy)
    table = pd.read_csv(copy / "size_tuning.csv", dtype={"mouse": str}).query("mouse == 'simA'").set_index("neuron")
    own, absent = table.loc[5], table.loc[30]
    assert own["class"] == "not centred" and not own["responsive"] and own["offset_px"] > 2 and not own["centred"]
    assert np.isnan(own["suppression_index"]) and np.isnan(own["peak"])
    assert absent["class"] == "not shown" and np.isnan(absent["preferred_size_deg"]) and not absent["inverse_tuned"]
    told = capsys.readouterr().out
    assert "1 not centred" in told and "36 not shown" in told


def test_each_neuron_sees_its_own_sizes(animal, lab):
    sizes = pd.read_csv(animal / "size_tuning.csv", dtype={"mouse": str})
    for mouse_id in ("simA", "simB"):
        with Measurement(locate(animal, "onset", mouse_id)) as measured:
            responsive = sizes.loc[(sizes["mouse"] == mouse_id) & sizes["responsive"], "neuron"]
            assert measured.neurons[measured.shown].tolist() == responsive.tolist()
            assert measured.responses.shape[0] == 8 and measured.responses.shape[2] == 18
            first = measured.responses[:, responsive.iloc[0], 0]
            assert np.allclose(first, measured.spontaneous[responsive.iloc[0]], rtol=1e-4)  # nothing answers at once


def test_a_recording_of_the_animal_gives_what_it_answers_without_noise(animal, lab, tmp_path):
    write_targets(tmp_path, lab)
    neurons = ["--mouse_ids", "simA", "--neurons", *map(str, range(12))]
    run("predict_gratings", "--output_dir", tmp_path, "--animal", "--data_dir", lab, *neurons, "--noise", 1,
        "--repeats", 6, "--sizes", 15, 25, 40, 60, "--phases", 1)  # fmt: skip
    run("estimate_size_tuning", "--output_dir", tmp_path)
    noisy, quiet = (pd.read_csv(folder / "size_tuning.csv").query("mouse == 'simA'").set_index("neuron").loc[:11]
                    for folder in (tmp_path, animal))  # fmt: skip
    truth = truth_of(lab, "simA").loc[:11]
    assert not noisy.loc[truth["kind"] == "undriven", "responsive"].any()
    assert noisy.loc[truth["kind"] != "undriven", "responsive"].mean() > 0.6
    both = noisy["responsive"] & quiet["responsive"]
    assert (abs(noisy["preferred_size_deg"] - quiet["preferred_size_deg"])[both] <= 10).mean() > 0.8
    assert noisy["inverse_rise"][both].corr(quiet["inverse_rise"][both], "spearman") > 0.6
    assert not (noisy["inverse_tuned"] & (truth["feedback"] == 0)).any()


def test_without_contrast_nothing_is_tuned_and_every_script_says_so(lab, tmp_path, capsys):
    write_targets(tmp_path, lab)
    flags = ["--output_dir", tmp_path, "--animal", "--data_dir", lab, "--neurons", 0, 1, 2]
    run("predict_gratings", *flags, *FEW, "--contrast", 0)
    run("estimate_size_tuning", "--output_dir", tmp_path)
    table = pd.read_csv(tmp_path / "size_tuning.csv")
    assert not table["responsive"].any() and not table["inverse_tuned"].any()
    assert table.filter(regex="_deg$|_index$|_r2$|_rise$").isna().all(axis=None)
    with pytest.raises(UserError, match="no neuron responds"):
        run("visualize_size_tuning", "--output_dir", tmp_path)
    with pytest.raises(UserError, match="no neuron to show"):
        run("predict_onset", *flags)
    with pytest.raises(UserError, match="nothing to compare"):
        run("compare_truth", "--output_dir", tmp_path, "--data_dir", lab)
    run("predict_onset", *flags, "--size", 20, "--contrast", 0, "--phases", 2)
    run("estimate_onset", "--output_dir", tmp_path)
    assert pd.read_csv(tmp_path / "response_onset.csv").filter(regex="_ms$").isna().all(axis=None)
    with pytest.raises(UserError, match="no inverse-tuned neuron"):
        run("visualize_onset", "--output_dir", tmp_path)
    assert "3 not responsive" in capsys.readouterr().out


def test_without_onsets_the_truth_of_sizes_is_still_compared(animal, lab, tmp_path, capsys):
    shutil.copy(animal / "size_tuning.csv", tmp_path)
    shutil.copytree(animal / "feedbackRF", tmp_path / "feedbackRF")
    run("compare_truth", "--output_dir", tmp_path, "--data_dir", lab)
    assert "lags are left out" in capsys.readouterr().out
    found, full = (pd.read_csv(folder / "validation" / "feedbackRF.csv") for folder in (tmp_path, animal))
    known = ~full["quantity"].str.contains("lag")
    assert found.equals(full[known].reset_index(drop=True))


BAD = [
    ("predict_gratings", "--output_dir {empty} --animal --data_dir {lab}", "fit_aRFs.py"),
    ("predict_gratings", "--output_dir {empty} --animal --data_dir {lab} --repeats 3", "--noise 1"),
    ("predict_gratings", "--output_dir {empty} --noise 1", "--animal"),
    ("predict_onset", "--output_dir {empty} --animal --data_dir {lab}", "fit_aRFs.py"),
    ("estimate_size_tuning", "--output_dir {new}", "no such run folder"),
    ("estimate_size_tuning", "--output_dir {empty}", "tuning_feedbackRF/predict_gratings.py"),
    ("estimate_size_tuning", "--output_dir {animal} --mouse_ids simX", "simX"),
    ("estimate_onset", "--output_dir {empty}", "predict_onset.py"),
    ("visualize_size_tuning", "--output_dir {empty}", "estimate_size_tuning.py"),
    ("visualize_size_tuning", "--output_dir {animal} --mouse_ids simX", "simA, simB"),
    ("visualize_size_tuning", "--output_dir {animal} --neurons 59", "--neurons 59"),
    ("visualize_onset", "--output_dir {empty}", "estimate_onset.py"),
    ("visualize_stimuli", "--output_dir {empty}", "predict_gratings.py"),
    ("visualize_stimuli", "--output_dir {animal} --neuron 59", "--neuron 59"),
    ("compare_truth", "--output_dir {empty}", "estimate_size_tuning.py"),
    ("compare_truth", "--output_dir {animal} --data_dir {tiny}", "simA"),
]  # fmt: skip


@pytest.mark.parametrize("script, flags, told", BAD)
def test_bad_input_is_told_in_one_line_and_writes_nothing(
    script, flags, told, animal, lab, tiny_recording_dir, tmp_path
):
    places = {"new": tmp_path / "new", "empty": tmp_path, "animal": animal, "lab": lab, "tiny": tiny_recording_dir}
    before = {path: path.stat().st_mtime_ns for path in animal.rglob("*")}
    with pytest.raises(UserError, match=re.escape(told)):
        run(script, *flags.format(**places).split())
    assert not list(tmp_path.iterdir()) and before == {path: path.stat().st_mtime_ns for path in animal.rglob("*")}


@pytest.mark.parametrize("flags", ["--sizes 0", "--contrast 2", "--siezs 10", "--phases 0"])
def test_unknown_or_impossible_flags_are_refused(flags, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("predict_gratings", "--output_dir", tmp_path, *flags.split())
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
