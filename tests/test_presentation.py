"""What is shared between patterns changes no response; what is cut out is what was presented."""

import numpy as np
import pytest
import torch
from test_simulate_animal import make_animal
from tiny_twins import tiny_twin

from viv1t.constants import GREY, SKIP
from viv1t.geometry import SENSORIUM
from viv1t.model.prelude import distinct
from viv1t.model.tokenizer import PatchEmbedding
from viv1t.presentation import AnimalPresenter, Timeline, TwinPresenter, Window
from viv1t.stimulus.contexts import context
from viv1t.stimulus.gratings import whole_frames
from viv1t.stimulus.levels import grey_levels

LONG = {"max_frame": 80}
TIMELINE = Timeline(lead_in=60, pattern=8, after=3)


def patterns(count: int = 6, frames: int = 8) -> np.ndarray:
    """Random frames; some patterns are equal, some in part, one is a flash and one starts again."""
    shown = np.random.default_rng(3).integers(0, 256, (count, frames, 36, 64)).astype(np.uint8)
    shown[1] = shown[0]
    shown[2, 4:] = shown[3, 4:]
    shown[4] = shown[4, :1]
    shown[5, 4:8] = shown[5, :4]
    return shown


def presenter(twin, mouse_id: str = "A", timeline: Timeline = TIMELINE, **held) -> TwinPresenter:
    known = twin.mice[mouse_id].statistics
    held = {name: held.get(name, known[name]["mean"]) for name in ("behavior", "pupil_center")}
    return TwinPresenter(twin, mouse_id, timeline, **held)


def whole_trials(twin, *args, **kwargs) -> TwinPresenter:
    plain = presenter(twin, *args, **kwargs)
    plain.prelude = None
    return plain


@pytest.mark.parametrize(
    "flags",
    [
        {"core_pos_encoding": code}
        for code in (
            "none", "learned", "learned_factorised", "learned_sinusoid", "sinusoid", "learned_rotary",
            "sincos_rotary", "rotary", "learned_relative", "relative",
        )
    ]
    + [
        {"core_reg_tokens": 3},
        {"core_norm_qk": True},
        {"core_flash_attention": 0},
        {"core_pad_frame": 0},
        {"core_behavior_mode": "additive"},
        {"core_patch_mode": "energy"},
        {"core_patch_mode": "divisive", "core_emb_dim": 28},
        {"core_behavior_mode": "behavior_pupil", "center_crop": 0.8},
        {"core_temporal_patch_size": 1},
    ],
    ids=lambda flags: "-".join(map(str, flags.values())),
)  # fmt: skip
def test_sharing_changes_no_response(flags):
    twin, shown = tiny_twin(**({"core_behavior_mode": "behavior_pupil"} | LONG | flags)), patterns()
    shared, plain = presenter(twin), whole_trials(twin)
    assert shared.prelude is not None
    expected = plain.show(shown)
    assert expected.shape == (6, 7, 11) and expected.std(axis=2).max() > 0.1
    np.testing.assert_allclose(shared.show(shown), expected, atol=2e-5 * abs(expected).max())
    np.testing.assert_allclose(shared.spontaneous(), plain.spontaneous(), atol=2e-5 * abs(expected).max())


@pytest.mark.parametrize("place", [(0, 3, 0, 2), (15, 20, 30, 37), (33, 36, 50, 64), (0, 36, 20, 22)], ids=str)
@pytest.mark.parametrize(
    "flags",
    [
        {"core_pad_frame": 1, "core_spatial_patch_stride": 4},
        {"core_pad_frame": 0, "core_spatial_patch_stride": 5},
        {"core_norm": "rmsnorm", "core_spatial_patch_stride": 10},
        {"core_norm": "dyt"},
        {"core_temporal_patch_size": 1},
        {"core_patch_mode": "energy", "core_spatial_patch_stride": 4},
    ],
    ids=lambda flags: "-".join(map(str, flags.values())),
)
def test_looking_only_where_something_changes_changes_no_response(place, flags):
    """Patterns that are grey but for some pixels, at the border and inside."""
    top, bottom, left, right = place
    shown = np.full((6, 8, 36, 64), GREY, np.uint8)
    shown[:, :, top:bottom, left:right] = patterns()[:, :, top:bottom, left:right]
    twin = tiny_twin(core_behavior_mode="behavior_pupil", **LONG, **flags)
    shared, expected = presenter(twin), whole_trials(twin).show(shown)
    np.testing.assert_allclose(shared.show(shown), expected, atol=2e-5 * abs(expected).max())
    blank = np.full_like(shown[:1], GREY)
    np.testing.assert_allclose(shared.show(blank), whole_trials(twin).show(blank), atol=2e-5 * abs(expected).max())


@pytest.mark.parametrize("kind", ["centre", "cross"])
@pytest.mark.parametrize("mode", ["conv", "energy"])
@pytest.mark.parametrize("behavior", ["behavior_pupil", "additive"])
def test_frames_that_are_seen_once_change_no_response(kind, mode, behavior, monkeypatch):
    """Gratings whose phases lie whole frames apart are made of few frames, in a disc and all over the screen."""
    timeline = Timeline(lead_in=60, pattern=20)
    twin = tiny_twin(core_patch_mode=mode, core_behavior_mode=behavior, core_spatial_patch_stride=4, max_frame=80)
    shown = grey_levels([context(SENSORIUM, (20, 15), kind, 20, 90, 0.04, 3, 20, p) for p in whole_frames(5, 3)])
    projected, project = [], PatchEmbedding.project
    monkeypatch.setattr(PatchEmbedding, "project", lambda *args: projected.append(len(args[1])) or project(*args))
    expected = whole_trials(twin, timeline=timeline).show(shown)
    found = presenter(twin, timeline=timeline).show(shown)
    assert projected == [11]  # ten to a cycle, and grey
    np.testing.assert_allclose(found, expected, atol=2e-5 * abs(expected).max())


def test_frames_with_the_same_checksum_are_told_apart(monkeypatch):
    frames = torch.from_numpy(patterns().reshape(-1, 36, 64).astype(np.float32))
    found, which = distinct(frames)
    assert torch.equal(found[which], frames) and len(found) == len(torch.unique(frames, dim=0)) < len(frames)
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: torch.zeros(args[1], dtype=torch.long))
    found, which = distinct(frames)
    assert torch.equal(found[which], frames) and len(found) == len(torch.unique(frames, dim=0))


def test_only_the_chosen_neurons_answer():
    twin, shown = tiny_twin(**LONG), patterns()
    shared = presenter(twin, "B")
    everyone = shared.show(shown)
    shared.listen([4, 1])
    np.testing.assert_allclose(shared.show(shown), everyone[:, [4, 1]], rtol=1e-4, atol=1e-4)
    assert shared.spontaneous().shape == (2,)


def test_behavior_and_gaze_are_held():
    twin, shown = tiny_twin(core_behavior_mode="behavior_pupil", **LONG), patterns()
    held = {"behavior": [70.0, 5.0], "pupil_center": [150.0, 130.0]}
    np.testing.assert_allclose(presenter(twin, **held).show(shown), whole_trials(twin, **held).show(shown), rtol=1e-3)
    assert abs(presenter(twin, **held).show(shown) / presenter(twin).show(shown) - 1).max() > 0.01


@pytest.mark.parametrize(
    "case",
    [
        ({"core_use_causal_attention": False}, TIMELINE),
        ({}, Timeline(lead_in=60, before=2, pattern=8, after=3, per_trial=4)),
        ({"max_frame": 40}, TIMELINE),
    ],
    ids=["not-causal", "packed", "longer-than-the-model"],
)
def test_what_cannot_be_shared_is_shown_as_whole_trials(case):
    flags, timeline = case
    twin, shown = tiny_twin(**(LONG | flags)), patterns()
    whole = presenter(twin, timeline=timeline)
    assert whole.prelude is None
    trials = timeline.present(shown)
    traces = [np.tile(twin.mice["A"].statistics[name]["mean"][None, :, None], (len(trials), 1, timeline.trial))
              for name in ("behavior", "pupil_center")]  # fmt: skip
    responses = twin.respond("A", trials[:, None], *traces).numpy()
    np.testing.assert_allclose(whole.show(shown), timeline.cut(responses, 6), rtol=1e-5)


def test_cutting_mirrors_presenting():
    timeline = Timeline(lead_in=50, before=3, pattern=5, after=2, per_trial=4)
    shown = np.arange(1, 7)[:, None, None, None] * np.ones((6, 5, 1, 1))
    trials = timeline.present(shown)
    assert trials.shape == (2, 50 + 4 * 10, 1, 1)
    assert (trials[:, :53] == GREY).all() and (trials[1, 50 + 20 :] == GREY).all()
    cut = timeline.cut(trials[:, None, :, 0, 0], 6)  # a neuron that repeats what it sees
    assert (cut[:, 0, :5] == shown[:, :, 0, 0]).all() and (cut[:, 0, 5:] == GREY).all()
    shorter = timeline.cut(trials[:, None, 7:, 0, 0], 6)  # a model that drops early frames
    assert (shorter == cut).all()


def test_windows_count_from_the_onset():
    responses = np.arange(30.0)[None]
    assert Window(0.1, 0.2).mean(responses) == np.mean([3, 4, 5])
    assert Window(0.1, 0.2).mean(responses, fps=60) == np.mean(range(6, 12))
    with pytest.raises(ValueError, match="lie within"):
        Window(0.5, 1.1).mean(responses)


def test_timelines_without_a_lead_in_are_refused():
    with pytest.raises(ValueError, match=str(SKIP)):
        Timeline(lead_in=20, before=10)


def test_an_animal_is_adapted_to_grey_and_its_history_is_short():
    animal = make_animal(20)
    held = {"behavior": animal.setting.behavior_mean, "pupil_center": animal.setting.pupil_center}
    shown = patterns(6, 30)
    alone = AnimalPresenter(animal, Timeline(pattern=30, after=5), **held).show(shown)
    video = Timeline(pattern=30, after=5).present(shown)[:, None]
    traces = [np.tile(np.float32(x)[None, :, None], (6, 1, video.shape[2])) for x in held.values()]
    whole = animal.respond(video, *traces).numpy()[:, :, 60:]
    np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-6)
    packed = AnimalPresenter(animal, Timeline(60, 15, 30, 15, per_trial=4), **held).show(shown)[..., :35]
    assert np.corrcoef(packed.mean(-1).ravel(), alone.mean(-1).ravel())[0, 1] >= 0.999


def animal_presenter(noise: float = 0.0) -> AnimalPresenter:
    animal = calibrated_animal()
    held = np.array(animal.setting.behavior_mean), np.array(animal.setting.pupil_center)
    return AnimalPresenter(animal, TIMELINE, *held, noise)


def calibrated_animal():
    animal = make_animal(6)
    animal.neurons["event_rate"] = 0.3
    return animal


def test_noise_averages_out_and_is_the_same_in_every_run():
    """Repeats of one pattern differ, whatever batch they are shown in; their mean is the noiseless answer."""
    shown = np.repeat(patterns()[2:3], 200, axis=0)
    expected, noisy = animal_presenter().show(shown[:1])[0], animal_presenter(noise=1.0)
    recorded = noisy.show(shown, range(200))
    assert recorded.shape == (200, 6, 11) and (recorded >= 0).all() and (recorded == 0).mean() > 0.1
    np.testing.assert_array_equal(animal_presenter(noise=1.0).show(shown[:50], range(150, 200)), recorded[150:])
    assert len(np.unique(recorded.sum(axis=(1, 2)))) > 190
    error = recorded.mean(axis=(0, 2)) - expected.mean(axis=1)
    assert (abs(error) < 5 * recorded.mean(axis=2).std(axis=0) / np.sqrt(200)).all()
    quiet = animal_presenter().spontaneous()
    assert 0.5 < noisy.spontaneous().mean() / quiet.mean() < 2 and not np.array_equal(noisy.spontaneous(), quiet)
