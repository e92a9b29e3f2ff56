"""A compact copy of a recording, made once, from which any part of a trial is read in milliseconds.

One HDF5 file per recording:

    videos/<n> (T, H, W)       each distinct clip once; uint8 if its grey levels are whole, else float16
    responses/<trial> (T, N)   frame by frame; float16, or float32 where that would lose digits; none where withheld
    traces/<trial> (4, T)      pupil dilation, running speed, pupil centre x and y; float32
    index                      one row per trial: length, clip, where its arrays lie in the file, ids
    statistics/<variable>      of the training tier

Every array is stored contiguously, and read through one memory map of the file: lock-free, from any thread or process.
The file is written under a temporary name and renamed when complete. It is tied to the recording by names, sizes and
times of the recording's files, and made again when they change or when the file is damaged.
"""

import errno
import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from viv1t import io
from viv1t.data import labels
from viv1t.data.locking import locked
from viv1t.data.mouse import Mouse, Statistics
from viv1t.data.recording import Recording, Trial
from viv1t.data.statistics import StatisticsPass
from viv1t.errors import UserError

VERSION = 1
ALIGNMENT = 64  # bytes, so that mapped arrays start on a cache line
_INDEX = np.dtype(
    [
        ("frames", np.int32),
        ("video", np.int64),  # byte offsets into the file; -1: none
        ("video_is_uint8", np.bool_),
        ("responses", np.int64),
        ("responses_is_float16", np.bool_),
        ("traces", np.int64),
        ("clip", np.int32),  # by content
        ("video_id", np.int32),
        ("stimulus_id", np.int8),
    ]
)


class Cache:
    """An opened cache file. Made by `open_cache`; safe to read from several threads.

    Per trial: video_ids and stimulus_ids, the recording's own if it has them; clips, video ids found from the videos;
    frames, the length; withheld, whether responses are. Unusable trials have -1, and 0 frames.
    """

    def __init__(self, path: Path, recording: Recording):
        self.path, self.recording = path, recording
        with h5py.File(path, "r") as file:
            if not file.attrs.get("complete") or file.attrs["version"] != VERSION:
                raise _Damaged("incomplete, or of another version")
            if file.attrs["fingerprint"] != recording.fingerprint:
                raise _Damaged("made from other files")
            self._index = file["index"][:]
            self.statistics: Statistics = {
                name: {key: np.asarray(values[()]) for key, values in group.items()}
                for name, group in file["statistics"].items()
            }
        if len(self._index) != recording.num_trials:
            raise _Damaged("of another number of trials")
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        self.frames = self._index["frames"]
        self.clips = self._index["clip"].astype(np.int64)
        self.video_ids = self._index["video_id"].astype(np.int64)
        self.stimulus_ids = self._index["stimulus_id"].astype(np.int64)
        self.withheld = (self._index["responses"] < 0) & (self.frames > 0)

    @property
    def num_neurons(self) -> int:
        return self.recording.num_neurons

    def video(self, trial: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames (T, H, W) of a trial as stored, uint8 or float16, mapped from the file."""
        row = self._index[trial]
        size = self.recording.frame_size
        kind = np.uint8 if row["video_is_uint8"] else np.float16
        return self._array(row["video"], kind, (row["frames"], *size))[start:stop]

    def responses(self, trial: int, start: int = 0, stop: int | None = None) -> np.ndarray | None:
        """Responses (T, N) of a trial as stored, float16 or float32, mapped from the file; None if withheld."""
        row = self._index[trial]
        if row["responses"] < 0:
            return None
        kind = np.float16 if row["responses_is_float16"] else np.float32
        return self._array(row["responses"], kind, (row["frames"], self.num_neurons))[start:stop]

    def traces(self, trial: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Behaviour (rows 0, 1) and pupil centre (rows 2, 3) of a trial: (4, T) float32, mapped from the file."""
        row = self._index[trial]
        return self._array(row["traces"], np.float32, (4, row["frames"]))[:, start:stop]

    def trial(self, trial: int, start: int = 0, stop: int | None = None, neurons=None) -> Trial:
        """Frames [start, stop) of a trial, all neurons or those of some rows, as float32 in memory."""
        if not self.frames[trial]:
            raise UserError(f"{self.recording.directory}: trial {trial} is marked unusable (tier 'none').")
        traces, responses = np.array(self.traces(trial, start, stop)), self.responses(trial, start, stop)
        if responses is not None:
            chosen = responses if neurons is None else responses[:, neurons]
            responses = np.ascontiguousarray(chosen.astype(np.float32).T)
        return Trial(self.video(trial, start, stop).astype(np.float32), responses, traces[:2], traces[2:])

    def mouse(self, neurons: np.ndarray | None = None) -> Mouse:
        """What a twin must remember of this recording, for all neurons or those of some rows."""
        recording = self.recording
        if not self.statistics:
            raise UserError(
                f"{recording.directory}: no trial of the training tier, hence no statistics to train with."
            )
        neurons = np.arange(self.num_neurons) if neurons is None else np.asarray(neurons)
        statistics = {name: dict(values) for name, values in self.statistics.items()}
        statistics["responses"] = {key: values[neurons] for key, values in statistics["responses"].items()}
        return Mouse(
            id=recording.id,
            coordinates=recording.coordinates[neurons],
            unit_ids=recording.unit_ids[neurons],
            neurons=neurons,
            statistics=statistics,
            monitor=recording.monitor,
            fps=recording.fps,
            train_size=len(recording.trial_ids("train")),
        )

    def _array(self, offset: int, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
        return self._bytes[offset : offset + size].view(kind).reshape(shape)


class _Damaged(Exception):
    """The cache file cannot be used and must be made again."""


class _NeedsFloat32(Exception):
    """Responses do not fit float16."""


def open_cache(recording: Recording, cache_dir: Path | str | None = None) -> Cache:
    """The cache of a recording, made first if it is missing, damaged or older than the recording.

    Default place: `.cache/<id>.h5` beside the recording's folder. A second process waits for the first one's file.
    """
    folder = Path(cache_dir) if cache_dir else recording.directory.parent / ".cache"
    path = folder / f"{recording.id}.h5"
    cache = _try(path, recording)
    if cache is not None:
        return cache
    try:
        with locked(folder / f".{recording.id}.lock"):
            cache = _try(path, recording)
            if cache is None:
                for leftover in folder.glob(f".{path.name}.*.tmp"):  # of a killed process: only we hold the lock
                    leftover.unlink(missing_ok=True)
                _build(recording, path)
                cache = Cache(path, recording)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"{folder}: cannot be written to. Name another folder with --cache_dir.") from None
    return cache


def _try(path: Path, recording: Recording) -> Cache | None:
    try:
        return Cache(path, recording)
    except FileNotFoundError:
        return None
    except (_Damaged, OSError, KeyError, ValueError):  # h5py reports truncation and garbage as OSError or KeyError
        return None


def _build(recording: Recording, path: Path) -> None:
    _require_space(recording, path.parent)
    try:
        _write(recording, path, np.float16)
    except _NeedsFloat32:
        _write(recording, path, np.float32)


def _require_space(recording: Recording, folder: Path) -> None:
    """At most what is needed: no clip repeats, no grey level is whole."""
    frames = sum(recording.frames(trial) for trial in recording.usable)
    needed = frames * (int(np.prod(recording.frame_size)) * 2 + recording.num_neurons * 2 + 16)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: the cache of mouse {recording.id} needs up to {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            "free. Free some, or name another folder with --cache_dir."
        )


def _write(recording: Recording, path: Path, response_type: type) -> None:
    """Read every usable trial once and write the whole cache, or nothing."""
    aligned = {"alignment_threshold": ALIGNMENT, "alignment_interval": ALIGNMENT}
    with io.replacing(path) as temporary, h5py.File(temporary, "w", **aligned) as file:
        writer = _Writer(recording, file, response_type)
        for trial in tqdm(recording.usable, desc=f"mouse {recording.id}: caching", unit="trial", disable=None):
            writer.add(int(trial))
        found = writer.finish()
    if not (recording.directory / "meta" / "trials" / "video_ids.npy").is_file():
        labels.store(recording, found)


class _Writer:
    """Writes trials one by one; memory holds one trial, its fingerprint and samples for the medians."""

    def __init__(self, recording: Recording, file: h5py.File, response_type: type):
        self.recording, self.file, self.response_type = recording, file, response_type
        training = recording.trial_ids("train")
        self.statistics = StatisticsPass(sum(recording.frames(trial) for trial in training))
        self.index = np.zeros(recording.num_trials, dtype=_INDEX)
        for name in ("video", "responses", "traces"):
            self.index[name] = -1
        self.clips: dict[bytes, int] = {}
        self.prints: list[np.ndarray | None] = [None] * recording.num_trials
        self.kinds = np.full(recording.num_trials, -1)

    def add(self, number: int) -> None:
        trial, tier = self.recording.trial(number), self.recording.tiers[number]
        row = self.index[number]
        row["frames"] = trial.frames
        row["video"], row["video_is_uint8"] = self._add_video(trial.video)
        if trial.responses is not None:
            row["responses"] = self._add_responses(number, trial.responses)
            row["responses_is_float16"] = self.response_type is np.float16
        row["traces"] = self._store(f"traces/{number}", np.concatenate([trial.behavior, trial.pupil_center]))
        if tier == "train":
            self.statistics.update(trial)
        self.prints[number] = labels.fingerprint(trial.video)
        self.kinds[number] = labels.stimulus_id(trial.video, tier)

    def finish(self) -> labels.Labels:
        """Write index and statistics; returns the labels found from the videos."""
        recording, ids = self.recording, labels.assign_video_ids(self.prints)
        found = labels.Labels(ids, labels.unify(ids, self.kinds))
        given_videos, given_kinds = recording.given_ids("video_ids"), recording.given_ids("stimulus_ids")
        self.index["clip"] = found.video_ids
        self.index["video_id"] = found.video_ids if given_videos is None else given_videos
        self.index["stimulus_id"] = found.stimulus_ids if given_kinds is None else given_kinds
        self.file["index"] = self.index
        if len(recording.trial_ids("train")):
            for variable, values in self.statistics.result().items():
                for name, value in values.items():
                    self.file[f"statistics/{variable}/{name}"] = value
        else:
            self.file.create_group("statistics")
        self.file.attrs.update({"version": VERSION, "fingerprint": recording.fingerprint, "complete": True})
        return found

    def _add_video(self, video: np.ndarray) -> tuple[int, bool]:
        whole = bool((video == np.rint(video)).all() and video.min() >= 0 and video.max() <= 255)
        stored = np.ascontiguousarray(video.astype(np.uint8 if whole else np.float16))
        key = hashlib.blake2b(stored, person=stored.dtype.name.encode()).digest()
        if key not in self.clips:
            self.clips[key] = self._store(f"videos/{len(self.clips)}", stored)
        return self.clips[key], whole

    def _add_responses(self, number: int, responses: np.ndarray) -> int:
        if self.response_type is np.float16:
            largest = np.nanmax(np.abs(responses))
            if largest > 6e4 or 0 < largest < 1e-2:  # overflow, or digits lost to gradual underflow
                raise _NeedsFloat32
        return self._store(f"responses/{number}", np.ascontiguousarray(responses.T.astype(self.response_type)))

    def _store(self, name: str, array: np.ndarray) -> int:
        return self.file.create_dataset(name, data=array).id.get_offset()
