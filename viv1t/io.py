"""Files that are whole or absent: everything is written to a temporary file and renamed."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import uuid
from pathlib import Path

import numpy as np

from viv1t.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, quota of the user, limit of the process


@contextlib.contextmanager
def replacing(path: Path | str):
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`, else remove it.

    A full disk raises OSError with the name of the file, whatever the library that wrote it made of the failure.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        number = _no_space(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _no_space(error: BaseException | None) -> int | None:
    """The errno, if an error or one that led to it says that the disk is full; HDF5 may say so in words only."""
    while error is not None:
        told = re.search(r"errno = (\d+)", str(error))
        number = error.errno if isinstance(error, OSError) else int(told.group(1)) if told else None
        if number in NO_SPACE:
            return number
        error = error.__context__
    return None


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed process left in `folder`."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def open_parts(folder: Path, settings: dict) -> None:
    """A folder for the finished parts of a long job; what was made with other settings is dropped."""
    told = folder / "settings.json"
    if not told.is_file() or read_json(told) != settings:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(told, settings)
    remove_leftovers(folder)


def write_text(path: Path | str, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, content) -> None:
    write_text(path, json.dumps(content, indent=2, default=_plain) + "\n")


def read_json(path: Path | str):
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Delete it and make it again.") from None


def write_array(path: Path | str, array: np.ndarray) -> None:
    content = io.BytesIO()  # written by Python: `np.save` to a file on a full disk can lose its last bytes silently
    np.save(content, array, allow_pickle=False)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def write_table(path: Path | str, table) -> None:
    """A pandas table as CSV with full float precision."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
