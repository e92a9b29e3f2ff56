"""NumPy files read without trust: never unpickled, and checked against their own header."""

import io
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from viv1t.errors import UserError

_PREFIX = 256  # bytes read to find a header; published files have headers of 128 bytes
_LONGEST = 1 << 16


def load(path: Path, mapped: bool = False) -> np.ndarray:
    """The array of one file, in memory or memory-mapped. UserError if it is missing, broken or holds objects."""
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r" if mapped else None)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of several arrays")
        return array
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Copy or download the recording again.") from None
    except (ValueError, EOFError, OSError):
        check(path, os.path.getsize(path) if path.is_file() else 0)
        raise UserError(f"{path}: not a readable .npy file. Copy or download it again.") from None


def sizes(folder: Path) -> dict[int, int]:
    """Trial number -> bytes, for the files <number>.npy of a folder."""
    with os.scandir(folder) as entries:
        return {
            int(entry.name[:-4]): entry.stat().st_size
            for entry in entries
            if entry.name.endswith(".npy") and entry.name[:-4].isdecimal()
        }


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change (ns) of the files of a folder, by name; hidden files left out."""
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
            for entry in entries
            if entry.is_file() and not entry.name.startswith(".")
        )


def check(path: Path, size: int) -> tuple[int, ...]:
    """Shape of a file of `size` bytes, from its header alone; UserError unless it is a whole array of real numbers."""
    with open(path, "rb", buffering=0) as file:
        start = file.read(_PREFIX)
        size_bytes = 2 if start[6:7] == b"\x01" else 4  # of the header's length, by format version
        length = 8 + size_bytes + int.from_bytes(start[8 : 8 + size_bytes], "little")
        if len(start) < length < _LONGEST:
            start += file.read(length - len(start))
    try:
        shape, dtype, header = _parse(start[:length])
    except (ValueError, EOFError, SyntaxError):
        raise UserError(f"{path}: not a .npy file, or cut off in its header. Copy or download it again.") from None
    if dtype.kind not in "biuf":
        what = "Python objects, which are never loaded" if dtype.hasobject else f"{dtype} values"
        raise UserError(f"{path}: holds {what}; expected real numbers. Save it as float32.")
    expected = header + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size < expected:
        raise UserError(f"{path}: truncated ({size} of {expected} bytes). Copy or download it again.")
    return shape


@lru_cache(maxsize=1024)
def _parse(start: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and header length; cached since most files of a recording begin alike."""
    file = io.BytesIO(start)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype, file.tell()
