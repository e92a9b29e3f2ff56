"""One recording on disk in the Sensorium 2023 layout: opened and checked once, read trial by trial.

    data/{videos,responses,behavior,pupil_center}/<trial>.npy    meta/neurons/*.npy    meta/trials/*.npy

Frames are the last axis of every file; trailing frames that are NaN are padding. Files may be float64 padded to a
common length (as published), or any real type without padding.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from viv1t.cli import did_you_mean
from viv1t.constants import TEST_TIERS, TIERS
from viv1t.data import labels, metadata, npy
from viv1t.data.mice import is_recording, lab_of, recording_id
from viv1t.errors import UserError

MODALITIES = ("videos", "responses", "behavior", "pupil_center")


@dataclass(frozen=True)
class Trial:
    """One trial in recorded units, without padding.

    video (T, H, W) grey levels 0..255, responses (N, T) or None where the recording withholds them,
    behavior (2, T) pupil dilation and running speed (cm/s), pupil_center (2, T) horizontal and vertical in camera
    pixels; float32. Rows of neurons that were not found in this session are NaN.
    """

    video: np.ndarray
    responses: np.ndarray | None
    behavior: np.ndarray
    pupil_center: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.video)


class Recording:
    """A checked recording. Raises UserError (one line: what, which file, the cure) and never writes to its folder.

    id: short name of the mouse; lab, monitor, fps: where and how it was recorded
    coordinates (N, 3) float32 um, depth last; unit_ids (N,) int64
    tiers (n_trials,) canonical names, "none" for unusable trials
    """

    def __init__(self, directory: Path | str, id: str | None = None):
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise UserError(f"{self.directory}: no such folder. Check --data_dir and --mouse_ids.")
        if not is_recording(self.directory):
            raise UserError(f"{self.directory}: not a recording (meta/trials/tiers.npy is missing).")
        self.id = id or recording_id(self.directory)
        self.lab = lab_of(self.directory)
        self.tiers = metadata.read_tiers(self.directory)
        self.coordinates, self.unit_ids = metadata.read_neurons(self.directory)
        self.frame_size = self._check_files()
        monitor, self.fps = metadata.read_monitor(self.directory, self.lab)
        height, width = self.frame_size
        self.monitor = monitor and dataclasses.replace(monitor, height=height, width=width)  # None if unknown
        self._frames = np.full(self.num_trials, -1)
        self._check_duplicates()

    @property
    def num_neurons(self) -> int:
        return len(self.coordinates)

    @property
    def num_trials(self) -> int:
        return len(self.tiers)

    def __repr__(self) -> str:
        return f"Recording({self.id}: {self.num_neurons} neurons, {self.num_trials} trials, {self.directory})"

    def trial_ids(self, tier: str) -> np.ndarray:
        """Trials of a tier (its canonical or its on-disk name), ascending; empty if it has none."""
        name = TIERS.get(tier, tier)
        if name not in TIERS.values():
            raise UserError(
                f"tier '{tier}' is unknown{did_you_mean(tier, list(TIERS.values()))}; one of {metadata.tier_names()}."
            )
        return np.flatnonzero(self.tiers == name)

    @property
    def usable(self) -> np.ndarray:
        """Trials of any tier but "none"."""
        return np.flatnonzero(self.tiers != "none")

    def path(self, modality: str, trial: int) -> Path:
        return self.directory / "data" / modality / f"{trial}.npy"

    def frames(self, trial: int) -> int:
        """Length of a trial: the frames that every modality holds, found from one row of each file."""
        if self._frames[trial] < 0:
            lengths = {name: self._valid(name, trial, self._open(name, trial)) for name in MODALITIES}
            known = {name: length for name, length in lengths.items() if length is not None}
            shortest = min(known, key=known.get)
            if not known[shortest]:
                raise UserError(f"{self.path(shortest, trial)}: holds no valid frame. Mark trial {trial} as 'none'.")
            self._frames[trial] = known[shortest]
        return int(self._frames[trial])

    def trial(self, trial: int) -> Trial:
        """Read and check one trial; UserError names the file and frame of a value that is not finite."""
        if self.tiers[trial] == "none":
            raise UserError(f"{self.directory}: trial {trial} is marked unusable (tier 'none').")
        frames = self.frames(trial)
        video, behavior, pupil = (
            self._read(modality, trial, frames) for modality in MODALITIES if modality != "responses"
        )
        return Trial(
            np.ascontiguousarray(video.transpose(2, 0, 1)), self._read_responses(trial, frames), behavior, pupil
        )

    def video(self, trial: int) -> np.ndarray:
        """Only the video of a trial, (T, H, W) float32."""
        return np.ascontiguousarray(self._read("videos", trial, self.frames(trial)).transpose(2, 0, 1))

    @cached_property
    def matched(self) -> np.ndarray:
        """(N,) bool: neurons found in this session (others are NaN throughout)."""
        for trial in self.usable:
            responses = self._open("responses", trial)
            missing = np.flatnonzero(np.isnan(np.asarray(responses[:, 0], dtype=np.float64)))
            if len(missing) < self.num_neurons:
                matched = np.ones(self.num_neurons, dtype=bool)
                matched[missing] = ~np.isnan(responses[missing]).all(axis=1)
                return matched
        return np.ones(self.num_neurons, dtype=bool)

    @cached_property
    def fingerprint(self) -> str:
        """Names, sizes and times of all files: changes when the recording does."""
        digest = hashlib.sha256()
        for folder in [f"data/{modality}" for modality in MODALITIES] + ["meta", "meta/neurons", "meta/trials"]:
            digest.update(folder.encode())
            for name, size, time in npy.listing(self.directory / folder):
                digest.update(f"{name} {size} {time}\n".encode())
        return digest.hexdigest()

    @property
    def labels(self) -> labels.Labels:
        """Identity and kind of every clip, found from the videos at first use and kept beside the recording."""
        return labels.of_recording(self)

    @cached_property
    def video_ids(self) -> np.ndarray:
        """(n_trials,) the same number for every showing of a clip, -1 for unusable trials."""
        given = self.given_ids("video_ids")
        return self.labels.video_ids if given is None else given

    @cached_property
    def stimulus_ids(self) -> np.ndarray:
        """(n_trials,) position in `constants.STIMULI`, -1 for unusable trials."""
        given = self.given_ids("stimulus_ids")
        return self.labels.stimulus_ids if given is None else given

    def given_ids(self, name: str) -> np.ndarray | None:
        """The recording's own "video_ids" or "stimulus_ids" (n_trials,), if it has them."""
        return metadata.read_ids(self.directory, name, self.tiers)

    def truth_rates(self, trial: int) -> np.ndarray | None:
        """Expected response (N, T) float32 in recorded units; simulated recordings only, else None."""
        path = self.directory / "truth" / "rates" / f"{trial}.npy"
        return npy.load(path)[:, : self.frames(trial)].astype(np.float32) if path.is_file() else None

    def _check_files(self) -> tuple[int, int]:
        """Header and size of every trial file against the others; returns the frame size (H, W)."""
        size: tuple[int, int] | None = None
        for modality in MODALITIES:
            folder = self.directory / "data" / modality
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder. Copy or download the recording again.")
            sizes = npy.sizes(folder)
            self._check_trials(folder, sizes)
            for trial in self.usable:
                path = folder / f"{trial}.npy"
                shape = npy.check(path, sizes[int(trial)])
                if modality == "videos":
                    size = size or shape[:2]
                rows = {"videos": size, "responses": (self.num_neurons,)}.get(modality, (2,))
                if len(shape) < 2 or shape[:-1] != rows or not shape[-1]:
                    raise UserError(f"{path}: shape {shape}, expected {_expected(modality, rows)}.")
        return size

    def _check_trials(self, folder: Path, sizes: dict[int, int]) -> None:
        missing = [trial for trial in self.usable if trial not in sizes]
        if missing:
            raise UserError(
                f"{folder / f'{missing[0]}.npy'}: no such file ({len(missing)} of {len(self.usable)} trials are "
                "missing). Copy or download the recording again."
            )
        beyond = [trial for trial in sizes if trial >= self.num_trials]
        if beyond:
            raise UserError(
                f"{self.directory / 'meta' / 'trials' / 'tiers.npy'}: names {self.num_trials} trials, but {folder} "
                f"holds trial {max(beyond)}. Both must come from the same recording."
            )

    def _check_duplicates(self) -> None:
        """Two cells may share a rounded position; a neuron entered twice also shares its responses."""
        _, group, counts = np.unique(self.coordinates, axis=0, return_inverse=True, return_counts=True)
        group, training = group.reshape(-1), self.trial_ids("train")
        shared = np.flatnonzero(counts[group] > 1)
        if not len(shared) or not len(training):
            return
        responses = np.asarray(self._open("responses", training[0])[shared], dtype=np.float32)
        seen: dict[tuple, int] = {}
        for row, response in zip(shared, responses, strict=True):
            valid = response[np.isfinite(response)]
            if valid.size and valid.std() > 0:
                first = seen.setdefault((int(group[row]), valid.tobytes()), int(row))
                if first != row:
                    path = self.directory / "meta" / "neurons" / "cell_motor_coordinates.npy"
                    raise UserError(f"{path}: neurons {first} and {row} are one (same place and responses). Drop one.")

    def _open(self, modality: str, trial: int) -> np.ndarray:
        return npy.load(self.path(modality, trial), mapped=True)

    def _valid(self, modality: str, trial: int, array: np.ndarray) -> int | None:
        """Frames before the padding, from one row of the file; None for withheld responses that are all NaN."""
        row = array[0, 0] if modality == "videos" else array[0]
        if modality == "responses":
            row = array[int(self.matched.argmax())]
        padding = np.isnan(np.asarray(row, dtype=np.float64))
        if modality == "responses" and padding.all() and self.tiers[trial] in TEST_TIERS:
            return None
        length = len(padding) - int(np.argmin(padding[::-1])) if not padding.all() else 0
        if padding[:length].any():
            self._refuse(modality, trial, int(padding.argmax()))
        return length

    def _read(self, modality: str, trial: int, frames: int) -> np.ndarray:
        array = self._open(modality, trial)
        length = self._valid(modality, trial, array) if array.dtype.kind == "f" else array.shape[-1]
        values = np.asarray(array[..., :frames], dtype=np.float32)
        rest = np.asarray(array[..., length:])
        if modality == "responses":
            returned = np.flatnonzero(~self.matched)[~np.isnan(values[~self.matched]).all(axis=1)]
            if len(returned):
                raise UserError(
                    f"{self.path(modality, trial)}: neuron {returned[0]} is NaN throughout another trial, but not in "
                    "this one. A neuron lost in this session must be NaN in all trials."
                )
            self._require_finite(modality, trial, values[self.matched], rest[self.matched], length)
        else:
            self._require_finite(modality, trial, values, rest, length)
        return values

    def _read_responses(self, trial: int, frames: int) -> np.ndarray | None:
        if self.tiers[trial] in TEST_TIERS:
            array = self._open("responses", trial)
            if self._valid("responses", trial, array) is None:
                if not np.isnan(array).all():
                    self._refuse("responses", trial, 0)
                return None
            if not np.any(np.nan_to_num(array)):
                return None
        return self._read("responses", trial, frames)

    def _require_finite(self, modality: str, trial: int, values: np.ndarray, rest: np.ndarray, length: int) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            self._refuse(modality, trial, int(np.flatnonzero(~finite.all(axis=tuple(range(values.ndim - 1))))[0]))
        if rest.size and not np.isnan(rest).all():
            self._refuse(modality, trial, length)

    def _refuse(self, modality: str, trial: int, frame: int) -> None:
        raise UserError(
            f"{self.path(modality, trial)}: a value in frame {frame} is not finite, inside the trial (only whole "
            f"frames at the end may be NaN). Repair it, or mark trial {trial} as 'none' in meta/trials/tiers.npy."
        )


def choose_trial(recording: Recording, number: int | None = None) -> int:
    """A usable trial by its number; without one, the first of the first test tier, or of any tier."""
    if number is None:
        tiers = ("live_main", "final_main", "validation", "train")
        return int(next(ids[0] for ids in (*map(recording.trial_ids, tiers), recording.usable) if len(ids)))
    if number not in recording.usable:
        raise UserError(
            f"--trial {number}: {recording.directory} has no such trial, or marks it unusable; there are "
            f"{len(recording.usable)} from {recording.usable[0]} to {recording.usable[-1]}."
        )
    return number


def _expected(modality: str, rows: tuple) -> str:
    axes = {
        "videos": "(height, width, frames), the frame size of the first trial",
        "responses": "(neurons, frames), as many neurons as coordinates",
    }
    return f"({', '.join(str(row) for row in rows)}, frames): {axes.get(modality, '(2, frames)')}"
