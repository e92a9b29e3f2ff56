"""Whose responses a run folder holds: those of its own twin, or the mean over an ensemble of other runs' twins.

RUN/ensemble.json lists the members of an ensemble: `path` relative to RUN, `checkpoint` the hash of the weights whose
predictions were averaged.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from viv1t import io
from viv1t.checkpoint import load_checkpoint
from viv1t.errors import UserError
from viv1t.inference import file_hash
from viv1t.results import locate


@dataclass(frozen=True)
class Origin:
    """neurons: row of every neuron in its recording, per mouse; hash: of the weights, of all members' if several."""

    neurons: dict[str, np.ndarray]
    hash: str


def origin_of(run_dir: Path | str) -> Origin:
    """The twin of a run folder, or all of an ensemble; UserError where a member has other weights by now."""
    if not is_ensemble(run_dir):
        return twin_of(run_dir)
    path = locate(run_dir, "ensemble")
    twins = []
    for member in io.read_json(path)["members"]:
        folder = os.path.normpath(Path(run_dir) / member["path"])
        twins.append(twin_of(folder))
        if twins[-1].hash != member["checkpoint"]:
            raise UserError(
                f"{path}: {folder} has other weights now than those averaged. "
                f"Run predict.py and evaluate.py on it, then ensemble.py --output_dir {run_dir} again."
            )
    return together(twins)


def is_ensemble(run_dir: Path | str) -> bool:
    return locate(run_dir, "ensemble").is_file()


def twin_of(run_dir: Path | str) -> Origin:
    checkpoint = load_checkpoint(run_dir)
    return Origin(checkpoint.neurons, file_hash(checkpoint.path))


def together(twins: list[Origin]) -> Origin:
    """An ensemble of twins of the same neurons."""
    return Origin(twins[0].neurons, hashlib.sha256(" ".join(twin.hash for twin in twins).encode()).hexdigest()[:16])


def write_members(run_dir: Path | str, folders: list[Path], twins: list[Origin]) -> None:
    """RUN/ensemble.json; paths are relative, so that runs can be moved together with their ensemble."""
    members = [
        {"path": os.path.relpath(folder, run_dir), "checkpoint": twin.hash}
        for folder, twin in zip(folders, twins, strict=True)
    ]
    io.write_json(locate(run_dir, "ensemble"), {"members": members})
