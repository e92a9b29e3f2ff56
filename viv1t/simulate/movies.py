"""The user's own movies as clips: .npy files (frames, height, width) of grey levels, or .mp4 files through ffmpeg."""

import hashlib
from pathlib import Path

import numpy as np

from viv1t import io
from viv1t.constants import FPS
from viv1t.errors import UserError
from viv1t.geometry import Monitor
from viv1t.movies import area_matrix, read_frames

SUFFIXES = (".npy", ".mp4")


def find_movies(folder: Path) -> tuple[list[Path], str]:
    """The movies of a folder, in order of their names, and a digest of names, sizes and times of change."""
    paths = sorted(p for p in Path(folder).glob("*") if p.suffix in SUFFIXES) if Path(folder).is_dir() else []
    if not paths:
        raise UserError(f"{folder}: no .npy or .mp4 movies here; check --movies.")
    told = "".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}\n" for p in paths)
    return paths, hashlib.sha256(told.encode()).hexdigest()[:12]


def store(paths: list[Path], folder: Path, monitor: Monitor) -> None:
    """Convert movies to the frames of the monitor, as <stem>.npy (frames, height, width) uint8 in `folder`."""
    for path in paths:
        target = folder / f"{path.stem}.npy"
        if not target.exists():
            io.write_array(target, _read(path, monitor))


def cut(folder: Path, frames: int, needed: int) -> list[tuple[Path, int]]:
    """Clips (stored file, first frame) of that many frames; UserError if there are fewer than needed."""
    clips = []
    for path in sorted(folder.glob("*.npy")):
        length = len(np.load(path, mmap_mode="r", allow_pickle=False))
        clips += [(path, start) for start in range(0, length - frames + 1, frames)]
    if len(clips) < needed:
        raise UserError(
            f"the movies give {len(clips)} clips of {frames / FPS:g} s, the design shows {needed}. "
            "Add movies to --movies, or lower --trials or --clips."
        )
    return clips


def _read(path: Path, monitor: Monitor) -> np.ndarray:
    if path.suffix == ".mp4":
        return _decode(path, monitor)
    try:
        movie = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable .npy array ({error}).") from None
    if movie.ndim != 3 or movie.dtype.kind not in "uif":
        raise UserError(f"{path}: must hold grey levels (frames, height, width), has {movie.dtype} {movie.shape}.")
    rows, columns = (area_matrix(a, b) for a, b in zip(movie.shape[1:], (monitor.height, monitor.width), strict=True))
    out = np.empty((len(movie), monitor.height, monitor.width), np.uint8)
    for start in range(0, len(movie), 100):
        part = np.asarray(movie[start : start + 100], dtype=np.float64)
        if not np.isfinite(part).all() or part.min() < 0 or part.max() > 255:
            raise UserError(f"{path}: grey levels must be finite and within 0..255.")
        out[start : start + 100] = np.rint(rows @ part @ columns.T)
    return out


def _decode(path: Path, monitor: Monitor) -> np.ndarray:
    frames = list(read_frames(path, monitor.height, monitor.width))
    return np.array(frames, np.uint8).reshape(-1, monitor.height, monitor.width)
