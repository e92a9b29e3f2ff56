"""Neurons as a user names them: a count, a list of indices, or a file of indices."""

import re
from collections.abc import Sequence
from pathlib import Path

from viv1t.data import npy
from viv1t.errors import UserError
from viv1t.inference import Twin


def choose_neurons(flags: Sequence[str], twin: Twin, mouse_ids: Sequence[str]) -> dict[str, list[int]]:
    """Mouse -> indices, from words such as 100, 3,14,15, a file of indices, or mouseA=100 for one mouse only."""
    chosen = {}
    for flag in flags:
        mouse_id, equals, which = flag.partition("=")
        concerned = [twin.mouse(mouse_id).id] if equals else mouse_ids
        which = which if equals else flag
        for mouse_id in concerned:
            count = twin.mouse(mouse_id).num_neurons
            indices = range(int(which)) if which.isdecimal() else listed(which)
            if not indices or min(indices) < 0 or max(indices) >= count or len(set(indices)) < len(indices):
                raise UserError(
                    f"--neurons {flag}: mouse {mouse_id} has {count} neurons, 0 to {count - 1}; name each once."
                )
            chosen[mouse_id] = list(indices)
    return {mouse_id: chosen[mouse_id] for mouse_id in mouse_ids if mouse_id in chosen}


def listed(which: str) -> list[int]:
    """The indices of a file, .npy or text, or of a list (3,14,15; one alone is written 3,)."""
    path = Path(which)
    if path.suffix == ".npy" and path.is_file():
        indices = npy.load(path)
        if indices.dtype.kind not in "iu":
            raise UserError(f"{path}: holds {indices.dtype}; indices of neurons are integers.")
        return indices.ravel().tolist()
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else which
    words = [word for word in re.split(r"[\s,]+", text) if word]
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--neurons {which}: neither a count, nor indices (3,14,15), nor a file of them.")
    return [int(word) for word in words]
