"""A run learns, keeps its best weights, and goes on after any interruption with the same numbers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from viv1t.checkpoint import checkpoint_path, load_checkpoint
from viv1t.cli import run as run_script
from viv1t.errors import UserError
from viv1t.training.config import TrainConfig, TrainParser
from viv1t.training.task import split

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import train as script  # noqa: E402

TINY = (
    "--core_behavior_mode 2 --core_use_causal_attention --core_emb_dim 8 --core_head_dim 4 --core_ff_dim 8 "
    "--core_spatial_depth 1 --core_temporal_depth 1 --core_reg_tokens 2 --core_spatial_patch_stride 8 "
    "--core_temporal_patch_size 5 --crop_frame 51 --adam_warmup_steps 5 --verbose 1 --device cpu"
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def train(tiny_recording_dir, tmp_path):
    """`train(*flags, run="name")` trains a tiny model in this process and returns its run folder."""

    def run(*flags, run="run"):
        given = ["--data_dir", str(tiny_recording_dir), "--output_dir", str(tmp_path / run), *TINY.split(), *flags]
        script.main(TrainParser().parse_args([str(flag) for flag in given]))
        return tmp_path / run

    return run


def start(data_dir: Path, run_dir: Path, *flags) -> subprocess.Popen:
    command = [
        sys.executable,
        ROOT / "train.py",
        "--data_dir",
        data_dir,
        "--output_dir",
        run_dir,
        *TINY.split(),
        *flags,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    assert path.exists(), process.communicate()[0]


def results(run_dir: Path) -> tuple[pd.DataFrame, dict, dict]:
    """What must not depend on interruptions: the log but for times, the best weights, the scores."""
    log = pd.read_csv(run_dir / "log.csv").drop(columns="seconds")
    return log, load_checkpoint(run_dir).model_state, json.loads((run_dir / "evaluation.json").read_text())


def assert_same_results(a: Path, b: Path) -> None:
    (log_a, weights_a, scores_a), (log_b, weights_b, scores_b) = results(a), results(b)
    pd.testing.assert_frame_equal(log_a, log_b, check_exact=True)
    assert all(torch.equal(weights_a[name], weights_b[name]) for name in weights_a)
    assert scores_a == scores_b


def test_loss_falls_and_the_run_folder_explains_itself(train):
    run = train("--epochs", 4, "--schedule_free")
    log = pd.read_csv(run / "log.csv")
    assert log.epoch.tolist() == [1, 2, 3, 4] and log.train_loss.iloc[-1] < log.train_loss.iloc[0]
    best = load_checkpoint(run)
    row = log.loc[log.val_correlation.idxmax()]
    assert (best.info["epoch"], best.info["step"]) == (row.epoch, row.step)
    assert best.info["validation_correlation"] == row.val_correlation
    assert set(best.mice) == {"tinyA", "tinyB"} and best.mice["tinyB"].num_neurons == 11
    scores = json.loads((run / "evaluation.json").read_text())
    assert list(scores) == ["validation", "live_main", "live_bonus"]  # the final tiers are withheld
    assert scores["validation"]["correlation"]["average"] == pytest.approx(row.val_correlation, abs=1e-6)
    config = json.loads((run / "config.json").read_text())
    assert config["core_lr"] == 0.0126 and config["core_behavior_mode"] == "behavior_pupil"
    assert {"viv1t", "torch", "numpy", "python"} <= config["versions"].keys()


def test_finished_run_is_left_alone_and_more_epochs_continue_it(train, capsys):
    run = train("--epochs", 1)
    before = checkpoint_path(run, "last").stat().st_mtime_ns
    train("--epochs", 1)
    assert "complete" in capsys.readouterr().out
    assert checkpoint_path(run, "last").stat().st_mtime_ns == before
    train("--epochs", 2)
    straight = train("--epochs", 2, run="straight")
    assert_same_results(run, straight)


def test_another_config_never_overwrites_a_run(train):
    run = train("--epochs", 1)
    with pytest.raises(UserError, match=r"--lr 0.0073 \(now 0.5\).*--clear_output_dir"):
        train("--epochs", 1, "--lr", 0.5)
    train("--epochs", 1, "--lr", 0.5, "--clear_output_dir")
    assert json.loads((run / "config.json").read_text())["lr"] == 0.5


def test_clearing_never_deletes_a_folder_that_is_no_run(train, tmp_path):
    precious = tmp_path / "run" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(UserError, match="no run"):
        train("--epochs", 1, "--clear_output_dir")
    assert precious.exists()


def test_resume_insists_on_a_run(train):
    with pytest.raises(UserError, match="no run to continue"):
        train("--resume")


@pytest.mark.parametrize("flags", [["--epochs", "2", "--schedule_free"], ["--epochs", "2"]])
def test_killed_at_any_moment_the_run_ends_with_the_same_numbers(train, tiny_recording_dir, tmp_path, flags):
    straight = train(*flags, run="straight")
    killed = tmp_path / "killed"
    process = start(tiny_recording_dir, killed, *flags, "--save_every", 0)
    wait_for(checkpoint_path(killed, "step"), process)
    process.kill()
    process.wait()
    state = load_checkpoint(killed, "step" if checkpoint_path(killed, "step").exists() else "last")
    assert 0 < state.info["step"] < 12
    train(*flags, run="killed")
    assert_same_results(straight, killed)
    assert not list(killed.rglob("*.tmp"))


def test_signal_saves_and_says_how_to_continue(train, tiny_recording_dir, tmp_path):
    straight = train("--epochs", 2, "--schedule_free", run="straight")
    stopped = tmp_path / "stopped"
    process = start(tiny_recording_dir, stopped, "--epochs", 2, "--schedule_free")
    wait_for(checkpoint_path(stopped, "last"), process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert process.returncode == 128 + signal.SIGTERM and "same command again" in output
    assert "Traceback" not in output and checkpoint_path(stopped, "step").exists()
    train("--epochs", 2, "--schedule_free", run="stopped")
    assert_same_results(straight, stopped)


def test_frozen_core_stays_and_readouts_learn(train):
    first = train("--epochs", 1, run="first")
    second = train("--epochs", 1, "--pretrained_core", first, "--core_lr", 0, "--seed", 7, run="second")
    before, after = load_checkpoint(first).model_state, load_checkpoint(second, "last").model_state
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("core."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("readouts."))


def test_restore_takes_every_weight_or_none(train):
    first = train("--epochs", 1, run="first")
    train("--epochs", 1, "--restore", first, "--lr", 0, "--core_lr", 0, run="second")
    before, after = (load_checkpoint(run).model_state for run in (first, first.parent / "second"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(UserError, match=r"best\.pt"):
        train("--epochs", 1, "--restore", first, "--mouse_ids", "tinyA", run="third")


def test_config_of_a_run_repeats_it(train, tmp_path):
    first = train("--epochs", 1, "--lr", 0.002, "--limit_neurons", 5, run="first")
    again = tmp_path / "again"
    script.main(TrainParser().parse_args(["--config", str(first / "config.json"), "--output_dir", str(again)]))
    assert_same_results(first, again)


def test_changed_recordings_are_not_trained_on_by_an_old_run(train):
    train("--epochs", 1, "--mouse_ids", "tinyA")
    checkpoint = train("--epochs", 1, "--mouse_ids", "tinyB", run="other")
    os.replace(checkpoint_path(checkpoint, "last"), checkpoint_path(checkpoint.parent / "run", "last"))
    with pytest.raises(UserError, match="other data for mouse tinyA, tinyB"):
        train("--epochs", 2, "--mouse_ids", "tinyA")


def test_a_step_is_the_same_however_it_is_split(train):
    quiet = ["--core_p_dropout", 0, "--core_mha_dropout", 0, "--core_ff_dropout", 0, "--core_drop_path", 0]
    flags = ["--epochs", 1, "--batch_size", 2, "--autocast", "disable", "--readout_init_sigma", 0, *quiet]
    whole = train(*flags, "--micro_batch_size", 4, run="whole")
    parts = train(*flags, "--micro_batch_size", 1, run="parts")
    a, b = (pd.read_csv(run / "log.csv") for run in (whole, parts))
    assert a.train_loss.iloc[0] == pytest.approx(b.train_loss.iloc[0], rel=1e-4)
    assert a.val_loss.iloc[0] == pytest.approx(b.val_loss.iloc[0], rel=1e-3)


def test_parts_hold_every_trial_once_and_only_one_length():
    class Clips:
        def __init__(self, B, T):
            self.video = torch.zeros(B, 1, T, 1, 1)

    parts = split({"A": Clips(3, 10), "B": Clips(2, 12), "C": Clips(2, 10)}, micro_batch_size=4)
    assert parts == [{"A": slice(0, 3), "C": slice(0, 1)}, {"C": slice(1, 2)}, {"B": slice(0, 2)}]


def test_early_stopping_and_its_memory(train):
    run = train("--epochs", 30, "--schedule_free", "--patience", 2, "--lr", 0, "--core_lr", 0)
    assert pd.read_csv(run / "log.csv").epoch.tolist() == [1, 2, 3]  # the first epoch is always the best so far
    assert load_checkpoint(run, "last").training["progress"]["finished"] == "no improvement"


def test_validation_can_be_rarer_than_epochs(train):
    log = pd.read_csv(train("--epochs", 3, "--eval_every", 2) / "log.csv")
    assert log.val_correlation.notna().tolist() == [False, True, True]


def test_dry_run_writes_nothing(train, tmp_path, capsys):
    assert not train("--dry_run").exists()
    assert re.search(r"2 mice, 19 neurons; .* parameters", capsys.readouterr().out)


def test_command_of_the_paper_is_understood():
    flags = (
        "--data_dir=data/ --output_dir=runs/001_viv1t --core=vivit --core_behavior_mode=2 --core_use_causal_attention "
        "--core_parallel_attention --readout=gaussian --output_mode=1 --schedule_free --compile --batch_size=1 "
        "--wandb=vivit --clear_output_dir"
    )
    config = TrainConfig.from_flags(vars(TrainParser().parse_args(flags.split())))
    preset = [f"@{ROOT / 'presets' / 'paper.txt'}", "--output_dir", "runs/001_viv1t", "--data_dir", "data/"]
    written = TrainConfig.from_flags(vars(TrainParser().parse_args(preset)))
    assert config.optimizer == written.optimizer and config.fit == written.fit and config.model == written.model
    assert config.optimizer.lr == 0.0073 and config.fit.epochs == 400 and config.model.output_mode == "elu"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--core vivt", "did you mean 'vivit'"),
        ("--core_drop_pat 0.1", "did you mean '--core_drop_path'"),
        ("--criterion poison", "did you mean 'poisson'"),
        ("--output_mode 7", "one of identity (0)"),
        ("--clip_grad -2", "neither -1"),
        ("--epochs 0", "outside"),
        ("", "--output_dir is missing"),
        ("--output_dir x --output_mode identity", "--criterion mse"),
        ("--output_dir x --restore a --pretrained_core b", "exclude each other"),
    ],
)
def test_wrong_flags_are_one_line_with_the_cure(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_script(script.main, TrainParser(), flags.split())
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1


def test_every_flag_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        TrainParser().parse_args(["--help"])
    text = capsys.readouterr().out
    flags = TrainConfig.from_flags({"output_dir": "x"}).to_flags().keys() - {"max_frame"}
    assert all(f"--{flag} " in text or f"--{flag}\n" in text for flag in flags)
    assert "0.0126 for vivit" in text


def test_a_new_mouse_learns_on_the_frozen_core_of_a_public_run(train, capsys):
    """The qk-norm run: 8 x 8 patches of the video alone; its core is loaded whole and stays as it was."""
    public = Path(__file__).parent / "data" / "parity" / "vivit_qknorm_swiglu_small"
    flags = (
        "--core_behavior_mode 0 --core_pos_encoding 6 --core_ff_activation swiglu --core_norm_qk --core_reg_tokens 4 "
        "--core_emb_dim 32 --core_head_dim 16 --core_ff_dim 64 --core_spatial_depth 2 --core_temporal_depth 2 "
        "--core_spatial_patch_size 8 --core_spatial_patch_stride 4 --core_temporal_patch_size 9 --epochs 1 --core_lr 0"
    )
    run = train(*flags.split(), "--limit_data", 2, "--pretrained_core", public)
    assert "core weights" in capsys.readouterr().out
    theirs = torch.load(public / "ckpt" / "model.pt", weights_only=True)
    ours = load_checkpoint(run).model_state
    core = [name for name in ours if name.startswith("core.") and name in theirs]
    assert len(core) > 40 and all(torch.equal(ours[name], theirs[name]) for name in core)
    assert any(name.startswith("readouts.tinyA") for name in ours)
