"""Tuning for direction, orientation and frequency: indices, preferences, fitted widths, and whether they are chance.

A tuning curve holds mean responses (N, D) to D motion directions evenly spaced over 360 degrees (0 left, 90 down, 180
right, 270 up). Orientation is the axis of motion, direction modulo 180. Samples (N, n) are responses to n blocks of
one direction each. Numbers that do not exist are NaN: indices of neurons that never respond, preferences of flat
curves.
"""

from functools import partial

import numpy as np
import pandas as pd

from viv1t.estimators.least_squares import least_squares, normalised
from viv1t.stats import permutation_p

CHUNK = 2**22  # values of resampled curves held at once
FLAT = 1e-6  # vector sums below this share of the summed response have no direction
ROUNDING = 1e-5  # of a baseline: smaller differences are those of float32
KAPPA = (0.1, 50.0)
STARTS = (0.7, 3.0, 10.0)  # concentrations from which the von Mises fit starts
LEAST_R2 = 0.7  # of a von Mises fit whose width is reported
EDGE = 1.0  # octaves beyond the shown frequencies within which a preference is looked for


def circular_tuning(
    curves: np.ndarray, angles_deg: np.ndarray, baseline: np.ndarray | float | None = None
) -> pd.DataFrame:
    """Indices and preferences of curves (N, D), one row per neuron.

    gosi, gdsi: |sum R e^(2i theta)| / sum R and |sum R e^(i theta)| / sum R, 1 - circular variance (the published OSI
    and DSI). preferred_orientation_deg: half the angle of the first sum; preferred_direction_deg: of both directions
    on that axis, the one on the side of the second sum; best_deg: the sampled direction of the largest response.
    osi, dsi: (R_pref - R_orth) / (R_pref + R_orth) and the same against the opposite direction, at the sampled
    direction next to the preferred one, R_orth being the mean of both sides. peak: largest response.

    baseline (N,) or number, e.g. the response to grey: subtracted first. A pedestal that no direction changes
    compresses all indices. Negative responses then count as 0, so that indices stay within 0 and 1.
    """
    curves, angle = _rectified(curves, baseline), _even(angles_deg, np.shape(curves)[1])
    gosi, gdsi, axis, heading = _vector_sums(curves, angle)
    orientation = np.where(gosi > FLAT, np.degrees(np.angle(axis)) / 2 % 180, np.nan)
    towards = np.real(heading * np.exp(-1j * np.radians(orientation))) >= 0
    preferred = np.where(towards, orientation, orientation + 180)
    first = np.degrees(angle[0])
    nearest = np.rint(np.nan_to_num(preferred - first) / (360 / len(angle)))
    at_preferred, opposite, side, other = (_at(curves, nearest, turn) for turn in (0, 180, 90, 270))
    flat = ~np.isfinite(preferred)
    return pd.DataFrame(
        {
            "gosi": gosi,
            "gdsi": gdsi,
            "preferred_orientation_deg": orientation,
            "preferred_direction_deg": preferred,
            "best_deg": np.where(flat & ~(gdsi > FLAT), np.nan, np.degrees(angle)[curves.argmax(axis=1)]),
            "osi": np.where(flat, np.nan, _contrast(at_preferred, (side + other) / 2)),
            "dsi": np.where(flat, np.nan, _contrast(at_preferred, opposite)),
            "peak": np.where(np.isfinite(gosi), curves.max(axis=1), np.nan),
        }
    )


def mean_curves(samples: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean response to each direction, (N, D), and the directions (D,), from samples (N, n) of directions (n,)."""
    angles, label = np.unique(np.asarray(directions), return_inverse=True)
    return samples @ _weights(label[:, None])[:, 0], angles


def permutation_test(
    samples: np.ndarray,
    directions: np.ndarray,
    rng: np.random.Generator,
    permutations: int = 1000,
    strata: np.ndarray | None = None,
    baseline: np.ndarray | float | None = None,
) -> pd.DataFrame:
    """Are gosi and gdsi larger than for shuffled directions? Columns p_osi, p_dsi = (1 + k) / (1 + permutations).

    samples (N, n), directions (n,); all neurons share the permutations. strata (n,): directions are shuffled only
    among blocks of one stratum, e.g. one pair of spatial and temporal frequency, so that tuning for these, and
    conditions that are not balanced, cannot pass for tuning for direction. Correct p over neurons with
    `stats.benjamini_hochberg`.
    """
    angles, label = np.unique(np.asarray(directions), return_inverse=True)
    angle = _even(angles, len(angles))
    strata = np.zeros(len(label), int) if strata is None else np.unique(strata, axis=0, return_inverse=True)[1].ravel()
    labels = np.stack([label, *(label[_shuffle(strata, rng)] for _ in range(permutations))], axis=1)
    p_osi, p_dsi = np.full((2, len(samples)), np.nan)
    for rows, curves in _resampled_curves(samples, _weights(labels), baseline):
        p_osi[rows], p_dsi[rows] = (
            permutation_p(index[:, 0], index[:, 1:].T) for index in _vector_sums(curves, angle)[:2]
        )
    return pd.DataFrame({"p_osi": p_osi, "p_dsi": p_dsi})


def selectivity_intervals(
    samples: np.ndarray,
    directions: np.ndarray,
    rng: np.random.Generator,
    resamples: int = 500,
    level: float = 0.95,
    baseline: np.ndarray | float | None = None,
) -> pd.DataFrame:
    """Percentile bootstrap over the blocks of each direction: columns gosi_low, gosi_high, gdsi_low, gdsi_high.

    Both indices are lengths, which noise makes longer: intervals of untuned neurons do not reach 0. Whether there is
    any tuning is for `permutation_test` to say.
    """
    angles, label = np.unique(np.asarray(directions), return_inverse=True)
    angle = _even(angles, len(angles))
    weights = np.zeros((len(label), resamples, len(angles)), np.float32)
    for d in range(len(angles)):
        blocks = np.flatnonzero(label == d)
        drawn = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=resamples)
        weights[blocks, :, d] = drawn.T / len(blocks)
    limits = np.full((4, len(samples)), np.nan)
    share = 50 * (1 - level), 50 * (1 + level)
    for rows, curves in _resampled_curves(samples, weights, baseline):
        for k, index in enumerate(_vector_sums(curves, angle)[:2]):
            limits[2 * k : 2 * k + 2, rows] = np.percentile(index, share, axis=1)
    return pd.DataFrame(limits.T, columns=["gosi_low", "gosi_high", "gdsi_low", "gdsi_high"])


def fit_von_mises(curves: np.ndarray, angles_deg: np.ndarray) -> pd.DataFrame:
    """Two bumps half a turn apart on every curve (N, D), all at once; one row per neuron.

    R = baseline + amplitude exp(kappa (cos(t - p) - 1)) + opposite exp(kappa (cos(t - p - 180) - 1)), amplitude >=
    opposite >= 0. Columns: preferred_direction_deg, half_width_deg (half width at half maximum of either bump,
    acos(1 + ln((1 + e^(-2 kappa)) / 2) / kappa); NaN unless R^2 > 0.7), kappa, amplitude, opposite, baseline, r2.
    NaN for curves that are flat.
    """
    angle = _even(angles_deg, np.shape(curves)[1])
    data, scale = normalised(curves)
    _, _, axis, heading = _vector_sums(data - data.min(axis=1, keepdims=True) + (scale == 0)[:, None], angle)
    preferred = np.angle(axis) / 2
    preferred += np.where(np.real(heading * np.exp(-1j * preferred)) >= 0, 0, np.pi)
    low = np.array([-np.inf, KAPPA[0], 0.0, 0.0, -np.inf])
    high = np.array([np.inf, KAPPA[1], np.inf, np.inf, np.inf])
    found, r2 = np.full((len(data), 5), np.nan), np.full(len(data), -np.inf)
    for kappa in STARTS:
        floor, top = data.min(axis=1), np.ptp(data, axis=1)
        start = np.stack([preferred, np.full(len(data), kappa), top, top / 2, floor], axis=1)
        trial, quality = least_squares(partial(_von_mises, angle), data, start, low, high)
        better = quality > r2
        found[better], r2[better] = trial[better], quality[better]
    preferred, kappa, amplitude, opposite, floor = found.T
    turned = opposite > amplitude
    width = np.degrees(np.arccos(1 + np.log((1 + np.exp(-2 * kappa)) / 2) / kappa))
    return pd.DataFrame(
        {
            "preferred_direction_deg": (np.degrees(preferred) + np.where(turned, 180, 0)) % 360,
            "half_width_deg": np.where(r2 > LEAST_R2, width, np.nan),
            "kappa": kappa,
            "amplitude": np.maximum(amplitude, opposite) * scale,
            "opposite": np.minimum(amplitude, opposite) * scale,
            "baseline": floor * scale,
            "r2": np.where(np.isfinite(r2), r2, np.nan),
        }
    )


def fit_frequencies(curves: np.ndarray, frequencies: np.ndarray) -> pd.DataFrame:
    """Log-Gaussian A exp(-(log2 f - log2 p)^2 / 2 s^2) on curves (N, K >= 3) over frequencies (K,) > 0.

    Columns: preferred (unit of `frequencies`; searched up to an octave beyond them), bandwidth_octaves (full width at
    half maximum), amplitude, r2, inside (whether the preference lies between the lowest and the highest frequency).
    NaN for curves that are flat or never positive.
    """
    curves, octave = np.asarray(curves, dtype=np.float64), np.log2(np.asarray(frequencies, dtype=np.float64))
    if len(octave) < 3:
        raise ValueError(f"a preference needs at least 3 frequencies, got {len(octave)}")
    peak = curves.max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        data = np.where(peak[:, None] > 0, curves / peak[:, None], np.nan)
    best = octave[np.nan_to_num(data).argmax(axis=1)]
    start = np.stack([best, np.zeros(len(data)), np.ones(len(data))], axis=1)
    low = np.array([octave.min() - EDGE, np.log(0.2), 0.0])
    high = np.array([octave.max() + EDGE, np.log(5.0), np.inf])
    (place, width, amplitude), r2 = (
        x.T for x in least_squares(partial(_log_gaussian, octave), data, start, low, high)
    )
    inside = (place >= octave.min()) & (place <= octave.max())
    return pd.DataFrame(
        {
            "preferred": 2**place,
            "bandwidth_octaves": np.exp(width) * 2 * np.sqrt(2 * np.log(2)),
            "amplitude": amplitude * peak,
            "r2": r2,
            "inside": inside,
        }
    )


def sf_tf_preference(responses: np.ndarray, sf_cpd: np.ndarray, tf_hz: np.ndarray) -> pd.DataFrame:
    """Preferred frequencies from responses (N, S, F) to S spatial and F temporal frequencies.

    Each curve is the mean over the other frequency. Columns: preferred_sf_cpd, preferred_tf_hz,
    preferred_speed_deg_s (their ratio), sf_r2, tf_r2, sf_inside, tf_inside (see `fit_frequencies`).
    """
    space, time = fit_frequencies(responses.mean(axis=2), sf_cpd), fit_frequencies(responses.mean(axis=1), tf_hz)
    return pd.DataFrame(
        {
            "preferred_sf_cpd": space["preferred"],
            "preferred_tf_hz": time["preferred"],
            "preferred_speed_deg_s": time["preferred"] / space["preferred"],
            "sf_r2": space["r2"],
            "tf_r2": time["r2"],
            "sf_inside": space["inside"],
            "tf_inside": time["inside"],
        }
    )


def tuning_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation (N,) of two sets of curves (N, D), e.g. recorded and predicted; NaN where either is flat."""
    a, b = standardised(a), standardised(b)
    return np.einsum("nd,nd->n", a, b)


def split_half_reliability(
    samples: np.ndarray, labels: np.ndarray, rng: np.random.Generator, splits: int = 50
) -> np.ndarray:
    """Correlation (N,) of curves from two halves of the blocks of each condition, for all blocks (Spearman-Brown).

    Averaged over random splits before the correction 2 r / (1 + r); r <= 0 stays as it is. NaN where a condition has
    fewer than two blocks, or a curve is flat.
    """
    _, label, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    if counts.min() < 2:
        return np.full(len(samples), np.nan)
    total = np.zeros(len(samples))
    for _ in range(splits):
        order = rng.permutation(len(label))
        order = order[np.argsort(label[order], kind="stable")]  # random within each condition
        rank = np.arange(len(label)) - np.repeat(np.cumsum(counts) - counts, counts)
        share = counts[label[order]] // 2
        halves = order[rank < share], order[(rank >= share) & (rank < 2 * share)]
        total += tuning_correlation(*(samples[:, half] @ _weights(label[half][:, None])[:, 0] for half in halves))
    r = total / splits
    return np.where(r > 0, 2 * r / (1 + r), r)


def noise_corrected(r: np.ndarray, reliability_a: np.ndarray, reliability_b: np.ndarray | float = 1.0) -> np.ndarray:
    """r / sqrt(reliability_a reliability_b): the correlation without noise (Spearman 1904), 1 for a perfect model.

    A noiseless prediction has reliability 1. Single neurons scatter beyond 1; NaN where a reliability is not positive.
    """
    product = np.asarray(reliability_a) * reliability_b
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((reliability_a > 0) & (product > 0), r / np.sqrt(product), np.nan)


def _rectified(curves: np.ndarray, baseline) -> np.ndarray:
    """Curves (..., D) above a baseline per neuron, never negative; 0 where float32 cannot tell them from it."""
    curves = np.asarray(curves, dtype=np.float64)
    if baseline is None:
        return np.maximum(curves, 0)
    baseline = np.reshape(baseline, np.shape(baseline) + (1,) * (curves.ndim - np.ndim(baseline)))
    above = curves - baseline
    return np.where(above > ROUNDING * np.abs(baseline), above, 0)


def _even(angles_deg: np.ndarray, D: int) -> np.ndarray:
    """Directions in radians; they must go once around the circle in even steps."""
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.shape != (D,) or D < 3 or not np.allclose(np.diff(angles), 360 / D):
        raise ValueError(f"curves need directions in even steps over 360 degrees, got {angles_deg}")
    return np.radians(angles)


def _vector_sums(curves: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, ...]:
    """gosi, gdsi (...) and the complex sums for axis and heading, of curves (..., D); NaN without response."""
    total = curves.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(total > 0, 1 / total, np.nan)
    axis, heading = (curves @ np.exp(1j * k * angle) * share for k in (2, 1))
    return abs(axis), abs(heading), axis, heading


def _at(curves: np.ndarray, index: np.ndarray, turn_deg: float) -> np.ndarray:
    """Curves (N, D) at samples `index` (N,) turned by an angle; between samples, straight lines."""
    N, D = curves.shape
    place = index + turn_deg * D / 360
    below = np.floor(place + 1e-9).astype(int)
    weight, rows = np.clip(place - below, 0, 1), np.arange(N)
    return (1 - weight) * curves[rows, below % D] + weight * curves[rows, (below + 1) % D]


def _contrast(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a + b > 0, (a - b) / (a + b), np.nan)


def _shuffle(strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation (n,) that moves blocks only within their stratum (n,)."""
    order = rng.permutation(len(strata))
    shuffled = np.empty(len(strata), int)
    shuffled[np.argsort(strata, kind="stable")] = order[np.argsort(strata[order], kind="stable")]
    return shuffled


def _weights(labels: np.ndarray) -> np.ndarray:
    """(n, B, D) float32 that average samples by label: labels (n, B), each 0 .. D - 1."""
    n, B = labels.shape
    weights = np.zeros((n, B, labels.max() + 1), np.float32)
    weights[np.arange(n)[:, None], np.arange(B), labels] = 1
    return weights / weights.sum(axis=0)


def _resampled_curves(samples: np.ndarray, weights: np.ndarray, baseline):
    """(rows, curves (k, B, D)) of neurons in turn, from samples (N, n) and weights (n, B, D)."""
    n, B, D = weights.shape
    flat, step = weights.reshape(n, B * D), max(1, CHUNK // (B * D))
    for start in range(0, len(samples), step):
        rows = slice(start, start + step)
        curves = (np.asarray(samples[rows], dtype=np.float32) @ flat).reshape(-1, B, D)
        yield rows, _rectified(curves, baseline[rows] if np.ndim(baseline) else baseline)


def standardised(curves: np.ndarray) -> np.ndarray:
    """Curves (N, D) with mean 0 and length 1, so that products are correlations; NaN where flat."""
    centred = curves - curves.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(length > 1e-9 * abs(curves).max(axis=1, keepdims=True), centred / length, np.nan)


def _von_mises(angle: np.ndarray, parameters: np.ndarray):
    """Values (k, D), derivatives (k, 5, D); parameters preferred (radians), kappa, amplitude, opposite, baseline."""
    preferred, kappa, amplitude, opposite, floor = (column[:, None] for column in parameters.T)
    cos, sin = np.cos(angle - preferred), np.sin(angle - preferred)
    near, far = np.exp(kappa * (cos - 1)), np.exp(kappa * (-cos - 1))
    slopes = np.stack(
        [
            kappa * sin * (amplitude * near - opposite * far),
            amplitude * near * (cos - 1) + opposite * far * (-cos - 1),
            near,
            far,
            np.ones_like(near),
        ],
        axis=1,
    )
    return floor + amplitude * near + opposite * far, slopes


def _log_gaussian(octave: np.ndarray, parameters: np.ndarray):
    """Values (k, K) and derivatives (k, 3, K); parameters place (octaves), log width, amplitude."""
    place, log_width, amplitude = (column[:, None] for column in parameters.T)
    distance = (octave - place) * np.exp(-log_width)
    bump = np.exp(-(distance**2) / 2)
    value = amplitude * bump
    return value, np.stack([value * distance * np.exp(-log_width), value * distance**2, bump], axis=1)
