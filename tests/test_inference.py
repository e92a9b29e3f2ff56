"""A twin answers in recorded units to videos of any length, for any of its neurons; public runs open too."""

from pathlib import Path

import numpy as np
import pytest
import torch

from viv1t import inference
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.inference import load_twin

# a run folder and outputs of the public ViV1T implementation (commit d2cbafd): random weights and inputs
PUBLIC = Path(__file__).parent / "data" / "parity" / "vivit_default_small"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Recordings named as the mice of the public run, with as many neurons."""
    from conftest import write_recording

    folder = tmp_path_factory.mktemp("data") / "lab"
    for mouse_id, neurons, seed in (("A", 40, 1), ("B", 30, 2)):
        write_recording(folder / mouse_id, num_neurons=neurons, num_train=3, seed=seed)
    return folder


@pytest.fixture(scope="module")
def twin(data_dir):
    return load_twin(PUBLIC, device="cpu", data_dir=data_dir)


def trials(rng, frames, count=1):
    return (
        torch.from_numpy(rng.integers(0, 256, (count, 1, frames, 36, 64)).astype(np.float32)),
        torch.from_numpy(rng.normal(50, 5, (count, 2, frames)).astype(np.float32)),
        torch.from_numpy(rng.normal(140, 5, (count, 2, frames)).astype(np.float32)),
    )


def test_public_run_takes_its_statistics_from_the_recordings(twin, data_dir):
    for mouse_id, mouse in twin.mice.items():
        training = [Recording(data_dir / mouse_id).trial(i) for i in Recording(data_dir / mouse_id).trial_ids("train")]
        std = np.concatenate([trial.responses for trial in training], axis=1).std(axis=1)
        np.testing.assert_allclose(mouse.statistics["responses"]["std"], std, rtol=2e-3)


def test_public_run_answers_as_published_but_in_recorded_units(twin):
    """Inputs that standardise to the published ones; outputs are the published ones divided by the precision."""
    with np.load(PUBLIC / "io.npz", allow_pickle=False) as published:
        expected = published["responses_A"]
        ready = [
            torch.from_numpy(published[f"{name}_A"].astype(np.float32))
            for name in ("video", "behavior", "pupil_center")
        ]
    transforms = twin.transforms["A"]
    raw = (
        transforms.inverse_video(ready[0]),
        transforms.inverse_behavior(ready[1]),
        transforms.inverse_pupil_center(ready[2]),
    )
    responses = twin.respond("A", *raw) * transforms.precision[:, None]
    np.testing.assert_allclose(responses.numpy(), expected, atol=1e-4 * np.abs(expected).max())


def test_public_run_without_recordings_says_what_is_missing():
    with pytest.raises(UserError, match="--data_dir"):
        load_twin(PUBLIC, device="cpu")


def test_some_neurons_answer_as_they_do_among_all(twin):
    inputs = trials(np.random.default_rng(0), 40, count=2)
    chosen = [7, 0, 33]
    torch.testing.assert_close(
        twin.respond("A", *inputs, neurons=chosen), twin.respond("A", *inputs)[:, chosen], rtol=1e-4, atol=1e-5
    )


def test_missing_behaviour_is_the_mean_behaviour(twin):
    video, behavior, pupil_center = trials(np.random.default_rng(1), 30)
    statistics = twin.mice["A"].statistics
    behavior[:] = torch.from_numpy(statistics["behavior"]["mean"])[:, None]
    pupil_center[:] = torch.from_numpy(statistics["pupil_center"]["mean"])[:, None]
    torch.testing.assert_close(twin.respond("A", video), twin.respond("A", video, behavior, pupil_center))


@pytest.mark.parametrize("frames", [1, 13, 300, 315])
def test_trials_of_any_length_get_one_response_per_frame(twin, frames):
    inputs = trials(np.random.default_rng(2), frames)
    responses = twin.respond("A", *inputs, neurons=[0, 1])
    assert responses.shape == (1, 2, frames) and torch.isfinite(responses).all()


def test_long_trials_start_like_short_ones(twin):
    inputs = trials(np.random.default_rng(3), 310)
    whole = twin.respond("A", *inputs, neurons=[3])
    short = twin.respond("A", *(x[:, :, :300] for x in inputs), neurons=[3])
    torch.testing.assert_close(whole[..., :300], short)


def test_batches_hold_one_length_and_every_trial():
    lengths = {5: 300, 1: 300, 2: 315, 9: 300, 4: 315, 7: 10}
    batches = inference.equal_batches(lengths, 2)
    assert sorted(i for batch in batches for i in batch) == sorted(lengths)
    assert all(len({lengths[i] for i in batch}) == 1 and len(batch) <= 2 for batch in batches)


def test_bfloat16_answers_nearly_the_same(twin, data_dir):
    inputs = trials(np.random.default_rng(4), 40)
    half = load_twin(PUBLIC, device="cpu", precision="bf16", data_dir=data_dir).respond("A", *inputs)
    exact = twin.respond("A", *inputs)
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_unknown_mouse_is_told(twin):
    with pytest.raises(UserError, match="whose mice are A, B"):
        twin.respond("Z", *trials(np.random.default_rng(5), 10))
