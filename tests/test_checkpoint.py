"""A checkpoint gives back what was put in, holds no code, and says in one line what is wrong with it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from viv1t.checkpoint import (
    RunLock,
    checkpoint_path,
    load_checkpoint,
    load_core,
    load_weights,
    same_mouse,
    save_checkpoint,
)
from viv1t.data.mouse import Mouse
from viv1t.errors import UserError
from viv1t.geometry import ROCHEFORT
from viv1t.model.build import build_model
from viv1t.model.config import ModelConfig

PARITY = Path(__file__).parent / "data" / "parity"
FLAGS = {
    "core_emb_dim": 8,
    "core_head_dim": 4,
    "core_ff_dim": 8,
    "core_spatial_depth": 1,
    "core_temporal_depth": 1,
    "core_spatial_patch_stride": 8,
    "core_temporal_patch_size": 3,
}


def make_mouse(mouse_id="A", N=5, seed=0):
    rng = np.random.default_rng(seed)

    def statistics(*shape):
        return {name: rng.random(shape).astype(np.float32) for name in ("min", "max", "median", "mean", "std")}

    return Mouse(
        id=mouse_id,
        coordinates=rng.random((N, 3)).astype(np.float32),
        unit_ids=rng.permutation(100)[:N],
        neurons=np.arange(N),
        statistics={
            "video": statistics(),
            "responses": statistics(N),
            "behavior": statistics(2),
            "pupil_center": statistics(2),
        },
        monitor=ROCHEFORT,
        fps=25.0,
        train_size=7,
    )


@pytest.fixture
def model():
    return build_model(ModelConfig.from_flags(FLAGS), {"A": make_mouse()})


@pytest.fixture
def run(tmp_path, model):
    """A run folder with best.pt."""
    config = ModelConfig.from_flags(FLAGS).to_flags()
    info = {"epoch": 3, "step": 30, "validation_correlation": 0.25}
    save_checkpoint(checkpoint_path(tmp_path), config, {"A": make_mouse()}, model.state_dict(), info)
    return tmp_path


def test_a_checkpoint_is_enough_to_build_the_same_model(run, model):
    loaded = load_checkpoint(run)
    twin = build_model(loaded.model_config, loaded.mice)
    load_weights(twin, loaded.model_state, loaded.path)
    assert loaded.info == {"epoch": 3, "step": 30, "validation_correlation": 0.25}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))


def test_identity_card_survives(run):
    before, after = make_mouse(), load_checkpoint(run).mice["A"]
    assert (after.id, after.monitor, after.fps, after.train_size) == ("A", ROCHEFORT, 25.0, 7)
    for name in ("coordinates", "unit_ids", "neurons"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype
    for variable, values in before.statistics.items():
        for name, value in values.items():
            np.testing.assert_array_equal(after.statistics[variable][name], value)
    assert same_mouse(before, after) and not same_mouse(after, make_mouse(seed=1))


def test_missing_run_and_missing_epoch_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no epoch of this run"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "other content"])
def test_damaged_file_is_one_line(run, damage):
    path = checkpoint_path(run)
    if damage == "other content":
        torch.save({"weights": torch.zeros(1)}, path)
    else:
        content = {"truncated": path.read_bytes()[:5000], "empty": b"", "garbage": b"hello" * 100}[damage]
        path.write_bytes(content)
    with pytest.raises(UserError, match="best.pt: ") as error:
        load_checkpoint(run)
    assert "\n" not in str(error.value)


def test_code_in_a_checkpoint_is_refused(run, tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"format": 1, "config": {}, "mice": {}, "model": Payload()}, checkpoint_path(run))
    with pytest.raises(UserError):
        load_checkpoint(run)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_shape_name_the_file(run):
    other = build_model(ModelConfig.from_flags(FLAGS), {"A": make_mouse(N=6)})
    checkpoint = load_checkpoint(run)
    with pytest.raises(UserError, match=r"best\.pt: .*readouts\.A"):
        load_weights(other, checkpoint.model_state, checkpoint.path)


def test_core_of_another_run_is_taken_alone(run):
    torch.manual_seed(1)
    other = build_model(ModelConfig.from_flags(FLAGS), {"B": make_mouse("B", N=6)})
    features = other.readouts["B"].features.clone()
    checkpoint = load_checkpoint(run)
    loaded, kept = load_core(other, checkpoint.model_state, checkpoint.path)
    assert loaded and not kept
    for name, value in other.core.state_dict().items():
        assert torch.equal(value, checkpoint.model_state[f"core.{name}"])
    assert torch.equal(other.readouts["B"].features, features)


def test_core_of_another_width_is_refused(run):
    other = build_model(ModelConfig.from_flags({**FLAGS, "core_emb_dim": 10}), {"A": make_mouse()})
    checkpoint = load_checkpoint(run)
    with pytest.raises(UserError, match="--core_"):
        load_core(other, checkpoint.model_state, checkpoint.path)


@pytest.mark.parametrize("name", ["vivit_default_small", "vivit_learned_pos_small", "vivit_qknorm_swiglu_small"])
def test_runs_of_the_public_implementation_open(name):
    run = load_checkpoint(PARITY / name)
    assert run.mice is None and run.info["epoch"] > 0 and 0 < run.info["validation_correlation"] < 1
    assert set(run.neurons) == {"A", "B"} and run.config["transform_input"] == "standardise"
    mice = {mouse_id: make_mouse(mouse_id, N=len(rows)) for mouse_id, rows in run.neurons.items()}
    model = build_model(run.model_config, mice)
    model.load_reference_state(run.model_state)
    assert torch.equal(model.readouts["A"].features, run.model_state["readouts.A.features"])


def test_incomplete_public_run_names_the_missing_file(tmp_path):
    (tmp_path / "args.yaml").write_text("core: vivit\n")
    with pytest.raises(UserError, match=r"info\.yaml"):
        load_checkpoint(tmp_path)


def test_two_processes_never_write_one_run(tmp_path):
    code = """
import sys
from viv1t.checkpoint import RunLock
with RunLock(sys.argv[1]):
    print("in", flush=True)
    input()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=f"pid {other.pid}"), RunLock(tmp_path):
            pass
        other.kill()
        other.wait()
        with RunLock(tmp_path):  # the lock died with its process
            pass
