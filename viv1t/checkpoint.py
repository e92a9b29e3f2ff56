"""Run folders: weights, identity cards of the mice, and the state of a training run.

RUN/config.json           flags of the run, as words
RUN/ckpt/best.pt          weights with the highest validation correlation: what a twin is made of
RUN/ckpt/last.pt          end of the last epoch, with everything needed to go on
RUN/ckpt/step.pt          the same inside an epoch; removed when the epoch is over
RUN/twin.npz, twin.json   instead of ckpt/: an exported twin (`viv1t.portable`)

Runs of the public implementation (args.yaml, ckpt/model.pt, ckpt/info.yaml) open too. They know which neurons they
were trained on but not their statistics, which then come from the recordings.
"""

import contextlib
import fcntl
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from viv1t import io, portable
from viv1t.data.locking import is_at
from viv1t.data.mouse import Mouse
from viv1t.errors import UserError
from viv1t.geometry import Monitor
from viv1t.model.build import load_strictly
from viv1t.model.config import ModelConfig
from viv1t.results import locate

FORMAT = 1
UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint file, or a run of the public implementation, holds.

    config: flat flags as words. mice: None when neither the file nor a recording told. neurons: row of every neuron in
    its recording, per mouse. info: epoch, step, validation_correlation. training: state to go on from, or None.
    """

    path: Path
    config: dict
    mice: dict[str, Mouse] | None
    neurons: dict[str, np.ndarray]
    model_state: dict[str, Tensor]
    info: dict
    training: dict | None = field(default=None, repr=False)

    @property
    def model_config(self) -> ModelConfig:
        return ModelConfig.from_flags(self.config)


def checkpoint_path(run_dir: Path | str, which: str = "best") -> Path:
    return Path(run_dir) / "ckpt" / f"{which}.pt"


def save_checkpoint(
    path: Path,
    config: dict,
    mice: dict[str, Mouse],
    model_state: dict[str, Tensor],
    info: dict,
    training: dict | None = None,
) -> None:
    """Write one file atomically; a full disk raises OSError and leaves the previous file as it was."""
    content = {
        "format": FORMAT,
        "config": config,
        "mice": {mouse_id: pack_mouse(mouse) for mouse_id, mouse in mice.items()},
        "model": {key: value.detach().cpu() for key, value in model_state.items()},
        **info,
    }
    if training is not None:
        content["training"] = training
    with io.replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def load_checkpoint(run_dir: Path | str, which: str = "best", data_dir: Path | str | None = None) -> Checkpoint:
    """Open RUN/ckpt/<which>.pt, or a run of the public implementation.

    `data_dir`: where the recordings of a public run are; without it its `mice` are None.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such run folder. Train one with train.py --output_dir {run_dir}.")
    path = checkpoint_path(run_dir, which)
    if not path.exists() and which == "best" and portable.is_portable(run_dir):
        return _unpack(run_dir / portable.ARRAYS, portable.read(run_dir))
    if not path.exists() and (run_dir / "args.yaml").exists():
        return _load_public_run(run_dir, data_dir)
    if not path.exists() and locate(run_dir, "ensemble").is_file():
        raise UserError(f"{run_dir}: an ensemble, which has no weights of its own. Name one of the runs it averages.")
    if not path.exists():
        raise UserError(f"{path}: no such file; no epoch of this run was completed. Run its train.py command again.")
    return _unpack(path, read_tensors(path))


def export(run_dir: Path | str, folder: Path, card: dict) -> None:
    """Write weights, mice and flags of a run as the files of `viv1t.portable`: a folder that opens like the run."""
    checkpoint = load_checkpoint(run_dir)
    if checkpoint.mice is None:
        raise UserError(
            f"{run_dir}: a run of the public implementation keeps no statistics, so it cannot be exported."
        )
    mice = {mouse_id: pack_mouse(mouse) for mouse_id, mouse in checkpoint.mice.items()}
    config = checkpoint.config | {"output_dir": f"runs/{Path(folder).name}", "data_dir": "data"}  # not of this machine
    content = {"format": FORMAT, "config": config, "mice": mice, "model": checkpoint.model_state}
    portable.write(folder, content | checkpoint.info, card)
    io.write_json(folder / "config.json", config)


def _unpack(path: Path, content: dict) -> Checkpoint:
    if not isinstance(content, dict) or not {"format", "config", "mice", "model"} <= content.keys():
        raise UserError(f"{path}: not a checkpoint of viv1t. Give the folder that train.py wrote.")
    if content["format"] > FORMAT:
        raise UserError(f"{path}: written by a newer viv1t (format {content['format']}). Update with pip install -U.")
    mice = {mouse_id: unpack_mouse(packed) for mouse_id, packed in content["mice"].items()}
    info = {key: content[key] for key in ("epoch", "step", "validation_correlation")}
    neurons = {mouse_id: mouse.neurons for mouse_id, mouse in mice.items()}
    return Checkpoint(path, content["config"], mice, neurons, content["model"], info, content.get("training"))


def read_tensors(path: Path) -> dict:
    """A file of torch.save, restricted to tensors and plain values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except UNREADABLE as error:
        reason = str(error).split(".")[0].split("\n")[0]
        raise UserError(
            f"{path}: damaged or not a checkpoint ({reason}). Restore it, or train again with --clear_output_dir."
        ) from None


def load_weights(model: torch.nn.Module, state: dict[str, Tensor], source: Path | str) -> None:
    """Load all weights strictly; the error names the file they came from."""
    try:
        load_strictly(model, state)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def load_core(model: torch.nn.Module, state: dict[str, Tensor], source: Path | str) -> tuple[list[str], list[str]]:
    """Copy the `core.*` weights only; returns the names that were loaded and the core's own that kept their values."""
    core = {key: value for key, value in state.items() if key.startswith("core.")}
    own = {key: value for key, value in model.state_dict().items() if key.startswith("core.")}
    for key, value in core.items():
        if key in own and own[key].shape != value.shape:
            raise UserError(
                f"{source}: core weight '{key}' is {tuple(value.shape)}, this model needs {tuple(own[key].shape)}. "
                "Give the --core_* flags of the pretrained run."
            )
    loaded = [key for key in own if key in core]
    if not loaded:
        raise UserError(f"{source}: holds no weights of this core. Give a run with the same --core.")
    model.load_state_dict({key: core[key] for key in loaded}, strict=False)
    return loaded, [key for key in own if key not in core]


def pack_mouse(mouse: Mouse) -> dict:
    """A Mouse as tensors, strings and numbers."""
    arrays = {
        name: torch.from_numpy(np.array(getattr(mouse, name))) for name in ("coordinates", "unit_ids", "neurons")
    }
    statistics = {
        variable: {name: torch.from_numpy(np.array(value)) for name, value in values.items()}
        for variable, values in mouse.statistics.items()
    }
    return {
        "id": mouse.id,
        **arrays,
        "statistics": statistics,
        "monitor": mouse.monitor and mouse.monitor.to_dict(),
        "fps": float(mouse.fps),
        "train_size": int(mouse.train_size),
    }


def unpack_mouse(packed: dict) -> Mouse:
    values = {key: value.numpy() if isinstance(value, Tensor) else value for key, value in packed.items()}
    values["statistics"] = {
        variable: {name: value.numpy() for name, value in statistics.items()}
        for variable, statistics in packed["statistics"].items()
    }
    values["monitor"] = packed["monitor"] and Monitor(**packed["monitor"])
    return Mouse(**values)


def _load_public_run(run_dir: Path, data_dir: Path | str | None) -> Checkpoint:
    args = _read_yaml(run_dir / "args.yaml")
    info = _read_yaml(run_dir / "ckpt" / "info.yaml")
    state = read_tensors(run_dir / "ckpt" / "model.pt")
    neurons = {mouse_id: np.array(rows, dtype=np.int64) for mouse_id, rows in (args.get("neuron_idx") or {}).items()}
    return Checkpoint(
        path=run_dir / "ckpt" / "model.pt",
        config=_translate(args),
        mice=_mice_from_recordings(data_dir, neurons) if data_dir else None,
        neurons=neurons,
        model_state={key.replace("_orig_mod.", ""): value for key, value in state.items()},
        info={
            "epoch": int(info.get("epoch", 0)),
            "step": 0,
            "validation_correlation": float(info.get("best_corr", float("nan"))),
        },
    )


TRANSFORMS = ("none", "standardise", "minmax")
DERIVED = ("neuron_idx", "input_shapes", "output_shapes", "train_sizes", "trainable_params", "git_hash", "hostname")


def _translate(args: dict) -> dict:
    """Flags of the public implementation with words in place of integer codes."""
    config = {key: value for key, value in args.items() if key not in DERIVED}
    for key in ("transform_input", "transform_output"):
        if isinstance(config.get(key), int):
            config[key] = TRANSFORMS[config[key]]
    return config | ModelConfig.from_flags(args).to_flags()


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a run of the public implementation needs it.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a table of flags.")
    return content


def _mice_from_recordings(data_dir: Path | str, neurons: dict[str, np.ndarray]) -> dict[str, Mouse]:
    from viv1t.data.cache import open_cache
    from viv1t.data.mice import find_recordings
    from viv1t.data.recording import Recording

    folders = find_recordings(data_dir, list(neurons))
    mice = {}
    for mouse_id, folder in folders.items():
        recording = Recording(folder, mouse_id)
        if neurons[mouse_id].size and neurons[mouse_id].max() >= recording.num_neurons:
            raise UserError(
                f"{folder}: has {recording.num_neurons} neurons; the run used neuron {neurons[mouse_id].max()}."
            )
        mice[mouse_id] = open_cache(recording).mouse(neurons[mouse_id])
    return mice


def same_mouse(a: Mouse, b: Mouse) -> bool:
    """Whether two identity cards describe the same neurons of the same recording."""
    return (
        np.array_equal(a.unit_ids, b.unit_ids)
        and np.array_equal(a.neurons, b.neurons)
        and all(
            np.allclose(a.statistics[variable]["mean"], b.statistics[variable]["mean"], rtol=1e-3, equal_nan=True)
            for variable in a.statistics
        )
    )


class RunLock(contextlib.AbstractContextManager):
    """Hold RUN/.lock while writing a run folder; the lock vanishes with the process, however it ends."""

    def __init__(self, run_dir: Path | str):
        self.path = Path(run_dir) / ".lock"
        self.file = None

    def __enter__(self) -> "RunLock":
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "a+", encoding="utf-8")
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.file.seek(0)
                owner = self.file.read().strip()
                self.file.close()
                raise UserError(
                    f"{self.path.parent}: another process{f' (pid {owner})' if owner else ''} is writing this run. "
                    "Wait for it or give another --output_dir."
                ) from None
            if is_at(self.file, self.path):
                break
            self.file.close()
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()
        return self

    def __exit__(self, *_) -> None:
        self.path.unlink(missing_ok=True)
        self.file.close()
        with contextlib.suppress(OSError):  # a folder in which nothing was written goes too
            self.path.parent.rmdir()
