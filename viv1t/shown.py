"""Recorded trials that showed one kind of stimulus, with the responses of the neurons, of the twin, or of the animal.

What a protocol is to the twin, such trials are to the recording: patterns at known times. All three sources give the
same arrays for the same trials, behaviour and gaze included, so that one analysis serves all of them.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t.cli import did_you_mean
from viv1t.constants import STIMULI
from viv1t.data.cache import Cache, open_cache
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.results import Responses, require

SOURCES = ("recording", "twin", "animal")


class Shown(ExitStack):
    """The trials of a recording that showed a kind of stimulus of `constants.STIMULI`; use it in a `with` statement.

    source: "recording", "twin" (RUN/responses, made by predict.py) or "animal" (expected responses of simulated mice).
    neurons (N,): rows of the recording; clips: one number for every distinct video; trials: (trial, clip) in order.
    UserError if nothing was shown, or no responses are there.
    """

    def __init__(self, stimulus: str, source: str, folder: Path, mouse_id: str, run_dir: Path, cache_dir=None):
        super().__init__()
        if source not in SOURCES:
            raise UserError(
                f"--source {source} is unknown{did_you_mean(source, SOURCES)}; one of {', '.join(SOURCES)}."
            )
        self.source = source
        self.cache: Cache = open_cache(Recording(folder, mouse_id), cache_dir)
        self.recording = self.cache.recording
        self.neurons = np.arange(self.recording.num_neurons)
        trials = np.flatnonzero(self.cache.stimulus_ids == STIMULI.index(stimulus))
        if not len(trials):
            raise UserError(
                f"mouse {mouse_id}: no trial showed {stimulus.replace('_', ' ')}. Choose other --mouse_ids."
            )
        if source == "twin":
            self._predicted = self.enter_context(Responses(require(run_dir, "responses", mouse_id)))
            trials = [i for i in trials if i in self._predicted.tiers]
            missing = (
                "RUN/responses lacks them; predict their tiers with 'predict.py --ds_tier live_bonus final_bonus'"
            )
        elif source == "recording":
            trials = [i for i in trials if not self.cache.withheld[i]]
            missing = "their responses are withheld"
        else:
            trials = [i for i in trials if self.recording.truth_rates(i) is not None]
            missing = "it is not a simulated mouse"
        if not len(trials):
            raise UserError(f"mouse {mouse_id}: no responses to {stimulus.replace('_', ' ')}: {missing}.")
        self.trials = [(int(i), int(self.cache.video_ids[i])) for i in trials]
        self.clips = list(dict.fromkeys(clip for _, clip in self.trials))

    def of(self, neurons: np.ndarray) -> "Shown":
        """Restrict to some neurons, by their rows in the recording: those of a twin. Returns itself."""
        self.neurons = np.asarray(neurons)
        return self

    def video(self, clip: int) -> np.ndarray:
        """(T, H, W) grey levels of one clip."""
        return self.cache.video(next(trial for trial, shown in self.trials if shown == clip))

    def responses(self, trial: int) -> np.ndarray:
        """(N, T) float32, one value for each frame of the clip; NaN where the twin's prediction starts later."""
        if self.source == "animal":
            return self.recording.truth_rates(trial)[self.neurons]
        if self.source == "recording":
            return self.cache.responses(trial)[:, self.neurons].astype(np.float32).T
        predicted = self._predicted.read(trial)
        missing = int(self.cache.frames[trial]) - predicted.shape[1]
        return np.pad(predicted, ((0, 0), (missing, 0)), constant_values=np.nan)

    def blocks(self, tables: dict[int, pd.DataFrame], latency: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
        """Mean responses (n, N) to every presentation, and a table (n rows) of what was presented.

        tables: clip -> one row per presentation with `start` and `stop` in frames. Responses are averaged from
        `latency` frames after the start to as many after the stop, or to the end. Presentations whose responses are
        not wholly known are left out.
        """
        samples, rows = [], []
        for trial, block, response in self._presentations(tables, latency):
            samples.append(response)
            rows.append({"trial": trial, **block})
        return np.array(samples, np.float32).reshape(len(rows), len(self.neurons)), pd.DataFrame(rows)

    def _presentations(self, tables: dict, latency: int) -> Iterator[tuple[int, dict, np.ndarray]]:
        for trial, clip in self.trials:
            responses = self.responses(trial)
            for block in tables[clip].to_dict("records"):
                first, last = block["start"] + latency, min(block["stop"] + latency, responses.shape[1])
                known = responses[:, first:last]
                if last > first and not np.isnan(known).all(axis=0).any():
                    yield trial, {"clip": clip, **block}, known.mean(axis=1)
