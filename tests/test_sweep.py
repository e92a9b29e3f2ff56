"""A sweep is checked before it starts, its trials are ordinary runs, and it goes on where it was stopped."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_distributed import TINY

import ray_sweep
import wandb_sweep
from viv1t import io
from viv1t.errors import UserError
from viv1t.sweep.space import Dimension, check_space, epochs_of, read_space, to_flags
from viv1t.sweep.trial import Trial, begun, is_complete, read_log, tabulate, trial_name
from viv1t.training.config import TrainParser

ROOT = Path(__file__).parents[1]
SPACE = (
    "core_lr: {log_uniform: [1e-3, 2e-2]}\ncriterion: {choice: [poisson, mse]}\nschedule_free: {choice: [true, false]}"
)


EPOCHS = 12  # more than pass between two looks at a log


@pytest.fixture
def space(tmp_path):
    """`space(text)` writes a space file and returns its path."""

    def write(text: str = SPACE) -> Path:
        (tmp_path / "space.yaml").write_text(text)
        return tmp_path / "space.yaml"

    return write


def start_trial(sweep_dir: Path, params: dict, flags: list[str], epochs: int) -> Trial:
    flags = [*flags, *to_flags(params), f"--epochs={epochs}"]
    return Trial(sweep_dir / trial_name(params), params, ROOT / "train.py", flags, epochs, ROOT)


def run(script: str, *args) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / script, *args]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, env=environment)


def search(*args) -> None:
    ray_sweep.main(ray_sweep.get_parser().parse_args(list(map(str, args))))


def test_trials_are_runs_and_a_stopped_one_goes_on(tiny_recording_dir, tmp_path, space, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    sweep_dir, shared = tmp_path / "sweep", ["--data_dir", str(tiny_recording_dir), *TINY.split()]
    params = {"core_lr": 0.004321, "criterion": "poisson", "schedule_free": True}
    stopped = start_trial(sweep_dir, params, shared, epochs=EPOCHS)
    first = next(stopped.rows())
    stopped.stop()
    assert first["epoch"] == 1 and not is_complete(stopped.run_dir) and begun(sweep_dir) == [params]

    sweep = ["--space", space(), "--output_dir", sweep_dir, "--num_trials", 2]
    with pytest.raises(UserError, match="--resume: .* holds no sweep to continue"):
        search(*sweep, "--resume", "--", *shared)
    ended = run("ray_sweep.py", *sweep, "--epochs", EPOCHS, "--", *shared)
    assert ended.returncode == 0, ended.stderr

    table = pd.read_csv(sweep_dir / "sweep.csv")
    assert len(table) == 2 and trial_name(params) in set(table["trial"])
    assert (table["ended"] == "complete").all() and (table["epochs"] == EPOCHS).all()
    assert table["correlation"].is_monotonic_decreasing
    assert "Stopped in epoch" in (stopped.run_dir / "output.txt").read_text()
    assert read_log(stopped.run_dir)[0]["train_loss"] == first["train_loss"], "it went on and did not begin anew"
    best, config = table.iloc[0], io.read_json(sweep_dir / table["trial"][0] / "config.json")
    assert best["correlation"] == pytest.approx(
        max(row["val_correlation"] for row in read_log(sweep_dir / best.trial))
    )
    flags = vars(TrainParser().parse_args([f"@{sweep_dir / 'best.txt'}", "--output_dir", "again"]))
    assert all(flags[name] == config[name] for name in (*params, "epochs", "core_emb_dim", "data_dir"))

    with pytest.raises(UserError, match=r"begun with other settings \(epochs, grace_period\)"):
        search(*sweep, "--epochs", EPOCHS + 1, "--", *shared)
    assert pd.read_csv(sweep_dir / "sweep.csv").equals(table)


def test_a_trial_stopped_before_its_scores_gets_them(tiny_recording_dir, tmp_path):
    trial = start_trial(tmp_path, {"core_lr": 0.004}, ["--data_dir", str(tiny_recording_dir), *TINY.split()], epochs=1)
    assert [row["epoch"] for row in trial.rows()] == [1]
    (trial.run_dir / "evaluation.json").unlink()
    again = start_trial(tmp_path, trial.params, trial.flags[:-1], epochs=1)
    next(again.rows())  # the last row is told when the run is complete
    assert is_complete(trial.run_dir)


def test_a_trial_that_fails_says_why(tmp_path):
    trial = start_trial(tmp_path, {"core_lr": 0.01}, ["--data_dir", "nowhere", *TINY.split()], epochs=1)
    with pytest.raises(UserError, match="trial_.*nowhere: no recordings found"):
        list(trial.rows())
    row = tabulate(tmp_path, {trial.run_dir.name}).iloc[0]
    assert row["ended"] == "failed" and np.isnan(row["correlation"]) and row["core_lr"] == 0.01


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "holds no flags; presets/sweep.yaml is an example"),
        ("core_lr: [1, 2", "not valid YAML"),
        ("core_lr: 0.1", "core_lr needs one of log_uniform, uniform, int, choice"),
        ("core_lr: {log_unifrom: [1, 2]}", "log_unifrom is unknown; did you mean 'log_uniform'"),
        ("core_lr: {log_uniform: [0, 2]}", "needs .low, high. with 0 < low < high, not .0, 2."),
        ("core_lr: {uniform: [2, 1]}", "with low < high"),
        ("core_lr: {uniform: [1, 2, 3]}", "needs two numbers"),
        ("core_lr: {uniform: [1, .inf]}", "with low < high"),
        ("core_emb_dim: {int: [0.5, 4]}", "needs two whole numbers"),
        ("criterion: {choice: []}", "needs a list of words, numbers, true or false"),
        ("core_lrr: {uniform: [0, 1]}", "core_lrr is no flag of train.py; did you mean 'core_lr'"),
        ("output_dir: {choice: [a, b]}", "output_dir is the sweep's own to set"),
        ("epochs: {int: [1, 4]}", "epochs is the sweep's own to set"),
        ("deterministic: {choice: [true, false]}", "deterministic cannot be False, because --deterministic is given"),
        ("output_mode: {choice: [elu, identity]}", "--criterion poisson takes the logarithm"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(space, text, told):
    path = space(text)
    with pytest.raises(UserError, match=told) as refusal:
        check_space(path, read_space(path), ["--deterministic"])
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text, told",
    [
        ("criterion: {choice: [poisson, poison]}", "'poison' is unknown; did you mean 'poisson'"),
        ("core_emb_dim: {uniform: [8, 16]}", "'8.0' is not a valid int"),
        ("core_p_dropout: {uniform: [0.5, 1.5]}", "1.5 is outside"),
    ],
)
def test_values_that_train_would_refuse_are_refused_first(space, text, told, capsys):
    path = space(text)
    with pytest.raises(SystemExit) as refusal:
        check_space(path, read_space(path), [])
    assert refusal.value.code == 2 and told in capsys.readouterr().err


def test_flags_of_all_trials_are_checked_too(space, capsys):
    path = space()
    for flag in ("--output_dir=elsewhere", "--resume"):
        with pytest.raises(UserError, match=f"{flag.split('=')[0]}: the sweep's own to set for every trial"):
            check_space(path, read_space(path), [flag])
    with pytest.raises(SystemExit):
        check_space(path, read_space(path), ["--batchsize", "2"])
    assert "did you mean '--batch_size'" in capsys.readouterr().err


def test_the_documented_example_is_sound(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "training.md").read_text().replace("\\\n", "")
    (command,) = [line.split() for line in text.splitlines() if line.startswith("python ray_sweep.py")]
    args = ray_sweep.get_parser().parse_args(command[2:])
    common = args.flags
    assert common == wandb_sweep.get_parser().parse_args(command[2:]).flags
    check_space(args.space, read_space(args.space), common)
    assert epochs_of(common) == 6


def test_values_are_drawn_evenly_within_limits():
    rng = np.random.default_rng(0)
    draw = {
        kind: np.array([Dimension("x", kind, values).draw(rng) for _ in range(2000)])
        for kind, values in {
            "log_uniform": (0.01, 1.0),
            "uniform": (-1.0, 1.0),
            "int": (1, 4),
            "choice": (2, 8),
        }.items()
    }
    assert abs(np.median(draw["log_uniform"]) / 0.1 - 1) < 0.2 and abs(np.median(draw["uniform"])) < 0.1
    assert set(draw["int"]) == {1, 2, 3, 4} and set(draw["choice"]) == {2, 8}
    assert draw["log_uniform"].min() >= 0.01 and draw["log_uniform"].max() <= 1


def test_values_become_flags():
    params = {"core_lr": 0.1 + 0.2, "compile": True, "schedule_free": False, "criterion": "mse"}
    flags = to_flags(params)
    assert flags == ["--core_lr=0.30000000000000004", "--compile", "--criterion=mse"]
    assert trial_name(params) == trial_name(dict(reversed(params.items()))) != trial_name(params | {"core_lr": 0.3})


def test_spaces_in_the_words_of_ray_and_of_weights_and_biases(space):
    text = "a: {log_uniform: [0.1, 1]}\nb: {uniform: [0, 1]}\nc: {int: [1, 4]}\nd: {choice: [x, y]}"
    dimensions = read_space(space(text))
    drawn = [{ray_sweep.domain(dimension).sample() for _ in range(200)} for dimension in dimensions]
    assert drawn[2] == {1, 2, 3, 4} and drawn[3] == {"x", "y"} and 0.1 <= min(drawn[0]) < max(drawn[0]) <= 1
    assert [wandb_sweep.parameter(dimension) for dimension in dimensions] == [
        {"distribution": "log_uniform_values", "min": 0.1, "max": 1},
        {"distribution": "uniform", "min": 0, "max": 1},
        {"distribution": "int_uniform", "min": 1, "max": 4},
        {"values": ["x", "y"]},
    ]


def test_more_than_there_is_cannot_be_taken(space):
    args = ray_sweep.get_parser().parse_args(["--space", "s", "--output_dir", "o", "--cpus_per_trial", "8"])
    with pytest.raises(UserError, match="--cpus_per_trial 8 --gpus_per_trial 1: there are 4 CPU cores and 2 GPUs"):
        ray_sweep.resources({"CPU": 4.0, "GPU": 2.0}, args)
    assert ray_sweep.resources({"CPU": 8.0}, args) == {"cpu": 8, "gpu": 0}


def test_one_trial_without_network(tiny_recording_dir, tmp_path, space):
    flags = ("--data_dir", tiny_recording_dir, *TINY.split())
    ended = run("wandb_sweep.py", "--space", space(), "--epochs", 1, "--output_dir", tmp_path / "sweep", "--", *flags)
    try:
        import wandb  # noqa: F401
    except ImportError:
        assert ended.returncode == 2 and "wandb is not installed: pip install wandb" in ended.stderr
        assert not (tmp_path / "sweep").exists()
    else:
        (params,) = begun(tmp_path / "sweep")
        assert ended.returncode == 0 and is_complete(tmp_path / "sweep" / trial_name(params))
