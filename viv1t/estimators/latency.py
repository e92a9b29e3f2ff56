"""When a response begins, between frames: latencies, and lags between the responses to two stimuli.

Traces (N, F) are responses above the response to grey, averaged over phases of the stimulus; the first frame is that
of its onset, before which they are 0. Times are in ms after the onset. A neuron without a response has none: NaN.
"""

import numpy as np
import pandas as pd

SUBFRAMES = 4  # of a frame, by which rising phases are shifted; a parabola tells what lies between


def rising_phase(traces: np.ndarray, least: np.ndarray | float = 0.0) -> np.ndarray:
    """Shares (N, F) of the peak that traces have reached so far: from 0 before the response to 1 from its peak on.

    NaN where the peak is not above `least` (N,), or not finite. To look for the peak early, cut the traces.
    """
    traces = np.asarray(traces, dtype=np.float64)
    peak = traces.max(axis=1)
    with np.errstate(invalid="ignore"):
        responds = (peak > least) & (peak > 0)
    reached = np.maximum.accumulate(np.maximum(traces, 0), axis=1)
    return np.divide(reached, peak[:, None], out=np.full(traces.shape, np.nan), where=responds[:, None])


def latency_ms(rise: np.ndarray, fps: float, share: float = 0.5) -> np.ndarray:
    """Time (N,) at which rising phases (N, F) first reach a share of the peak, linear between frames."""
    before = np.column_stack([np.zeros(len(rise)), rise[:, :-1]])
    after = (rise >= share).argmax(axis=1)
    rows = np.arange(len(rise))
    low, high = before[rows, after], rise[rows, after]
    with np.errstate(divide="ignore", invalid="ignore"):
        frame = after - 1 + (share - low) / (high - low)
    return np.maximum(frame, 0) * 1000 / fps


def aligned_lag_ms(first: np.ndarray, second: np.ndarray, fps: float) -> np.ndarray:
    """By how much the second rising phase (N, F) is later than the first, (N,): the shift of least squared difference.

    Whole rising phases are compared, not the moment of one crossing. Shifts reach half the frames each way.
    """
    F = first.shape[1]
    reach = F // 2 * SUBFRAMES
    grid = np.arange(-1 - F, 2 * F, 1 / SUBFRAMES)
    first, second = _between_frames(first, grid), _between_frames(second, grid)
    middle = slice(reach, len(grid) - reach)
    shifts = np.arange(-reach, reach + 1)
    error = np.stack(
        [((first[:, middle] - second[:, reach + k : len(grid) - reach + k]) ** 2).sum(axis=1) for k in shifts], axis=1
    )
    best = np.clip(np.nan_to_num(error).argmin(axis=1), 1, len(shifts) - 2)
    left, centre, right = (error[np.arange(len(error)), best + d] for d in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.clip((left - right) / (2 * (left + right - 2 * centre)), -1, 1)
    known = np.isfinite(left)
    return np.where(known, shifts[best] + np.nan_to_num(between), np.nan) * 1000 / fps / SUBFRAMES


def _between_frames(rise: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Rising phases (N, F) at times `grid` in frames: 0 before the first, 1 after the last."""
    padded = np.column_stack([np.zeros(len(rise)), rise, np.ones(len(rise)) + 0 * rise[:, -1]])
    place = np.clip(grid + 1, 0, padded.shape[1] - 1)
    left = np.minimum(place.astype(int), padded.shape[1] - 2)
    part = place - left
    return (1 - part) * padded[:, left] + part * padded[:, left + 1]


def lag_intervals(
    first: np.ndarray,
    second: np.ndarray,
    fps: float,
    rng: np.random.Generator,
    least: np.ndarray | float = 0.0,
    share: float = 0.5,
    resamples: int = 500,
    level: float = 0.95,
) -> pd.DataFrame:
    """Percentile bootstrap over phases of the difference of latencies: columns lag_low_ms, lag_high_ms.

    first, second (N, K, F): traces for each of K phases, drawn anew for both stimuli. It says how much the lag depends
    on the phases that were shown, which is all that varies in a twin.
    """
    K, lags = first.shape[1], np.empty((resamples, len(first)))
    for b in range(resamples):
        one, other = (
            latency_ms(rising_phase(traces[:, rng.integers(K, size=K)].mean(axis=1), least), fps, share)
            for traces in (first, second)
        )
        lags[b] = other - one
    missing = np.isnan(lags).mean(axis=0) > 0.5
    lags[:, missing] = 0
    limits = np.nanpercentile(lags, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return pd.DataFrame(np.where(missing, np.nan, limits).T, columns=["lag_low_ms", "lag_high_ms"])
