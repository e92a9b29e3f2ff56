"""Every trial is shown as often as promised, from any step on, and the limits are those of the published code."""

import numpy as np
import pytest
import torch

from viv1t.data.loader import MouseData, TrainingBatches, load_mice, tier_trials
from viv1t.data.transforms import Transforms
from viv1t.errors import UserError


@pytest.fixture(scope="module")
def mice(tiny_recording_dir):
    return load_mice(tiny_recording_dir)


def mouse_of(folder, **limits):
    return load_mice(folder, **limits)["mouse"]


def test_batches_hold_what_was_recorded(mice):
    batches = TrainingBatches(mice, batch_size=2, crop_frame=55)
    for step, batch in enumerate(batches.batches(epoch=0)):
        for id, mouse in mice.items():
            trials, starts = batches.plan(0, id)[step]
            shown = batch[id]
            assert shown.video.shape == (len(trials), 1, 55, 36, 64) and shown.video.dtype == torch.uint8
            assert shown.responses.shape == (len(trials), mouse.num_neurons, 55)
            assert shown.trial_ids.tolist() == trials.tolist()
            for b, (trial, start) in enumerate(zip(trials, starts, strict=True)):
                expected = mouse.cache.trial(trial, start, start + 55)
                np.testing.assert_array_equal(shown.video[b, 0], expected.video)
                np.testing.assert_array_equal(shown.responses[b], expected.responses)
                np.testing.assert_array_equal(shown.behavior[b], expected.behavior)
                np.testing.assert_array_equal(shown.pupil_center[b], expected.pupil_center)


def test_an_epoch_shows_every_trial_and_shorter_mice_start_over(mice):
    batches = TrainingBatches(mice, batch_size=4, crop_frame=55)
    assert [len(mouse.train_ids) for mouse in mice.values()] == [6, 4]
    assert batches.steps_per_epoch == len(list(batches.batches(0))) == 2
    large, small = (batches.plan(0, id) for id in mice)
    assert [len(trials) for trials, _ in large] == [4, 2]  # the last batch is kept
    assert sorted(np.concatenate([trials for trials, _ in large])) == list(mice["tinyA"].train_ids)
    assert all(sorted(trials) == list(mice["tinyB"].train_ids) for trials, _ in small)


def test_the_plan_depends_on_seed_epoch_and_mouse_only(mice):
    def shown(batches, epoch, id):
        return [(trials.tolist(), starts.tolist()) for trials, starts in batches.plan(epoch, id)]

    both = TrainingBatches(mice, crop_frame=55)
    assert shown(both, 3, "tinyA") == shown(TrainingBatches({"tinyA": mice["tinyA"]}, crop_frame=55), 3, "tinyA")
    assert shown(both, 3, "tinyA") != shown(both, 4, "tinyA")
    assert shown(both, 3, "tinyA") != shown(TrainingBatches(mice, crop_frame=55, seed=1), 3, "tinyA")


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_an_epoch_goes_on_from_any_step(mice, num_workers):
    batches = TrainingBatches(mice, crop_frame=55, num_workers=num_workers)
    whole = list(batches.batches(2))
    for start in (0, 2, len(whole)):
        rest = list(batches.batches(2, start_step=start))
        assert len(rest) == len(whole) - start
        for a, b in zip(rest, whole[start:], strict=True):
            assert all(torch.equal(a[id].video, b[id].video) for id in mice)


def test_the_first_and_the_last_crop_are_drawn(mice):
    mouse = mice["tinyA"]
    batches = TrainingBatches({"tinyA": mouse}, crop_frame=58)
    starts = np.array([(t[0], s[0]) for epoch in range(200) for t, s in batches.plan(epoch, "tinyA")])
    for trial in mouse.train_ids:
        drawn = starts[starts[:, 0] == trial, 1]
        assert (drawn.min(), drawn.max()) == (0, mouse.cache.frames[trial] - 58)


def test_whole_trials(mice):
    for batch in TrainingBatches(mice, crop_frame=-1).batches(0):
        for id, shown in batch.items():
            assert shown.video.shape[2] == mice[id].cache.frames[shown.trial_ids[0]]


def test_leaving_in_the_middle_of_an_epoch_ends_the_threads(mice):
    for _ in TrainingBatches(mice, crop_frame=55).batches(0):
        break


def test_evaluation_sees_whole_trials_in_order(mice):
    mouse = mice["tinyA"]
    shown = list(tier_trials(mouse, "live_main"))
    assert [int(batch.trial_ids) for batch in shown] == mouse.recording.trial_ids("live_main").tolist()
    for batch in shown:
        assert batch.video.shape[2] == batch.responses.shape[2] == mouse.cache.frames[batch.trial_ids[0]]
    assert all(batch.responses is None for batch in tier_trials(mouse, "final_main"))
    assert next(tier_trials(mouse, "validation", max_frames=51)).video.shape[2] == 51


def test_limits_are_drawn_as_published(tiny_recording_dir):
    mouse = load_mice(tiny_recording_dir, ["tinyB"], limit_neurons=5, limit_data=3, seed=7)["tinyB"]
    legacy = np.random.RandomState(7)
    assert mouse.neurons.tolist() == sorted(legacy.choice(11, size=5, replace=False))
    trials = mouse.recording.trial_ids("train")
    assert mouse.train_ids.tolist() == sorted(np.random.default_rng(7).choice(trials, size=3, replace=False))
    assert mouse.mouse.train_size == 3
    batch = mouse.batch(mouse.train_ids[0])
    expected = mouse.recording.trial(mouse.train_ids[0]).responses[mouse.neurons]
    np.testing.assert_allclose(batch.responses[0], expected, rtol=1e-3, atol=1e-6)
    assert load_mice(tiny_recording_dir, ["tinyB"], limit_neurons=100)["tinyB"].num_neurons == 11


def test_mean_response(mice):
    mouse = mice["tinyA"]
    transforms = Transforms(mouse.mouse.statistics)
    responses = [mouse.recording.trial(trial).responses for trial in mouse.train_ids[:2]]
    expected = transforms.responses(torch.from_numpy(np.concatenate(responses, axis=1))).mean(dim=1)
    torch.testing.assert_close(mouse.mean_response(transforms, size=2), expected, rtol=1e-3, atol=1e-3)
    expected = torch.from_numpy(mouse.mouse.statistics["responses"]["mean"]) * transforms.precision
    torch.testing.assert_close(mouse.mean_response(transforms), expected, rtol=1e-3, atol=1e-3)


def test_lost_neurons_are_left_out(make_recording):
    folder = make_recording(unmatched=(2,))
    mouse = mouse_of(folder)
    assert mouse.neurons.tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert np.isfinite(mouse.mouse.statistics["responses"]["std"]).all()
    assert mouse.batch(mouse.train_ids[0]).responses.isfinite().all()


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"crop_frame": 50}, "above 50"),
        ({"crop_frame": 301}, "at most 300"),
        ({"crop_frame": 300}, "Use --crop_frame 6"),
        ({"crop_frame": -1, "batch_size": 2}, "--batch_size 1"),
        ({"crop_frame": 55, "batch_size": 0}, "at least 1"),
        ({"crop_frame": 55, "limit_data": 0}, "at least 1"),
    ],
)
def test_impossible_batches_are_refused_at_once(mice, options, cure):
    with pytest.raises(UserError, match=cure):
        TrainingBatches(mice, **options)


def test_nothing_to_train_with(make_recording):
    folder = make_recording(num_train=0)
    mouse = mouse_of(folder)
    with pytest.raises(UserError, match="no trial of the training tier"):
        TrainingBatches({"mouse": mouse}, crop_frame=55)
    with pytest.raises(UserError, match="no trial of the training tier"):
        mouse.mouse  # noqa: B018
    assert list(tier_trials(mouse, "live_main"))  # but it can be predicted


def test_chosen_neurons_keep_their_order(mice):
    mouse = MouseData(mice["tinyA"].cache, neurons=[6, 0])
    trial = mouse.train_ids[0]
    np.testing.assert_array_equal(mouse.batch(trial).responses[0], mice["tinyA"].batch(trial).responses[0][[6, 0]])
