"""Where flashed dots drive a neuron, and how compact that place is: ON and OFF maps on a lattice, spatial selectivity.

Dots are Gaussian blobs, bright or dark, one at a time on a lattice of places. Responses come as one number for each
presentation and latency (`block_means`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LATENCIES = (1, 2, 3, 4, 5, 6)  # frames


def block_means(
    responses: np.ndarray, starts: Sequence[int], length: int, latencies: Sequence[int] = LATENCIES
) -> np.ndarray:
    """Mean responses during blocks that begin at frames `starts` (n,), each latency later: (N, T) -> (L, N, n).

    NaN where a block does not fit into the trial.
    """
    N, T = responses.shape
    sums = np.concatenate([np.zeros((N, 1)), np.cumsum(responses, axis=1, dtype=np.float64)], axis=1)
    first = np.asarray(latencies)[:, None] + np.asarray(starts)  # (L, n)
    inside = (first >= 0) & (first + length <= T)
    first = np.where(inside, first, 0)
    means = (sums[:, np.minimum(first + length, T)] - sums[:, first]) / length  # (N, L, n)
    return np.where(inside, means, np.nan).swapaxes(0, 1)


@dataclass(frozen=True)
class DotMaps:
    """Mean response at every place of the lattice, NaN where no dot was shown.

    on, off (N, rows, columns) to bright and dark dots; columns_px, rows_px: the places; latency (N,) index of the
    latency at which places differ most; x, y (N,) the preferred place in pixels, and prefers_on (N,) whether bright
    dots reached it. x and y are NaN for neurons whose responses do not differ.
    """

    on: np.ndarray
    off: np.ndarray
    columns_px: np.ndarray
    rows_px: np.ndarray
    latency: np.ndarray
    x: np.ndarray
    y: np.ndarray
    prefers_on: np.ndarray


def dot_maps(blocks: np.ndarray, x: np.ndarray, y: np.ndarray, is_black: np.ndarray) -> DotMaps:
    """Maps from responses (L, N, n) to n dots at pixels x, y (n,); for each neuron at its own best latency.

    The best latency is that of the largest variance of the maps. `receptive_field.fit_gaussians` of a map, with
    `columns_px` and `rows_px`, finds its centre between places.
    """
    columns, column = np.unique(np.asarray(x), return_inverse=True)
    rows, row = np.unique(np.asarray(y), return_inverse=True)
    L, N, n = blocks.shape
    place = (np.asarray(is_black).astype(int) * len(rows) + row) * len(columns) + column
    shown = np.zeros((n, 2 * len(rows) * len(columns)))
    shown[np.arange(n), place] = 1
    valid = np.isfinite(blocks)
    counts = valid.astype(float) @ shown
    with np.errstate(divide="ignore", invalid="ignore"):
        maps = np.where(valid, blocks, 0) @ shown / counts  # (L, N, places)
    maps[counts == 0] = np.nan
    variance = _variance(maps)
    latency = variance.argmax(axis=0)
    maps = maps[latency, np.arange(N)]
    best = np.where(np.isfinite(maps), maps, -np.inf).argmax(axis=1)
    polarity, best_row, best_column = np.unravel_index(best, (2, len(rows), len(columns)))
    different = variance.max(axis=0) > 0
    on, off = maps.reshape(N, 2, len(rows), len(columns)).swapaxes(0, 1)
    return DotMaps(
        on, off, columns, rows, latency,
        np.where(different, columns[best_column], np.nan), np.where(different, rows[best_row], np.nan), polarity == 0,
    )  # fmt: skip


def _variance(maps: np.ndarray) -> np.ndarray:
    """Variance over the last axis, of the values there are; 0 for none."""
    valid = np.isfinite(maps)
    count = np.maximum(valid.sum(axis=-1), 1)
    mean = np.where(valid, maps, 0).sum(axis=-1) / count
    variance = np.where(valid, np.square(maps - mean[..., None]), 0).sum(axis=-1) / count
    return np.where(variance > 1e-12 * mean**2, variance, 0.0)


def response_weighted_average(responses: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Average stimulus weighted by the response, (N, H, W): responses (N, T), contrast of frames (T, H, W).

    sum r s / sum r, with s relative to the background (0). NaN for neurons whose responses add up to nothing.
    """
    total = responses.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(total[:, None] > 0, responses / total[:, None], np.nan)
    return np.tensordot(weights, frames, axes=1)


def spatial_selectivity(maps: np.ndarray, threshold_sd: float | None = 2.0) -> np.ndarray:
    """Spatial selectivity index (N,) of maps (N, H, W): -log det of their covariance (Wang et al. 2023).

    Coordinates are scaled to [0, 1] on both axes; an isotropic Gaussian map of sigma s px on 36 x 64 pixels has
    -2 ln(s / 63) - 2 ln(s / 35). Pixels weigh by their distance from the median of the map where it exceeds
    `threshold_sd` times the sd over pixels, and not at all elsewhere: signed weights need not have a covariance, and
    what all pixels share is no field. Tails go with the noise, which adds 0.6 to 1.4 (sigma 1.5 to 4 px). None: the
    map itself weighs, as published. NaN where the weights leave no area.
    """
    N, H, W = maps.shape
    weights = np.asarray(maps, dtype=np.float64).reshape(N, -1)
    if threshold_sd is not None:
        sd = weights.std(axis=1, keepdims=True)
        weights = abs(weights - np.median(weights, axis=1, keepdims=True))
        weights = np.where(weights > threshold_sd * sd, weights, 0.0)
    y, x = (grid.ravel() for grid in np.mgrid[0 : 1 : H * 1j, 0 : 1 : W * 1j])
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = weights / weights.sum(axis=1, keepdims=True)
        mean_x, mean_y = weights @ x, weights @ y
        xx, yy, xy = weights @ x**2 - mean_x**2, weights @ y**2 - mean_y**2, weights @ (x * y) - mean_x * mean_y
        area = xx * yy - xy**2
        return np.where((area > 1e-15) & (xx > 0), -np.log(area), np.nan)
