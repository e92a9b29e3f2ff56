"""The cache holds what the recording holds, is made once, and survives changes, damage, kills and company."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import namedtuple

import h5py
import numpy as np
import pytest
from tqdm import tqdm

from viv1t.data.cache import open_cache
from viv1t.data.recording import Recording
from viv1t.data.statistics import SAMPLES, of_trials
from viv1t.errors import UserError


def stamp(path):
    return path.stat().st_mtime_ns, path.stat().st_ino


@pytest.mark.parametrize("padded", [False, True])
def test_trials_come_back_as_recorded(make_recording, padded):
    recording = Recording(make_recording(padded=padded))
    cache = open_cache(recording)
    for number in recording.usable:
        recorded, cached = recording.trial(number), cache.trial(number)
        assert cache.frames[number] == recorded.frames
        for name in ("video", "behavior", "pupil_center"):
            assert getattr(cached, name).dtype == np.float32
            np.testing.assert_array_equal(getattr(cached, name), getattr(recorded, name))
        assert cache.withheld[number] == (recorded.responses is None) == (cached.responses is None)
        if recorded.responses is not None:  # 11 bits are kept
            np.testing.assert_allclose(cached.responses, recorded.responses, rtol=2**-11, atol=1e-7)


def test_parts_of_trials(make_recording):
    recording = Recording(make_recording())
    cache, number = open_cache(recording), int(recording.trial_ids("train")[0])
    whole, part = cache.trial(number), cache.trial(number, 10, 25, neurons=[5, 2])
    np.testing.assert_array_equal(part.video, whole.video[10:25])
    np.testing.assert_array_equal(part.responses, whole.responses[[5, 2], 10:25])
    np.testing.assert_array_equal(part.behavior, whole.behavior[:, 10:25])
    np.testing.assert_array_equal(part.pupil_center, whole.pupil_center[:, 10:25])
    with pytest.raises(UserError, match="unusable"):
        cache.trial(int(np.flatnonzero(recording.tiers == "none")[0]))


def test_repeated_clips_are_stored_once_and_grey_levels_as_bytes(make_recording):
    recording = Recording(make_recording())
    cache = open_cache(recording)
    with h5py.File(cache.path) as file:
        assert len(file["videos"]) == len(np.unique(cache.clips[recording.usable])) < len(recording.usable)
        assert all(video.dtype == np.uint8 for video in file["videos"].values())


def test_levels_between_integers_keep_an_eighth(make_recording):
    folder = make_recording()
    path = Recording(folder).path("videos", 0)
    video = np.load(path).astype(np.float64) * 0.97
    np.save(path, video)
    if Recording(folder).tiers[0] != "none":
        stored = open_cache(Recording(folder)).trial(0).video
        assert np.abs(stored - video.transpose(2, 0, 1)).max() <= 1 / 16


@pytest.mark.parametrize("scale", [1e5, 1e-6])
def test_responses_beyond_half_precision_are_kept_in_full(make_recording, scale):
    folder = make_recording()
    for trial in Recording(folder).usable:
        path = Recording(folder).path("responses", trial)
        np.save(path, np.load(path) * np.float32(scale))
    recording = Recording(folder)
    number = int(recording.trial_ids("train")[0])
    np.testing.assert_array_equal(open_cache(recording).trial(number).responses, recording.trial(number).responses)


def test_statistics_are_those_of_the_training_tier(make_recording):
    recording = Recording(make_recording(padded=True))
    trials = [recording.trial(number) for number in recording.trial_ids("train")]
    statistics = open_cache(recording).statistics
    for name in ("responses", "behavior", "pupil_center"):
        values = np.concatenate([getattr(trial, name) for trial in trials], axis=1).astype(np.float64)
        for key in ("min", "max", "mean", "median", "std"):
            assert statistics[name][key].dtype == np.float32
            np.testing.assert_allclose(statistics[name][key], getattr(np, key)(values, axis=1), rtol=1e-6)
    video = np.concatenate([trial.video.reshape(-1) for trial in trials]).astype(np.float64)
    for key in ("min", "max", "mean", "median", "std"):
        np.testing.assert_allclose(statistics["video"][key], getattr(np, key)(video), rtol=1e-6)


def test_medians_of_long_recordings_come_from_a_sample():
    Part = namedtuple("Part", "video responses behavior pupil_center frames")
    rng = np.random.default_rng(0)
    lengths = rng.integers(200, 301, 80)
    parts = [
        Part(rng.uniform(0, 255, (n, 2, 2)), rng.normal(5, 1, (3, n)), np.ones((2, n)), np.ones((2, n)), n)
        for n in lengths
    ]
    assert lengths.sum() > 4 * SAMPLES
    statistics = of_trials(parts, lengths.sum())
    assert np.abs(statistics["responses"]["median"] - 5).max() < 0.1
    video = np.concatenate([part.video.reshape(-1) for part in parts])
    assert abs(statistics["video"]["median"] - np.median(video)) <= 1 / 64


def test_a_second_opening_reads_the_same_file(make_recording):
    folder = make_recording()
    path = open_cache(Recording(folder)).path
    before = stamp(path)
    assert open_cache(Recording(folder)).path == path == folder.parent / ".cache" / "mouse.h5"
    assert stamp(path) == before


def test_a_changed_recording_is_cached_anew(make_recording):
    folder = make_recording()
    open_cache(Recording(folder))
    number = int(Recording(folder).trial_ids("train")[0])
    path = Recording(folder).path("behavior", number)
    np.save(path, np.load(path) + 1)
    np.testing.assert_array_equal(open_cache(Recording(folder)).trial(number).behavior, np.load(path))


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "unfinished"])
def test_a_damaged_cache_is_made_anew(make_recording, damage):
    recording = Recording(make_recording())
    path = open_cache(recording).path
    whole = path.read_bytes()
    if damage == "unfinished":
        with h5py.File(path, "r+") as file:
            file.attrs["complete"] = False
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "garbage": b"x" * len(whole)}[damage])
    number = int(recording.usable[0])
    np.testing.assert_array_equal(open_cache(recording).trial(number).video, recording.trial(number).video)


def test_a_failing_recording_leaves_no_cache(make_recording):
    folder = make_recording()
    path = Recording(folder).path("pupil_center", int(Recording(folder).usable[-1]))
    broken = np.load(path)
    broken[:, 3] = np.nan
    np.save(path, broken)
    with pytest.raises(UserError, match="frame 3"):
        open_cache(Recording(folder))
    assert not list((folder.parent / ".cache").glob("*.h5")) and not list((folder.parent / ".cache").glob(".*.tmp"))


def _build_slowly(folder):
    tqdm.set_lock(threading.RLock())  # tqdm's own is shared with the parent, which a killed child may leave locked
    trial = Recording.trial
    Recording.trial = lambda self, number: time.sleep(0.05) or trial(self, number)
    open_cache(Recording(folder))


def test_a_killed_process_leaves_nothing_that_matters(make_recording):
    folder = make_recording()
    process = multiprocessing.get_context("fork").Process(target=_build_slowly, args=(folder,))
    process.start()
    temporary = lambda: list((folder.parent / ".cache").glob(".mouse.h5.*.tmp"))  # noqa: E731
    while not temporary():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert temporary()
    recording = Recording(folder)
    number = int(recording.usable[-1])
    np.testing.assert_array_equal(open_cache(recording).trial(number).video, recording.trial(number).video)
    assert not temporary()


def test_two_processes_at_once_share_one_cache(make_recording):
    folder = make_recording()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_build_slowly, args=(folder,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    recording = Recording(folder)
    before = stamp(folder.parent / ".cache" / "mouse.h5")
    number = int(recording.usable[0])
    np.testing.assert_array_equal(open_cache(recording).trial(number).video, recording.trial(number).video)
    assert stamp(folder.parent / ".cache" / "mouse.h5") == before


def test_a_full_disk_is_noticed_before_it_is_full(make_recording, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="--cache_dir"):
        open_cache(Recording(make_recording()))


def test_the_mouse_remembers_its_neurons(make_recording):
    recording = Recording(make_recording())
    cache = open_cache(recording)
    mouse = cache.mouse(np.array([1, 4]))
    assert mouse.num_neurons == 2 and mouse.train_size == 6
    np.testing.assert_array_equal(mouse.coordinates, recording.coordinates[[1, 4]])
    np.testing.assert_array_equal(mouse.unit_ids, recording.unit_ids[[1, 4]])
    np.testing.assert_array_equal(mouse.statistics["responses"]["std"], cache.statistics["responses"]["std"][[1, 4]])
    assert mouse.statistics["video"]["mean"].shape == ()
