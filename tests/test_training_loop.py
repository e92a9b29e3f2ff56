"""The loop knows nothing of mice: here it fits a straight line, on hardware and data that misbehave."""

import math
import os
import signal
import time

import pandas as pd
import pytest
import torch
from torch import nn

from viv1t.checkpoint import load_checkpoint
from viv1t.errors import UserError
from viv1t.training.config import OptimizerConfig
from viv1t.training.interrupt import Interrupt
from viv1t.training.log import RunLog, duration
from viv1t.training.loop import Trainer, step_seed
from viv1t.training.optimizers import GradientClip, Patience, build_optimizer, parameter_groups
from viv1t.training.watch import Estimate, Watch, verdict

STEPS = 6
CONFIG = {"epochs": 3, "eval_every": 1, "save_every": 1e9, "seed": 0, "micro_batch_size": 0}


class LineTask:
    """y = 2 x + 1 from 8 points a step. bad: calls of `losses` that give NaN; memory: points that fit at once.

    full: what is raised when they do not fit; seconds: of a step
    """

    mice = {}
    steps_per_epoch = STEPS

    def __init__(self, bad=(), memory=8, score=None, full=None, seconds=0.0):
        torch.manual_seed(0)
        self.model = nn.Linear(1, 1)
        self.bad, self.memory, self.calls, self.score = bad, memory, 0, score
        self.full, self.seconds = full or torch.OutOfMemoryError(), seconds

    def batches(self, epoch, start_step):
        for step in range(start_step, STEPS):
            x = torch.linspace(-1, 1, 8)[:, None] + 0.01 * (epoch * STEPS + step)
            yield x, 2 * x + 1

    def losses(self, batch, micro_batch_size):
        self.calls += 1
        time.sleep(self.seconds)
        for x, y in zip(*(part.split(micro_batch_size) for part in batch), strict=True):
            if len(x) > self.memory:
                raise self.full
            loss = (self.model(x) - y).square().sum() / len(batch[0])
            yield loss * math.nan if self.calls in self.bad else loss

    def recalibrate(self, epoch):
        """A straight line has no statistics."""

    def validate(self, interrupted):
        with torch.no_grad():
            error = float((self.model.weight - 2).abs() + (self.model.bias - 1).abs())
        return {"loss": error, "correlation": 1 / (1 + error) if self.score is None else self.score}


def trainer(task, run_dir, patience=0, watch=None, **config):
    groups = parameter_groups({"readouts": list(task.model.parameters())}, 0.05, 0.0, 0.0, 0.0)
    optimizer = build_optimizer(groups, OptimizerConfig(adam_warmup_steps=0, schedule_free=True))
    log = RunLog(run_dir, CONFIG["epochs"], verbose=0)
    schedule = Patience(patience)
    return Trainer(
        task, optimizer, schedule, GradientClip(0), log, run_dir, CONFIG | config, micro_batch_size=8, watch=watch
    )


def log_of(run_dir) -> pd.DataFrame:
    return pd.read_csv(run_dir / "log.csv")


def test_anything_with_losses_and_a_score_can_be_trained(tmp_path):
    trainer(LineTask(), tmp_path, epochs=20).fit()
    log = log_of(tmp_path)
    assert log.train_loss.iloc[-1] < 0.05 * log.train_loss.iloc[0]
    assert load_checkpoint(tmp_path).info["validation_correlation"] == log.val_correlation.max()


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 66 bytes."),
        RuntimeError("could not create a primitive"),  # oneDNN
        MemoryError(),
    ],
    ids=lambda error: str(error)[:10] or "MemoryError",
)
def test_full_memory_halves_the_part_and_loses_nothing(tmp_path, capsys, full):
    roomy, narrow = LineTask(), LineTask(memory=3, full=full)
    trainer(roomy, tmp_path / "roomy").fit()
    progress = trainer(narrow, tmp_path / "narrow").fit()
    assert progress.micro_batch_size == 2 and "--micro_batch_size 2" in capsys.readouterr().out
    torch.testing.assert_close(narrow.model.weight, roomy.model.weight)


def test_trial_too_large_for_the_memory_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"one trial does not fit.*\(CUDA out of memory\).*--grad_checkpointing"):
        trainer(LineTask(memory=0, full=torch.OutOfMemoryError("CUDA out of memory")), tmp_path).fit()


def test_other_errors_are_not_taken_for_a_full_memory(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"):
        trainer(LineTask(memory=3, full=RuntimeError("shapes do not match")), tmp_path).fit()


def test_steps_that_take_longer_than_told_give_another_estimate_once(tmp_path, capsys):
    told = Estimate(step=0.001, steps_per_epoch=6, epochs=20_000, memory=0)
    trainer(LineTask(seconds=0.01), tmp_path, watch=Watch(told, torch.device("cpu"))).fit()
    output = capsys.readouterr().out
    assert output.count("Measured:") == 1 and "for 20000 epochs, where 0.0s a step was expected." in output


@pytest.mark.parametrize(
    ("seconds", "memory", "says"),
    [
        (1.2, 2e9, ""),
        (2.0, 2e9, "2.0s a step, 3m20s an epoch, at most 33m20s for 10 epochs, where 1.0s a step was expected."),
        (0.5, 2e9, "0.5s a step"),
        (1.2, 6e9, "5.6 GB of memory, where 1.9 GB were expected."),
    ],
)
def test_an_estimate_is_corrected_where_it_was_off(seconds, memory, says):
    found = verdict(Estimate(step=1.0, steps_per_epoch=100, epochs=10, memory=2e9), seconds, memory)
    assert says in found and bool(found) == bool(says) and "\n" not in found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_that_ask_to_leave_are_noted_and_then_forgotten(number):
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # as some launchers do
        assert interrupt and interrupt.signal == number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        interrupt.since -= 2  # seconds ago
        os.kill(os.getpid(), signal.SIGTERM)  # schedulers repeat themselves
        os.kill(os.getpid(), signal.SIGINT)


def test_one_bad_step_is_skipped_and_counted(tmp_path):
    trainer(LineTask(bad={3}), tmp_path).fit()
    log = log_of(tmp_path)
    assert log.skipped.tolist() == [1, 0, 0] and log.train_loss.notna().all()
    assert all(torch.isfinite(value).all() for value in load_checkpoint(tmp_path).model_state.values())


def test_divergence_goes_back_to_the_last_epoch_once(tmp_path, capsys):
    progress = trainer(LineTask(bad=set(range(7, 13))), tmp_path).fit()
    assert "Going back to the end of epoch 1" in capsys.readouterr().out
    assert log_of(tmp_path).epoch.tolist() == [1, 2, 3] and progress.recoveries == 1


def test_divergence_twice_stops_with_advice_and_keeps_the_best(tmp_path):
    with pytest.raises(UserError, match=r"again in epoch 2.*Lower --lr.*best\.pt"):
        trainer(LineTask(bad=set(range(7, 100))), tmp_path).fit()
    assert load_checkpoint(tmp_path).info["epoch"] == 1


def test_score_below_zero_is_kept_too(tmp_path):
    trainer(LineTask(score=-0.5), tmp_path).fit()
    best = load_checkpoint(tmp_path)
    assert best.info["epoch"] == 1 and best.info["validation_correlation"] == -0.5


def test_score_that_is_no_number_counts_as_divergence(tmp_path):
    with pytest.raises(UserError, match="correlation nan"):
        trainer(LineTask(score=math.nan), tmp_path).fit()


def test_training_stops_when_nothing_improves(tmp_path):
    progress = trainer(LineTask(score=0.1), tmp_path, patience=2, epochs=30).fit()
    assert progress.epoch == 3 and progress.finished == "no improvement"


def test_seeds_of_steps_differ():
    seeds = {step_seed(seed, step, again) for seed in range(3) for step in range(50) for again in range(2)}
    assert len(seeds) == 300 and step_seed(1234, 5) == step_seed(1234, 5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.23, "1.2s"), (245, "4m05s"), (7380, "2h03m"), (3 * 86400 + 4 * 3600, "3d04h")]
)
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text
