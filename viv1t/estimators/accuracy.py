"""How well predictions match responses.

Trials come as lists of (N, T) arrays, of any lengths, and every function returns one number per neuron, (N,) float64;
NaN marks a neuron, or a whole recording, for which the number does not exist (no repeats, no explainable variance).
`summarize` turns such an array into a mean, the number of neurons behind it and the number left out. Cut the frames
that no score uses with `scored` first. Correlations do not depend on the units of the responses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viv1t.constants import SKIP
from viv1t.estimators.repeats import explainable_variance, group_repeats, signal_power, stack

TINY = 1e-8  # added to standard deviations: a constant trace scores 0 instead of NaN
WEAK_SIGNAL = 1e-4  # published normalised correlation: neurons with less signal power, in response units, have none
LEAST_SHARE = 0.01  # pooled normalised correlation: least share of single-trial variance that repeats explain
LEAST_SHARE_FEVE = 0.15  # the same for FEVE, after Cadena et al. 2019

Trials = Sequence[np.ndarray]


def scored(responses: np.ndarray, length: int, skip: int = SKIP) -> np.ndarray:
    """The last `length - skip` frames of (N, T'), so that a model which answers later than frame 0 stays aligned."""
    keep = length - skip
    if keep < 2 or responses.shape[-1] < keep:
        raise ValueError(f"{responses.shape[-1]} frames of a trial of {length} cannot be scored after {skip}")
    return responses[..., responses.shape[-1] - keep :]


@dataclass(frozen=True)
class Summary:
    """A score over neurons: its mean, the neurons behind it, the neurons left out, and why."""

    mean: float
    n: int
    excluded: int
    reason: str = ""


def summarize(values: np.ndarray, reason: str = "not defined") -> Summary:
    """Mean over the neurons that have a value; NaN when none has one."""
    valid = np.isfinite(values)
    n, excluded = int(valid.sum()), int((~valid).sum())
    return Summary(float(values[valid].mean()) if n else float("nan"), n, excluded, reason if excluded else "")


def correlation(a: np.ndarray, b: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Pearson correlation of two arrays of one shape along `axis` (None: over everything); constant traces give 0."""
    a = np.asarray(a, dtype=np.float64)
    b = np.asarray(b, dtype=np.float64)
    a = (a - a.mean(axis=axis, keepdims=True)) / (a.std(axis=axis, keepdims=True) + TINY)
    b = (b - b.mean(axis=axis, keepdims=True)) / (b.std(axis=axis, keepdims=True) + TINY)
    return (a * b).mean(axis=axis)


class StreamingCorrelation:
    """Correlation per neuron over everything passed to `update`, in O(N) memory.

    Means and centred second moments are merged chunk by chunk (Chan et al. 1983), which stays exact where sums of
    squares cancel. With all trials of a tier this is the competition's correlation.
    """

    def __init__(self, num_neurons: int):
        self.count = 0
        self.mean = np.zeros((2, num_neurons))  # of truth and prediction
        self.moments = np.zeros((3, num_neurons))  # summed squares of truth, of prediction, and their product

    def update(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        """Add frames: two arrays (N, T)."""
        if y_true.shape != y_pred.shape or len(y_true) != self.mean.shape[1]:
            raise ValueError(f"expected two arrays ({self.mean.shape[1]}, T), got {y_true.shape} and {y_pred.shape}")
        T = y_true.shape[-1]
        if T == 0:
            return
        chunk = np.array([y_true, y_pred], dtype=np.float64)  # (2, N, T)
        mean = chunk.mean(axis=-1)
        chunk -= mean[..., None]
        self.merge(T, mean, _products(*chunk))

    def merge(self, count: int, mean: np.ndarray, moments: np.ndarray) -> None:
        """Add `count` frames with these means (2, N) and centred moments (3, N), such as another stream's."""
        if count == 0:
            return
        step = mean - self.mean
        self.moments += moments
        self.moments += _products(*step[..., None]) * (self.count * count / (self.count + count))
        self.count += count
        self.mean += step * (count / self.count)

    def value(self) -> np.ndarray:
        """(N,) float64; NaN before the first frame."""
        if self.count == 0:
            return np.full(self.mean.shape[1], np.nan)
        true, pred, product = self.moments / self.count
        return product / ((np.sqrt(true) + TINY) * (np.sqrt(pred) + TINY))


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums over frames of a a, b b and a b: (N, T) twice -> (3, N)."""
    return np.stack([np.einsum("nt,nt->n", x, y) for x, y in ((a, a), (b, b), (a, b))])


def challenge_correlation(y_true: Trials, y_pred: Trials) -> np.ndarray:
    """The competition's metric (N,): correlation over all frames of all trials put end to end."""
    stream = StreamingCorrelation(len(y_true[0]))
    for true, pred in zip(y_true, y_pred, strict=True):
        stream.update(true, pred)
    return stream.value()


def neuron_weighted(per_mouse: Sequence[np.ndarray]) -> float:
    """The official score over several mice: neurons of all mice pooled, undefined ones counted as 0."""
    return float(np.nan_to_num(np.concatenate(per_mouse)).mean())


def mouse_weighted(per_mouse: Sequence[np.ndarray]) -> float:
    """Mean over mice of the mean over neurons, as used to choose the best epoch."""
    return float(np.mean([summarize(values).mean for values in per_mouse]))


def single_trial_correlation(y_true: Trials, y_pred: Trials) -> np.ndarray:
    """Correlation over the frames of one trial, averaged over trials (N,)."""
    return np.mean([correlation(t, p, axis=-1) for t, p in zip(y_true, y_pred, strict=True)], axis=0)


def correlation_to_average(y_true: Trials, y_pred: Trials, video_ids: Sequence[int]) -> np.ndarray:
    """Correlation of response and prediction, both averaged over repeats; averaged over repeated videos (N,)."""
    groups = group_repeats(video_ids)
    if not groups:
        return np.full(len(y_true[0]), np.nan)
    return np.mean([cc_abs(stack(y_true, g), stack(y_pred, g)) for g in groups], axis=0)


def cc_abs(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """Correlation of the means over repeats of one video: (R, N, T) twice -> (N,)."""
    return _covariance(y_true, y_pred) / (
        y_true.mean(axis=0).std(axis=-1, ddof=1) * y_pred.mean(axis=0).std(axis=-1, ddof=1) + TINY
    )


def cc_norm(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """Normalised correlation for one video (Schoppe et al. 2016): (R, N, T) twice -> (N,).

    NaN where the repeats share less than WEAK_SIGNAL, a threshold in the units of the responses.
    """
    power = signal_power(y_true)
    power = np.where(power > WEAK_SIGNAL, power, np.nan)
    return _covariance(y_true, y_pred) / (np.sqrt(y_pred.mean(axis=0).var(axis=-1, ddof=1) * power) + TINY)


def normalized_correlation(y_true: Trials, y_pred: Trials, video_ids: Sequence[int]) -> np.ndarray:
    """`cc_norm` averaged over the repeated videos on which it exists (N,), as published.

    A ratio per video is unbounded when its signal is weak; prefer `pooled_normalized_correlation`.
    """
    groups = group_repeats(video_ids)
    if not groups:
        return np.full(len(y_true[0]), np.nan)
    return _nanmean([cc_norm(stack(y_true, g), stack(y_pred, g)) for g in groups])


def pooled_normalized_correlation(y_true: Trials, y_pred: Trials, video_ids: Sequence[int]) -> np.ndarray:
    """Normalised correlation (N,) with covariance and powers summed over repeated videos before the ratio is taken.

    NaN where repeats explain less than LEAST_SHARE of the variance of single trials (any units), or none repeats.
    """
    covariance = np.zeros(len(y_true[0]))
    predicted = np.zeros_like(covariance)
    power = np.zeros_like(covariance)
    for group in group_repeats(video_ids):
        true, pred = stack(y_true, group), stack(y_pred, group)
        weight = true.shape[-1] - 1
        covariance += weight * _covariance(true, pred)
        predicted += weight * pred.mean(axis=0).var(axis=-1, ddof=1)
        power += weight * signal_power(true)
    reliable = explainable_variance(y_true, video_ids) > LEAST_SHARE
    return covariance / (np.sqrt(predicted * np.where(reliable, power, np.nan)) + TINY)


def feve(y_true: Trials, y_pred: Trials, video_ids: Sequence[int]) -> np.ndarray:
    """Fraction of explainable variance explained (N,): 1 - (MSE - noise) / (variance - noise), over repeated videos.

    Noise is the variance over repeats, averaged over frames and videos (Cadena et al. 2019). 1 is a perfect
    prediction of the expected response, 0 no better than the mean. Depends on the scale of the predictions. NaN where
    explainable variance is less than LEAST_SHARE_FEVE of the total, or without repeats.
    """
    groups = group_repeats(video_ids)
    if not groups:
        return np.full(len(y_true[0]), np.nan)
    true = [stack(y_true, g) for g in groups]
    error = _mean_over_frames([(t - stack(y_pred, g)) ** 2 for t, g in zip(true, groups, strict=True)])
    noise = _mean_over_frames([np.broadcast_to(t.var(axis=0, ddof=1), t.shape) for t in true])
    mean = _mean_over_frames(true)
    variance = _mean_over_frames([(t - mean[:, None]) ** 2 for t in true])
    explainable = np.where(variance - noise > LEAST_SHARE_FEVE * variance, variance - noise, np.nan)
    return 1 - (error - noise) / explainable


def msse(y_true: Trials, y_pred: Trials) -> np.ndarray:
    """Squared error summed over frames, averaged over trials (N,); its sum over neurons is the published metric."""
    pairs = zip(y_true, y_pred, strict=True)
    return np.mean([((t.astype(np.float64) - p) ** 2).sum(axis=-1) for t, p in pairs], axis=0)


def poisson_loss(y_true: Trials, y_pred: Trials) -> np.ndarray:
    """Poisson loss summed over frames, averaged over trials (N,); its sum over neurons is the published metric.

    NaN where a prediction is negative.
    """
    losses = []
    for true, pred in zip(y_true, y_pred, strict=True):
        pred = pred.astype(np.float64) + TINY
        log = np.log(pred, out=np.full_like(pred, np.nan), where=pred > 0)
        losses.append((pred - (true + TINY) * log).sum(axis=-1))
    return np.mean(losses, axis=0)


def _covariance(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """Covariance over time of the means over repeats, unbiased: (R, N, T) twice -> (N,)."""
    true, pred = y_true.mean(axis=0), y_pred.mean(axis=0)
    true, pred = true - true.mean(axis=-1, keepdims=True), pred - pred.mean(axis=-1, keepdims=True)
    return (true * pred).sum(axis=-1) / (true.shape[-1] - 1)


def _mean_over_frames(stacks: Sequence[np.ndarray]) -> np.ndarray:
    """Mean (N,) over repeats and frames of arrays (R, N, T) of different R and T."""
    return sum(s.sum(axis=(0, 2)) for s in stacks) / sum(s.shape[0] * s.shape[2] for s in stacks)


def _nanmean(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the first axis of the entries that exist; NaN where none does."""
    values = np.stack(values)
    count = np.isfinite(values).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.nansum(values, axis=0) / count, np.nan)
