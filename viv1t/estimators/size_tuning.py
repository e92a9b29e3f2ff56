"""Size tuning: classical gratings in a disc, inverse gratings around a grey disc, and what both say of the surround.

A curve holds a neuron's mean responses above its response to grey, (N, S), over diameters of the disc (S,) in degrees;
`full` (N,) is the response to the grating without a disc, which is the largest classical and the smallest inverse
stimulus. Indices follow Keller, Roth & Scanziani 2020 (Nature 582:545). Numbers that do not exist are NaN.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import erf

from viv1t.estimators.least_squares import least_squares, normalised

FITTED = 0.5  # R^2 from which a fit, and not the sampled maximum, tells the preferred size
STEPS = 400  # sizes at which a fit is looked up
WIDTH = (1.0, 300.0)  # deg, of the fitted Gaussians
RATIO_STARTS = ((0.3, 1.0), (0.3, 10.0), (1.0, 1.0), (0.1, 3.0))  # log(surround / centre width), surround gain
BUMP_STARTS = (0.3, 0.6, 1.2)  # widths of the inverse peak, in natural logarithms of the size


@dataclass(frozen=True)
class SizeCurves:
    """Responses above grey: classical, inverse (N, S) over `sizes` (S,) deg, full (N,); noise (N,): their sem."""

    sizes: np.ndarray
    classical: np.ndarray
    inverse: np.ndarray
    full: np.ndarray
    noise: np.ndarray


def size_curves(conditions: pd.DataFrame, responses: np.ndarray, grey: np.ndarray) -> SizeCurves:
    """Curves from responses (conditions, N) to rows (`kind` centre or inverse, `size_deg`, ...), above grey (N,).

    A mean is taken over directions, phases and repeats. noise: sd of single responses around the mean of their own
    pattern, pooled over all patterns, over the root of the number of responses in a mean. Where nothing is repeated,
    phases are the only repeats there are.
    """
    kinds = {name: conditions[conditions["kind"] == name] for name in ("centre", "inverse")}
    sizes = np.unique(kinds["centre"]["size_deg"])

    def mean(kind: str, size: float) -> np.ndarray:
        own = kinds[kind]
        return responses[own.index[own["size_deg"] == size]].mean(axis=0) - grey

    classical, inverse = (np.stack([mean(kind, size) for size in sizes], axis=1) for kind in kinds)
    return SizeCurves(sizes, classical, inverse, mean("inverse", 0), _noise(conditions, responses))


def _noise(conditions: pd.DataFrame, responses: np.ndarray) -> np.ndarray:
    stimulus = ["kind", "size_deg", "direction_deg"]
    pattern = stimulus + ["phase_deg"] * (conditions["repeat"].nunique() > 1)
    groups = conditions.groupby(pattern, dropna=False).ngroup().to_numpy()
    patterns = groups.max() + 1
    means = np.stack([responses[groups == g].mean(axis=0) for g in range(patterns)])
    freedom = len(conditions) - patterns
    if not freedom:
        return np.zeros(responses.shape[1])
    variance = ((responses - means[groups]) ** 2).sum(axis=0) / freedom
    in_a_mean = len(conditions) / len(conditions.groupby(["kind", "size_deg"]))
    return np.sqrt(variance / in_a_mean)


@dataclass(frozen=True)
class Criteria:
    """What counts as a response, and as inverse tuning; all amplitudes are above grey.

    significant: standard errors that every difference must reach (3.29: p < 0.001, as in vivo). least_rise:
    responsive neurons exceed the response to grey by so many times itself. least_inverse, least_gain: shares of the
    classical peak by which the inverse peak exceeds grey, and the response to the full field.
    """

    significant: float = 3.29
    least_rise: float = 1.0
    least_inverse: float = 0.2
    least_gain: float = 0.1


def size_tuning(curves: SizeCurves, grey: np.ndarray, criteria: Criteria = Criteria()) -> pd.DataFrame:
    """Preferred sizes, suppression and inverse tuning, one row per neuron; NaN for those that do not respond.

    peak: largest response to a disc. preferred_size_deg: where the fit is largest within the sizes shown, if its R^2
    (size_r2) is at least 0.5 (size_fitted); else best_size_deg, the disc of the largest response. ffrf_size_deg:
    smallest size that reaches 95 % of the peak. suppression_index: (R_pref - R_full) / R_pref of the fit, or as
    sampled where there is none. inverse_peak: largest response around a disc; inverse_size_deg: where its fit is
    largest, of inverse-tuned neurons; best_inverse_size_deg: the sampled one, of all. inverse_tuning_index,
    inverse_rise (in shares of the peak): see the functions.
    """
    sizes, classical, inverse, full = curves.sizes, curves.classical, curves.inverse, curves.full
    peak = classical.max(axis=1)
    inverse_peak = inverse.max(axis=1)
    responsive = is_responsive(peak, grey, curves.noise, criteria)
    tuned = responsive & is_inverse_tuned(peak, inverse_peak, full, curves.noise, criteria)
    fit, fit_inv = fit_classical(sizes, classical, full), fit_inverse(sizes, inverse, full)
    best, best_inverse = sizes[classical.argmax(axis=1)], sizes[inverse.argmax(axis=1)]
    top, preferred, reaching = fit.peak(sizes[0], sizes[-1], 0.95)
    fitted, fitted_inverse = fit.r2 >= FITTED, fit_inv.r2 >= FITTED
    reached = sizes[(classical >= 0.95 * classical.max(axis=1, keepdims=True)).argmax(axis=1)]
    endless = fit.at([np.inf])[:, 0]
    table = pd.DataFrame(
        {
            "baseline": grey,
            "peak": peak,
            "responsive": responsive,
            "class": np.select([tuned, responsive], ["inverse-tuned", "classical"], "not responsive"),
            "preferred_size_deg": np.where(fitted, preferred, best),
            "best_size_deg": best,
            "size_fitted": fitted,
            "ffrf_size_deg": np.where(fitted, reaching, reached),
            "suppression_index": np.where(fitted, suppression_index(top, endless), suppression_index(peak, full)),
            "size_r2": fit.r2,
            "full_field": full,
            "inverse_peak": inverse_peak,
            "inverse_size_deg": np.where(fitted_inverse, fit_inv.peak(sizes[0], sizes[-1])[1], best_inverse),
            "best_inverse_size_deg": best_inverse,
            "inverse_r2": fit_inv.r2,
            "inverse_tuned": tuned,
            "inverse_tuning_index": inverse_tuning_index(peak, inverse_peak, full),
            "inverse_rise": np.divide(
                inverse_rise(inverse, full), peak, out=np.full(len(peak), np.nan), where=peak > 0
            ),
        }
    )
    undefined = [name for name in table if name.endswith(("_deg", "_index", "_r2", "_rise"))]
    table.loc[~responsive, undefined] = np.nan
    table.loc[~tuned, "inverse_size_deg"] = np.nan
    return table.assign(size_fitted=fitted & responsive)


def is_responsive(peak, grey, noise, criteria: Criteria = Criteria()) -> np.ndarray:
    """(N,) bool: peaks that are significant, and large beside the response to grey."""
    return (peak > criteria.significant * noise) & (peak > criteria.least_rise * grey) & (peak > 0)


def is_inverse_tuned(peak, inverse_peak, full, noise, criteria: Criteria = Criteria()) -> np.ndarray:
    """(N,) bool: the largest response around a disc exceeds both grey and the full field by enough of the peak."""
    responds = inverse_peak > np.maximum(criteria.least_inverse * peak, criteria.significant * noise)
    gains = inverse_peak - full > np.maximum(criteria.least_gain * peak, criteria.significant * np.sqrt(2) * noise)
    return responds & gains


def suppression_index(peak: np.ndarray, full: np.ndarray) -> np.ndarray:
    """(R_pref - R_full) / R_pref (N,): 1 if the full field gives no more than grey, 0 if no disc gives more."""
    return np.divide(np.maximum(peak - full, 0), peak, out=np.full(np.shape(peak), np.nan), where=peak > 0)


def inverse_tuning_index(classical: np.ndarray, inverse: np.ndarray, full: np.ndarray) -> np.ndarray:
    """(R_inv - R_cla) / (2 (R_inv + R_cla - 2 R_full)) + 0.5 of largest responses (N,), at least the full field's.

    0: classical only, 0.5: equal, 1: inverse only. NaN where neither exceeds the full field.
    """
    gain, gain_inverse = np.maximum(classical - full, 0), np.maximum(inverse - full, 0)
    total = gain + gain_inverse
    return np.divide(gain_inverse, total, out=np.full(np.shape(total), np.nan), where=total > 0)


def inverse_rise(inverse: np.ndarray, full: np.ndarray) -> np.ndarray:
    """By how much the response (N, S) rises at most while the grey disc grows, (N,).

    A classical field only loses by a grey disc: its response falls all the way. A rise tells a feedback field even if
    the full field drives the neuron more than any inverse grating, which the inverse tuning index does not see.
    """
    responses = np.column_stack([full, inverse])
    return (responses - np.minimum.accumulate(responses, axis=1)).max(axis=1)


def underfilled(curves: np.ndarray, sizes: np.ndarray, least: float = 0.8) -> np.ndarray:
    """(N, S) bool: discs smaller than the best whose response (N, S) is below a share of the largest.

    Such a disc does not fill the receptive field: what is added around it lies within the field, and a response that
    falls or rises says nothing of the surround.
    """
    best = curves.argmax(axis=1)
    smaller = np.asarray(sizes) < np.asarray(sizes)[best][:, None]
    return smaller & (curves < least * curves.max(axis=1, keepdims=True))


@dataclass(frozen=True)
class SizeFit:
    """Fitted curves: parameters (N, P) in units of `scale` (N,), r2 (N,), and the function that they belong to."""

    parameters: np.ndarray
    scale: np.ndarray
    r2: np.ndarray
    model: callable

    def at(self, sizes: np.ndarray) -> np.ndarray:
        """Fitted responses (N, K) to sizes (K,)."""
        return self.model(np.asarray(sizes, dtype=float), self.parameters)[0] * self.scale[:, None]

    def peak(self, low: float, high: float, share: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The largest fitted response (N,) between two sizes, its size, and that at which a share is first reached."""
        grid = np.linspace(low, high, STEPS)
        values = self.at(grid)
        best = np.nan_to_num(values).argmax(axis=1)
        largest = values[np.arange(len(values)), best]
        first = (values >= share * largest[:, None]).argmax(axis=1)
        known = np.isfinite(self.r2)
        return largest, np.where(known, grid[best], np.nan), np.where(known, grid[first], np.nan)


def fit_classical(sizes: np.ndarray, classical: np.ndarray, full: np.ndarray) -> SizeFit:
    """Ratio of Gaussians (Cavanaugh, Bair & Movshon 2002) on classical curves (N, S), all neurons at once.

    R(s) = A erf(s / wc)^2 / (1 + K erf(s / ws)^2), ws >= wc: what the disc covers of the centre, divided by what it
    covers of the surround. There is no offset: without a disc the response is the one to grey. The full field is a
    disc without end.
    """
    data, scale = normalised(np.column_stack([classical, full]))
    shown = np.append(sizes, np.inf)
    peak = data.max(axis=1)
    half = np.asarray(sizes)[(data[:, :-1] >= 0.5 * peak[:, None]).argmax(axis=1)]
    low = np.array([0.0, np.log(WIDTH[0]), 0.0, 0.0])
    high = np.array([np.inf, np.log(WIDTH[1]), 5.0, 1e3])
    starts = [
        np.column_stack([peak * (1 + gain), np.log(2 * half), *np.full((2, len(data)), [[apart], [gain]])])
        for apart, gain in RATIO_STARTS
    ]
    return _fit(_ratio, shown, data, scale, starts, low, high)


def fit_inverse(sizes: np.ndarray, inverse: np.ndarray, full: np.ndarray) -> SizeFit:
    """A peak beside the remains of the classical response, on inverse curves (N, S), all neurons at once.

    R(s) = F exp(-(s / w)^2) + A exp(-(ln s / p)^2 / 2 v^2), A >= 0. The first term is what is left of the full-field
    response F when a grey disc covers the classical field; the second rises once the disc is large enough not to
    silence it, and falls to nothing as the disc leaves no grating: a peak on a logarithmic axis, since sizes matter
    by their ratios. Without feedback A is 0.
    """
    data, scale = normalised(np.column_stack([full, inverse]))
    shown = np.append(0.0, sizes)
    best = np.asarray(sizes)[data[:, 1:].argmax(axis=1)]
    low = np.array([-np.inf, np.log(WIDTH[0]), 0.0, np.log(sizes[0]), np.log(0.1)])
    high = np.array([np.inf, np.log(WIDTH[1]), np.inf, np.log(2 * sizes[-1]), np.log(2.0)])
    ones = np.ones(len(data))
    starts = [
        np.column_stack([data[:, 0], ones * np.log(15.0), data[:, 1:].max(axis=1), np.log(best), ones * np.log(width)])
        for width in BUMP_STARTS
    ]
    return _fit(_bump, shown, data, scale, starts, low, high)


def _fit(model, sizes, data, scale, starts, low, high) -> SizeFit:
    """The best of several starts."""
    parameters, r2 = np.full(starts[0].shape, np.nan), np.full(len(data), -np.inf)
    for start in starts:
        found, quality = least_squares(partial(model, sizes), data, start, low, high)
        better = quality > r2
        parameters[better], r2[better] = found[better], quality[better]
    return SizeFit(parameters, scale, np.where(np.isfinite(r2), r2, np.nan), model)


def _covered(sizes: np.ndarray, log_width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """erf(s / w)^2, (k, S), and its derivative by log w."""
    ratio = sizes / np.exp(log_width)[:, None]
    part = erf(ratio)
    slope = np.where(np.isfinite(ratio), np.minimum(ratio, 1e3), 0.0) * np.exp(-(np.minimum(ratio, 1e3) ** 2))
    return part**2, -4 / np.sqrt(np.pi) * part * slope


def _ratio(sizes: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gain, width, apart, strength = parameters.T[:, :, None]
    centre, centre_slope = _covered(sizes, width[:, 0])
    surround, surround_slope = _covered(sizes, (width + apart)[:, 0])
    below = 1 + strength * surround
    value = gain * centre / below
    wider = -value * strength * surround_slope / below
    slopes = [centre / below, gain * centre_slope / below + wider, wider, -value * surround / below]
    return value, np.stack(slopes, axis=1)


def _bump(sizes: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    full, width, gain, place, spread = parameters.T[:, :, None]
    ratio = sizes / np.exp(width)
    rest = np.exp(-(ratio**2))
    with np.errstate(divide="ignore"):
        away = (np.maximum(np.log(sizes), -50) - place) / np.exp(spread)
    peak = np.exp(-(away**2) / 2)
    slopes = [rest, full * rest * 2 * ratio**2, peak, gain * peak * away / np.exp(spread), gain * peak * away**2]
    return full * rest + gain * peak, np.stack(slopes, axis=1)
