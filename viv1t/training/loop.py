"""One training loop for everything: `Trainer(task, ...).fit()`.

An epoch is `task.steps_per_epoch` optimiser steps, then a validation; the weights with the highest validation
correlation are kept. All randomness of a step is a function of the seed and the number of the step, and the state is
saved at the end of every epoch and every few minutes within one, so a run that was killed continues with the same
numbers as if it had not been.

Several processes run this loop in step (`Team`): they take the same decisions, from numbers that they have exchanged.
"""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from viv1t import distributed
from viv1t.checkpoint import checkpoint_path, load_checkpoint, load_weights, save_checkpoint
from viv1t.data.mouse import Mouse
from viv1t.device import does_not_fit, free_unused, is_out_of_memory
from viv1t.errors import UserError
from viv1t.training.interrupt import Interrupt
from viv1t.training.log import RunLog
from viv1t.training.optimizers import GradientClip, Schedule
from viv1t.training.team import Alone
from viv1t.training.watch import Watch

MOST_SKIPPED = 10  # steps in a row without a finite gradient: the weights are lost


class Task(Protocol):
    """What is trained: a model, batches in a reproducible order, the loss of a batch, a score to select by."""

    model: nn.Module
    mice: dict[str, Mouse]
    steps_per_epoch: int

    def batches(self, epoch: int, start_step: int) -> Iterable:
        """The batches of an epoch from one step on; the same ones every time they are asked for."""

    def losses(self, batch, micro_batch_size: int) -> Iterator[Tensor]:
        """Parts of the step's loss; each is differentiated before the next is computed.

        Random numbers follow from `torch.initial_seed()`, which is the same for a step in every process.
        """

    def recalibrate(self, epoch: int) -> None:
        """Bring what training only follows, such as batch statistics, in line with the weights to be validated."""

    def validate(self, interrupted) -> dict[str, float] | None:
        """{"loss", "correlation"} on held-out trials, or None as soon as `interrupted()` is true."""


@dataclass
class Progress:
    """Where a run is. `step` counts the steps done in the current epoch, `epoch` the epochs completed."""

    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    recoveries: int = 0
    micro_batch_size: int = 1
    processes: int = 1
    failures: int = 0  # steps skipped in a row
    finished: str = ""
    rows: list[dict] = field(default_factory=list)  # of the log
    # of the current epoch
    loss: float = 0.0
    norm: float = 0.0
    clipped: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def start_epoch(self) -> None:
        self.epoch += 1
        self.step = self.clipped = self.skipped = 0
        self.loss = self.norm = self.seconds = 0.0


class Diverged(Exception):
    """Loss or gradients are no longer finite."""


class Trainer:
    """Everything a run needs between two steps. `config` is the flat dict of flags stored in checkpoints."""

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        clip: GradientClip,
        log: RunLog,
        run_dir: Path,
        config: dict,
        micro_batch_size: int,
        team: Alone | None = None,
        watch: Watch | None = None,
    ):
        self.task, self.optimizer, self.schedule, self.clip = task, optimizer, schedule, clip
        self.log, self.run_dir, self.config = log, Path(run_dir), config
        self.model, self.interrupt = task.model, Interrupt()
        self.team, self.watch = team or Alone(task.model), watch or Watch()
        self.progress = Progress(micro_batch_size=micro_batch_size, processes=distributed.size())
        self.last_save = time.monotonic()

    @property
    def number(self) -> int:
        """Steps done since the start of the run."""
        return self.progress.epoch * self.task.steps_per_epoch + self.progress.step

    def fit(self) -> Progress:
        """Train until the epochs are used up or the schedule says stop; continues a run that is under way."""
        with self.interrupt:
            if not self.resume():
                self.save("last")
                self.load("last")  # so that all processes start from the same bits
            if not self.progress.finished:
                self.log.header()
            while not self.progress.finished:
                try:
                    self.run_epoch()
                    self.finish_epoch()
                except Diverged as reason:
                    self.recover(reason)
        return self.progress

    def run_epoch(self) -> None:
        """The optimiser steps of one epoch that are not yet done."""
        progress, steps = self.progress, self.task.steps_per_epoch
        if progress.step == steps:
            return
        self.model.train()
        self.optimizer.train()
        bar = tqdm(
            total=steps,
            initial=progress.step,
            desc=f"epoch {progress.epoch + 1}",
            unit="step",
            leave=False,
            disable=None if self.log.verbose > 1 else True,
        )
        start = time.monotonic() - progress.seconds
        with bar:
            for batch in self.task.batches(progress.epoch, progress.step):
                taken = self.step(batch)
                progress.step += 1
                progress.seconds = time.monotonic() - start
                progress.failures = 0 if taken else progress.failures + 1
                if progress.failures >= min(MOST_SKIPPED, steps):
                    raise Diverged(f"no finite gradient in {progress.failures} steps in a row")
                bar.set_postfix_str(f"loss {progress.loss / max(1, progress.step - progress.skipped):.2f}")
                bar.update()
                self.watch.after_step()
                interrupted, save_is_due = self.agree()
                if interrupted:
                    self.stop()
                if save_is_due and progress.step < steps:
                    self.save("step")

    def step(self, batch) -> bool:
        """One optimiser step; False if it was skipped because its gradient is not finite."""
        progress = self.progress
        loss, norm = self.team.reduce(self.backward(batch))
        clipped = self.clip(self.model.parameters(), norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            progress.skipped += 1
            return False
        self.schedule.set_rates(self.number)
        self.optimizer.step()
        progress.loss += loss
        progress.norm += float(norm)
        progress.clipped += clipped
        return True

    def agree(self) -> tuple[bool, bool]:
        """Whether a signal reached any process, and whether the main one wants to save; the smallest parts win."""
        progress, due = self.progress, time.monotonic() - self.last_save > self.config["save_every"]
        everyone = distributed.gather_numbers([self.interrupt.signal, due, progress.micro_batch_size])
        progress.micro_batch_size = int(everyone[:, 2].min())
        return bool(everyone[:, 0].any()), bool(everyone[0, 1])

    def backward(self, batch) -> float:
        """Gradients of one step, or of this process's share of it; if memory runs out, again in smaller parts."""
        progress = self.progress
        while True:
            torch.manual_seed(step_seed(self.config["seed"], self.number, progress.recoveries))
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._accumulate(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if progress.micro_batch_size == 1:
                    raise does_not_fit(error) from None
            progress.micro_batch_size = (progress.micro_batch_size + 1) // 2
            free_unused()
            tqdm.write(f"Memory is full: going on with --micro_batch_size {progress.micro_batch_size}.")

    def _accumulate(self, batch) -> float:
        total = torch.zeros(())
        for loss in self.task.losses(batch, self.progress.micro_batch_size):
            loss.backward()
            total = total.to(loss.device) + loss.detach()
        return float(total)

    def finish_epoch(self) -> None:
        """Validate, keep the best weights, adapt the rates, write the log, save."""
        progress, start = self.progress, time.monotonic()
        self.optimizer.eval()
        self.task.recalibrate(progress.epoch)
        last = progress.epoch + 1 >= self.config["epochs"]
        due = last or (progress.epoch + 1) % self.config["eval_every"] == 0
        scores = {"loss": math.nan, "correlation": math.nan}
        if due:
            scores = self.task.validate(lambda: bool(self.interrupt))
            if scores is None:
                self.stop()
            if not all(map(math.isfinite, scores.values())):
                raise Diverged(f"validation gives loss {scores['loss']}, correlation {scores['correlation']}")
        improved = due and scores["correlation"] > progress.best
        progress.seconds += time.monotonic() - start
        progress.rows.append(self._row(scores, improved))
        progress.start_epoch()
        if improved:
            progress.best, progress.best_epoch = scores["correlation"], progress.epoch
            self.write("best")
        verdict = self.schedule.step(improved) if due else "continue"
        if verdict == "restore":
            best = load_checkpoint(self.run_dir, "best")
            load_weights(self.model, self.team.own_weights(best.model_state), best.path)
        progress.finished = "no improvement" if verdict == "stop" else "epochs" if last else ""
        if distributed.is_main():
            self.log.write(progress.rows)
        self.save("last")
        self.remove_step()

    def _row(self, scores: dict[str, float], improved: bool) -> dict:
        """The epoch that ends, as a row of the log."""
        progress, steps = self.progress, self.task.steps_per_epoch
        taken = max(1, steps - progress.skipped)
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        return {
            "epoch": progress.epoch + 1,
            "step": (progress.epoch + 1) * steps,
            "train_loss": progress.loss / taken,
            "val_loss": scores["loss"],
            "val_correlation": scores["correlation"],
            "best": int(improved),
            "lr": rates.get("readouts", min(rates.values())),
            "core_lr": rates.get("core", 0.0),
            "grad_norm": progress.norm / taken,
            "clipped": progress.clipped,
            "skipped": progress.skipped,
            "seconds": round(progress.seconds, 3),
        }

    def recover(self, reason: Diverged) -> None:
        """Once: go back to the end of the last epoch and go on with other random numbers. Then give up."""
        epoch, recoveries = self.progress.epoch + 1, self.progress.recoveries + 1
        if recoveries > 1:
            kept = (
                f" The best weights so far are in {checkpoint_path(self.run_dir)}." if self.progress.best_epoch else ""
            )
            raise UserError(
                f"training diverged again in epoch {epoch}: {reason}. "
                f"Lower --lr and --core_lr, or try --autocast disable.{kept}"
            )
        tqdm.write(f"Epoch {epoch}: {reason}. Going back to the end of epoch {epoch - 1}, once.")
        self.load("last")
        self.progress.recoveries, self.progress.failures = recoveries, 0
        self.save("last")
        self.remove_step()

    def stop(self) -> None:
        """Save and leave because of a signal to any process."""
        self.save("step")
        done = f"epoch {self.progress.epoch + 1}, step {self.progress.step} of {self.task.steps_per_epoch}"
        tqdm.write(f"Stopped in {done}; state saved. Run the same command again to continue.")
        raise SystemExit(128 + int(distributed.gather_numbers([self.interrupt.signal]).max()))

    def save(self, which: str) -> None:
        """Write everything needed to go on, as it is now."""
        training = {
            "progress": dataclasses.asdict(self.progress),
            "optimizer": self.team.gather_optimizer(self.optimizer),
            "schedule": self.schedule.state_dict(),
            "clip": self.clip.state_dict(),
        }
        self.write(which, training)
        self.last_save = time.monotonic()

    def write(self, which: str, training: dict | None = None) -> None:
        """A checkpoint of the whole model; it is there for all processes when this returns."""
        state = self.team.gather_weights()
        if distributed.is_main():
            path = checkpoint_path(self.run_dir, which)
            save_checkpoint(path, self.config, self.task.mice, state, self.info(), training)
        distributed.barrier()

    def remove_step(self) -> None:
        if distributed.is_main():
            checkpoint_path(self.run_dir, "step").unlink(missing_ok=True)

    def info(self) -> dict:
        progress = self.progress
        return {"epoch": progress.epoch, "step": self.number, "validation_correlation": progress.best}

    def resume(self) -> bool:
        """Continue from the latest state in the run folder; False if there is none."""
        found = [which for which in ("last", "step") if checkpoint_path(self.run_dir, which).exists()]
        if not found:
            return False
        self.load("step" if "step" in found else "last")
        if self.progress.finished == "epochs" and self.progress.epoch < self.config["epochs"]:
            self.progress.finished = ""
        return True

    def load(self, which: str) -> None:
        checkpoint = load_checkpoint(self.run_dir, which)
        if checkpoint.training is None:
            raise UserError(
                f"{checkpoint.path}: holds weights but no training state; start anew with --clear_output_dir."
            )
        load_weights(self.model, self.team.own_weights(checkpoint.model_state), checkpoint.path)
        self.optimizer.load_state_dict(self.team.own_optimizer(checkpoint.training["optimizer"]))
        self.schedule.load_state_dict(checkpoint.training["schedule"])
        self.clip.load_state_dict(checkpoint.training["clip"])
        planned, self.progress = self.progress, Progress(**checkpoint.training["progress"])
        if self.config["micro_batch_size"] or self.progress.processes != planned.processes:
            self.progress.micro_batch_size = planned.micro_batch_size
        self.progress.processes = planned.processes


def step_seed(seed: int, number: int, recoveries: int = 0) -> int:
    """A seed for one step, well apart from those of its neighbours and of other runs."""
    return int(np.random.SeedSequence([seed, number, recoveries]).generate_state(1, np.uint64)[0] >> 1)
