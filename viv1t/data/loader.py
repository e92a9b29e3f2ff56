"""Recordings as batches: what the trainer sees in which order, and whole trials for evaluation.

The order of trials and the place of every crop are pure functions of (seed, epoch, mouse), so a run can go on from
any step. Values stay in recorded units; video stays uint8 where the cache holds it so, to be cast on the device.
"""

import dataclasses
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from viv1t.constants import SKIP, TRIAL_FRAMES
from viv1t.data.batch import Batch
from viv1t.data.cache import Cache, open_cache
from viv1t.data.cutmix import draw_boxes, mix
from viv1t.data.mice import find_recordings
from viv1t.data.mouse import Mouse
from viv1t.data.recording import Recording
from viv1t.data.transforms import Transforms
from viv1t.errors import UserError


class MouseData:
    """One mouse to train on or to predict: its recording, cache, chosen neurons and training trials.

    neurons: rows of the recording (default: all that were found in this session); limit_data: training trials to keep
    """

    def __init__(self, cache: Cache, neurons=None, limit_data: int | None = None, seed: int = 1234):
        self.cache, self.recording = cache, cache.recording
        self.neurons = (
            np.flatnonzero(self.recording.matched) if neurons is None else np.asarray(neurons, dtype=np.int64)
        )
        self._all = np.array_equal(self.neurons, np.arange(cache.num_neurons))
        self.train_ids = limit_trials(self.recording.trial_ids("train"), limit_data, seed)

    @property
    def id(self) -> str:
        return self.recording.id

    @property
    def num_neurons(self) -> int:
        return len(self.neurons)

    @cached_property
    def mouse(self) -> Mouse:
        """Identity card for checkpoints; needs a training tier."""
        return dataclasses.replace(self.cache.mouse(self.neurons), train_size=len(self.train_ids))

    def batch(self, trials, starts=None, frames: int | None = None) -> Batch:
        """Trials (B,) cut to `frames` frames from each of `starts` (default: whole); they must be of equal length."""
        trials = np.atleast_1d(np.asarray(trials, dtype=np.int64))
        starts = np.zeros(len(trials), dtype=np.int64) if starts is None else starts
        parts = [self._read(int(trial), int(start), frames) for trial, start in zip(trials, starts, strict=True)]
        video, responses, traces = zip(*parts, strict=True)
        traces = torch.from_numpy(np.stack(traces))
        withheld = any(part is None for part in responses)
        return Batch(
            video=torch.from_numpy(np.stack(video)[:, None]),
            responses=None if withheld else torch.from_numpy(np.stack(responses)).transpose(1, 2),
            behavior=traces[:, :2],
            pupil_center=traces[:, 2:],
            trial_ids=torch.from_numpy(trials),
        )

    def mean_response(self, transforms: Transforms, size: int = 16) -> torch.Tensor:
        """(N,) mean transformed response over the frames of the first `size` training trials: a start for biases."""
        total, count = torch.zeros(self.num_neurons, dtype=torch.float64), 0
        for trial in self.train_ids[:size]:
            responses = transforms.responses(self.batch(trial, frames=TRIAL_FRAMES).responses[0])
            total, count = total + responses.double().sum(dim=1), count + responses.shape[1]
        if not count:
            raise UserError(f"{self.recording.directory}: no trial of the training tier.")
        return (total / count).float()

    def _read(self, trial: int, start: int, frames: int | None):
        """Video (T, H, W), responses (T, N) float32 and traces (4, T) of one trial."""
        stop = None if frames is None else start + frames
        video = self.cache.video(trial, start, stop)
        video = np.array(video) if video.dtype == np.uint8 else video.astype(np.float32)
        responses = self.cache.responses(trial, start, stop)
        if responses is not None:
            responses = (responses if self._all else responses[:, self.neurons]).astype(np.float32)
        return video, responses, np.array(self.cache.traces(trial, start, stop))


def load_mice(
    data_dir: Path | str,
    mouse_ids: list[str] | None = None,
    limit_neurons: int | None = None,
    limit_data: int | None = None,
    seed: int = 1234,
    cache_dir: Path | str | None = None,
    start: float = 0.0,
) -> dict[str, MouseData]:
    """Open recordings (all below `data_dir` if none are named) and their caches, by mouse id.

    start: fraction of the mice after which to begin making caches, so that several processes make different ones
    """
    recordings = {id: Recording(path, id) for id, path in find_recordings(data_dir, mouse_ids).items()}
    first = int(start * len(recordings))
    caches = {id: open_cache(recordings[id], cache_dir) for id in [*recordings][first:] + [*recordings][:first]}
    mice = {}
    for id, recording in recordings.items():
        cache, lost = caches[id], int((~recording.matched).sum())
        if lost:
            print(f"mouse {id}: {lost} neurons were not found in this session and are left out.")
        neurons = limit_rows(np.flatnonzero(recording.matched), limit_neurons, seed)
        mice[id] = MouseData(cache, neurons, limit_data, seed)
    return mice


def limit_rows(neurons: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """At most `limit` neurons, drawn as published, ascending."""
    if limit is None or limit >= len(neurons):
        return neurons
    if limit < 1:
        raise UserError(f"--limit_neurons is {limit}; it must be at least 1.")
    generator = np.random.RandomState(seed)  # the published draw, so that subsets agree
    return np.sort(generator.choice(neurons, size=limit, replace=False))


def limit_trials(trials: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """At most `limit` trials, drawn as published, ascending."""
    if limit is None or limit >= len(trials):
        return trials
    if limit < 1:
        raise UserError(f"--limit_data is {limit}; it must be at least 1.")
    return np.sort(np.random.default_rng(seed).choice(trials, size=limit, replace=False))


def tier_trials(
    mouse: MouseData, tier: str, max_frames: int | None = None, part: slice = slice(None)
) -> Iterator[Batch]:
    """Whole trials of a tier, or a part, one at a time (B = 1), in order; responses are None where withheld."""
    trials = mouse.train_ids if tier == "train" else mouse.recording.trial_ids(tier)
    for trial in trials[part]:
        yield mouse.batch(trial, frames=max_frames)


class TrainingBatches:
    """Batches of every mouse for each optimiser step.

    An epoch shows each trial of the mouse with most trials once; the others start over, freshly shuffled. Trials are
    first cut to their first `max_frames` frames, then to `crop_frame` frames from a random start (-1: not cropped).
    rows: mouse -> which trials of its batches are read; mice that are missing there are planned for, but not read.
    cutmix: probability that a clip shows a rectangle of another one (`viv1t.data.cutmix`).
    """

    def __init__(
        self,
        mice: dict[str, MouseData],
        batch_size: int = 1,
        crop_frame: int = TRIAL_FRAMES,
        seed: int = 1234,
        limit_data: int | None = None,
        num_workers: int = 2,
        max_frames: int = TRIAL_FRAMES,
        rows: Mapping[str, slice] | None = None,
        cutmix: float = 0.0,
    ):
        self.cutmix = cutmix
        self.rows = dict.fromkeys(mice, slice(None)) if rows is None else rows
        self.mice, self.batch_size, self.seed, self.num_workers = mice, batch_size, seed, num_workers
        self.trials = {id: limit_trials(mouse.train_ids, limit_data, seed) for id, mouse in mice.items()}
        self.lengths = {
            id: np.minimum(mice[id].cache.frames[trials], max_frames) for id, trials in self.trials.items()
        }
        self.crop_frame = crop_frame
        self._check(max_frames)

    @property
    def steps_per_epoch(self) -> int:
        return max(self._batches_of(id) for id in self.mice)

    def __len__(self) -> int:
        return self.steps_per_epoch

    def plan(self, epoch: int, id: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per step of an epoch: trials (B,) of a mouse and the first frame of each crop (B,)."""
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(id.encode())])
        steps: list[tuple[np.ndarray, np.ndarray]] = []
        while len(steps) < self.steps_per_epoch:
            order = rng.permutation(len(self.trials[id]))
            spare = self.lengths[id][order] - self.crop_frame if self.crop_frame > 0 else np.zeros_like(order)
            starts = rng.integers(0, spare, endpoint=True)
            for first in range(0, len(order), self.batch_size):
                part = slice(first, first + self.batch_size)
                steps.append((self.trials[id][order[part]], starts[part]))
        return steps[: self.steps_per_epoch]

    def mixes(self, epoch: int, id: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]] | list[None]:
        """Per step of an epoch, for each trial of the batch: another one, the first frame of its crop, and the box."""
        if not self.cutmix:
            return [None] * self.steps_per_epoch
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(id.encode()), 1])
        drawn = []
        for trials, _ in self.plan(epoch, id):
            others = rng.integers(len(self.trials[id]), size=len(trials))
            starts = rng.integers(0, self.lengths[id][others] - self.crop_frame, endpoint=True)
            boxes = draw_boxes(rng, len(trials), self.cutmix, *self.mice[id].recording.frame_size)
            drawn.append((self.trials[id][others], starts, boxes))
        return drawn

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[dict[str, Batch]]:
        """Every step of an epoch from `start_step` on, read ahead by threads."""
        plans = {id: list(zip(self.plan(epoch, id), self.mixes(epoch, id), strict=True)) for id in self.rows}
        steps = range(start_step, self.steps_per_epoch)

        def due(step: int) -> dict[str, tuple]:
            """What is to be read; a last batch may have no trials for this process."""
            return {id: plan[step] for id, plan in plans.items() if len(plan[step][0][0][self.rows[id]])}

        if not self.num_workers:
            for step in steps:
                yield {id: self._read(id, *drawn) for id, drawn in due(step).items()}
            return
        with ThreadPoolExecutor(self.num_workers, thread_name_prefix="trials") as pool:
            ahead: deque[dict] = deque()
            upcoming = iter(steps)
            try:
                while True:
                    while len(ahead) < 2 * self.num_workers and (step := next(upcoming, None)) is not None:
                        ahead.append({id: pool.submit(self._read, id, *drawn) for id, drawn in due(step).items()})
                    if not ahead:
                        return
                    yield {id: future.result() for id, future in ahead.popleft().items()}
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, id: str, drawn: tuple, mixed: tuple | None) -> Batch:
        (trials, starts), whole, mouse = (x[self.rows[id]] for x in drawn), len(drawn[0]), self.mice[id]
        if self.crop_frame > 0:
            batch = mouse.batch(trials, starts, self.crop_frame)
        else:
            batch = mouse.batch(trials, frames=int(self.lengths[id].max()))
        if mixed is not None:
            others, starts, boxes = (x[self.rows[id]] for x in mixed)
            if boxes.any():
                batch = mix(batch, mouse.batch(others, starts, self.crop_frame), boxes)
        return dataclasses.replace(batch, whole=whole)

    def _batches_of(self, id: str) -> int:
        return -(-len(self.trials[id]) // self.batch_size)

    def _check(self, max_frames: int) -> None:
        if self.cutmix and self.crop_frame == -1:
            raise UserError("--cutmix mixes clips of one length: give a --crop_frame.")
        if self.batch_size < 1:
            raise UserError(f"--batch_size is {self.batch_size}; it must be at least 1.")
        if self.crop_frame != -1 and not SKIP < self.crop_frame <= max_frames:
            raise UserError(
                f"--crop_frame is {self.crop_frame}; it must be above {SKIP} (frames that no score uses) and at most "
                f"{max_frames}, or -1 for whole trials."
            )
        for id, mouse in self.mice.items():
            where, lengths = mouse.recording.directory, self.lengths[id]
            if not len(lengths):
                raise UserError(f"{where}: no trial of the training tier. Leave mouse {id} out with --mouse_ids.")
            if lengths.min() < self.crop_frame:
                trial = self.trials[id][lengths.argmin()]
                raise UserError(
                    f"{where}: training trial {trial} has {lengths.min()} frames, less than --crop_frame "
                    f"{self.crop_frame}. Use --crop_frame {lengths.min()} or -1 with --batch_size 1."
                )
            if self.crop_frame == -1 and self.batch_size > 1 and lengths.min() < lengths.max():
                raise UserError(
                    f"{where}: training trials have {lengths.min()} to {lengths.max()} frames, which do not fit in "
                    f"one batch. Use --crop_frame {lengths.min()} or --batch_size 1."
                )
