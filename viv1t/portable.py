"""A trained twin as two files that anyone can read and check: arrays in twin.npz, all else in twin.json.

Nothing in them is executed when they are read (no pickle). twin.json holds the SHA-256 of the arrays, the content of
the checkpoint with `{"array": name}` in place of every array, and a model card.
"""

import hashlib
import io as memory
import json
import zipfile
from pathlib import Path

import numpy as np
import torch

from viv1t import io
from viv1t.errors import UserError

ARRAYS, TOLD = "twin.npz", "twin.json"


def is_portable(folder: Path) -> bool:
    return (folder / TOLD).is_file()


def write(folder: Path, content: dict, card: dict) -> None:
    """Write nested dicts of tensors and plain values, and the card (plain values)."""
    arrays: dict[str, np.ndarray] = {}
    told = _take_out(content, arrays, "")
    packed = memory.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    with io.replacing(folder / ARRAYS) as temporary:
        temporary.write_bytes(packed.getbuffer())
    digest = hashlib.sha256(packed.getbuffer()).hexdigest()
    io.write_json(folder / TOLD, {"card": card, "sha256": digest, "content": told})


def read(folder: Path) -> dict:
    """The content that `write` wrote, arrays as tensors. UserError if a file is missing, damaged or was exchanged."""
    told, path = io.read_json(folder / TOLD), folder / ARRAYS
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it belongs to {folder / TOLD}. Restore both.") from None
    if hashlib.sha256(data).hexdigest() != told.get("sha256"):
        raise UserError(f"{path}: damaged or not the file that {TOLD} describes (SHA-256 differs). Restore both.")
    try:
        with np.load(memory.BytesIO(data), allow_pickle=False) as arrays:
            return _put_back(told["content"], arrays)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder / TOLD}: does not fit {ARRAYS} ({error}). Restore both.") from None


def _take_out(value, arrays: dict, name: str):
    if isinstance(value, torch.Tensor | np.ndarray):
        arrays[name] = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        return {"array": name}
    if isinstance(value, dict):
        return {key: _take_out(part, arrays, f"{name}/{key}".lstrip("/")) for key, part in value.items()}
    return json.loads(json.dumps(value, default=float))


def _put_back(value, arrays):
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return torch.from_numpy(arrays[value["array"]])
        return {key: _put_back(part, arrays) for key, part in value.items()}
    return value
