"""Prediction files hold every trial, in recorded units, whole, and in the same bytes however often we are stopped."""

import shutil

import numpy as np
import pytest
import torch

import predict
from viv1t import io
from viv1t.checkpoint import checkpoint_path, save_checkpoint
from viv1t.data.cache import open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.inference import load_twin
from viv1t.model.build import build_model
from viv1t.model.config import ModelConfig
from viv1t.results import Responses

FLAGS = {
    "core_emb_dim": 8,
    "core_ff_dim": 8,
    "core_head_dim": 4,
    "core_num_heads": 2,
    "core_spatial_depth": 1,
    "core_temporal_depth": 1,
    "core_spatial_patch_stride": 8,
    "core_reg_tokens": 2,
    "core_use_causal_attention": True,
    "max_frame": 70,
}


@pytest.fixture(scope="module")
def data_dir(tiny_recording_dir):
    return tiny_recording_dir / "tiny"


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A run folder with an untrained twin of tinyA (5 of its 8 neurons) and tinyB."""
    run_dir = tmp_path_factory.mktemp("run")
    rows = {"tinyA": np.array([0, 2, 3, 5, 7]), "tinyB": np.arange(11)}
    mice = {id: open_cache(Recording(folder, id)).mouse(rows[id]) for id, folder in find_recordings(data_dir).items()}
    config = ModelConfig.from_flags(FLAGS)
    torch.manual_seed(0)
    model = build_model(config, mice)
    info = {"epoch": 1, "step": 1, "validation_correlation": 0.0}
    save_checkpoint(checkpoint_path(run_dir), config.to_flags(), mice, model.state_dict(), info)
    return run_dir


@pytest.fixture
def run_dir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def run(run_dir, data_dir, *flags):
    arguments = ["--output_dir", str(run_dir), "--data_dir", str(data_dir), "--device", "cpu", *map(str, flags)]
    predict.main(predict.get_parser().parse_args(arguments))


def test_every_usable_trial_of_every_tier_is_predicted_whole(run_dir, data_dir):
    run(run_dir, data_dir)
    for mouse_id, neurons in (("tinyA", 5), ("tinyB", 11)):
        recording = Recording(data_dir / mouse_id)
        with Responses(run_dir / "responses" / f"mouse{mouse_id}.h5") as file:
            assert list(file.tiers) == recording.usable.tolist()
            for trial, tier in file.tiers.items():
                assert tier == recording.tiers[trial]
                assert file.shape(trial) == (neurons, recording.frames(trial))
                assert np.isfinite(file.read(trial)).all()
            assert file.attributes["skip"] == 0 and file.attributes["units"] == "recorded"


def test_responses_are_the_twins_in_recorded_units(run_dir, data_dir):
    run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", "validation")
    twin = load_twin(run_dir, "cpu")
    recording = Recording(data_dir / "tinyA")
    with Responses(run_dir / "responses" / "mousetinyA.h5") as file:
        i = file.trial_ids("validation")[0]
        saved = file.read(i)
    trial, transforms = recording.trial(i), twin.transforms["tinyA"]
    inputs = [torch.tensor(x)[None] for x in (trial.video[None], trial.behavior, trial.pupil_center)]
    inputs = (transforms.video(inputs[0]), transforms.behavior(inputs[1]), transforms.pupil_center(inputs[2]))
    standardised = twin.model.predict("tinyA", *inputs)[0]
    expected = standardised / transforms.precision[:, None]
    np.testing.assert_allclose(saved, expected.numpy(), rtol=1e-4, atol=1e-6)
    run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", "validation", "--units", "standardised")
    with Responses(run_dir / "responses" / "mousetinyA.h5") as file:
        np.testing.assert_allclose(file.read(i), standardised.numpy(), rtol=1e-4, atol=1e-6)


def test_a_killed_run_ends_in_the_same_bytes(run_dir, data_dir, tmp_path, monkeypatch):
    undisturbed = shutil.copytree(run_dir, tmp_path / "undisturbed")
    run(undisturbed, data_dir, "--batch_size", 2)
    written = []

    def write_three(path, array):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        io_write_array(path, array)

    io_write_array = io.write_array
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(io, "write_array", write_three)
        run(run_dir, data_dir, "--batch_size", 2)
    assert not list((run_dir / "responses").glob("*.h5"))
    first = written[0].read_bytes(), written[0].stat().st_mtime_ns
    run(run_dir, data_dir, "--batch_size", 2, "--mouse_ids", "tinyB")
    assert (written[0].read_bytes(), written[0].stat().st_mtime_ns) == first
    run(run_dir, data_dir, "--batch_size", 2)
    for mouse_id in ("tinyA", "tinyB"):
        ours, theirs = (folder / "responses" / f"mouse{mouse_id}.h5" for folder in (run_dir, undisturbed))
        assert ours.read_bytes() == theirs.read_bytes()
    assert not list((run_dir / "responses").glob(".*.parts"))


def test_tiers_add_up_and_a_second_run_does_nothing(run_dir, data_dir, capsys):
    for tiers in (["validation"], ["oracle", "live_main"]):
        run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", *tiers)
    path = run_dir / "responses" / "mousetinyA.h5"
    with Responses(path) as file:
        assert set(file.tiers.values()) == {"validation", "live_main"}
    before = path.stat().st_mtime_ns
    run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", "live_main")
    assert path.stat().st_mtime_ns == before and "nothing to predict" in capsys.readouterr().out


def test_new_weights_replace_old_predictions(run_dir, data_dir):
    run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", "validation")
    path = run_dir / "responses" / "mousetinyA.h5"
    with Responses(path) as file:
        trial = file.trial_ids("validation")[0]
        old = file.read(trial)
    content = torch.load(checkpoint_path(run_dir), weights_only=True)
    content["model"]["readouts.tinyA.bias"] += 1.0
    torch.save(content, checkpoint_path(run_dir))
    run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", "validation")
    with Responses(path) as file:
        assert not np.allclose(file.read(trial), old)


def test_skip_drops_frames_at_the_start(run_dir, data_dir):
    run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", "validation")
    path = run_dir / "responses" / "mousetinyA.h5"
    with Responses(path) as file:
        trial = file.trial_ids("validation")[0]
        whole = file.read(trial)
    run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", "validation", "--skip", 50)
    with Responses(path) as file:
        np.testing.assert_array_equal(file.read(trial), whole[:, 50:])
    with pytest.raises(UserError, match="leaves nothing of trial"):
        run(run_dir, data_dir, "--mouse_ids", "tinyA", "--ds_tier", "validation", "--skip", 500)


def test_wrong_names_are_told(run_dir, data_dir):
    with pytest.raises(UserError, match="did you mean 'validation'"):
        run(run_dir, data_dir, "--ds_tier", "validaton")
    with pytest.raises(UserError, match="did you mean 'tiny"):
        run(run_dir, data_dir, "--mouse_ids", "tinyC")
