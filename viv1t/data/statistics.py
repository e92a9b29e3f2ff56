"""Statistics of the training tier in one pass over its trials, in bounded memory.

Minimum, maximum, mean and standard deviation (ddof 0) are exact: each trial's moments are merged in float64.
The median of the video is that of a histogram with 64 bins per grey level, exact for whole grey levels. Medians of
responses and traces are those of evenly spaced frames: of every frame as long as there are at most SAMPLES of them,
else of about SAMPLES (their standard error is then 2 % of a standard deviation). Results are float32.
"""

from collections.abc import Iterable

import numpy as np

from viv1t.data.mouse import Statistics

SAMPLES = 4096
BINS_PER_LEVEL = 64


class _Moments:
    """Running minimum, maximum, mean and std along the last axis, merged as in Chan et al. (1983)."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, x: np.ndarray) -> None:
        """x (..., samples)."""
        count, mean = x.shape[-1], x.mean(axis=-1, dtype=np.float64)
        squares = x.var(axis=-1, dtype=np.float64) * count
        low, high = x.min(axis=-1), x.max(axis=-1)
        if not self.count:
            self.count, self.mean, self.squares, self.low, self.high = count, mean, squares, low, high
            return
        total, delta = self.count + count, mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + squares + delta**2 * (self.count * count / total)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.count = total

    def result(self, median: np.ndarray) -> dict[str, np.ndarray]:
        values = {"min": self.low, "max": self.high, "median": median, "mean": self.mean}
        values["std"] = np.sqrt(self.squares / self.count)
        return {name: np.asarray(value, dtype=np.float32) for name, value in values.items()}


class StatisticsPass:
    """Feed every training trial once, then ask for `result()`. frames: an upper bound of their total length."""

    def __init__(self, frames: int):
        self._stride = max(1, -(-frames // SAMPLES))
        self._offset = 0
        self._moments = {name: _Moments() for name in ("video", "responses", "behavior", "pupil_center")}
        self._samples: dict[str, list[np.ndarray]] = {"responses": [], "behavior": [], "pupil_center": []}
        self._levels = np.zeros(256 * BINS_PER_LEVEL, dtype=np.int64)

    def update(self, trial) -> None:
        """trial: a `Trial` with responses."""
        self._moments["video"].update(trial.video.reshape(-1))
        bins = np.clip(trial.video * BINS_PER_LEVEL + 0.5, 0, len(self._levels) - 1).astype(np.intp)
        self._levels += np.bincount(bins.reshape(-1), minlength=len(self._levels))
        for name, samples in self._samples.items():
            values = getattr(trial, name)
            self._moments[name].update(values)
            samples.append(values[:, self._offset :: self._stride])
        self._offset = (self._offset - trial.frames) % self._stride

    def result(self) -> Statistics:
        half = np.searchsorted(np.cumsum(self._levels), (self._levels.sum() + 1) // 2)
        medians = {"video": np.float64(half / BINS_PER_LEVEL)}
        for name, samples in self._samples.items():
            medians[name] = np.median(np.concatenate(samples, axis=1), axis=1)
        return {name: moments.result(medians[name]) for name, moments in self._moments.items()}


def of_trials(trials: Iterable, frames: int) -> Statistics:
    """Statistics of an iterable of trials whose lengths sum to at most `frames`."""
    statistics = StatisticsPass(frames)
    for trial in trials:
        statistics.update(trial)
    return statistics.result()
