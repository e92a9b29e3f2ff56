"""Surround modulation: indices that exist only where responses do, and tests that find flips and nothing else."""

import numpy as np
import pandas as pd
import pytest

from viv1t.estimators.contextual import (
    flip_test,
    hold_out,
    modulation_index,
    naka_rushton,
    noise_floor,
    surround_modulation,
    turns,
)
from viv1t.stats import benjamini_hochberg

N = 300


def answers(cmi: float, rng, samples: int = 20, gain: float = 1.0, centre: float = 1.0, shape: float = 2.0) -> dict:
    """Noisy responses (samples, N) of neurons with this CMI; noise is gamma, its variance grows with the response."""
    means = {"centre": centre, "iso": 1 - cmi, "cross": 1 + cmi}
    return {kind: gain * rng.gamma(shape, mean / shape, (samples, N)) for kind, mean in means.items()}


def test_indices_lie_within_one_and_exist_only_where_responses_do():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, (2, 5000))
    index = modulation_index(a, b, 0.1)
    assert (abs(index[np.isfinite(index)]) <= 1).all() and np.isfinite(index).any()
    assert np.isnan(index[(a < -0.1) | (b < -0.1) | (np.maximum(a, 0) + np.maximum(b, 0) < 0.1)]).all()
    assert np.isnan(modulation_index(0.0, 0.0)) and np.isnan(modulation_index(np.nan, 1.0))
    assert modulation_index(1.0, -0.05, 0.1) == 1  # not different from no response
    assert np.allclose(modulation_index(a, b, 0.1), -modulation_index(b, a, 0.1), equal_nan=True)


def test_gain_does_not_matter():
    samples = answers(0.3, np.random.default_rng(1))
    table = surround_modulation(samples, 0.0, np.random.default_rng(2))
    louder = surround_modulation({k: 7 * x for k, x in samples.items()}, 0.0, np.random.default_rng(2))
    assert np.allclose(table, louder, equal_nan=True)
    assert table["mi_shift"].isna().all()  # not shown


def test_without_contrast_nothing_is_defined():
    nothing = {kind: np.zeros((4, N)) for kind in ("centre", "iso", "cross", "shift")}
    assert surround_modulation(nothing, 0.0, np.random.default_rng(0)).isna().all(axis=None)
    some = answers(0.4, np.random.default_rng(0))
    tested = flip_test(some, nothing, 0.0, np.random.default_rng(0), 50)
    assert tested[["cmi_low", "interaction", "p", "chance"]].isna().all(axis=None)
    assert not tested["flip_by_threshold"].any()


def test_what_does_not_exceed_its_own_noise_has_no_index():
    rng = np.random.default_rng(3)
    noise = {kind: rng.normal(0, 1, (20, N)) for kind in ("iso", "cross")}
    assert surround_modulation(noise, 0.0, rng)["cmi"].notna().mean() < 0.06
    assert noise_floor(noise["iso"], noise["cross"], 100.0).min() == 100
    assert (noise_floor(noise["iso"][:1], noise["cross"][:1], 0.2) == 0.2).all()  # one sample tells no noise


@pytest.mark.parametrize("cmi", [-0.3, 0.0, 0.5])
def test_intervals_hold_the_truth_and_call_surrounds_suppressing(cmi):
    table = surround_modulation(answers(cmi, np.random.default_rng(4)), 0.0, np.random.default_rng(5))
    covered = (table["cmi_low"] <= cmi) & (cmi <= table["cmi_high"])
    assert 0.88 <= covered.mean() <= 0.98
    assert abs(table["cmi"].mean() - cmi) < 0.02
    if cmi == 0.5:  # iso 0.5, cross 1.5 of the centre
        assert (table["mi_iso_high"] < 0).mean() > 0.7 and (table["mi_cross_low"] > 0).mean() > 0.3
        assert (table["mi_iso_low"] > 0).mean() < 0.01


def test_the_rule_is_the_published_one():
    iso, cross = np.random.default_rng(6).gamma(2, 1, (2, 2, 4000))
    published = ((cross[0] - iso[0]) / iso[0] >= 0.2) & ((iso[1] - cross[1]) / cross[1] >= 0.2)
    assert (turns(*modulation_index(cross, iso)) == published).all() and 0.1 < published.mean() < 0.3
    assert turns(modulation_index(1.2, 1.0), modulation_index(1.0, 1.2))  # exactly so much larger
    assert not turns(np.nan, -0.5) and not turns(0.5, 0.5) and not turns(-0.5, 0.5)


@pytest.mark.parametrize("cmi", [0.0, 0.1])
def test_contrast_may_change_gain_and_suppression_without_a_flip(cmi):
    """Responses fall twentyfold, and the surround turns from suppressing to facilitating; preferences stay."""
    rng = np.random.default_rng(7)
    tested = flip_test(answers(cmi, rng, centre=3), answers(cmi, rng, gain=0.05, centre=0.4), 0.0, rng, 500)
    assert 0.02 <= (tested["p"] < 0.05).mean() <= 0.09
    assert (benjamini_hochberg(tested["p"].to_numpy()) <= 0.05).mean() < 0.01
    assert abs(tested["flip_by_threshold"].mean() - tested["chance"].mean()) < 0.03  # the null foretells false flips


def test_flips_are_found_and_told_from_neurons_that_do_not():
    rng = np.random.default_rng(8)
    flip = flip_test(answers(0.5, rng), answers(-0.4, rng, gain=0.05), 0.0, rng, 500)
    stay = flip_test(answers(0.5, rng), answers(0.4, rng, gain=0.05), 0.0, rng, 500)
    tested = pd.concat([flip, stay])
    found = tested["flip_by_threshold"] & (benjamini_hochberg(tested["p"].to_numpy()) <= 0.05)
    assert found[: len(flip)].mean() >= 0.9 and found[len(flip) :].mean() <= 0.01
    assert flip["chance"].mean() < 0.3 < flip["flip_by_threshold"].mean()
    reverse = flip_test(answers(-0.4, rng), answers(0.5, rng), 0.0, rng, 500)  # turns the other way
    assert reverse["p"].min() > 0.5 and not reverse["flip_by_threshold"].any()


def test_a_preference_that_only_vanishes_needs_the_intervals():
    """Cross over iso at high contrast, neither at low: the interaction is real, and noise passes the threshold."""
    rng = np.random.default_rng(9)
    high, low = answers(0.4, rng, shape=1), answers(0.0, rng, gain=0.05, shape=1)
    tested = flip_test(high, low, 0.0, rng, 1000)
    passed = tested["flip_by_threshold"] & (benjamini_hochberg(tested["p"].to_numpy()) <= 0.05)
    signs = surround_modulation(high, 0.0, rng)["cmi_low"].gt(0) & surround_modulation(low, 0.0, rng)["cmi_high"].lt(0)
    assert passed.mean() > 0.1 and (passed & signs).mean() <= 0.05


def test_neurons_chosen_for_their_noise_are_ordinary_when_seen_again():
    rng = np.random.default_rng(10)
    table = hold_out(answers(0.0, rng, shape=1), answers(0.0, rng, shape=1), 0.0)
    chosen = table[table["flip_chosen"]]
    assert len(chosen) > 15
    assert (chosen["cmi_high_chosen"] - chosen["cmi_low_chosen"]).mean() > 0.4
    assert abs((chosen["cmi_high_held"] - chosen["cmi_low_held"]).mean()) < 0.2


def test_contrast_responses_are_recovered():
    rng = np.random.default_rng(11)
    contrasts = np.array([0.025, 0.05, 0.1, 0.2, 0.5, 1.0])
    r_max, c50, exponent = rng.uniform(1, 50, N), rng.uniform(0.05, 0.5, N), rng.uniform(1, 4, N)
    responses = r_max[:, None] / (1 + (c50[:, None] / contrasts) ** exponent[:, None])
    fit = naka_rushton(np.concatenate([responses, np.zeros((1, 6))]), contrasts)
    assert fit.iloc[-1].isna().all()
    fit = fit[:-1]
    assert (fit["r2"] > 0.9999).all()
    for name, truth in (("r_max", r_max), ("c50", c50), ("exponent", exponent)):
        assert np.median(abs(fit[name] / truth - 1)) < 0.01
