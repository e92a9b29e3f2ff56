"""Tiny random recordings in the Sensorium 2023 layout, for every test that needs data."""

from pathlib import Path

import numpy as np
import pytest

REPEATED = {"oracle": 2, "live_test_main": 2, "live_test_bonus": 1, "final_test_main": 1, "final_test_bonus": 1}


def write_recording(
    folder: Path,
    num_neurons: int = 8,
    num_train: int = 6,
    frames: tuple[int, int] = (60, 70),
    padded: bool = False,
    withheld: tuple[str, ...] = ("final_test_main", "final_test_bonus"),
    unusable: int = 1,
    unmatched: tuple[int, ...] = (),
    frame_size: tuple[int, int] = (36, 64),
    seed: int = 0,
) -> Path:
    """Write one recording of random numbers and return its folder.

    Trials: `num_train` training movies, two showings of a clip in `oracle` and `live_test_main`, one in the other test
    tiers, `unusable` trials of tier none. Lengths are drawn from `frames`, both ends included. padded: float64 with
    NaN up to 324 frames, as published; else uint8 video and float32. withheld: tiers whose responses are zero.
    unmatched: neurons that are NaN throughout.
    """
    rng = np.random.default_rng(seed)
    tiers = (
        ["train"] * num_train + [tier for tier, shown in REPEATED.items() for _ in range(shown)] + ["none"] * unusable
    )
    rng.shuffle(tiers)
    clips: dict[str, np.ndarray] = {}
    for trial, tier in enumerate(tiers):
        length = int(rng.integers(frames[0], frames[1], endpoint=True))
        video = rng.integers(0, 256, (*frame_size, length)).astype(np.uint8)
        if REPEATED.get(tier, 1) > 1:
            video = clips.setdefault(tier, video)
            length = video.shape[-1]
        responses = rng.gamma(0.3, 10, (num_neurons, length)) * rng.uniform(0.5, 3, (num_neurons, 1))
        responses *= tier not in withheld
        responses[list(unmatched)] = np.nan
        running = np.abs(rng.normal(0, 3, length))
        arrays = {
            "videos": video,
            "responses": responses,
            "behavior": np.stack([rng.normal(50, 10, length), running]),
            "pupil_center": rng.normal(140, 6, (2, length)),
        }
        for name, array in arrays.items():
            path = folder / "data" / name / f"{trial}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, _pad(array) if padded else array.astype(np.uint8 if name == "videos" else np.float32))
    for name, array in {
        "meta/trials/tiers.npy": np.array(tiers),
        "meta/neurons/unit_ids.npy": rng.permutation(1000)[:num_neurons],
        "meta/neurons/cell_motor_coordinates.npy": rng.permutation(3 * num_neurons).reshape(num_neurons, 3) * 10,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, array)
    return folder


def _pad(array: np.ndarray, frames: int = 324) -> np.ndarray:
    padding = [(0, 0)] * (array.ndim - 1) + [(0, frames - array.shape[-1])]
    return np.pad(array.astype(np.float64), padding, constant_values=np.nan)


@pytest.fixture(scope="session")
def tiny_recording_dir(tmp_path_factory) -> Path:
    """A data directory with two small mice of one lab: tinyA (8 neurons) and tinyB (11). Read only."""
    data_dir = tmp_path_factory.mktemp("data")
    write_recording(data_dir / "tiny" / "tinyA", num_neurons=8, seed=1)
    write_recording(data_dir / "tiny" / "tinyB", num_neurons=11, num_train=4, padded=True, seed=2)
    return data_dir


def untrained_run(data_dir: Path, run_dir: Path) -> Path:
    """The run of an untrained causal twin of all mice below a folder, whose rates change from frame to frame."""
    import torch

    from viv1t.checkpoint import checkpoint_path, save_checkpoint
    from viv1t.data.cache import open_cache
    from viv1t.data.mice import find_recordings
    from viv1t.data.recording import Recording
    from viv1t.model import ModelConfig, build_model

    sizes = {"emb_dim": 8, "ff_dim": 8, "head_dim": 4, "spatial_depth": 1, "temporal_depth": 1, "reg_tokens": 0}
    flags = {f"core_{name}": size for name, size in sizes.items()}
    config = ModelConfig.from_flags(flags | {"core_spatial_patch_stride": 8, "core_use_causal_attention": True})
    mice = {id: open_cache(Recording(folder, id)).mouse() for id, folder in find_recordings(data_dir).items()}
    torch.manual_seed(0)
    model = build_model(config, mice).requires_grad_(False)
    for readout in model.readouts.values():
        readout.features.normal_()
    info = {"epoch": 1, "step": 1, "validation_correlation": 0.0}
    save_checkpoint(checkpoint_path(run_dir), config.to_flags(), mice, model.state_dict(), info)
    return run_dir


@pytest.fixture(scope="session")
def causal_run(tiny_recording_dir, tmp_path_factory) -> Path:
    """The run of an untrained causal twin of tinyA and tinyB. Read only."""
    return untrained_run(tiny_recording_dir / "tiny", tmp_path_factory.mktemp("causal") / "run")


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Path:
    """Two simulated mice of 60 neurons: simA saw Gaussian dots, simB drifting Gabors. Read only."""
    import runpy
    import sys

    data_dir = tmp_path_factory.mktemp("lab")
    flags = "--mice 2 --neurons 60 --trials 2 --clips 6 --repeats 1 --bonus_repeats 2 --num_workers 1"
    before, sys.argv = sys.argv, ["simulate.py", "--data_dir", str(data_dir), *flags.split()]
    try:
        runpy.run_path(str(Path(__file__).parents[1] / "data" / "simulate.py"), run_name="__main__")
    finally:
        sys.argv = before
    return data_dir


@pytest.fixture(scope="session")
def lab_twin(lab, tmp_path_factory) -> Path:
    """The run of an untrained twin of the mice of `lab`, predicted and scored. Read only: copy it."""
    import evaluate
    import predict
    from viv1t import baselines

    run_dir = untrained_run(lab, tmp_path_factory.mktemp("lab_twin") / "run")
    flags = ["--output_dir", str(run_dir), "--data_dir", str(lab)]
    predict.main(predict.get_parser().parse_args([*flags, "--device", "cpu"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "COMPONENTS", 5)
        evaluate.main(evaluate.get_parser().parse_args(flags))
    return run_dir


@pytest.fixture
def make_recording(tmp_path):
    """Factory: `make_recording(name="mouse", **write_recording's arguments)` -> folder, to be spoilt by the test."""

    def make(name: str = "mouse", **kwargs) -> Path:
        return write_recording(tmp_path / "data" / "lab" / name, **kwargs)

    return make
