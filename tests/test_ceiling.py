"""Ceilings from repeats agree with the ceiling that the known rate gives."""

import numpy as np
import pytest

from viv1t.estimators import ceiling
from viv1t.estimators.accuracy import challenge_correlation, correlation_to_average
from viv1t.estimators.repeats import explainable_variance

VIDEOS, REPEATS, N, T = 12, 10, 25, 200


@pytest.fixture(scope="module")
def noisy():
    """Responses with a signal variance of 1 and a noise variance of 3, and their rates."""
    rng = np.random.default_rng(0)
    rates = rng.standard_normal((VIDEOS, N, T))
    video_ids = np.repeat(np.arange(VIDEOS), REPEATS)
    true = [rates[v] + np.sqrt(3) * rng.standard_normal((N, T)) for v in video_ids]
    return true, [rates[v] for v in video_ids], video_ids


def test_single_trial_ceiling_is_the_score_of_the_true_rate(noisy):
    true, rates, video_ids = noisy
    score = challenge_correlation(true, rates)
    assert score.mean() == pytest.approx(0.5, abs=0.01)
    assert ceiling.cc_max_single_trial(true, video_ids) == pytest.approx(score, abs=0.03)
    assert explainable_variance(true, video_ids).mean() == pytest.approx(0.25, abs=0.01)


def test_cc_max_is_the_score_of_the_true_rate_on_averages(noisy):
    true, rates, video_ids = noisy
    expected = np.sqrt(1 / (1 + 3 / REPEATS))
    assert ceiling.cc_max(true, video_ids).mean() == pytest.approx(expected, abs=0.01)
    assert correlation_to_average(true, rates, video_ids).mean() == pytest.approx(expected, abs=0.01)


def test_oracles_bracket_the_true_rate(noisy):
    true, rates, video_ids = noisy
    jackknife = ceiling.oracle(true, video_ids).mean()
    own = ceiling.oracle(true, video_ids, include_own=True).mean()
    assert jackknife < challenge_correlation(true, rates).mean() < own
    assert jackknife == pytest.approx(0.5 / np.sqrt(1 + 3 / (REPEATS - 1)), abs=0.01)


def test_split_half_reliability_is_corrected_to_all_repeats(noisy):
    true, _, video_ids = noisy
    reliability = ceiling.split_half_reliability(true, video_ids, np.random.default_rng(1))
    assert reliability.mean() == pytest.approx(1 / (1 + 3 / REPEATS), abs=0.01)


def test_without_repeats_there_is_no_ceiling():
    rng = np.random.default_rng(2)
    y = [rng.random((3, 50)) for _ in range(4)]
    for estimate in (ceiling.oracle, ceiling.cc_max, ceiling.cc_max_single_trial, explainable_variance):
        assert np.isnan(estimate(y, [0, 1, 2, 3])).all()
    assert np.isnan(ceiling.split_half_reliability(y, [0, 1, 2, 3], rng)).all()


def test_repeats_of_unequal_length_are_compared_where_all_have_frames():
    rng = np.random.default_rng(3)
    rate = rng.standard_normal((4, 300))
    y = [rate[:, :length] + 0.1 * rng.standard_normal((4, length)) for length in (300, 280, 290)]
    assert (ceiling.oracle(y, [7, 7, 7]) > 0.95).all()
    assert np.isfinite(ceiling.cc_max(y, [7, 7, 7])).all()
