"""How well any prediction could do: what repeats, or the known truth, say about the noise in the responses.

On a simulated mouse the ceiling of every score is the score of the true rate, e.g.
`challenge_correlation(responses, rates)`. On recordings it is estimated from repeats of a video:

- `oracle` predicts a trial from the other repeats (jackknife); the oracle's own noise keeps it a little below what a
  perfect model reaches;
- `oracle(..., include_own=True)` averages over all repeats, the trial itself included; it is a little too high;
- `cc_max` is the largest correlation with the mean over repeats, `cc_max_single_trial` with single trials, of a model
  of the video alone; a model that also knows the behaviour can exceed both.

Lists of trials (N, T) in, one number per neuron (N,) out, as in `accuracy`.
"""

from collections.abc import Sequence

import numpy as np

from viv1t.estimators.accuracy import LEAST_SHARE, StreamingCorrelation, correlation
from viv1t.estimators.repeats import explainable_variance, group_repeats, pooled_power, signal_power, stack

Trials = Sequence[np.ndarray]


def oracle(trials: Trials, video_ids: Sequence[int], include_own: bool = False) -> np.ndarray:
    """Correlation (N,) of single trials with the mean over the other repeats, over all repeated trials end to end.

    NaN when no video repeats.
    """
    stream = StreamingCorrelation(len(trials[0]))
    for group in group_repeats(video_ids):
        y = stack(trials, group)  # (R, N, T)
        total = y.sum(axis=0)
        for trial in y:
            stream.update(trial, total / len(y) if include_own else (total - trial) / (len(y) - 1))
    return stream.value()


def cc_max(trials: Trials, video_ids: Sequence[int]) -> np.ndarray:
    """Largest correlation (N,) of a model of the video with the mean over repeats (Schoppe et al. 2016).

    sqrt(signal power / power of the mean), pooled over videos; NaN where repeats explain less than LEAST_SHARE of the
    variance of single trials, or when none repeats.
    """
    signal = np.zeros(len(trials[0]))
    of_mean = np.zeros_like(signal)
    for group in group_repeats(video_ids):
        y = stack(trials, group)
        signal += (y.shape[-1] - 1) * signal_power(y)
        of_mean += (y.shape[-1] - 1) * y.mean(axis=0).var(axis=-1, ddof=1)
    reliable = explainable_variance(trials, video_ids) > LEAST_SHARE
    return np.sqrt(_ratio(np.where(reliable, signal, np.nan), of_mean))


def cc_max_single_trial(trials: Trials, video_ids: Sequence[int]) -> np.ndarray:
    """Largest correlation (N,) of a model of the video with single trials: sqrt(signal power / total power).

    0 where noise makes the signal power negative; NaN when no video repeats.
    """
    signal, total = pooled_power(trials, video_ids)
    return np.sqrt(_ratio(np.maximum(signal, 0), total))


def split_half_reliability(trials: Trials, video_ids: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Correlation (N,) of the means over two random halves of the repeats, for the full number of repeats.

    Halves of all repeated videos are put end to end and the correlation r is corrected to 2 r / (1 + r)
    (Spearman-Brown), at r <= 0 left as it is. NaN when no video repeats.
    """
    halves = ([], [])
    for group in group_repeats(video_ids):
        y = stack(trials, rng.permutation(group))
        middle = len(y) // 2
        halves[0].append(y[:middle].mean(axis=0))
        halves[1].append(y[middle : 2 * middle].mean(axis=0))
    if not halves[0]:
        return np.full(len(trials[0]), np.nan)
    r = correlation(np.concatenate(halves[0], axis=-1), np.concatenate(halves[1], axis=-1), axis=-1)
    return np.where(r > 0, 2 * r / (1 + r), r)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 0, a / b, np.nan)
