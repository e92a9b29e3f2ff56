"""Movies come back as they were written; what cannot be read is named."""

import os

import numpy as np
import pytest

from viv1t.errors import UserError
from viv1t.movies import frame_size, read_frames, write_movie

H, W = 36, 64


@pytest.fixture(scope="module")
def grating() -> np.ndarray:
    """A second of a drifting grating, first frame white, second black."""
    x, t = np.arange(W), np.arange(30)[:, None]
    rows = 127.5 + 127.5 * np.sin(2 * np.pi * (x / 16 - t / 15))
    movie = np.repeat(np.rint(rows).astype(np.uint8)[:, None], H, axis=1)
    movie[0], movie[1] = 255, 0
    return movie


def read(path, *size, **kwargs) -> np.ndarray:
    return np.stack(list(read_frames(path, *(size or (H, W)), **kwargs)))


@pytest.mark.parametrize("name, off", [("movie.gif", 0), ("movie.mp4", 8)])
def test_grey_levels_come_back(name, off, grating, tmp_path):
    write_movie(tmp_path / name, iter(grating))
    frames = read(tmp_path / name)
    assert frames.dtype == np.uint8 and frames.shape == grating.shape
    assert np.abs(frames.astype(int) - grating).max() <= off
    assert (frames[0] == 255).all() and (frames[1] == 0).all()  # the full range of grey levels, not 16 to 235
    assert frame_size(tmp_path / name) == (H, W)


@pytest.mark.parametrize("name", ["movie.gif", "movie.mp4"])
def test_colour_is_read_as_luminance_and_odd_sizes_are_kept_or_padded(name, tmp_path):
    red = np.zeros((5, 35, 63, 3), np.uint8)
    red[..., 0] = 255
    write_movie(tmp_path / name, red)
    height, width = frame_size(tmp_path / name)
    assert (height - 35, width - 63) in ((0, 0), (1, 1))
    inside = read(tmp_path / name, height, width)[:, 4:30, 4:60]
    assert len(inside) == 5 and np.abs(inside.astype(int) - 76).max() < 8  # 0.299 x 255


def test_frames_are_averaged_over_the_area_of_new_pixels(grating, tmp_path):
    write_movie(tmp_path / "movie.gif", grating)
    halves = grating.reshape(30, H // 2, 2, W // 2, 2).mean(axis=(2, 4))
    assert np.abs(read(tmp_path / "movie.gif", H // 2, W // 2) - halves).max() <= 1


def test_another_frame_rate_repeats_or_skips_frames(grating, tmp_path):
    write_movie(tmp_path / "movie.mp4", grating, fps=30)
    assert len(read(tmp_path / "movie.mp4", fps=60)) == 60 and len(read(tmp_path / "movie.mp4", fps=10)) == 10


def test_a_reader_may_stop_early(grating, tmp_path):
    write_movie(tmp_path / "movie.mp4", grating)
    frames = read_frames(tmp_path / "movie.mp4", H, W)
    next(frames)
    frames.close()


def test_damage_is_named_and_not_passed_over(grating, tmp_path):
    path = tmp_path / "movie.mp4"
    write_movie(path, grating)
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + 2000
    content[middle : middle + 1000] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"movie\.mp4: ffmpeg cannot read it \("):
        read(path)
    for reader in (read, frame_size):
        (tmp_path / "short.mp4").write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match=r"short\.mp4: ffmpeg cannot read it"):
            reader(tmp_path / "short.mp4")
        with pytest.raises(UserError, match=r"none\.mp4: no such file"):
            reader(tmp_path / "none.mp4")
        with pytest.raises(UserError, match="no such file"):
            reader("http://127.0.0.1:9/movie.mp4")


def test_a_missing_program_is_named(grating, tmp_path, monkeypatch):
    write_movie(tmp_path / "movie.gif", grating)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"movie\.gif: the program .*nowhere does not start"):
        read(tmp_path / "movie.gif")


def test_movies_are_written_whole_or_not_at_all(grating, tmp_path):
    def torn():
        yield grating[0]
        yield grating[0, 1:]

    (tmp_path / "movie.mp4").write_text("what was here before")
    with pytest.raises(ValueError, match=r"all be \(36, 64\)"):
        write_movie(tmp_path / "movie.mp4", torn())
    with pytest.raises(ValueError, match="at least one frame"):
        write_movie(tmp_path / "movie.mp4", [])
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        write_movie(tmp_path / "movie.mp4", grating[None])
    with pytest.raises(UserError, match=r"written as \.mp4 or \.gif"):
        write_movie(tmp_path / "movie.avi", grating)
    assert os.listdir(tmp_path) == ["movie.mp4"]
    assert (tmp_path / "movie.mp4").read_text() == "what was here before"
