"""An estimate of what a run takes, compared with its first steps."""

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from viv1t.device import peak_memory, reset_peak_memory
from viv1t.training.log import duration

WARM_UP, COMPARED = 2, 5  # steps that are not measured, and that are
OFF = 1.5  # ratio from which an estimate was wrong
NOTICEABLE_SECONDS = 60  # of the whole run
NOTICEABLE_BYTES = 1 << 29  # allocators keep some for themselves


@dataclass(frozen=True)
class Estimate:
    """Of a run: seconds of a step; bytes that its steps add to what the process has taken so far."""

    step: float
    steps_per_epoch: int
    epochs: int
    memory: float

    @property
    def epoch(self) -> float:
        return self.step * self.steps_per_epoch

    @property
    def whole(self) -> float:
        return self.epoch * self.epochs

    def __str__(self) -> str:
        return (
            f"{duration(self.step)} a step, {duration(self.epoch)} an epoch, at most {duration(self.whole)} for "
            f"{self.epochs} epochs"
        )


class Watch:
    """Compares the first steps of a run with its estimate, and says so in one line if that was wrong."""

    def __init__(self, told: Estimate | None = None, device: torch.device | None = None):
        self.told, self.device, self.ends = told, device, []
        if told:
            self.before = reset_peak_memory(device)

    def after_step(self) -> None:
        if self.told is None:
            return
        self.ends.append(time.perf_counter())
        if len(self.ends) < WARM_UP + COMPARED:
            return
        told, self.told = self.told, None
        seconds = float(np.median(np.diff(self.ends[WARM_UP - 1 :])))
        wrong = verdict(told, seconds, peak_memory(self.device) - self.before)
        if wrong:
            tqdm.write(wrong)


def verdict(told: Estimate, seconds: float, memory: float) -> str:
    """A line for an estimate that was off, "" for one that was right; seconds of a step, bytes that steps added."""
    faults = []
    now = dataclasses.replace(told, step=seconds)
    if max(seconds / told.step, told.step / seconds) > OFF and abs(now.whole - told.whole) > NOTICEABLE_SECONDS:
        faults.append(f"{now}, where {duration(told.step)} a step was expected")
    if memory > OFF * told.memory and memory - told.memory > NOTICEABLE_BYTES:
        faults.append(f"{memory / 2**30:.1f} GB of memory, where {told.memory / 2**30:.1f} GB were expected")
    return f"Measured: {'; '.join(faults)}." if faults else ""
