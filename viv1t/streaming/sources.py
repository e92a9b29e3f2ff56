"""Where the frames of a live twin come from: a movie, a folder of frames, or messages on standard input.

Movies have a length and give frames (H, W) of grey levels 0..255 in the size that the twin takes. Frames of another
size are refused unless `resize` allows to average them over the area of each new pixel.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from viv1t.constants import FPS
from viv1t.data import npy
from viv1t.errors import UserError
from viv1t.movies import SUFFIXES, area_matrix, frame_size, read_frames
from viv1t.streaming.protocol import PREFIX, Bye, Conversation, Frame, Hello, ProtocolError, parse_prefix
from viv1t.streaming.waiting import Waiting

IMAGES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff")


class ArrayMovie:
    """Frames of a .npy file (T, H, W), read while they are shown."""

    def __init__(self, path: Path, size: tuple[int, int], resize: bool):
        self.path, self.movie = path, npy.load(path, mapped=True)
        if self.movie.ndim != 3 or self.movie.dtype.kind not in "uif":
            raise UserError(
                f"{path}: must hold grey levels (frames, height, width), has {self.movie.dtype} {self.movie.shape}."
            )
        if self.movie.shape[:2] == size != self.movie.shape[1:]:
            raise UserError(f"{path}: has {self.movie.shape}, frames last; save it as (frames, height, width).")
        self.fit = fitted(self.movie.shape[1:], size, resize, path)

    def __len__(self) -> int:
        return len(self.movie)

    def __iter__(self) -> Iterator[np.ndarray]:
        for number, frame in enumerate(self.movie):
            yield self.fit(grey_levels(frame, f"{self.path}, frame {number}"))


class VideoFile:
    """Frames of a file that ffmpeg reads, `fps` of them for each second of it."""

    def __init__(self, path: Path, size: tuple[int, int], resize: bool, fps: float = FPS):
        self.path, self.size, self.fps = path, size, fps
        fitted(frame_size(path), size, resize, path)

    def __len__(self) -> int:
        return sum(1 for _ in read_frames(self.path, 2, 2, self.fps))

    def __iter__(self) -> Iterator[np.ndarray]:
        return read_frames(self.path, *self.size, self.fps)


class FrameFolder:
    """Frames of a folder of images, or of .npy files (H, W), in the order of their names (2 before 10)."""

    def __init__(self, folder: Path, size: tuple[int, int], resize: bool):
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        images, arrays = ([p for p in files if p.suffix.lower() in kinds] for kinds in (IMAGES, (".npy",)))
        if images and arrays:
            raise UserError(f"{folder}: holds images and .npy frames; keep one kind.")
        if not images and not arrays:
            raise UserError(f"{folder}: no frames here ({', '.join(IMAGES)}, or .npy of shape (height, width)).")
        self.paths = sorted(images or arrays, key=lambda path: natural(path.name))
        self.read = _image if images else npy.load
        self.frame_size = self._frame(self.paths[0]).shape
        self.fit = fitted(self.frame_size, size, resize, self.paths[0])

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.paths:
            frame = self._frame(path)
            if frame.shape != self.frame_size:
                raise UserError(
                    f"{path}: {_pixels(frame.shape)} pixels, {self.paths[0].name} has {_pixels(self.frame_size)}; "
                    "all frames must have one size."
                )
            yield self.fit(frame)

    def _frame(self, path: Path) -> np.ndarray:
        frame = self.read(path)
        if frame.ndim != 2 or frame.dtype.kind not in "uif":
            raise UserError(f"{path}: must hold grey levels (height, width), has {frame.dtype} {frame.shape}.")
        return grey_levels(frame, path)


def open_movie(place: str, size: tuple[int, int], resize: bool = False) -> ArrayMovie | VideoFile | FrameFolder:
    """The movie at a place, which shows frames of `size`."""
    path = Path(place)
    if path.is_dir():
        return FrameFolder(path, size, resize)
    if not path.is_file():
        raise UserError(
            f"--source {place}: no such movie or folder (nor - for standard input, tcp://HOST:PORT or unix:///PATH)."
        )
    if path.suffix.lower() == ".npy":
        return ArrayMovie(path, size, resize)
    if path.suffix.lower() in SUFFIXES:
        return VideoFile(path, size, resize)
    raise UserError(f"{place}: not a movie; .npy or one of {', '.join(SUFFIXES)} is.")


def frames_of(movie, fps: float, behavior: str | None = None, pupil_center: str | None = None) -> Iterator[Frame]:
    """Numbered frames of a movie with the traces of two .npy files (2, T), whose length is checked before any."""
    given = {"behavior": behavior, "pupil_center": pupil_center}
    length = len(movie) if behavior or pupil_center else 0
    traces = {name: read_traces(Path(path), length) for name, path in given.items() if path}

    def numbered() -> Iterator[Frame]:
        for number, pixels in enumerate(movie):
            told = {name: trace[:, number] for name, trace in traces.items()}
            yield Frame(number, pixels, time=number / fps, first=number == 0, **told)

    return numbered()


def read_traces(path: Path, length: int) -> np.ndarray:
    """(2, length) float32, one column for each frame."""
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    traces = npy.load(path)
    if traces.shape != (2, length):
        raise UserError(
            f"{path}: has shape {traces.shape}; the movie has {length} frames, so it must be (2, {length})."
        )
    if traces.dtype.kind not in "uif" or not np.isfinite(traces).all():
        bad = np.flatnonzero(~np.isfinite(traces.astype(np.float64)).all(axis=0))
        where = f" at frame {bad[0]}" if len(bad) else ""
        raise UserError(f"{path}: not a finite number{where}. Fill the gap, for example with the value before.")
    return traces.astype(np.float32)


def grey_levels(frame: np.ndarray, where: Path | str) -> np.ndarray:
    """The frame, if all of it is within 0..255."""
    if frame.dtype != np.uint8 and not (frame.size and frame.min() >= 0 and frame.max() <= 255):  # NaN fails, too
        raise UserError(f"{where}: grey levels must be finite and within 0..255.")
    return frame


def fitted(size: tuple[int, int], target: tuple[int, int], resize: bool, where) -> Callable[[np.ndarray], np.ndarray]:
    """A function from frames of one size to another, each new pixel the mean over the area it covers."""
    if tuple(size) == tuple(target):
        return lambda frame: frame
    if not resize:
        raise UserError(f"{where}: frames of {_pixels(size)} pixels; the twin takes {_pixels(target)}. Use --resize.")
    rows, columns = (area_matrix(*pair).astype(np.float32) for pair in zip(size, target, strict=True))
    return lambda frame: np.clip(rows @ frame.astype(np.float32) @ columns.T, 0, 255)


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def natural(name: str) -> list:
    """A key that sorts the numbers in names by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _image(path: Path) -> np.ndarray:
    """(H, W) uint8; colours by their luminance."""
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise UserError(f"{path}: more than 8 bits a pixel; save it with 8, or as .npy of 0..255.")
            return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error}).") from None


class MessageReader:
    """Frames from messages on a file, such as standard input. `hello` is there from the start."""

    def __init__(self, file: BinaryIO, size: tuple[int, int], resize: bool = False):
        self.file, self.conversation = file, Conversation(size, resize)
        hello = self._next()
        if not isinstance(hello, Hello):
            raise UserError("standard input ended before a hello; docs/streaming.md describes the messages.")
        self.hello = hello

    def __iter__(self) -> Iterator[Frame]:
        while not isinstance(heard := self._next(), Bye):
            if heard is not None:
                yield heard

    def _next(self) -> Hello | Frame | Bye | None:
        """What the next message means; the end of the file says goodbye."""
        try:
            prefix = self._exactly(PREFIX.size, may_end=True)
            if not prefix:
                return Bye()
            kind, header, body = parse_prefix(prefix)
            return self.conversation.hear(kind, self._exactly(header), self._exactly(body))
        except ProtocolError as error:
            raise UserError(f"standard input: {error}.") from None

    def _exactly(self, size: int, may_end: bool = False) -> bytes:
        """`size` bytes; none if the file ends before the first of them and may end here."""
        parts, missing = [], size
        while missing:
            part = self.file.read(missing)
            if not part:
                if may_end and missing == size:
                    return b""
                raise ProtocolError("bad_message", "ended in the middle of a message")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def at_once(frames: Iterable[Frame]) -> Iterator[tuple[float, Frame]]:
    """Frames as fast as they are asked for, each with the moment (seconds) it was there."""
    for frame in frames:
        yield time.perf_counter(), frame


def live(
    frames: Iterable[Frame], fps: float, waiting: Waiting, stopped: Callable[[], bool]
) -> Iterator[tuple[float, Frame]]:
    """Frames as a rig shows them, each with the moment (seconds) it was shown, whether or not anyone was ready.

    fps: frames a second; 0: when the source has them. A thread reads them into `waiting`. Ends early when `stopped`.
    """
    changed, ended, failures = threading.Condition(), threading.Event(), []

    def read() -> None:
        try:
            for count, frame in enumerate(frames):
                if count == 0:
                    start = time.perf_counter()  # opening a movie takes its time
                arrived = start + count / fps if fps else time.perf_counter()
                if ended.wait(max(arrived - time.perf_counter(), 0)):
                    return
                with changed:
                    while not waiting.offer(arrived, frame):
                        changed.wait()
                        if ended.is_set():
                            return
                    changed.notify_all()
        except Exception as error:
            failures.append(error)
        finally:
            with changed:
                ended.set()
                changed.notify_all()

    # a daemon, since standard input may keep it waiting for ever
    threading.Thread(target=read, daemon=True).start()
    try:
        while not stopped():
            with changed:
                if not waiting:
                    if ended.is_set():
                        break
                    changed.wait(0.1)  # so that a stop is seen
                    continue
                item = waiting.take()
                changed.notify_all()
            yield item
        if failures and not stopped():
            raise failures[0]
    finally:
        with changed:
            ended.set()
            changed.notify_all()
