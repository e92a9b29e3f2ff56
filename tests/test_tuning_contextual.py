"""tuning_contextual_modulation/: all commands of its README, known modulation recovered, nothing where nothing is."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from viv1t.data.mice import find_recordings
from viv1t.data.session import write_session
from viv1t.errors import UserError
from viv1t.estimators.contextual import turns
from viv1t.measurements import Measurement
from viv1t.results import locate
from viv1t.simulate.animal import Animal
from viv1t.simulate.tuning import measure_contexts

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tuning_contextual_modulation"
README = (FOLDER / "README.md").read_text()
COMMANDS = re.findall(r"^python (tuning_contextual_modulation/\S+\.py.*)$", README, re.MULTILINE)
KINDS = {"centre": "CM000", "iso": "CM001", "cross": "CM002"}


def run(script: str, *flags) -> None:
    names = runpy.run_path(str(FOLDER / f"{script}.py"))
    names["main"](names["get_parser"]().parse_args([str(flag) for flag in flags]))


def run_commands(run_name: str, runs: Path, data_dir: Path, **smaller) -> None:
    """The README's commands for one run, in its order, below `runs`; smaller: further flags, by script."""
    for command in (c for c in COMMANDS if f"--output_dir runs/{run_name}" in c):
        script, *flags = shlex.split(command.replace("runs/", f"{runs}/"))
        names = runpy.run_path(str(ROOT / script))
        parser = names["get_parser"]()
        takes_data = any("--data_dir" in action.option_strings for action in parser._actions)
        flags += ["--data_dir", str(data_dir)] if takes_data else []
        more = smaller.get(Path(script).stem, {})
        flags += [str(x) for name, values in more.items() if f"--{name}" not in flags for x in (f"--{name}", *values)]
        names["main"](parser.parse_args(flags))


def truth_of(lab: Path, mouse_id: str) -> pd.DataFrame:
    return pd.read_csv(find_recordings(lab, [mouse_id])[mouse_id] / "truth" / "neurons.csv")


def write_targets(run_dir: Path, lab: Path, names: dict[str, str]) -> None:
    """Fields, directions and sizes of the run, as the analyses before this one write them; here they are the truth."""
    truth = pd.concat([truth_of(lab, mouse_id).assign(mouse=name) for mouse_id, name in names.items()])
    truth["bad_fit"] = truth["kind"] == "undriven"
    truth = truth.rename(columns={"x_px": "x", "y_px": "y"})
    run_dir.mkdir(parents=True, exist_ok=True)
    truth[["mouse", "neuron", "x", "y", "bad_fit"]].to_csv(run_dir / "aRF.csv", index=False)
    truth[["mouse", "neuron", "preferred_direction_deg"]].to_csv(run_dir / "selectivity_gratings.csv", index=False)
    sizes = truth[["mouse", "neuron", "preferred_size_deg"]].assign(ffrf_size_deg=truth["preferred_size_deg"])
    sizes.to_csv(run_dir / "size_tuning.csv", index=False)


SIMULATED = {"simA": "simA", "simB": "simB"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("contextual")


@pytest.fixture(scope="module")
def animal(lab, runs) -> Path:
    write_targets(runs / "animal", lab, SIMULATED)
    run_commands("animal", runs, lab, predict_gratings={"neurons": range(10)})
    return runs / "animal"


@pytest.fixture(scope="module")
def twin(lab, lab_twin, runs) -> Path:
    """An untrained twin of both mice, after the README's commands."""
    shutil.copytree(lab_twin, runs / "demo")
    write_targets(runs / "demo", lab, SIMULATED)
    few = {"phases": [2], "sizes": [20, 30], "contrasts": [0.5, 1], "neurons": range(12)}
    any_response = {"least_rise": [0], "floor": [0]}
    looked_at = {"phases": [1], "times": [0.5], "contrasts": [1], "neurons": range(3)}
    run_commands("demo", runs, lab, predict_gratings=few, estimate_contextual_modulation=any_response,
                 predict_attention=looked_at)  # fmt: skip
    return runs / "demo"


@pytest.fixture(scope="module")
def all_neurons(lab, tmp_path_factory) -> Path:
    """The animals' answers, noiseless, at their own sizes: every neuron, the three kinds of which truth is known."""
    run_dir = tmp_path_factory.mktemp("contextual_all") / "run"
    write_targets(run_dir, lab, SIMULATED)
    flags = ["--sizes", "own", "--kinds", "centre", "iso", "cross", "--direction_step", 1]
    run("predict_gratings", "--output_dir", run_dir, "--animal", "--data_dir", lab, *flags)
    run("estimate_contextual_modulation", "--output_dir", run_dir)
    run("compare_truth", "--output_dir", run_dir, "--data_dir", lab)
    return run_dir


def write_recorded(data_dir: Path, lab: Path) -> pd.DataFrame:
    """A later session of mouse K, who is simA: its measured responses with noise. Returns the truth."""
    truth, rng = truth_of(lab, "simA"), np.random.default_rng(0)
    table, shown = [], []
    for c, contrast in enumerate((0.05, 1.0)):
        for kind, name in KINDS.items():
            name = f"{name}_{c}"
            table.append({"name": name, "kind": kind, "contrast": contrast, "size_deg": 20, "direction_deg": 90})
            shown += [(name, truth[f"{kind}_{contrast:g}"].fillna(0).to_numpy())] * 20
    shown += [("GCS000_N007", np.zeros(len(truth)))] * 8  # what else such a session shows
    order = rng.permutation(len(shown)).reshape(-1, 4)
    trials = []
    for row in order:
        rate = np.zeros((len(truth), 4, 60))
        rate[:, :, 15:45] = np.stack([shown[i][1] for i in row], axis=1)[:, :, None] * rng.gamma(
            8, 1 / 8, (len(truth), 4, 1)
        )
        trial = (rate + rng.gamma(1, 0.005, rate.shape)).reshape(len(truth), -1).astype(np.float32)
        trial[[3, 5]] = np.nan  # not found again
        trials.append(trial)
    folder = data_dir / "rochefort-lab" / "VIPcre232_FOV1_day2" / "artificial_movies"
    coordinates = truth[["x_um", "y_um", "z_um"]].to_numpy()
    write_session(
        folder, np.array([[shown[i][0] for i in row] for row in order]), trials, coordinates, pd.DataFrame(table)
    )
    return truth


@pytest.fixture(scope="module")
def recorded(lab, runs, twin, tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("sessions")
    write_recorded(data_dir, lab)
    kept = {path: path.read_bytes() for path in twin.glob("*.csv")}
    write_targets(twin, lab, {"simA": "K"})
    fields = pd.read_csv(twin / "aRF.csv")
    fields.assign(x=fields["x"].median(), y=fields["y"].median()).to_csv(
        twin / "aRF.csv", index=False
    )  # on all fields
    run_commands("recorded", runs, data_dir)
    for path, content in kept.items():
        path.write_bytes(content)
    return runs / "recorded"


def test_commands_write_what_the_readme_says(animal, twin, recorded):
    assert set(FOLDER.glob("*.py")) == {ROOT / c.split()[0] for c in COMMANDS}
    population = {"contextual_modulation", "contrast_difference"}
    for folder, figures in (
        (animal, population | {"truth_contextual", "contextual_stimuli", "contextual_examples_mousesimB",
                               "contextual_responses_mousesimA"}),
        (twin, population | {"truth_contextual", "contextual_examples_mousesimA", "attention_context"}),
        (recorded, population | {"contextual_examples_mouseK_day2", "contextual_responses_mouseK_day2"}),
    ):  # fmt: skip
        assert figures <= {path.stem for path in (folder / "figures").glob("*.pdf")}
        for path in (folder / "figures").glob("*.pdf"):
            if path.stem in figures:
                assert len(pd.read_csv(path.with_suffix(".csv")))
        questions = pd.read_csv(folder / "statistics" / "contextual_modulation.csv")
        assert len(questions) == 4 == questions["question"].nunique()
    told = set(re.findall(r"`(\w+)`", README[README.index("## Columns") : README.index("## Differences")]))
    written = {c for name in ("modulation", "flips") for c in pd.read_csv(animal / f"contextual_{name}.csv")}
    unnamed = {f"{index}_{end}" for index in ("mi_iso", "mi_cross", "mi_shift", "cmi") for end in ("low", "high")}
    assert written - unnamed - {"cmi_low_chosen", "cmi_high_held"} <= told


def test_what_is_shown_once_is_shown_once(animal, twin):
    with Measurement(locate(animal, "context", "simA")) as measured:
        conditions = measured.conditions
        assert measured.about["source"] == "animal" and len(measured.about["own_size_deg"]) == 60
        assert conditions.groupby(["kind", "contrast"]).size().eq(4).all() and len(conditions) == 48
        assert set(conditions["side"][conditions["phase_deg"].isin([0, 180])]) == {1.0}
        assert np.isfinite(measured.responses[:][:, measured.shown]).all()
        assert np.isnan(measured.responses[:][:, ~measured.shown]).all()
    with Measurement(locate(twin, "context", "simA")) as measured:
        by_kind = measured.conditions.groupby("kind").size()
    assert by_kind["iso"] == 2 * 2 and by_kind.drop("iso").eq(2 * 2 * 2).all()


def test_modulation_of_the_animal_is_recovered(all_neurons, lab):
    rows = pd.read_csv(all_neurons / "validation" / "contextual.csv").set_index(["mouse", "quantity", "statistic"])
    for mouse_id in ("simA", "simB"):
        value = rows.loc[mouse_id]["value"]
        assert value["called responsive", "share"].min() >= 0.98
        assert value["CMI, contrast 1", "Spearman"] >= 0.75  # 45 neurons; 0.86 of 223
        assert value["CMI, 1 minus 0.05", "Spearman"] >= 0.9
        assert value["iso < centre, contrast 1", "share"] >= 0.95
        assert value["flips, tested", "precision"] >= 0.9
        assert value["flips, labels of contrast exchanged", "share"] <= 0.1


def test_flips_are_those_of_the_same_gratings_without_screen_or_noise(all_neurons, lab):
    """The truth on disk has each neuron's own frequencies. Measured with those that were shown, it agrees."""
    flips = pd.read_csv(all_neurons / "contextual_flips.csv")
    found = []
    for mouse_id, own in flips.groupby("mouse"):
        animal = Animal.load(find_recordings(lab, [mouse_id])[mouse_id] / "truth" / "animal.json")
        sizes = own.set_index("neuron")["size_deg"].reindex(range(animal.num_neurons)).to_numpy()
        measured = measure_contexts(animal, sizes, cpd=0.04, hertz=2.0, contrasts=(0.05, 1.0)).loc[own["neuron"]]
        true = turns(measured["cmi_1"], measured["cmi_0.05"])
        gabor = (animal.neurons["kind"] == "gabor").to_numpy()[own["neuron"]]
        found.append(own.assign(true=true, true_cmi=measured["cmi_1"].to_numpy())[gabor])
    table = pd.concat(found)
    assert table["cmi_high"].corr(table["true_cmi"], "spearman") >= 0.95
    assert table.loc[table["flip"], "true"].mean() >= 0.9  # precision
    assert table.loc[table["true"], "flip"].mean() >= 0.85  # recall; 0.95 of the 330 true flips of the default mice


def test_exchanged_neurons_have_no_truth(all_neurons, lab):
    before = (all_neurons / "contextual_modulation.csv").read_bytes()
    run("estimate_contextual_modulation", "--output_dir", all_neurons, "--shuffle", 3)
    assert (all_neurons / "contextual_modulation.csv").read_bytes() == before
    table = pd.read_csv(all_neurons / "contextual_modulation_shuffled.csv")
    for mouse_id in ("simA", "simB"):
        own = table[(table["mouse"] == mouse_id) & (table["contrast"] == 1)].set_index("neuron")
        truth = truth_of(lab, mouse_id)
        truth = truth[truth["kind"] == "gabor"]
        rho = own["cmi"].reindex(truth["neuron"]).corr(truth.set_index("neuron")["cmi_1"], "spearman")
        assert abs(rho) < 3 / np.sqrt(len(truth))


def test_what_was_not_learnt_is_not_found(twin):
    rows = pd.read_csv(twin / "validation" / "contextual.csv")
    rows = rows[(rows["quantity"] == "CMI, contrast 1") & (rows["selection"] == "responsive")]
    assert len(rows) == 2
    assert (rows["value"].isna() | (abs(rows["value"]) < 3 / np.sqrt(rows["n"]))).all()


def test_noisy_presentations_recover_what_the_animal_answers_without_noise(all_neurons, lab, runs):
    write_targets(runs / "noisy", lab, SIMULATED)
    run_commands("noisy", runs, lab, predict_gratings={"contrasts": [1], "mouse_ids": ["simA"], "neurons": range(32)})
    noisy, true = (pd.read_csv(folder / "contextual_modulation.csv") for folder in (runs / "noisy", all_neurons))
    assert not (runs / "noisy" / "contextual_flips.csv").exists()  # one contrast
    both = noisy.merge(true, on=["mouse", "neuron", "contrast"], suffixes=("", "_true"))
    both = both[both["responsive"] & both["responsive_true"]]
    assert len(both) >= 20
    for name in ("cmi", "mi_iso"):
        assert both[name].corr(both[f"{name}_true"], "spearman") >= 0.7
        inside = (both[f"{name}_low"] <= both[f"{name}_true"]) & (both[f"{name}_true"] <= both[f"{name}_high"])
        assert inside[both[name].notna()].mean() >= 0.8


def test_a_recorded_session_is_read_and_analysed_alike(recorded, lab):
    truth = truth_of(lab, "simA")
    with Measurement(locate(recorded, "context", "K_day2")) as measured:
        assert measured.about["source"] == "recording"
        conditions = measured.conditions
        assert len(conditions) == 120 and set(conditions["repeat"]) == set(range(20))
        assert not measured.shown[[3, 5]].any() and measured.shown.sum() == 58
        assert np.allclose(measured.spontaneous[measured.shown], 0.005, rtol=0.1)  # the 15 frames before each pattern
        above = measured.responses[:] - measured.spontaneous
        centre = above[np.flatnonzero((conditions["kind"] == "centre") & (conditions["contrast"] == 1))].mean(axis=0)
    seen = measured.shown & (truth["kind"] == "gabor").to_numpy()
    assert np.allclose(centre[seen], truth["centre_1"][seen], rtol=0.35)
    table = pd.read_csv(recorded / "contextual_modulation.csv").set_index("neuron")
    high = table[table["contrast"] == 1].reindex(truth["neuron"][seen])
    assert high["cmi"].corr(truth["cmi_1"][seen], "spearman") >= 0.8
    with Measurement(recorded / "contextual_modulation" / "traces_mouseK_day2.h5") as traces:
        assert traces.responses.shape == (120, 60, 45)
        mean = traces.responses[:, measured.shown].mean(axis=(0, 1))
    assert mean[:30].min() > 3 * mean[30:].max()


def test_a_recording_does_not_replace_what_a_twin_answered(twin, lab, tmp_path):
    write_recorded(tmp_path, lab)
    (tmp_path / "rochefort-lab" / "VIPcre232_FOV1_day2").rename(tmp_path / "rochefort-lab" / "simA")
    path = locate(twin, "context", "simA")
    before = path.read_bytes()
    with pytest.raises(UserError, match="responses of a twin. Name another --output_dir"):
        run("read_recording", "--output_dir", twin, "--data_dir", tmp_path)
    assert path.read_bytes() == before


def test_without_contrast_nothing_is_defined_and_every_script_says_so(lab, tmp_path, capsys):
    write_targets(tmp_path, lab, SIMULATED)
    flags = ["--output_dir", tmp_path]
    shown = ["--contrasts", 0, "--sizes", 20, "--phases", 2, "--mouse_ids", "simA", "--neurons", 0, 1, 2, 3]
    run("predict_gratings", *flags, "--animal", "--data_dir", lab, *shown)
    run("estimate_contextual_modulation", *flags)
    table = pd.read_csv(tmp_path / "contextual_modulation.csv")
    assert table[["cmi", "mi_iso", "mi_cross", "mi_shift", "cmi_low"]].isna().all(axis=None)
    assert not table["responsive"].any()
    assert np.isnan(pd.read_csv(tmp_path / "statistics" / "contextual_modulation.csv")["value"]).all()
    with pytest.raises(UserError, match="no centred neuron responds"):
        run("visualize_contextual_modulation", *flags)
    with pytest.raises(UserError, match="nothing to compare"):
        run("compare_truth", *flags, "--data_dir", lab)
    assert "0 responsive" in capsys.readouterr().out


def test_fields_that_the_stimulus_missed_are_left_out(animal, lab, tmp_path):
    run_dir = shutil.copytree(animal, tmp_path / "run")
    fields = pd.read_csv(run_dir / "aRF.csv")
    fields.loc[fields["neuron"] == 0, "x"] += 3
    fields.loc[fields["neuron"] == 1, "bad_fit"] = True
    fields.to_csv(run_dir / "aRF.csv", index=False)
    run("estimate_contextual_modulation", "--output_dir", run_dir)
    table = pd.read_csv(run_dir / "contextual_modulation.csv")
    assert not table.loc[table["neuron"].isin([0, 1]), "centred"].any()
    assert table.loc[~table["neuron"].isin([0, 1]), "centred"].all()
    flips = pd.read_csv(run_dir / "contextual_flips.csv").set_index("neuron")
    assert flips.loc[[0, 1], "q"].isna().all() and not flips.loc[[0, 1], "flip"].any()


@pytest.mark.parametrize("contrasts", [[0.05, 0.1, 0.3, 1.0]])
def test_contrast_responses_are_fitted_from_four_contrasts_on(lab, tmp_path, contrasts):
    write_targets(tmp_path, lab, SIMULATED)
    shown = ["--sizes", "own", "--kinds", "centre", "iso", "cross", "--phases", 2, "--mouse_ids", "simA"]
    run("predict_gratings", "--output_dir", tmp_path, "--animal", "--data_dir", lab, *shown, "--neurons", *range(8),
        "--contrasts", *contrasts)  # fmt: skip
    run("estimate_contextual_modulation", "--output_dir", tmp_path)
    flips = pd.read_csv(tmp_path / "contextual_flips.csv")
    flips = flips[flips["responsive"]]
    assert (flips["r2_centre"] > 0.95).all()
    assert (flips["c50_iso"] < flips["c50_centre"]).mean() > 0.7  # suppression saturates earlier than drive


BAD = [
    ("predict_gratings", "--output_dir {empty} --animal --data_dir {lab}", "fit_aRFs.py"),
    ("predict_gratings", "--output_dir {fields} --animal --data_dir {lab} --sizes own", "estimate_size_tuning.py"),
    ("predict_gratings", "--output_dir {fields} --animal --data_dir {lab} --sizes own 20", "'own' stands alone"),
    ("predict_gratings", "--output_dir {fields} --animal --data_dir {lab} --outer 50", "--outer 50: no room"),
    ("predict_gratings", "--output_dir {fields} --animal --data_dir {lab} --window 0.5 0.5", "--window"),
    ("predict_gratings", "--output_dir {fields} --animal --data_dir {lab} --repeats 2", "--noise 1"),
    ("estimate_contextual_modulation", "--output_dir {empty}", "predict_gratings.py"),
    ("estimate_contextual_modulation", "--output_dir {animal} --mouse_ids simX", "simX"),
    ("estimate_contextual_modulation", "--output_dir {animal} --fields_of {empty}", "fit_aRFs.py"),
    ("visualize_contextual_modulation", "--output_dir {empty}", "estimate_contextual_modulation.py"),
    ("visualize_contextual_modulation", "--output_dir {animal} --neurons 99", "--neurons 99"),
    ("visualize_contrast_difference", "--output_dir {empty}", "estimate_contextual_modulation.py"),
    ("visualize_responses", "--output_dir {empty}", "predict_gratings.py --traces"),
    ("visualize_responses", "--output_dir {animal} --neurons 99", "--neurons 99"),
    ("visualize_responses", "--output_dir {animal} --neurons 0 1 2 3 4 5 6", "6 fit into the figure"),
    ("visualize_contextual_modulation", "--output_dir {animal} --neurons 0 1 2 3 4 5 6", "6 fit into the figure"),
    ("visualize_attention", "--output_dir {empty}", "predict_attention.py"),
    ("compare_truth", "--output_dir {empty}", "estimate_contextual_modulation.py"),
    ("compare_truth", "--output_dir {animal} --data_dir {tiny}", "simA"),
    ("read_recording", "--output_dir {empty} --data_dir {lab}", "no session"),
    ("read_recording", "--output_dir {empty} --data_dir {sessions}", "fit_aRFs.py"),
    ("read_recording", "--output_dir {animal} --data_dir {sessions} --mouse_ids J", "K_day2"),
    ("read_recording", "--output_dir {animal} --data_dir {sessions} --stimuli {tables}/kind.csv", "kind 'classical'"),
    ("read_recording", "--output_dir {animal} --data_dir {sessions} --stimuli {tables}/name.csv", "CM777 was never"),
    ("read_recording", "--output_dir {animal} --data_dir {sessions} --stimuli {tables}/disc.csv", "needs the diam"),
    ("read_recording", "--output_dir {animal} --data_dir {sessions} --stimuli {tables}/dark.csv", "contrast 0 of"),
]  # fmt: skip


@pytest.fixture(scope="module")
def sessions(lab, tmp_path_factory) -> Path:
    """A good session, and tables of stimuli with one mistake each."""
    data_dir = tmp_path_factory.mktemp("sessions")
    write_recorded(data_dir / "data", lab)
    header = "name,kind,contrast,size_deg,direction_deg,x,y\n"
    for name, row in {
        "kind": "CM000_0,classical,1,20,90,30,15",
        "name": "CM777,iso,1,20,90,30,15",
        "disc": "CM000_0,cross,1,,90,30,15",
        "dark": "CM000_0,cross,0,20,90,30,15",
    }.items():
        (data_dir / f"{name}.csv").write_text(header + row)
    return data_dir


@pytest.mark.parametrize("script, flags, told", BAD)
def test_bad_input_is_told_in_one_line_and_writes_nothing(
    script, flags, told, animal, lab, sessions, tiny_recording_dir, tmp_path
):
    empty, fields = tmp_path / "empty", tmp_path / "fields"
    empty.mkdir()
    write_targets(fields, lab, SIMULATED)
    (fields / "size_tuning.csv").unlink()
    places = {"empty": empty, "fields": fields, "animal": animal, "lab": lab, "tiny": tiny_recording_dir}
    places |= {"sessions": sessions / "data", "tables": sessions}
    before = {path: path.stat().st_mtime_ns for folder in (tmp_path, animal) for path in folder.rglob("*")}
    with pytest.raises(UserError, match=re.escape(told)) as error:
        run(script, *flags.format(**places).split())
    assert "\n" not in str(error.value)
    after = {path: path.stat().st_mtime_ns for folder in (tmp_path, animal) for path in folder.rglob("*")}
    assert before == after


@pytest.mark.parametrize("flags", ["--kinds ios", "--sizes owns", "--contrasts 2", "--gap -1"])
def test_unknown_words_are_refused(flags, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("predict_gratings", "--output_dir", tmp_path, *flags.split())
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
