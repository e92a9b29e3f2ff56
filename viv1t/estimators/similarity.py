"""Do neighbours in cortex share their tuning? Correlation of tuning curves against distance, over pairs of neurons.

Pairs are no independent observations. Inference is therefore by permuting neurons (is there any clustering?) and by
resampling them (how certain is a mean?), never by counting pairs. Distances in um.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

from viv1t.estimators.least_squares import least_squares
from viv1t.estimators.selectivity import standardised
from viv1t.stats import permutation_p

ADJACENT = 30.0  # um; in planes less far apart one cell may be imaged twice
WORK = 4e9  # pairs times shuffles, a minute or two; more pairs get fewer shuffles
LEAST_SHUFFLES = 100
CHUNK = 2**22  # values held at once


@dataclass(frozen=True)
class Similarity:
    """Mean tuning similarity of pairs in bins of distance.

    bins: one row per bin with low, high, depth_low, depth_high (its edges), distance (mean over its pairs), mean,
    ci_low and ci_high (95 %, bootstrap over neurons), n (pairs), p (of so high a mean if neurons were permuted).
    chance: mean over all pairs of the mouse. neurons: how many have a similarity. resampled (R, bins): bootstrap
    means. A bin without pairs has NaN.
    """

    bins: pd.DataFrame
    chance: float
    neurons: int
    shuffles: int
    resampled: np.ndarray


def tuning_similarity(
    curves: np.ndarray,
    xyz_um: np.ndarray,
    edges: Sequence[float],
    depth_edges: Sequence[float] | None = None,
    *,
    rng: np.random.Generator,
    exclude_um: float = 15.0,
    shuffles: int = 1000,
    resamples: int = 200,
) -> Similarity:
    """Similarity against distance, after Ringach et al. 2016. curves (N, D); similarity is their Pearson correlation.

    xyz_um (N, 3). With `depth_edges`, bins are of horizontal distance (`edges`) for each bin of depth difference;
    without, `edges` are of the distance in three dimensions. Bins are [low, high). Pairs in adjacent planes (less than
    30 um apart) closer than `exclude_um` horizontally are left out: many are one cell imaged twice. So are neurons
    with a flat curve. With more than 4 million pairs there are fewer shuffles, never less than 100.
    """
    z = standardised(np.asarray(curves, dtype=np.float64))
    tuned = np.isfinite(z).all(axis=1) & np.isfinite(xyz_um).all(axis=1)
    z, xyz = z[tuned].astype(np.float32), np.asarray(xyz_um, dtype=np.float64)[tuned]
    N, K = len(z), (len(edges) - 1) * (1 if depth_edges is None else len(depth_edges) - 1)
    pairs, bins, distance = _pairs(xyz, edges, depth_edges, exclude_um)
    n = np.bincount(bins, minlength=K)
    near = [_neighbours(pairs[bins == k], N) for k in range(K)]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = _sums(near, z[:, None])[0] / n
        far = np.bincount(bins, distance, minlength=K) / n
    shuffles = int(np.clip(WORK // max(len(pairs), 1), min(LEAST_SHUFFLES, shuffles), shuffles))
    null = _shuffled_means(near, z, n, shuffles, rng)
    resampled = _resampled_means(near, z, resamples, rng)
    low, high = (np.percentile(resampled, q, axis=0) for q in (2.5, 97.5))
    depths = [(0.0, np.inf)] if depth_edges is None else list(zip(depth_edges[:-1], depth_edges[1:], strict=True))
    table = pd.DataFrame(
        [(a, b, *depth) for depth in depths for a, b in zip(edges[:-1], edges[1:], strict=True)],
        columns=["low", "high", "depth_low", "depth_high"],
    )
    table = table.assign(distance=far, mean=mean, ci_low=low, ci_high=high, n=n, p=permutation_p(mean, null))
    total = np.square(z.sum(axis=0, dtype=np.float64)).sum()
    return Similarity(table, (total - N) / (N * (N - 1)) if N > 1 else np.nan, N, shuffles, resampled)


def _pairs(xyz: np.ndarray, edges, depth_edges, exclude_um: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of neurons (P, 2) that fall into a bin, their bin (P,) and their distance (P,)."""
    places = xyz if depth_edges is None else xyz[:, :2]
    if len(places) < 2:
        return np.empty((0, 2), int), np.empty(0, int), np.empty(0)
    pairs = cKDTree(places).query_pairs(max(edges), output_type="ndarray").astype(np.int32)
    step = xyz[pairs[:, 0]] - xyz[pairs[:, 1]]
    across, depth = np.hypot(step[:, 0], step[:, 1]), abs(step[:, 2])
    distance = np.hypot(across, depth) if depth_edges is None else across
    bins, inside = _bin(distance, edges)
    if depth_edges is not None:
        row, within = _bin(depth, depth_edges)
        bins, inside = row * (len(edges) - 1) + bins, inside & within
    inside &= (depth == 0) | (depth >= ADJACENT) | (across >= exclude_um)
    return pairs[inside], bins[inside], distance[inside]


def _bin(values: np.ndarray, edges) -> tuple[np.ndarray, np.ndarray]:
    """Index of the bin [low, high) of each value, and whether there is one."""
    index = np.searchsorted(edges, values, side="right") - 1
    return index, (index >= 0) & (index < len(edges) - 1)


def _neighbours(pairs: np.ndarray, N: int) -> sparse.csr_array:
    """(N, N), 1 for each pair."""
    return sparse.csr_array((np.ones(len(pairs), np.float32), (pairs[:, 0], pairs[:, 1])), shape=(N, N))


def _sums(near: list, z: np.ndarray) -> np.ndarray:
    """Summed similarity of every bin's pairs, (S, K), of S sets of standardised curves z (N, S, D)."""
    flat = z.reshape(len(z), -1)
    sums = [((matrix @ flat) * flat).reshape(z.shape).sum(axis=(0, 2), dtype=np.float64) for matrix in near]
    return np.stack(sums, axis=1)


def _shuffled_means(near: list, z: np.ndarray, n: np.ndarray, shuffles: int, rng: np.random.Generator) -> np.ndarray:
    """Bin means (shuffles, K) after exchanging the curves between neurons; the pairs stay."""
    sums, step = [], max(1, CHUNK // (4 * max(z.size, 1)))
    for start in range(0, shuffles, step):
        orders = [rng.permutation(len(z)) for _ in range(min(step, shuffles - start))]
        sums.append(_sums(near, z[np.stack(orders, axis=1)]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.concatenate(sums) / n


def _resampled_means(near: list, z: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Bin means (resamples, K) of neurons drawn with replacement: a pair counts as often as both were drawn."""
    N = len(z)
    drawn = rng.multinomial(N, np.full(N, 1 / max(N, 1)), size=resamples).T.astype(np.float32)  # (N, R)
    means = []
    for matrix in near:
        row, column = matrix.tocoo().coords
        similar = sparse.csr_array((np.einsum("pd,pd->p", z[row], z[column]), (row, column)), shape=(N, N))
        above, below = (((m @ drawn) * drawn).sum(axis=0, dtype=np.float64) for m in (similar, matrix))
        with np.errstate(divide="ignore", invalid="ignore"):
            means.append(above / below)
    return np.stack(means, axis=1)


@dataclass(frozen=True)
class Decay:
    """Similarity = amplitude exp(-distance / length_um) + floor, with a 95 % interval of the length."""

    amplitude: float
    length_um: float
    floor: float
    length_low: float
    length_high: float


def fit_decay(similarity: Similarity, bins: np.ndarray | slice = slice(None)) -> Decay:
    """Exponential decay through the means of some bins, weighted by their bootstrap sd; NaN for fewer than 4 bins.

    The interval is that of fits to each bootstrap resample of neurons.
    """
    table, resampled = similarity.bins[bins], similarity.resampled[:, bins]
    rows = np.flatnonzero(np.isfinite(table["mean"].to_numpy()) & np.isfinite(resampled).all(axis=0))
    if len(rows) < 4:
        return Decay(*[np.nan] * 5)
    distance, resampled = table["distance"].to_numpy()[rows], resampled[:, rows]
    sd = resampled.std(axis=0)
    data = np.vstack([table["mean"].to_numpy()[rows], resampled]) / sd
    first, last = data[:, 0] * sd[0], data[:, -1] * sd[-1]
    reach = distance.max()
    start = np.stack([np.full(len(data), np.log(reach / 4)), np.maximum(first - last, 0.01), last], axis=1)
    low, high = np.array([np.log(1.0), 0.0, -1.0]), np.array([np.log(100 * reach), 10.0, 1.0])
    found, _ = least_squares(partial(_exponential, distance, sd), data, start, low, high)
    lengths = np.exp(found[:, 0])
    return Decay(*map(float, (found[0, 1], lengths[0], found[0, 2], *np.nanpercentile(lengths[1:], [2.5, 97.5]))))


def _exponential(distance: np.ndarray, sd: np.ndarray, parameters: np.ndarray):
    """Values (k, K) and derivatives (k, 3, K), both over sd; parameters log length, amplitude, floor."""
    log_length, amplitude, floor = (column[:, None] for column in parameters.T)
    fraction = distance * np.exp(-log_length)
    bump = np.exp(-fraction)
    slopes = np.stack([amplitude * bump * fraction, bump, np.ones_like(bump)], axis=1)
    return (amplitude * bump + floor) / sd, slopes / sd
