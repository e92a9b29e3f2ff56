"""Intervals, and tests by permutation: how far a number would move in another sample, or if nothing were there.

Percentile bootstrap with a seeded Generator; every interval comes with the numbers of neurons and animals behind it.
Angles come in degrees.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

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
    return _over_animals(
        [values.mean() for values in per_animal],
        [_resampler(values, rng, np.mean) for values in per_animal],
        sum(map(len, per_animal)), rng, resamples, level,
    )  # fmt: skip


def hierarchical_ratio(
    above: Sequence[np.ndarray],
    below: Sequence[np.ndarray],
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Interval of the mean over animals of mean(above) / mean(below) over paired neurons (see above)."""
    pairs = [np.stack([a, b], axis=-1) for a, b in zip(above, below, strict=True)]
    pairs = [own[np.isfinite(own).all(axis=1)] for own in pairs]
    pairs = [own for own in pairs if len(own)]

    def ratio(means: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return means[..., 0] / means[..., 1]

    return _over_animals(
        [ratio(own.mean(axis=0)) for own in pairs],
        [lambda k, own=own: ratio(_resampled_means(own, k, rng)) for own in pairs],
        sum(map(len, pairs)), rng, resamples, level,
    )  # fmt: skip


def hierarchical_difference(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Interval of the mean over animals of mean(first) - mean(second), two groups of unpaired neurons of each animal.

    Neurons of both groups are drawn anew. Animals that lack either group are left out; `n` counts the first group.
    """
    groups = [tuple(own[np.isfinite(own)] for own in pair) for pair in zip(first, second, strict=True)]
    groups = [pair for pair in groups if all(map(len, pair))]
    return _over_animals(
        [a.mean() - b.mean() for a, b in groups],
        [lambda k, a=a, b=b: _resampled_means(a, k, rng) - _resampled_means(b, k, rng) for a, b in groups],
        sum(len(a) for a, _ in groups), rng, resamples, level,
    )  # fmt: skip


def _over_animals(
    values: Sequence[float],
    resample: Sequence[Callable[[int], np.ndarray]],
    n: int,
    rng: np.random.Generator,
    resamples: int,
    level: float,
) -> Interval:
    """Interval of the mean of one value per animal; resample[i](k): k values of animal i, its neurons drawn anew."""
    if not len(values):
        return Interval(np.nan, np.nan, np.nan, 0, animals=0, level=level)
    low, high = _percentiles(_drawn(resample, rng, resamples), level)
    return Interval(float(np.mean(values)), low, high, n, animals=len(values), level=level)


def _drawn(resample: Sequence[Callable[[int], np.ndarray]], rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Means over animals that are drawn with replacement, (resamples,); resample: see `_over_animals`."""
    M = len(resample)
    drawn, values = rng.integers(M, size=(resamples, M)), np.empty((resamples, M))
    for animal in range(M):
        where = drawn == animal
        values[where] = resample[animal](int(where.sum()))
    return values.mean(axis=1)


@dataclass(frozen=True)
class Answer:
    """What one test says about one question.

    effect: what `value` measures, with its unit; [low, high]: its interval; p: two-sided; n: neurons, on `planes`
    imaging planes of `animals` animals.
    """

    question: str
    test: str
    effect: str
    value: float
    low: float
    high: float
    p: float
    n: int
    planes: int
    animals: int
    level: float = 0.95

    def __str__(self) -> str:
        return (
            f"{self.question} {self.effect}: {self.value:.3g} [{self.low:.3g}, {self.high:.3g}], p = {self.p:.2g} "
            f"({self.test}; {counts(self.n, self.planes, self.animals)})"
        )


def counts(n: int, planes: int, animals: int) -> str:
    """n = 300 neurons, 10 planes, 2 animals."""
    told = zip((n, planes, animals), ("neuron", "plane", "animal"), strict=True)
    return "n = " + ", ".join(f"{number} {noun}{'s' * (number != 1)}" for number, noun in told)


def count(table: pd.DataFrame) -> tuple[int, int, int]:
    """Neurons, imaging planes and animals in a table with columns `mouse` and `z_um`."""
    return len(table), len(table[["mouse", "z_um"]].drop_duplicates()), table["mouse"].nunique()


def ask(
    question: str,
    effect: str,
    table: pd.DataFrame,
    column: str,
    rng: np.random.Generator,
    expected: float = 0.0,
    statistic: Callable[[np.ndarray], float] = np.mean,
    resamples: int = 2000,
    level: float = 0.95,
) -> Answer:
    """Does a quantity differ from `expected`, over neurons and animals? For paired questions it is the difference.

    table: one row per neuron, with `mouse` and `z_um`; column: one name, or several for a statistic of rows (n, k),
    e.g. a correlation. The value is the mean over animals of the statistic over their neurons; interval and p come
    from a bootstrap that draws animals, and for each drawn animal its neurons anew (Saravanan et al. 2020), so p says
    how often another sample of mice and neurons would lie on the other side. With two or three animals it can say
    little about other animals, whatever the number of neurons.
    """
    table = table[np.isfinite(table[column]).all(axis=1) if isinstance(column, list) else np.isfinite(table[column])]
    name = "hierarchical bootstrap over animals and neurons"
    if not len(table):
        return Answer(question, name, effect, np.nan, np.nan, np.nan, np.nan, 0, 0, 0, level)
    per_animal = [own[column].to_numpy(dtype=float) for _, own in table.groupby("mouse", sort=True)]
    means = _drawn([_resampler(own, rng, statistic) for own in per_animal], rng, resamples)
    means = means[np.isfinite(means)]
    low, high = _percentiles(means, level) if len(means) else (np.nan, np.nan)
    sides = (1 + (means <= expected).sum(), 1 + (means >= expected).sum())
    p = min(1.0, 2 * min(sides) / (1 + len(means)))
    value = float(np.mean([statistic(values) for values in per_animal]))
    return Answer(question, name, effect, value, low, high, p, *count(table), level)


def _resampler(own: np.ndarray, rng: np.random.Generator, statistic: Callable) -> Callable[[int], np.ndarray]:
    """k -> the statistic (k,) of one animal's neurons, drawn anew k times."""
    if statistic is np.mean:
        return lambda k: _resampled_means(own, k, rng)
    return lambda k: np.array([statistic(own[rng.integers(len(own), size=len(own))]) for _ in range(k)])


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
