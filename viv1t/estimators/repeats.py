"""Repeated presentations of one video: how much of the variance they share.

Responses are lists of trials, each (N, T); a video id per trial says which trials show the same video. Variances are
over time and unbiased. Repeats of unequal length are compared over the frames that all of them have.
"""

from collections.abc import Sequence

import numpy as np


def group_repeats(video_ids: Sequence[int], least: int = 2) -> list[np.ndarray]:
    """Trial indices of every video shown at least `least` times, ordered by video id; ids below 0 are left out."""
    video_ids = np.asarray(video_ids)
    ids, counts = np.unique(video_ids, return_counts=True)
    return [np.flatnonzero(video_ids == i) for i, n in zip(ids, counts, strict=True) if i >= 0 and n >= least]


def stack(trials: Sequence[np.ndarray], group: np.ndarray) -> np.ndarray:
    """The trials of one group as (R, N, T) float64, cut to their common length."""
    length = min(trials[i].shape[-1] for i in group)
    return np.stack([np.asarray(trials[i][..., :length], dtype=np.float64) for i in group])


def signal_power(responses: np.ndarray) -> np.ndarray:
    """Variance over time that R repeats share (Sahani & Linden 2003); (R, N, T) -> (N,).

    [Var(sum over r of y_r) - sum over r of Var(y_r)] / (R (R - 1)); unbiased, so noise alone can make it negative.
    """
    R = len(responses)
    of_sum = responses.sum(axis=0).var(axis=-1, ddof=1)
    sum_of = responses.var(axis=-1, ddof=1).sum(axis=0)
    return (of_sum - sum_of) / (R * (R - 1))


def total_power(responses: np.ndarray) -> np.ndarray:
    """Variance over time of single trials, averaged over repeats; (R, N, T) -> (N,)."""
    return responses.var(axis=-1, ddof=1).mean(axis=0)


def explainable_variance(trials: Sequence[np.ndarray], video_ids: Sequence[int]) -> np.ndarray:
    """Share of single-trial variance that the video explains, (N,): signal over total power, pooled over videos.

    NaN for neurons without variance, and for all neurons when no video repeats. Noise can push it below 0.
    """
    signal, total = pooled_power(trials, video_ids)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, signal / total, np.nan)


def pooled_power(trials: Sequence[np.ndarray], video_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Signal and total power (N,) each, summed over repeated videos with T - 1 as weights; zeros without repeats."""
    signal = np.zeros(len(trials[0]))
    total = np.zeros(len(trials[0]))
    for group in group_repeats(video_ids):
        y = stack(trials, group)
        signal += (y.shape[-1] - 1) * signal_power(y)
        total += (y.shape[-1] - 1) * total_power(y)
    return signal, total
