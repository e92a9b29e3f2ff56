"""Scripts in misc/ draw what they say: figures, numbers that match, and one line for what a user can cure."""

import dataclasses
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import evaluate
import predict
from viv1t import baselines
from viv1t.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.inference import load_twin
from viv1t.movies import frame_size
from viv1t.simulate.design import Design
from viv1t.simulate.recording import simulate

MISC = Path(__file__).parents[1] / "misc"
MICE = {"tinyA": 8, "tinyB": 11}


def run(script: str, *flags) -> None:
    """Call one of misc/*.py with flags, in this process."""
    names = runpy.run_path(str(MISC / f"{script}.py"))
    names["main"](names["get_parser"]().parse_args([str(flag) for flag in flags]))


def drawn(folder: Path, name: str) -> pd.DataFrame:
    """The numbers of a figure that must exist in both formats."""
    assert all((folder / f"{name}.{kind}").stat().st_size > 5000 for kind in ("pdf", "png"))
    return pd.read_csv(folder / f"{name}.csv")


@pytest.fixture(scope="module")
def scored(causal_run, tiny_recording_dir, tmp_path_factory) -> Path:
    """The run of the untrained twin, predicted and scored. Read only, but for its figures."""
    run_dir = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(causal_run, run_dir)
    flags = ["--output_dir", str(run_dir), "--data_dir", str(tiny_recording_dir)]
    predict.main(predict.get_parser().parse_args([*flags, "--device", "cpu"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "COMPONENTS", 5)
        evaluate.main(evaluate.get_parser().parse_args(flags))
    return run_dir


@pytest.fixture(scope="module")
def twin(scored):
    return load_twin(scored, "cpu")


def test_parameters_are_counted_once(scored, twin, capsys):
    run("count_parameters", "--output_dir", scored)
    table = pd.read_csv(scored / "parameters.csv").set_index("part")["parameters"]
    own = sum(p.numel() for p in twin.model.parameters())
    assert table["total"] == own == table.drop("total").sum()
    assert table["readout of mouse tinyB"] == sum(p.numel() for p in twin.model.readouts["tinyB"].parameters())
    blocks = twin.model.core.vivit.temporal_transformer
    assert table["core: temporal transformer"] == sum(p.numel() for p in blocks.parameters())
    assert f"{own:,}" in capsys.readouterr().out


def test_depth_has_the_mean_of_each_plane(scored, twin):
    run("visualize_groups", "--output_dir", scored, "--ds_tier", "live_main")
    table = drawn(scored / "figures", "groups")
    neurons = pd.read_csv(scored / "evaluation_neurons.csv")
    neurons = neurons[neurons["tier"] == "live_main"]
    planes = table[(table["grouping"] == "depth") & table["mouse"].isin(list(MICE))]
    assert planes.groupby("mouse")["neurons"].sum().to_dict() == MICE
    for _, plane in planes.iterrows():
        depth = float(plane["group"].removesuffix(" µm"))
        rows = np.flatnonzero(twin.mice[plane["mouse"]].coordinates[:, 2] == depth)
        own = neurons[(neurons["mouse"] == plane["mouse"]) & neurons["neuron"].isin(rows)]
        assert own["challenge_correlation"].mean() == pytest.approx(plane["challenge_correlation_mean"], abs=1e-5)
        assert own["baseline_behavior"].mean() == pytest.approx(plane["baseline_behavior_mean"], abs=1e-5)
        low, high = plane["challenge_correlation_low"], plane["challenge_correlation_high"]
        assert low <= plane["challenge_correlation_mean"] <= high


def test_a_run_gains_nothing_over_itself(scored):
    run("visualize_groups", "--output_dir", scored, "--compare", scored)
    table = drawn(scored / "figures", "groups_gain")
    assert (table[["gain_mean", "gain_low", "gain_high"]].abs() < 1e-9).all(axis=None)
    np.testing.assert_allclose(table["gain_ratio_mean"], 1)


def test_runs_are_drawn_for_the_neurons_that_all_scored(scored, tmp_path):
    neurons = pd.read_csv(scored / "evaluation_neurons.csv")
    (tmp_path / "few").mkdir()
    neurons[neurons["neuron"] < 5].to_csv(tmp_path / "few" / "evaluation_neurons.csv", index=False)
    run("visualize_groups", "--output_dir", tmp_path / "few", scored)
    table = drawn(tmp_path / "few" / "figures", "groups").set_index(["grouping", "mouse", "group"])
    few, all_of_it = (
        table[table["run"] == str(run_dir)].drop(columns="run") for run_dir in (tmp_path / "few", scored)
    )
    pd.testing.assert_frame_equal(few, all_of_it)
    quarters = few.loc["reliability"].groupby("mouse")["neurons"].sum()
    assert quarters[list(MICE)].tolist() == [5, 5]


@pytest.mark.parametrize("kind", ["text", "csv", "latex"])
def test_groups_are_printed_with_what_is_behind_them(scored, capsys, kind):
    flags = ("--ds_tier", "live_main", "--scores", "challenge_correlation", "oracle", "ratio_to_ceiling")
    run("print_groups", "--output_dir", scored, "--by", "reliability", *flags, "--format", kind)
    printed = capsys.readouterr().out
    neurons = pd.read_csv(scored / "evaluation_neurons.csv")
    own = neurons[(neurons["mouse"] == "tinyA") & (neurons["tier"] == "live_main")]
    best = own.nlargest(2, "explainable_variance")
    row = next(line for line in printed.splitlines() if "tinyA" in line and "quarter 4" in line)
    assert f"{best['oracle'].mean():.3f}"[:5] in row and "live" in row
    ratio = best["challenge_correlation"].mean() / best["oracle"].mean()
    assert f"{ratio:.3f}"[:4] in row
    assert sum("quarter" in line for line in printed.splitlines()) == 12


def test_table_of_groups_of_stimuli_needs_bonus_tiers(scored, tmp_path):
    neurons = pd.read_csv(scored / "evaluation_neurons.csv")
    neurons[neurons["tier"] == "validation"].to_csv(tmp_path / "evaluation_neurons.csv", index=False)
    with pytest.raises(UserError, match="no scores of bonus tiers"):
        run("print_groups", "--output_dir", tmp_path, "--by", "stimulus")
    neurons.drop(columns="depth_um").to_csv(tmp_path / "evaluation_neurons.csv", index=False)
    with pytest.raises(UserError, match="evaluate.py --output_dir .* again"):
        run("print_groups", "--output_dir", tmp_path, "--by", "depth")


def test_table_holds_the_scores(scored, capsys):
    flags = ("--output_dir", scored, "--scores", "challenge_correlation", "oracle", "--ds_tier", "live_test_main")
    summary = json.loads((scored / "evaluation_tiers.json").read_text())
    expected = summary["mice"]["tinyB"]["live_main"]["oracle"]
    printed = {}
    for kind in ("text", "csv", "latex"):
        capsys.readouterr()
        run("print_table", *flags, "--format", kind)
        printed[kind] = capsys.readouterr().out
    cell = f"{expected['mean']:.3f} [{expected['low']:.3f}, {expected['high']:.3f}]"
    assert cell in printed["text"] and cell in printed["latex"]
    rows = [line.split(",") for line in printed["csv"].splitlines()]
    assert [row[1:4] for row in rows[1:]] == [
        ["tinyA", "live_main", "8"], ["tinyB", "live_main", "11"], ["2 mice", "live_main", "19"],
    ]  # fmt: skip
    assert float(rows[2][rows[0].index("oracle_mean")]) == expected["mean"]
    assert printed["latex"].count(r"\\") == 4 and r"live\_main" in printed["latex"]


def test_dataset_page_counts_what_is_there(tiny_recording_dir, tmp_path):
    run("visualize_dataset", "--data_dir", tiny_recording_dir, "--output_dir", tmp_path, "--mouse_ids", "tinyA")
    numbers = drawn(tmp_path, "dataset_mousetinyA").set_index(["panel", "x"])["value"]
    recording = Recording(tiny_recording_dir / "tiny" / "tinyA")
    for tier, trials in numbers["trials of tier"].items():
        assert trials == (recording.tiers == tier).sum()
    assert numbers["trials of tier"].sum() == recording.num_trials
    assert numbers["videos of tier"]["live_main"] == 1 and numbers["trials of tier"]["live_main"] == 2
    assert numbers["neurons at depth (um)"].sum() == 8
    train = np.concatenate([recording.trial(i).responses for i in recording.trial_ids("train")], axis=1)
    middle = numbers["response mean (recorded units), quantile"]["0.5"]
    assert middle == pytest.approx(np.median(train.mean(axis=1)), rel=1e-3)
    assert numbers["% of pixels, grey level"].sum() == pytest.approx(100)


def test_traces_of_the_most_reliable_neurons(scored, tiny_recording_dir):
    flags = ("--mouse_ids", "tinyB", "--ds_tier", "live_main", "--reliable", 3)
    run("visualize_traces", "--output_dir", scored, "--data_dir", tiny_recording_dir, *flags)
    traces = drawn(scored / "figures", "traces_reliable_mousetinyB")
    neurons = pd.read_csv(scored / "evaluation_neurons.csv")
    neurons = neurons[(neurons["mouse"] == "tinyB") & (neurons["tier"] == "live_main")]
    best = neurons.nlargest(3, "split_half_reliability")["neuron"]
    assert traces["neuron"].unique().tolist() == best.tolist()
    assert {"recorded mean", "twin"} <= set(traces["trace"])


def test_training_performance_and_traces(scored, tiny_recording_dir):
    log = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.5], "val_loss": [2.1, 1.8]})
    log["val_correlation"] = [0.1, 0.2]
    log.to_csv(scored / "log.csv", index=False)
    run("visualize_training", "--output_dir", scored)
    run("visualize_performance", "--output_dir", scored)
    run("visualize_traces", "--output_dir", scored, "--data_dir", tiny_recording_dir)
    pd.testing.assert_frame_equal(drawn(scored / "figures", "training"), log)
    assert len(drawn(scored / "figures", "performance")) == len(pd.read_csv(scored / "evaluation_neurons.csv"))
    assert drawn(scored / "figures", "traces_mousetinyA")["neuron"].nunique() >= 3


def test_filters_are_those_of_the_patches(scored, twin, tiny_recording_dir):
    run("visualize_tokenizer", "--output_dir", scored, "--data_dir", tiny_recording_dir, "--channels", 3)
    weights = drawn(scored / "figures", "tokenizer")
    patches = twin.model.core.tokenizer.tokenizer
    channels = weights["channel"].unique()
    filters = weights["weight"].to_numpy().reshape(3, patches.frames, patches.size, patches.size)
    norms = np.sqrt(np.square(patches.kernels().video.numpy()).sum(axis=(1, 2, 3)))
    assert channels.tolist() == np.argsort(-norms)[:3].tolist()
    # a pixel of a patch that lies inside the frame moves the embedding as the filter says
    video, (row, column) = torch.zeros(1, 1, patches.frames, *patches.frame_size), (2, 3)
    y, x = row * patches.stride - patches.pad[2] + 1, column * patches.stride - patches.pad[0] + 2
    video[0, 0, 4, y, x] = 1
    padded = torch.nn.functional.pad(video, (*patches.pad, 0, 0))
    tokens = patches.convolve_video(padded, patches.kernels().video)[0, 0]  # (P, D)
    np.testing.assert_allclose(
        tokens[row * patches.grid[1] + column][channels.tolist()], filters[:, 4, 1, 2], atol=1e-6
    )


def test_feature_maps_are_those_of_the_core(scored, twin, tiny_recording_dir):
    flags = ("--mouse_id", "tinyA", "--channels", 2, "--times", 3)
    run("visualize_features", "--output_dir", scored, "--data_dir", tiny_recording_dir, *flags)
    values = drawn(scored / "figures", "features_mousetinyA")
    recording = Recording(tiny_recording_dir / "tiny" / "tinyA")
    trial, transforms = recording.trial(recording.trial_ids("live_main")[0]), twin.transforms["tinyA"]
    arrays = (trial.video[None], trial.behavior, trial.pupil_center)
    video, behavior, pupil = (torch.from_numpy(np.array(array))[None] for array in arrays)
    maps = twin.model.core(transforms.video(video), transforms.behavior(behavior), transforms.pupil_center(pupil))[0]
    found = maps.numpy()[tuple(values[name] for name in ("frame", "row", "column", "channel"))]
    np.testing.assert_allclose(values["value"], found, atol=1e-4)
    assert values["frame"].nunique() == 3 and values["channel"].nunique() == 2


def test_attention_is_drawn_and_animated(scored, tiny_recording_dir, tmp_path):
    flags = ("--mouse_id", "tinyB", "--times", 2, "--locations", 3, "--animate", tmp_path / "attention.gif")
    run("visualize_attention", "--output_dir", scored, "--data_dir", tiny_recording_dir, *flags)
    values = drawn(scored / "figures", "attention_mousetinyB")
    images = values[values["kind"] == "attention"].groupby("frame")["value"]
    assert images.size().tolist() == [36 * 64] * 2 and images.min().gt(0).all()
    assert (images.max() > images.min()).all()
    gradient = values[values["kind"] == "gradient"].groupby("frame")["value"].mean()
    np.testing.assert_allclose(gradient, 1, atol=1e-3)
    lags = values[values["kind"] == "attention by lag"]
    assert (lags["x"] <= lags["frame"]).all() and lags["value"].between(0, 1).all()
    assert lags.groupby("frame")["value"].sum().max() < 1 + 1e-4
    assert frame_size(tmp_path / "attention.gif") == (4 * 36, 4 * 128)


def test_attention_to_a_movie_of_ones_own(scored, tmp_path):
    np.save(tmp_path / "movie.npy", np.random.default_rng(0).integers(0, 256, (50, 36, 64), dtype=np.uint8))
    run("visualize_attention", "--output_dir", scored, "--video", tmp_path / "movie.npy", "--times", 1)
    values = drawn(scored / "figures", "attention_mousetinyA")
    assert (values["kind"] == "attention along the trial").sum() == 50


def test_scaling_compares_the_same_neurons(scored, tmp_path, capsys):
    """A second run of fewer trials that lacks some neurons: only shared ones count in either."""
    few = tmp_path / "few"
    made = load_checkpoint(scored)
    mice = {id: dataclasses.replace(mouse, train_size=2) for id, mouse in made.mice.items()}
    save_checkpoint(checkpoint_path(few), made.config, mice, made.model_state, made.info)
    neurons = pd.read_csv(scored / "evaluation_neurons.csv")
    kept = neurons[neurons["neuron"] < 5]
    worse = kept.assign(challenge_correlation=kept["challenge_correlation"] - 0.1)
    worse.to_csv(few / "evaluation_neurons.csv", index=False)
    run("visualize_scaling", "--runs", scored, few, "--output_dir", tmp_path, "--ds_tier", "live_main")
    table = drawn(tmp_path, "scaling").set_index("run")
    shared = kept[kept["tier"] == "live_main"].groupby("mouse")["challenge_correlation"].mean().mean()
    assert table.loc[str(scored), "mean"] == pytest.approx(shared, abs=1e-9)
    assert table.loc[str(few), "mean"] == pytest.approx(shared - 0.1, abs=1e-9)
    assert (
        table.loc[str(few), "trials"] == 2 and table.loc[str(scored), "trials"] == 5 and (table["scored"] == 10).all()
    )


def test_a_simulated_mouse_is_drawn(tmp_path):
    design = Design(neurons=40, trials=3, clips=1, repeats=2, bonus_repeats=1, frames=80, height=18, width=32)
    for _ in simulate(tmp_path, [design]):
        continue
    run("visualize_animal", "--data_dir", tmp_path, "--output_dir", tmp_path / "figures")
    (mouse,) = find_recordings(tmp_path)
    truth = pd.read_csv(tmp_path / mouse / "truth" / "neurons.csv")
    assert drawn(tmp_path / "figures", f"{mouse}_population")["neuron"].tolist() == truth["neuron"].tolist()
    for name in ("fields", "responses", "calibration"):
        assert len(drawn(tmp_path / "figures", f"{mouse}_{name}"))


BAD = {
    "count_parameters": ([], "no such run folder"),
    "print_table": (["--scores", "chalenge_correlation"], "did you mean 'challenge_correlation'"),
    "print_groups": (["--by", "tier", "--scores", "difference_from_others"], "neurons are the same in every tier"),
    "visualize_groups": (["--ds_tier", "live_mian"], "did you mean 'live_main'"),
    "visualize_performance": (["--ds_tier", "train"], "was not scored"),
    "visualize_traces": (["--video", 7, "--data_dir", "DATA"], "counted from 0"),
    "visualize_tokenizer": (["--data_dir", "nowhere"], "nowhere"),
    "visualize_features": (["--trial", 99, "--data_dir", "DATA"], "--trial 99"),
    "visualize_attention": (["--video", "nowhere.mp4"], "nowhere.mp4: no such file"),
}


@pytest.mark.parametrize("script", BAD)
def test_what_a_user_can_cure_is_told(script, scored, tiny_recording_dir, tmp_path):
    flags, told = BAD[script]
    run_dir = tmp_path / "missing" if told == "no such run folder" else scored
    flags = [tiny_recording_dir if flag == "DATA" else flag for flag in flags]
    with pytest.raises(UserError, match=told):
        run(script, "--output_dir", run_dir, *flags)


def test_what_a_user_can_cure_is_told_of_several_runs(scored, tmp_path):
    with pytest.raises(UserError, match="at least two"):
        run("visualize_scaling", "--runs", scored, "--output_dir", tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        run("visualize_dataset", "--data_dir", tmp_path / "nowhere", "--output_dir", tmp_path)
    with pytest.raises(UserError, match="not the log"):
        (tmp_path / "log.csv").write_text("epoch\n")
        run("visualize_training", "--output_dir", tmp_path)


@pytest.mark.parametrize("path", sorted(MISC.glob("*.py")), ids=lambda path: path.stem)
def test_help_says_what_is_written(path, capsys):
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(str(path))["get_parser"]().parse_args(["--help"])
    said = capsys.readouterr().out
    assert leaving.value.code == 0 and "writes" in said
