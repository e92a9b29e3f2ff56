"""Intervals, and tests by permutation: how far a number would move in another sample, or if nothing were there.

Percentile bootstrap with a seeded Generator; every interval comes with the numbers of neurons and animals behind it.
Angles come in degrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CHUNK = 2**22  # resampled values held at once


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval [low, high] at `level`, over `n` neurons of `animals` animals."""

    mean: float
    low: float
    high: float
    n: int
    animals: int = 1
    level: float = 0.95


def bootstrap(values: np.ndarray, rng: np.random.Generator, resamples: int = 1000, level: float = 0.95) -> Interval:
    """Interval of the mean over neurons; (N,) values, of which NaNs are left out."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan, 0, level=level)
    low, high = _percentiles(_resampled_means(values, resamples, rng), level)
    return Interval(float(values.mean()), low, high, len(values), level=level)


def bootstrap_ratio(
    above: np.ndarray, below: np.ndarray, rng: np.random.Generator, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Interval of mean(above) / mean(below) over paired neurons (N,), e.g. a score and its ceiling."""
    valid = np.isfinite(above) & np.isfinite(below)
    pairs = np.stack([above[valid], below[valid]], axis=-1)  # (n, 2)
    if len(pairs) == 0:
        return Interval(np.nan, np.nan, np.nan, 0, level=level)
    means = _resampled_means(pairs, resamples, rng)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = _percentiles(means[:, 0] / means[:, 1], level)
        return Interval(float(np.divide(*pairs.mean(axis=0))), low, high, len(pairs), level=level)


def hierarchical_bootstrap(
    per_animal: Sequence[np.ndarray], rng: np.random.Generator, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Interval of the mean over animals of their mean over neurons (Saravanan et al. 2020).

    Every resample draws animals, and for each drawn animal its neurons anew. Animals without values are left out.
    """
    per_animal = [values[np.isfinite(values)] for values in per_animal]
    per_animal = [values for values in per_animal if len(values)]
    if not per_animal:
        return Interval(np.nan, np.nan, np.nan, 0, animals=0, level=level)
    M = len(per_animal)
    drawn = rng.integers(M, size=(resamples, M))
    means = np.empty((resamples, M))
    for animal, values in enumerate(per_animal):
        where = drawn == animal
        means[where] = _resampled_means(values, int(where.sum()), rng)
    low, high = _percentiles(means.mean(axis=1), level)
    mean = float(np.mean([values.mean() for values in per_animal]))
    return Interval(mean, low, high, sum(map(len, per_animal)), animals=M, level=level)


def bootstrap_correlation(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Pearson correlation of two measures of the same neurons (N,), and its interval; pairs with a NaN are left out.

    NaN for fewer than 3 pairs, or when either measure is constant.
    """
    valid = np.isfinite(a) & np.isfinite(b)
    pairs = np.stack([a[valid], b[valid]]).astype(np.float64)  # (2, n)
    n = pairs.shape[1]
    if n < 3 or not (np.ptp(pairs, axis=1) > 0).all():
        return Interval(np.nan, np.nan, np.nan, n, level=level)
    draws = np.empty(resamples)
    step = max(1, CHUNK // (2 * n))
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        draws[start:stop] = _pearson(*pairs[:, rng.integers(n, size=(stop - start, n))])
    low, high = _percentiles(draws[np.isfinite(draws)], level)
    return Interval(float(_pearson(*pairs)), low, high, n, level=level)


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation along the last axis; NaN where either is constant."""
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (a * b).sum(axis=-1) / np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))


def permutation_p(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """One-sided p (...) of observed (...) among null (B, ...): (1 + how many are at least as large) / (1 + B).

    Never 0, and valid for any B (Phipson & Smyth 2010). NaN where `observed` is.
    """
    count = (null >= observed).sum(axis=0)
    return np.where(np.isfinite(observed), (1 + count) / (1 + len(null)), np.nan)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """q (N,): the least false discovery rate at which each of many tests with p (N,) is still a discovery.

    Step-up procedure of Benjamini & Hochberg 1995; NaNs are no tests and stay NaN.
    """
    q = np.full(np.shape(p), np.nan)
    valid = np.flatnonzero(np.isfinite(p))
    order = valid[np.argsort(np.asarray(p)[valid])]
    scaled = np.asarray(p)[order] * len(order) / np.arange(1, len(order) + 1)
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)
    return q


def circular_difference(a: np.ndarray, b: np.ndarray, period: float = 360.0) -> np.ndarray:
    """a - b in degrees, within [-period / 2, period / 2): period 360 for directions, 180 for orientations."""
    return (np.asarray(a) - b + period / 2) % period - period / 2


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means (resamples, ...) over the first axis of `values`, drawn with replacement, in bounded memory."""
    n = len(values)
    means = np.empty((resamples, *values.shape[1:]))
    step = max(1, CHUNK // values.size)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        means[start:stop] = values[rng.integers(n, size=(stop - start, n))].mean(axis=1)
    return means


def _percentiles(means: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
