"""Which patterns a recorded video showed, read from its frames.

The competition's bonus tiers come without parameters. Here every presentation is fitted with its pattern, free in all
parameters; `snap_gabors` and `snap_dots` name the conditions once all videos of a recording have been read.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar

from viv1t.constants import FPS
from viv1t.geometry import Monitor
from viv1t.stimulus.coordinates import coordinates
from viv1t.stimulus.levels import HALF_RANGE
from viv1t.stimulus.windows import gaussian

BLOCK, DOT_FRAMES = 25, 9  # frames for which a Gabor and a dot are shown
SHORTEST_DOT = 3  # frames of a dot, cut off at either end of a video, from which it is still read
LEAST_FIT = 0.8  # median correlation of fits and frames below which a video is of another kind
BLANK = 0.5  # grey levels, root mean square, below which nothing is shown
LEVEL_FACTOR = 1.25  # frequencies that differ by less are one level of the design
FREE, LOG_SIZE = [(None, None)] * 2, (-3.0, 3.0)  # bounds of fits: a place or a frequency, log of sigma / 10 deg
TURNS = np.arange(0.02, np.pi, 0.02)  # radians per frame at which the search for a temporal frequency starts


def read_gabors(video: np.ndarray, monitor: Monitor, block: int = BLOCK, geometry: str = "spherical") -> pd.DataFrame:
    """One row for each drifting Gabor that a video (T, H, W) in grey levels shows around the screen centre.

    start, stop (frames), direction_deg, sf_cpd, tf_hz, phase_deg (at `start`), contrast and sigma_deg as in
    `gratings.gabor`, and r, how well the fit correlates with the frames. The video may begin anywhere in a block;
    blocks of which less than half is seen are left out. A grating faster than FPS / 2 is the same film as a slower one
    that drifts the other way, and is read as that. ValueError if the video shows no Gabors.
    """
    contrast = _around_background(video)
    right, up = (x.ravel() for x in coordinates(monitor, monitor.centre, geometry))
    rows = []
    for start, stop in _spans(_gabor_clock(contrast @ contrast.T, block), block, len(video)):
        shown = contrast[start:stop]
        if 2 * len(shown) >= block and not _is_blank(shown):
            rows.append({"start": start, "stop": stop} | _fit_gabor(shown, right, up, monitor))
    return _checked(rows, "drifting Gabors")


def _gabor_clock(products: np.ndarray, block: int) -> int:
    """First frame at which a block begins, from the products (T, T) of all frames.

    A drifting Gabor is a sum of two still pictures: cut rightly, nothing is left beside two pictures for each block.
    """
    left = np.zeros(block)  # per frame that is not needed to describe the block it is in
    for clock in range(block):
        spans = _spans(clock, block, len(products))
        rest = [np.linalg.eigvalsh(products[start:stop, start:stop])[:-2] for start, stop in spans]
        left[clock] = np.concatenate(rest).mean() if any(map(len, rest)) else np.inf
    best = int(left.argmin())
    return best if left[best] < 0.9 * left[0] else 0  # any further cut takes away a little noise


def _fit_gabor(shown: np.ndarray, right: np.ndarray, up: np.ndarray, monitor: Monitor) -> dict:
    """Parameters of one Gabor from its contrast (frames, pixels); degrees `right` and `up` of each pixel."""
    turn, image = _separate(shown)
    fx, fy = _spectral_peak(image, monitor)
    distance = right**2 + up**2
    power = abs(image) ** 2
    sigma = np.sqrt((power * distance).sum() / power.sum())

    def pattern(point):
        fx, fy, sigma = 0.01 * point[0], 0.01 * point[1], 10 * np.exp(point[2])  # all of the order of 1
        return np.exp(-distance / (2 * sigma**2) + 2j * np.pi * (fx * right + fy * up))

    start = [100 * fx, 100 * fy, np.log(sigma / 10)]
    point = minimize(lambda point: -_match(pattern(point), image), start, bounds=FREE + [LOG_SIZE], tol=1e-12).x
    wave = pattern(point)
    amplitude = np.vdot(wave, image) / np.vdot(wave, wave).real
    fit = np.real(amplitude * wave * np.exp(-1j * turn * np.arange(len(shown)))[:, None])
    fx, fy = 0.01 * point[:2]
    return {
        "direction_deg": np.degrees(np.arctan2(-fy, -fx)) % 360,
        "sf_cpd": np.hypot(fx, fy),
        "tf_hz": turn * FPS / (2 * np.pi),
        "phase_deg": np.degrees(-np.angle(amplitude)) % 360,
        "contrast": abs(amplitude),
        "sigma_deg": 10 * np.exp(point[2]),
        "r": _match(fit, shown),
    }


def _separate(shown: np.ndarray) -> tuple[float, np.ndarray]:
    """The w (radians per frame) and complex image (pixels,) that make Re[image exp(-i w t)] most like the frames.

    All of 0 < w < pi is searched before the best is refined, so that no neighbouring maximum is taken for it.
    """
    time, products = np.arange(len(shown)), shown @ shown.T

    def explained(turn):
        pair = np.stack([np.cos(turn * time), np.sin(turn * time)])
        return np.trace(np.linalg.solve(pair @ pair.T, pair @ products @ pair.T))

    start = TURNS[np.argmax([explained(turn) for turn in TURNS])]
    near = np.clip([start - 0.02, start + 0.02], 0.001, np.pi - 0.001)
    turn = minimize_scalar(lambda turn: -explained(turn), bounds=near, method="bounded", options={"xatol": 1e-6}).x
    pair = np.stack([np.cos(turn * time), np.sin(turn * time)])
    even, odd = np.linalg.solve(pair @ pair.T, pair @ shown)
    return turn, even + 1j * odd


def _spectral_peak(image: np.ndarray, monitor: Monitor) -> tuple[float, float]:
    """Frequency (right, up) in cycles per degree, as at the screen centre, at which a complex image is strongest."""
    shape = 4 * monitor.height, 4 * monitor.width
    spectrum = abs(np.fft.fft2(image.reshape(monitor.height, monitor.width), shape))
    row, column = np.unravel_index(spectrum.argmax(), shape)
    return tuple(
        np.array([np.fft.fftfreq(shape[1])[column], -np.fft.fftfreq(shape[0])[row]]) / monitor.degrees_per_pixel
    )


def snap_gabors(table: pd.DataFrame, step_deg: float = 45.0) -> pd.DataFrame:
    """The readings of all videos of a recording, `read_gabors` end to end, with the levels of its design.

    Directions go to multiples of `step_deg`. Spatial frequencies that differ by less than a quarter are one level, and
    so are temporal frequencies at one spatial frequency; both become the median of their level.
    """
    table = table.copy()
    table["direction_deg"] = np.rint(table["direction_deg"] / step_deg) * step_deg % 360
    table["sf_cpd"] = _level(table["sf_cpd"])
    table["tf_hz"] = table.groupby("sf_cpd")["tf_hz"].transform(_level)
    return table


def _level(values: pd.Series) -> pd.Series:
    """The median of the run of neighbouring values that each value belongs to."""
    ordered = values.sort_values()
    run = (np.log(ordered).diff() > np.log(LEVEL_FACTOR)).cumsum()
    return ordered.groupby(run).transform("median").reindex(values.index)


def read_dots(
    video: np.ndarray, monitor: Monitor, frames: int = DOT_FRAMES, geometry: str = "spherical"
) -> pd.DataFrame:
    """One row for each Gaussian dot that a video (T, H, W) in grey levels shows, one at a time, `frames` each.

    start, stop (frames), x, y (pixels), is_black, sigma_deg, and r, how well the fit correlates with the frames. The
    video may begin anywhere in a presentation; what is seen for less than three frames is left out. ValueError if the
    video shows no such dots.
    """
    contrast = _around_background(video)
    change = np.abs(np.diff(contrast, axis=0, prepend=contrast[:1])).sum(axis=1)
    clock = int(np.argmax([change[start::frames].sum() for start in range(frames)]))
    rows = []
    for start, stop in _spans(clock, frames, len(video)):
        shown = contrast[start:stop]
        if len(shown) >= SHORTEST_DOT and not _is_blank(shown):
            rows.append({"start": start, "stop": stop} | _fit_dot(shown, monitor, geometry))
    return _checked(rows, "Gaussian dots")


def _fit_dot(shown: np.ndarray, monitor: Monitor, geometry: str) -> dict:
    """Parameters of one dot from its contrast (frames, pixels)."""
    image = np.median(shown, axis=0)  # frames in which one dot turns into the next do not count
    y, x = np.unravel_index(abs(image).argmax(), (monitor.height, monitor.width))

    def dot(point):
        return gaussian(monitor, point[:2], 10 * np.exp(point[2]), geometry).ravel()

    point = minimize(lambda point: -_match(dot(point), image), [x, y, 0.0], bounds=FREE + [LOG_SIZE], tol=1e-12).x
    polarity = np.sign(dot(point) @ image)
    return {
        "x": point[0],
        "y": point[1],
        "is_black": bool(polarity < 0),
        "sigma_deg": 10 * np.exp(point[2]),
        "r": _match(np.broadcast_to(dot(point), shown.shape), shown),
    }


def snap_dots(table: pd.DataFrame, columns: int = 15, rows: int = 7) -> pd.DataFrame:
    """The readings of all videos of a recording, `read_dots` end to end, on the lattice that holds all dots.

    x and y become those of the lattice, evenly spaced along each axis; `column` and `row` count its places from the
    upper left. ValueError if the dots do not lie on `columns` x `rows` places.
    """
    table = table.copy()
    for axis, index, count in (("x", "column", columns), ("y", "row", rows)):
        values = table[axis].to_numpy()
        first, step = values.min(), (values.max() - values.min()) / (count - 1)
        place = np.rint((values - first) / step)
        step, first = np.polyfit(place, values, 1)
        snapped = first + step * place
        if len(np.unique(place)) < count or abs(values - snapped).max() > step / 3:
            raise ValueError(f"the dots do not lie on {columns} x {rows} places; were all videos read?")
        table[axis], table[index] = snapped, place.astype(int)
    return table


def _around_background(video: np.ndarray) -> np.ndarray:
    """Contrast (T, pixels) around the grey of the screen's left and right border, which patterns leave free."""
    video = np.asarray(video, dtype=np.float64)
    return ((video - np.median(video[:, :, [0, -1]])) / HALF_RANGE).reshape(len(video), -1)


def _spans(clock: int, length: int, frames: int) -> list[tuple[int, int]]:
    """(start, stop) of the presentations of `length` frames each, one of which begins at frame `clock`."""
    edges = sorted({0, *range(clock, frames, length), frames})
    return list(zip(edges[:-1], edges[1:], strict=True))


def _is_blank(shown: np.ndarray) -> bool:
    return HALF_RANGE * np.sqrt((shown**2).mean()) < BLANK


def _match(pattern: np.ndarray, image: np.ndarray) -> float:
    """Correlation, without its sign, of arrays of one shape, real or complex; 0 if one of them is constant."""
    pattern, image = pattern - pattern.mean(), image - image.mean()
    return abs(np.vdot(pattern, image)) / (np.linalg.norm(pattern) * np.linalg.norm(image) + 1e-9)


def _checked(rows: list[dict], kind: str) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    if not rows or not table["r"].median() >= LEAST_FIT:
        told = f"the fit correlates with r = {table['r'].median():.2f}" if rows else "the screen is grey"
        raise ValueError(f"this video does not show {kind}: {told}")
    return table
