"""How the surround of a receptive field changes a neuron's answer, and whether contrast turns its preference.

Responses are means over a window, above the response to grey. Samples (S, N) are single presentations of one stimulus
to N neurons: phases of a grating for a twin, repeats for a recording. Indices are of their means, and lie within
[-1, 1] (not so in vivo, where suppressed responses below grey are kept as they are).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from viv1t.estimators.least_squares import least_squares, normalised
from viv1t.stats import permutation_p

INDICES = {  # index -> kinds (a, b) of (a - b) / (a + b)
    "mi_iso": ("iso", "centre"),
    "mi_cross": ("cross", "centre"),
    "mi_shift": ("shift", "centre"),
    "cmi": ("cross", "iso"),
}
SIGNAL = 1.96  # standard errors that two responses together must exceed to have an index
BLOCK = 512  # neurons resampled at once
STEEPEST = 8.0  # exponent of a contrast response

Samples = Mapping[str, np.ndarray]


def modulation_index(a: np.ndarray, b: np.ndarray, floor: np.ndarray | float = 0.0) -> np.ndarray:
    """(a - b) / (a + b) of responses above grey, within [-1, 1]; arguments broadcast.

    NaN where a + b does not exceed `floor`, or either lies further than that below grey; less far below counts as 0.
    """
    a, b, floor = np.broadcast_arrays(a, b, floor)
    return np.where((np.minimum(a, b) >= -floor) & (a + b > floor), _ratio(a, b), np.nan)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.maximum(a, 0), np.maximum(b, 0)
    with np.errstate(invalid="ignore"):
        return (a - b) / np.where(a + b > 0, a + b, np.nan)


def noise_floor(a: np.ndarray, b: np.ndarray, least: np.ndarray | float = 0.0) -> np.ndarray:
    """(N,) what the means of samples a and b must together exceed: `least`, and 1.96 standard errors of their sum."""
    error = sum(x.var(axis=0, ddof=1) / len(x) if len(x) > 1 else 0.0 for x in (a, b))
    return np.maximum(least, SIGNAL * np.sqrt(error))


def surround_modulation(
    samples: Samples,
    least: np.ndarray | float,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Every index of INDICES with its interval `<index>_low`, `<index>_high`: N rows, NaN for kinds not shown.

    least (N,): responses that count as none. Intervals are percentiles of bootstraps that draw the samples of each
    kind anew; a surround is suppressing where `mi_<kind>_high` < 0, exciting where `mi_<kind>_low` > 0. With few
    samples, as the four phases of a twin, they are too narrow.
    """
    table, tails, N = {}, [50 * (1 - level), 50 * (1 + level)], next(iter(samples.values())).shape[1]
    drawn = {kind: _resamples(len(x), resamples, rng) for kind, x in samples.items()}
    for name, (a, b) in INDICES.items():
        index, limits = np.full(N, np.nan), np.full((2, N), np.nan)
        if a in samples and b in samples:
            x, y = samples[a], samples[b]
            index = modulation_index(x.mean(axis=0), y.mean(axis=0), noise_floor(x, y, least))
        for some in _blocks(np.flatnonzero(np.isfinite(index))):
            draws = _ratio(drawn[a] @ x[:, some], drawn[b] @ y[:, some])
            limits[:, some] = np.nanpercentile(draws, tails, axis=0)
        table |= {name: index, f"{name}_low": limits[0], f"{name}_high": limits[1]}
    return pd.DataFrame(table)


def turns(cmi_high: np.ndarray, cmi_low: np.ndarray, threshold: float = 0.2) -> np.ndarray:
    """Published rule of a flip: (cross - iso) / iso >= threshold at high, (iso - cross) / cross at low contrast.

    Written in CMI, (cross - iso) / (cross + iso), of which both are functions; False where it is NaN.
    """
    least = threshold / (2 + threshold) * (1 - 1e-9)  # a response exactly so much larger passes, whatever is rounded
    return (np.asarray(cmi_high) >= least) & (np.asarray(cmi_low) <= -least)


def flip_test(
    high: Samples,
    low: Samples,
    least: np.ndarray | float,
    rng: np.random.Generator,
    permutations: int = 2000,
    threshold: float = 0.2,
) -> pd.DataFrame:
    """Does a neuron prefer cross over iso more at high than at low contrast? N rows.

    high, low: samples of iso and cross. At each contrast they are divided by mean iso + mean cross, so that neither
    the gain nor the surround's overall effect at that contrast matters; `interaction` is then CMI(high) - CMI(low),
    -2 to 2. `p`, one-sided: labels of contrast are exchanged between the samples of a kind, for iso and cross each;
    exact if these shares do not depend on contrast. `flip_by_threshold`: the published rule (`turns`). `chance`: how
    often it holds after an exchange. NaN where either CMI is.
    """
    kinds, shares, cmi = ("iso", "cross"), [], []
    for samples in (high, low):
        iso, cross = (np.asarray(samples[kind], dtype=float) for kind in kinds)
        index = modulation_index(cross.mean(axis=0), iso.mean(axis=0), noise_floor(cross, iso, least))
        total = np.where(np.isfinite(index), iso.mean(axis=0) + cross.mean(axis=0), np.nan)
        shares.append({"iso": iso / total, "cross": cross / total})
        cmi.append(index)
    interaction = cmi[0] - cmi[1]
    N = len(interaction)
    swaps = {kind: _exchanges(len(high[kind]), len(low[kind]), permutations, rng) for kind in kinds}
    p, chance = np.full(N, np.nan), np.full(N, np.nan)
    for some in _blocks(np.flatnonzero(np.isfinite(interaction))):
        iso, cross = (
            swaps[kind] @ np.concatenate([s[kind][:, some] for s in shares]) for kind in kinds
        )  # (2, permutations, n)
        fake_high, fake_low = _ratio(cross, iso)
        p[some] = permutation_p(interaction[some] * (1 - 1e-9), fake_high - fake_low)
        chance[some] = turns(fake_high, fake_low, threshold).mean(axis=0)
    return pd.DataFrame({"cmi_high": cmi[0], "cmi_low": cmi[1], "interaction": interaction, "p": p,
                         "flip_by_threshold": turns(*cmi, threshold), "chance": chance})  # fmt: skip


def hold_out(high: Samples, low: Samples, least: np.ndarray | float, threshold: float = 0.2) -> pd.DataFrame:
    """Choose flips on every other sample and show the rest: what was chosen for being large is smaller when seen anew.

    Columns `cmi_high_<part>`, `cmi_low_<part>` of the parts `chosen` and `held`, and `flip_chosen`, by `turns`.
    """
    table = {}
    for part, start in (("chosen", 0), ("held", 1)):
        for name, samples in (("high", high), ("low", low)):
            iso, cross = (samples[kind][start::2] for kind in ("iso", "cross"))
            mean_iso, mean_cross = (x.mean(axis=0) if len(x) else np.nan for x in (iso, cross))
            table[f"cmi_{name}_{part}"] = modulation_index(mean_cross, mean_iso, least)
    flips = turns(table["cmi_high_chosen"], table["cmi_low_chosen"], threshold)
    return pd.DataFrame(table | {"flip_chosen": flips})


def naka_rushton(responses: np.ndarray, contrasts: np.ndarray) -> pd.DataFrame:
    """Fit R = r_max c^n / (c^n + c50^n) to responses (N, C) above grey at C >= 4 contrasts above 0.

    N rows: `r_max` (of the responses), `c50` (contrast of half of it, within half the lowest to twice the highest),
    `exponent`, `r2`. NaN where the response does not depend on contrast, or is unknown at one.
    """
    log = np.log(np.asarray(contrasts, dtype=float))

    def model(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r_max, half, n = (column[:, None] for column in parameters.T)
        share = 1 / (1 + np.exp(-n * (log - half)))
        slope = r_max * share * (1 - share)
        return r_max * share, np.stack([share, -slope * n, slope * (log - half)], axis=1)

    data, sd = normalised(responses)
    sd = np.where(sd > 0, sd, np.nan)
    start = np.stack([data.max(axis=1), np.full(len(data), log.mean()), np.full(len(data), 2.0)], axis=1)
    low, high = np.array([0.0, log.min() - np.log(2), 0.3]), np.array([50.0, log.max() + np.log(2), STEEPEST])
    fit, r2 = least_squares(model, np.where(np.isfinite(sd)[:, None], data, np.nan), start, low, high)
    return pd.DataFrame({"r_max": fit[:, 0] * sd, "c50": np.exp(fit[:, 1]), "exponent": fit[:, 2], "r2": r2})


def _resamples(samples: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, samples) weights of means of samples drawn with replacement."""
    return rng.multinomial(samples, np.full(samples, 1 / samples), size=draws) / samples


def _exchanges(high: int, low: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(2, draws, high + low) weights: means over random `high` of all samples, and over the remaining ones."""
    taken = rng.permuted(np.tile(np.arange(high + low) < high, (draws, 1)), axis=1)
    return np.stack([taken / high, ~taken / low])


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
