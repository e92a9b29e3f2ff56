"""A clip has one id whatever its padding and rounding, and the kinds of competition clips are told apart."""

import numpy as np
import pytest

from viv1t.constants import STIMULI
from viv1t.data import labels, stimulus_type
from viv1t.data.recording import Recording
from viv1t.geometry import ROCHEFORT, SENSORIUM
from viv1t.simulate.ood import GENERATORS
from viv1t.simulate.scenes import natural_movie


def ids(*videos):
    return labels.assign_video_ids([None if video is None else labels.fingerprint(video) for video in videos]).tolist()


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).integers(0, 256, (4, 60, 36, 64)).astype(np.float32)


def test_clips_are_numbered_in_order_and_unusable_trials_skipped(clips):
    a, b, c, _ = clips
    assert ids(a, None, b, a, c, b) == [0, -1, 1, 0, 2, 1]
    assert ids() == []


def test_a_grey_level_of_rounding_is_the_same_clip_and_ten_are_not(clips):
    a, noise = clips[0], np.random.default_rng(1).uniform(-1, 1, clips[0].shape)
    assert ids(a, a + noise, a + 1, a - 1) == [0, 0, 0, 0]
    assert ids(a, a + 10) == [0, 1]


def test_up_to_15_percent_of_the_frames_may_differ(clips):
    a, b = clips[:2]
    assert ids(a, np.concatenate([a[:-5], b[-5:]])) == [0, 0]
    assert ids(a, np.concatenate([a[:30], b[30:]])) == [0, 1]


def test_a_few_missing_frames_are_the_same_clip_and_half_of_it_is_not(clips):
    a = clips[0]
    assert ids(a, a[:56]) == [0, 0]
    assert ids(a, a[:30]) == [0, 1]


def test_other_frame_sizes(clips):
    small = clips[:, :, :5, :7]
    assert ids(small[0], small[1], small[0]) == [0, 1, 0]


@pytest.mark.parametrize("monitor", [SENSORIUM, ROCHEFORT], ids=["sensorium", "rochefort"])
@pytest.mark.parametrize("kind", GENERATORS)
def test_competition_stimuli_are_told_apart(kind, monitor):
    for clip in range(2):
        video, _ = GENERATORS[kind](clip, 6, np.random.SeedSequence([7, clip], spawn_key=(0, clip)), monitor, 150)
        assert stimulus_type.classify(video) == kind


def test_movies_are_movies():
    for seed in range(3):
        assert stimulus_type.classify(natural_movie(np.random.SeedSequence(seed), SENSORIUM, 150)) == "movie"


def test_a_blank_screen_is_classified():
    assert stimulus_type.classify(np.full((60, 36, 64), 127.0)) in STIMULI


def test_all_showings_of_a_clip_are_of_one_kind():
    assert labels.unify(np.array([0, 1, 0, 0, -1]), np.array([4, 2, 4, 5, -1])).tolist() == [4, 2, 4, 4, -1]


def test_labels_of_a_recording_are_found_once_and_kept(make_recording):
    folder = make_recording()
    found = Recording(folder).labels
    recording = Recording(folder)
    stored = folder.parent / ".cache" / f"{recording.id}.labels.json"
    before = stored.stat().st_mtime_ns
    assert np.array_equal(recording.video_ids, found.video_ids)
    assert np.array_equal(recording.stimulus_ids >= 0, recording.tiers != "none")
    assert stored.stat().st_mtime_ns == before
    shown = {tier: len(set(recording.video_ids[recording.trial_ids(tier)])) for tier in ("validation", "live_main")}
    assert shown == {"validation": 1, "live_main": 1}


def test_a_training_clip_shown_in_a_test_is_a_leak(make_recording):
    folder = make_recording()
    recording = Recording(folder)
    assert labels.find_leaks(recording) == []
    train, tested = int(recording.trial_ids("train")[1]), int(recording.trial_ids("final_main")[0])
    np.save(recording.path("videos", tested), np.load(recording.path("videos", train)))
    assert labels.find_leaks(Recording(folder)) == [(train, tested)]
