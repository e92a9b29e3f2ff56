"""Movies as frames, in and out. The one module that knows ffmpeg.

Commands are built by ffmpeg-python; the program comes with the wheel imageio-ffmpeg, or lies on the PATH. A movie is a
file: its name is never taken for a network address, nor is anything that a playlist points to.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import numpy as np

from viv1t import io
from viv1t.constants import FPS
from viv1t.errors import UserError

SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
WRITTEN = (".mp4", ".gif")


def read_frames(path: Path | str, height: int, width: int, fps: float = FPS) -> Iterator[np.ndarray]:
    """Frames (height, width) uint8 of grey levels 0..255, resized by area average, `fps` of them a second.

    Frames are decoded while they are asked for. UserError if the file cannot be read, or is damaged: then after the
    last good frame.
    """
    ffmpeg = _package(path)
    movie = _input(ffmpeg, path).filter("fps", fps).filter("scale", width, height, flags="area")
    with _process(movie.output("pipe:", format="rawvideo", pix_fmt="gray"), path, "read", stdout=True) as process:
        while len(frame := process.stdout.read(height * width)) == height * width:
            yield np.frombuffer(frame, np.uint8).reshape(height, width)


def frame_size(path: Path | str) -> tuple[int, int]:
    """(height, width) in pixels of the frames that a movie holds."""
    ffmpeg = _package(path)
    first = _input(ffmpeg, path).output("pipe:", format="yuv4mpegpipe", pix_fmt="gray", vframes=1)
    with _process(first, path, "read", stdout=True) as process:
        header = process.stdout.readline(200)
        while process.stdout.read(1 << 16):
            continue
    told = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) ", header)
    if told is None:
        raise UserError(f"{path}: ffmpeg finds no frames in it.")
    return int(told[2]), int(told[1])


def write_movie(path: Path | str, frames: Iterable[np.ndarray], fps: float = FPS) -> None:
    """Write frames (H, W) grey or (H, W, 3) red, green, blue, uint8, as .mp4 or .gif; whole or not at all.

    Grey .gif files keep every value; .mp4 files (H.264) are off by a few grey levels, and a row or column is added
    where a size is odd. ValueError on frames of different sizes, or none.
    """
    path, frames = Path(path), iter(frames)
    if path.suffix not in WRITTEN:
        raise UserError(f"{path}: movies are written as {' or '.join(WRITTEN)}.")
    ffmpeg = _package(path)
    first = next(frames, None)
    if first is None:
        raise ValueError("a movie needs at least one frame")
    if first.ndim not in (2, 3) or first.shape[2:] not in ((), (3,)):
        raise ValueError(f"frames must be (H, W) or (H, W, 3), got {first.shape}")
    colour, (height, width) = first.ndim == 3, first.shape[:2]
    movie = ffmpeg.input(
        "pipe:", format="rawvideo", pix_fmt="rgb24" if colour else "gray", s=f"{width}x{height}", framerate=fps
    )
    options = {"format": path.suffix[1:]}
    if path.suffix == ".mp4":
        movie = movie.filter("pad", "ceil(iw/2)*2", "ceil(ih/2)*2")
        options |= {"vcodec": "libx264", "crf": 12, "pix_fmt": "yuv420p"}  # what every player shows
    elif colour:
        copies = movie.split()
        movie = ffmpeg.filter([copies[0], copies[1].filter("palettegen")], "paletteuse")
    with io.replacing(path) as temporary:
        output = movie.output(str(temporary.absolute()), **options).overwrite_output()
        with _process(output, path, "write", stdin=True) as process:
            for frame in chain([first], frames):
                if frame.shape != first.shape or frame.dtype != np.uint8:
                    raise ValueError(f"frames must all be {first.shape} uint8, got {frame.shape} {frame.dtype}")
                process.stdin.write(np.ascontiguousarray(frame).data)


def _package(path: Path | str):
    try:
        import ffmpeg
    except ImportError:
        raise UserError(
            f"{path}: movies need the package ffmpeg-python; install it (pip install -e .), or use .npy."
        ) from None
    return ffmpeg


def _program(path: Path | str) -> str:
    """The bundled program, else the one on the PATH."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise UserError(
            f"{path}: reading {Path(path).suffix} needs the program ffmpeg; install it, or convert the movie to .npy."
        )
    return found


def _input(ffmpeg, path: Path | str):
    """A file as input; neither its name nor its content can make ffmpeg open an address."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file.")
    return ffmpeg.input(f"file:{path}", protocol_whitelist="file,pipe")


@contextmanager
def _process(output, path: Path | str, verb: str, stdin: bool = False, stdout: bool = False):
    """Run a command; on leaving, end it, and raise UserError with its own words if it failed."""
    command = output.compile(cmd=[_program(path), "-v", "error", "-xerror", "-nostdin"])
    pipes = {
        name: subprocess.PIPE if used else subprocess.DEVNULL for name, used in (("stdin", stdin), ("stdout", stdout))
    }
    with tempfile.TemporaryFile() as errors:
        try:
            # in a process group of its own: Ctrl-C is for us, who then end it in order
            process = subprocess.Popen(command, stderr=errors, process_group=0, **pipes)
        except OSError as error:
            raise UserError(f"{path}: the program {command[0]} does not start ({error.strerror}).") from None
        try:
            with suppress(BrokenPipeError):  # it has given up, and says why below
                yield process
                if stdin:
                    process.stdin.close()
            if process.wait():
                errors.seek(0)
                said = " ".join(errors.read(2000).decode(errors="replace").split())
                raise UserError(f"{path}: ffmpeg cannot {verb} it ({said[:200]}).")
        finally:
            process.kill()
            with suppress(BrokenPipeError), process:  # closes the pipes and waits
                pass


def area_matrix(size: int, target: int) -> np.ndarray:
    """(target, size) matrix that resizes one axis by averaging over the area each new pixel covers."""
    edge = np.arange(target + 1) * size / target
    old = np.arange(size)
    overlap = np.minimum(edge[1:, None], old + 1) - np.maximum(edge[:-1, None], old)
    weights = np.maximum(overlap, 0)
    return weights / weights.sum(axis=1, keepdims=True)
