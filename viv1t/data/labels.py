"""Which clip a trial showed, and of what kind: found from the videos, when the recording does not say.

Two showings of a clip differ by at most a grey level (rounding, resizing) and by their padding. Each video is
therefore reduced to a fingerprint (block averages of every tenth frame, 50 numbers a frame), and clips are compared by
fingerprint: the videos are read once, whatever the number of trials.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from viv1t import io
from viv1t.constants import STIMULI
from viv1t.data import stimulus_type

STRIDE, ROWS, COLUMNS = 10, 6, 8  # of a fingerprint: frames, blocks down, blocks across
TOLERANCE = 1.05  # grey levels between two showings of one clip, with some room for rounding
AGREEMENT = 0.85  # share of frames that must agree, as in the published assignment
BONUS_TIERS = ("live_bonus", "final_bonus")  # the only ones that show anything but movies


@dataclass(frozen=True)
class Labels:
    """Per trial (n_trials,): video_ids, equal for equal clips; stimulus_ids, positions in STIMULI; -1 if unusable."""

    video_ids: np.ndarray
    stimulus_ids: np.ndarray


def fingerprint(video: np.ndarray) -> np.ndarray:
    """Block averages (F, ROWS * COLUMNS) float32 of every STRIDE-th frame of a video (T, H, W)."""
    frames = np.asarray(video[::STRIDE], dtype=np.float32)
    for axis, blocks in ((1, min(ROWS, frames.shape[1])), (2, min(COLUMNS, frames.shape[2]))):
        edges = np.linspace(0, frames.shape[axis], blocks + 1).astype(int)
        shape = [-1 if a == axis else 1 for a in range(3)]
        frames = np.add.reduceat(frames, edges[:-1], axis=axis) / np.diff(edges).reshape(shape)
    return frames.reshape(len(frames), -1).astype(np.float32)


def assign_video_ids(fingerprints: list[np.ndarray | None]) -> np.ndarray:
    """Number clips in the order of their first showing; None (an unusable trial) gets -1.

    A trial joins the first known clip of about its length with which at least AGREEMENT of its frames agree.
    """
    ids = np.full(len(fingerprints), -1)
    longest = max((len(print_) for print_ in fingerprints if print_ is not None), default=0)
    known = np.full((len(fingerprints), longest, ROWS * COLUMNS), np.inf, dtype=np.float32)
    lengths = np.zeros(len(fingerprints), dtype=int)
    count = 0
    for trial, print_ in enumerate(fingerprints):
        if print_ is None:
            continue
        frames, blocks = print_.shape
        with np.errstate(invalid="ignore"):
            same = (np.abs(known[:count, :frames, :blocks] - print_) <= TOLERANCE).all(axis=2)
        matches = same.sum(axis=1) >= AGREEMENT * np.maximum(frames, lengths[:count])
        if matches.any():
            ids[trial] = matches.argmax()
        else:
            known[count, :frames, :blocks], lengths[count] = print_, frames
            ids[trial] = count
            count += 1
    return ids


def stimulus_id(video: np.ndarray, tier: str) -> int:
    """Position in STIMULI of the kind of clip; only the bonus tiers hold anything but movies."""
    return STIMULI.index(stimulus_type.classify(video)) if tier in BONUS_TIERS else 0


def unify(video_ids: np.ndarray, stimulus_ids: np.ndarray) -> np.ndarray:
    """All showings of a clip take the kind found most often for it."""
    unified = stimulus_ids.copy()
    for clip in np.unique(video_ids[video_ids >= 0]):
        showings = video_ids == clip
        unified[showings] = np.bincount(stimulus_ids[showings]).argmax()
    return unified


def of_recording(recording) -> Labels:
    """Labels from the videos of a Recording; computed once (a progress bar shows it) and stored beside it."""
    path = _path(recording)
    if path.is_file():
        stored = io.read_json(path)
        if stored.get("fingerprint") == recording.fingerprint:
            return Labels(np.array(stored["video_ids"]), np.array(stored["stimulus_ids"]))
    prints: list[np.ndarray | None] = [None] * recording.num_trials
    kinds = np.full(recording.num_trials, -1)
    for trial in tqdm(recording.usable, desc=f"mouse {recording.id}: comparing clips", unit="trial", disable=None):
        video = recording.video(trial)
        prints[trial], kinds[trial] = fingerprint(video), stimulus_id(video, recording.tiers[trial])
    ids = assign_video_ids(prints)
    labels = Labels(ids, unify(ids, kinds))
    store(recording, labels)
    return labels


def store(recording, labels: Labels) -> None:
    """Keep labels beside the recording; where that folder is read-only they are found again the next time."""
    content = {
        "fingerprint": recording.fingerprint,
        "video_ids": labels.video_ids.tolist(),
        "stimulus_ids": labels.stimulus_ids.tolist(),
    }
    try:
        io.write_json(_path(recording), content)
    except OSError:
        print(f"{_path(recording).parent}: cannot be written to, so clips are compared anew each time.")


def find_leaks(recording, clips: np.ndarray | None = None) -> list[tuple[int, int]]:
    """(training trial, test or validation trial) pairs that show the same clip; a fair score needs an empty list.

    clips: `Cache.clips`, if at hand; else the videos are compared.
    """
    ids, tiers = recording.labels.video_ids if clips is None else clips, recording.tiers
    first_training = {}
    for trial in recording.trial_ids("train"):
        first_training.setdefault(int(ids[trial]), int(trial))
    tested = [trial for trial in recording.usable if tiers[trial] != "train"]
    return [(first_training[int(ids[trial])], int(trial)) for trial in tested if int(ids[trial]) in first_training]


def _path(recording) -> Path:
    return recording.directory.parent / ".cache" / f"{recording.id}.labels.json"
