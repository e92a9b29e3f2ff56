"""One writer at a time, even across processes and after a kill."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from viv1t.errors import UserError


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold an advisory lock on `path`, which the system releases when the process ends, however it ends.

    While another process holds it: wait, or raise UserError(busy) if a message is given. The file goes with the lock.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError:
                raise UserError(busy) from None
            if not is_at(file, path):
                continue
            try:
                yield
                return
            finally:
                path.unlink(missing_ok=True)


def is_at(file, path: Path) -> bool:
    """Whether an open file still lies at `path`; a lock on one that its last holder removed would protect nothing."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))
