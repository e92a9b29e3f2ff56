"""Artificial receptive fields: where on the screen local contrast changes a neuron's response, and how large that is.

`WeightedMaps` gathers cov(response, regressor) / var(regressor) at every pixel while patterns are shown;
`fit_receptive_fields` puts a rotated Gaussian on every map. With mask noise the regressor is the mask at pixel
resolution (1 where a cell of texture is on), which maps simple and complex cells alike. Shift the lattice of cells at
random from pattern to pattern: on a fixed lattice centres are half as exact (median 0.3 px from the truth
instead of 0.17 px).

Two choices of the caller matter. Take responses soon after onset (frames 2 to 4): fields of feedback answer later, to
contrast *around* the classical field, and turn the map into a hole (which is fitted too, with `sign` -1). And pass
`signed_root(responses)`: responses are heavy-tailed, and their root gives the same centre with less noise. The fitted
sigma of such a map is about that of the field's envelope; without the root it is that of contrast energy, smaller by
the square root of 2.
"""

from functools import partial

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from viv1t.estimators.least_squares import least_squares, normalised
from viv1t.geometry import Monitor

LAGS = (8, 9, 10, 11)  # patterns back: what is paired for the null maps; the nearest ones may still echo
SMOOTH = 1.0  # pixels, blur of a map before its peak is looked for
STEP = 2  # pixels per sample of a fitted map: coarser than a pixel, finer than any field
MARGIN = 2.0  # pixels that a centre may leave the frame
SIGMA = (0.5, 15.0)  # pixels
LEAST_R2, LEAST_SNR = 0.3, 4.0
FWHM = 2 * np.sqrt(2 * np.log(2))  # full width at half maximum of a Gaussian of sd 1


def signed_root(responses: np.ndarray) -> np.ndarray:
    """sign(r) sqrt(|r|): tames the heavy tail of baseline-subtracted responses."""
    return np.sign(responses) * np.sqrt(np.abs(responses))


class WeightedMaps:
    """Slope of every neuron's response on the regressor at every pixel, pattern by pattern.

    Besides the map itself it keeps one of each half of the patterns (pairs in turn, so that antithetic patterns stay
    together) and null maps, which pair responses with the patterns shown `LAGS` earlier. Memory: six float32 maps per
    neuron, 440 MB for 8,000 neurons at 36 x 64.
    """

    def __init__(self, num_neurons: int, height: int, width: int):
        self.shape = (num_neurons, height, width)
        self.count, self.reference = 0, None
        self._halves = [_Regression(num_neurons, height * width) for _ in range(2)]
        self._nulls = [_Regression(num_neurons, height * width) for _ in LAGS]
        self._past = np.empty((0, height * width), np.float32)  # regressors of the last patterns

    def update(self, responses: np.ndarray, regressors: np.ndarray) -> None:
        """Add patterns in the order shown: responses (n, N), regressors (n, H, W), e.g. masks or squared contrast."""
        x = np.asarray(regressors, dtype=np.float32).reshape(len(regressors), -1)
        if self.reference is None:  # near the mean, so that sums of products do not cancel
            self.reference = np.mean(responses, axis=0)
        y = np.asarray(responses - self.reference, dtype=np.float32)
        half = (self.count + np.arange(len(y))) // 2 % 2
        for k, regression in enumerate(self._halves):
            regression.update(y[half == k], x[half == k])
        shown = np.concatenate([self._past, x])
        first = len(self._past)
        for lag, regression in zip(LAGS, self._nulls, strict=True):
            late = max(lag - first, 0)  # responses whose partner was never shown
            regression.update(y[late:], shown[first + late - lag : len(shown) - lag])
        self._past = shown[-max(LAGS) :]
        self.count += len(y)

    def value(self) -> np.ndarray:
        """(N, H, W), responses per unit of the regressor; NaN where the regressor never changed."""
        return (self._halves[0] + self._halves[1]).slope().reshape(self.shape)

    def halves(self) -> np.ndarray:
        """(2, N, H, W): the maps of either half of the patterns."""
        return np.stack([half.slope().reshape(self.shape) for half in self._halves])

    def nulls(self) -> np.ndarray:
        """(K, N, H, W): what the maps would be if responses had nothing to do with the patterns."""
        return np.stack([null.slope().reshape(self.shape) for null in self._nulls])


class _Regression:
    """Sums behind the slopes of responses (n, N) on regressors (n, P)."""

    def __init__(self, N: int, P: int):
        self.count = 0
        self.y, self.x, self.xx = np.zeros(N), np.zeros(P), np.zeros(P)
        self.yx = np.zeros((N, P), np.float32)

    def update(self, y: np.ndarray, x: np.ndarray) -> None:
        if len(y) == 0:
            return
        self.count += len(y)
        self.y += y.sum(axis=0, dtype=np.float64)
        self.x += x.sum(axis=0, dtype=np.float64)
        self.xx += np.square(x, dtype=np.float64).sum(axis=0)
        self.yx += y.T @ x

    def __add__(self, other: "_Regression") -> "_Regression":
        total = _Regression(len(self.y), 0)
        total.__dict__ = {name: value + getattr(other, name) for name, value in self.__dict__.items()}
        return total

    def slope(self) -> np.ndarray:
        """(N, P) float32."""
        n = max(self.count, 1)
        variance = self.xx / n - (self.x / n) ** 2
        variance = np.where(variance > 1e-12, variance, np.nan)
        return (self.yx / n - np.outer(self.y / n, self.x / n).astype(np.float32)) / variance.astype(np.float32)


def combined_orders(first: WeightedMaps, second: WeightedMaps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps, halves and nulls of white noise: sqrt(z1^2 + max(z2, 0)^2), for `fit_receptive_fields` with blur SMOOTH.

    first, second: gathered with contrast and with squared contrast as regressor; z is a smoothed map over the sd of
    its null maps. The first order sees simple cells only, the second complex cells too, but needs many more patterns
    (10,000 and more). Show each pattern and its negative one after the other: it keeps the orders out of each other.
    """

    def combine(first_maps, second_maps):
        z1 = smoothed(first_maps) / noise[0]
        z2 = smoothed(second_maps) / noise[1]
        return np.sqrt(z1**2 + np.maximum(z2, 0) ** 2)

    nulls = first.nulls(), second.nulls()
    noise = [_noise(null)[:, None, None] for null in nulls]
    return tuple(
        combine(*maps) for maps in ((first.value(), second.value()), (first.halves(), second.halves()), nulls)
    )


def lattice_blur(cell_px: int, shifted: bool = True) -> float:
    """Sd in pixels by which cells of mask noise widen a map: a cell's own width, twice if the lattice is shifted.

    On a fixed lattice the map has one sample per cell. On a shifted one it is blurred with the autocorrelation of a
    cell, a triangle.
    """
    return float(np.sqrt((1 + shifted) * (cell_px**2 - 1) / 12))


def fit_receptive_fields(
    maps: np.ndarray,
    halves: np.ndarray,
    nulls: np.ndarray,
    blur: float = 0.0,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
) -> pd.DataFrame:
    """One row per neuron: `fit_gaussians` of maps (N, h, w), whose arguments these are, and how far to trust it.

    halves (2, N, h, w) and nulls (K, N, h, w) as `WeightedMaps` gives them; blur: sd in pixels that the stimulus adds
    to every field (`lattice_blur`). Further columns: sign (-1 where the map's extreme is a hole, which is then fitted:
    local contrast suppresses the neuron), snr (that extreme over sd of the null maps, both smoothed by one sample),
    half_distance (pixels between the centres of the halves), bad_fit (R^2 < 0.3, snr < 4, centre off the map, or
    no fit at all).
    """
    N, height, width = maps.shape
    x, y = (np.arange(n) if axis is None else axis for n, axis in ((width, x), (height, y)))
    smooth = smoothed(maps).reshape(N, -1)
    smooth = smooth - np.median(smooth, axis=1, keepdims=True)
    sign = np.where(smooth.max(axis=1) < -smooth.min(axis=1), -1, 1)
    upright = sign[:, None, None]
    table = fit_gaussians(maps * upright, x, y, blur).assign(sign=sign)
    table["snr"] = abs(smooth).max(axis=1) / _noise(nulls)
    one, other = (fit_gaussians(half * upright, x, y, blur)[["x", "y"]].to_numpy() for half in halves)
    table["half_distance"] = np.hypot(*(one - other).T)
    inside = table["x"].between(x[0], x[-1]) & table["y"].between(y[0], y[-1])
    table["bad_fit"] = ~(inside & (table["r2"] >= LEAST_R2) & (table["snr"] >= LEAST_SNR))
    return table


def fit_gaussians(
    maps: np.ndarray, x: np.ndarray | None = None, y: np.ndarray | None = None, blur: float = 0.0
) -> pd.DataFrame:
    """A rotated Gaussian with an offset for every map (N, h, w), all at once; one row per neuron.

    x (w,) and y (h,): evenly spaced pixel coordinates of columns and rows; without them maps are at pixel resolution.
    blur: sd in pixels by which maps are wider than fields. Columns: x, y, sigma_major, sigma_minor (pixels, blur
    taken out), theta_deg (of the major axis: 0 horizontal, counter-clockwise on the screen, 0..180), amplitude,
    offset (units of the maps), r2. The fit starts at the peak of the smoothed map; centres stay within 2 px of the
    frame, sigma within 0.5..15 px, amplitudes are positive. NaN for maps that are constant or not finite.
    """
    x, y = (
        np.arange(n) if axis is None else np.asarray(axis) for n, axis in zip(maps.shape[:0:-1], (x, y), strict=True)
    )
    pitch = float(x[1] - x[0])
    low = np.array([x[0] - MARGIN, y[0] - MARGIN, *np.log([SIGMA[0]] * 2), -np.inf, 0.0, -np.inf])
    high = np.array([x[-1] + MARGIN, y[-1] + MARGIN, *np.log([SIGMA[1]] * 2), np.inf, np.inf, np.inf])
    pool = max(1, round(STEP / pitch))
    maps, x, y = _pooled(maps, pool), _pooled(x[None], pool, 1)[0], _pooled(y[None], pool, 1)[0]
    variance = blur**2 + pitch**2 * (pool**2 - 1) / 12
    data, scale = normalised(maps.reshape(len(maps), -1))
    start = _start(data.reshape(maps.shape), x, y, SMOOTH / (pitch * pool))
    model = partial(_gaussians, *(grid.ravel() for grid in np.meshgrid(x, y)), variance)
    found, r2 = least_squares(model, data, start, low, high)
    square = np.exp(2 * found[:, 2:4])
    found[:, 5] *= np.sqrt((square + variance) / (square + blur**2)).prod(axis=1)  # of the peak before pooling
    return _table(found, scale, r2)


def _pooled(maps: np.ndarray, size: int, axes: int = 2) -> np.ndarray:
    """Means over blocks of `size` samples along the last axes; what does not fill a block is left out."""
    for axis in range(-axes, 0):
        blocks = maps.shape[axis] // size
        maps = np.moveaxis(maps, axis, -1)[..., : blocks * size]
        maps = np.moveaxis(maps.reshape(*maps.shape[:-1], blocks, size).mean(axis=-1), -1, axis)
    return maps


def _start(maps: np.ndarray, x: np.ndarray, y: np.ndarray, smooth: float) -> np.ndarray:
    """Parameters (N, 7) to start from: a round Gaussian of 2 px at the peak."""
    flat = gaussian_filter(maps, (0, smooth, smooth)).reshape(len(maps), -1)
    row, column = np.divmod(flat.argmax(axis=1), len(x))
    floor, one = np.median(flat, axis=1), np.ones(len(maps))
    return np.stack([x[column], y[row], np.log(2) * one, np.log(2) * one, 0 * one, flat.max(axis=1) - floor, floor], 1)


def _gaussians(x: np.ndarray, y: np.ndarray, variance: float, parameters: np.ndarray):
    """Values (k, S), derivatives (k, 7, S) at places (S,); parameters x, y, log sigmas, theta, amplitude, offset."""
    x0, y0, log_u, log_v, theta, amplitude, offset = (column[:, None] for column in parameters.T)
    cos, sin = np.cos(theta), np.sin(theta)
    u, v = cos * (x - x0) - sin * (y - y0), sin * (x - x0) + cos * (y - y0)
    square_u, square_v = np.exp(2 * log_u), np.exp(2 * log_v)
    a, b = u / (square_u + variance), v / (square_v + variance)
    bump = np.exp(-(a * u + b * v) / 2)
    value = amplitude * bump
    slopes = np.empty((len(parameters), 7, len(x)))
    slopes[:, 0] = value * (a * cos + b * sin)
    slopes[:, 1] = value * (b * cos - a * sin)
    slopes[:, 2] = value * a**2 * square_u
    slopes[:, 3] = value * b**2 * square_v
    slopes[:, 4] = value * (a * v - b * u)
    slopes[:, 5] = bump
    slopes[:, 6] = 1.0
    return value + offset, slopes


def _table(found: np.ndarray, scale: np.ndarray, r2: np.ndarray) -> pd.DataFrame:
    x, y, log_u, log_v, theta, amplitude, offset = found.T
    theta = np.degrees(theta) + np.where(log_v > log_u, 90, 0)
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "sigma_major": np.exp(np.maximum(log_u, log_v)),
            "sigma_minor": np.exp(np.minimum(log_u, log_v)),
            "theta_deg": theta % 180,
            "amplitude": amplitude * scale,
            "offset": offset * scale,
            "r2": r2,
        }
    )


def gaussian2d(x: np.ndarray, y: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """offset + amplitude exp(-u^2 / 2 sigma_x^2 - v^2 / 2 sigma_y^2) at pixels x, y (...) -> (N, ...), as published.

    parameters (N, 7): amplitude, x0, y0, sigma_x, sigma_y (pixels), theta (radians, counter-clockwise), offset;
    u and v are the axes turned by theta. Of a table of `fit_gaussians`, sigma_x is sigma_major.
    """
    shape = (-1,) + (1,) * np.ndim(x)
    amplitude, x0, y0, sigma_x, sigma_y, theta, offset = (column.reshape(shape) for column in np.transpose(parameters))
    u = np.cos(theta) * (x - x0) - np.sin(theta) * (y - y0)
    v = np.sin(theta) * (x - x0) + np.cos(theta) * (y - y0)
    return offset + amplitude * np.exp(-((u / sigma_x) ** 2 + (v / sigma_y) ** 2) / 2)


def fwhm_deg(fields: pd.DataFrame, monitor: Monitor) -> np.ndarray:
    """Full widths at half maximum along the major and the minor axis, (N, 2) in degrees of visual angle.

    The angle, seen by the eye, between both ends of the diameter on the flat screen.
    """
    widths = []
    for name, turn in (("sigma_major", 0.0), ("sigma_minor", np.pi / 2)):
        theta = np.radians(fields["theta_deg"].to_numpy()) + turn
        reach = fields[name].to_numpy()[:, None] * FWHM / 2 * np.stack([np.cos(theta), -np.sin(theta)], axis=1)
        ends = [np.radians(monitor.to_degrees(fields[["x", "y"]].to_numpy() + side * reach)).T for side in (-1, 1)]
        (azimuth, elevation), (other_azimuth, other_elevation) = ends
        cosine = np.sin(elevation) * np.sin(other_elevation)
        cosine += np.cos(elevation) * np.cos(other_elevation) * np.cos(azimuth - other_azimuth)
        widths.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return np.stack(widths, axis=1)


def smoothed(maps: np.ndarray) -> np.ndarray:
    """Maps (..., H, W) blurred by 1 px."""
    return gaussian_filter(maps, (0,) * (maps.ndim - 2) + (SMOOTH, SMOOTH))


def _noise(nulls: np.ndarray) -> np.ndarray:
    """Root mean square of smoothed null maps, over the pixels that have a value: (K, N, H, W) -> (N,)."""
    power, count = np.zeros(nulls.shape[1]), np.zeros(nulls.shape[1])
    for null in nulls:
        smooth = smoothed(null)
        valid = np.isfinite(smooth)
        power += np.square(np.where(valid, smooth, 0)).sum(axis=(1, 2), dtype=np.float64)
        count += valid.sum(axis=(1, 2))
    return np.sqrt(np.divide(power, count, out=np.full(len(power), np.nan), where=power > 0))
