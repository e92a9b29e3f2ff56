"""Where the responses of a live twin go: JSON lines, or one array for each mouse, both in bounded memory.

Whatever ends a session, a full disk too, what was written until then stays and can be read. Nothing is overwritten.
"""

import json
import math
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from viv1t import io
from viv1t.errors import UserError
from viv1t.streaming.protocol import Frame

Rates = dict[str, np.ndarray]


def open_sink(place: str, header: dict, neurons: dict[str, int]) -> "JsonLines | Arrays":
    """The sink for `-` (standard output), a file .jsonl or a folder; neurons: how many, for each mouse."""
    suffix = Path(place).suffix.lower()
    if suffix in (".npy", ".npz", ".json", ".csv", ".txt", ".h5"):
        raise UserError(f"--out {place}: responses go to - (standard output), a file .jsonl, or a folder of arrays.")
    if place == "-" or suffix == ".jsonl":
        return JsonLines(place, header)
    return Arrays(place, header, neurons)


class JsonLines:
    """A line for the header and one for each frame: its number, its time, and {mouse: rates}.

    A line is handed to the system as soon as it is complete, so that others can follow the file while it grows.
    """

    def __init__(self, place: str, header: dict):
        self.place = place
        try:
            self.file = sys.stdout.buffer if place == "-" else open(place, "xb", buffering=0)  # noqa: SIM115
        except FileExistsError:
            raise UserError(f"--out {place}: exists already and is not overwritten. Name another.") from None
        except FileNotFoundError:
            raise UserError(f"--out {place}: there is no folder {Path(place).parent}.") from None
        self._line(header)

    def write(self, frame: Frame, rates: Rates) -> None:
        told = {"frame": frame.number, "time": frame.time, "first": frame.first}
        self._line(told | {"rates": {mouse_id: _numbers(values) for mouse_id, values in rates.items()}})

    def close(self) -> None:
        if self.place != "-":
            self.file.close()

    def _line(self, content: dict) -> None:
        start = 0 if self.place == "-" else self.file.tell()
        try:
            write_all(self.file, (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode())
            self.file.flush()
        except OSError as error:
            if self.place != "-":
                self.file.truncate(start)  # no half line
            raise OSError(error.errno, os.strerror(error.errno), self.place) from error


class Arrays:
    """A folder with a row for each frame: mouse<ID>.npy (T, N) float32, frames.npy (T,), times.npy (T,) in seconds.

    session.json holds the header and the rows where sessions begin. Files grow under temporary names.
    """

    def __init__(self, place: str, header: dict, neurons: dict[str, int]):
        self.folder, self.header, self.starts = Path(place), header, []
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UserError(f"--out {place}: exists already and is not overwritten. Name another.")
        shapes = {f"mouse{mouse_id}": ("<f4", (count,)) for mouse_id, count in neurons.items()}
        shapes |= {"times": ("<f8", ()), "frames": ("<i8", ())}  # frames last: a row is complete when it has a number
        with ExitStack() as stack:
            self.rows = {}
            for name, (dtype, shape) in shapes.items():
                temporary = stack.enter_context(io.replacing(self.folder / f"{name}.npy"))
                file = stack.enter_context(open(temporary, "wb", buffering=0))
                self.rows[name] = Rows(file, np.dtype(dtype), shape)
            self.files = stack.pop_all()

    def write(self, frame: Frame, rates: Rates) -> None:
        if frame.first:
            self.starts.append(self.rows["frames"].length)
        values = {f"mouse{mouse_id}": values for mouse_id, values in rates.items()}
        values |= {"times": math.nan if frame.time is None else frame.time, "frames": frame.number}
        try:
            for name, rows in self.rows.items():
                rows.append(values[name])
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno), str(self.folder)) from error

    def close(self) -> None:
        complete = self.rows["frames"].length
        for rows in self.rows.values():
            rows.finish(complete)
        self.files.close()
        starts = [row for row in self.starts if row < complete]
        io.write_json(self.folder / "session.json", self.header | {"rows": complete, "starts": starts})


class Rows:
    """An array in .npy format that grows along its first axis, in an open file without buffer."""

    def __init__(self, file, dtype: np.dtype, shape: tuple[int, ...]):
        self.file, self.dtype, self.shape, self.length = file, dtype, shape, 0
        self._header(0)

    def append(self, values) -> None:
        write_all(self.file, np.asarray(values, self.dtype).reshape(self.shape).tobytes())
        self.length += 1

    def finish(self, length: int) -> None:
        """Keep the first `length` rows."""
        start = self._header(length)
        self.file.truncate(start + length * self.dtype.itemsize * math.prod(self.shape))

    def _header(self, length: int) -> int:
        """Write the header, which NumPy makes equally long for every length; how long it is."""
        self.file.seek(0)
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": (length, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, described)
        return self.file.tell()


def write_all(file, data: bytes) -> None:
    """Write to a file without buffer, which may take less than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON knows no other numbers than finite ones."""
    numbers = values.tolist()
    return numbers if np.isfinite(values).all() else [x if math.isfinite(x) else None for x in numbers]
