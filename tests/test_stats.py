"""Bootstrap intervals cover the mean as often as they say; tests by permutation reject as often as they should."""

import numpy as np
import pytest

from viv1t import stats


def test_interval_covers_the_mean_95_times_in_100():
    rng = np.random.default_rng(0)
    intervals = [stats.bootstrap(rng.normal(1.0, 2.0, 60), rng, resamples=400) for _ in range(300)]
    covered = np.mean([i.low <= 1.0 <= i.high for i in intervals])
    assert 0.90 < covered < 0.98


def test_same_seed_same_interval_and_missing_neurons_are_left_out():
    values = np.append(np.random.default_rng(1).random(50), np.nan)
    first, second = (stats.bootstrap(values, np.random.default_rng(7)) for _ in range(2))
    assert first == second and first.n == 50
    assert first.mean == pytest.approx(np.nanmean(values))


def test_animals_widen_the_interval():
    rng = np.random.default_rng(2)
    animals = [rng.normal(mean, 0.1, 200) for mean in (0.2, 0.4, 0.6, 0.8)]
    nested = stats.hierarchical_bootstrap(animals, rng)
    pooled = stats.bootstrap(np.concatenate(animals), rng)
    assert nested.animals == 4 and nested.n == 800
    assert nested.high - nested.low > 3 * (pooled.high - pooled.low)
    assert nested.mean == pytest.approx(0.5, abs=0.02)


def test_ratio_of_means():
    rng = np.random.default_rng(3)
    ceiling = rng.uniform(0.2, 0.8, 500)
    ratio = stats.bootstrap_ratio(0.7 * ceiling + rng.normal(0, 0.02, 500), ceiling, rng)
    assert ratio.low < 0.7 < ratio.high and ratio.high - ratio.low < 0.02


def test_nothing_to_average():
    rng = np.random.default_rng(4)
    assert np.isnan(stats.bootstrap(np.array([np.nan]), rng).mean)
    assert stats.hierarchical_bootstrap([np.array([])], rng).n == 0
    assert stats.bootstrap_ratio(np.array([np.nan]), np.array([1.0]), rng).n == 0


def test_chunks_bound_memory_without_changing_the_interval(monkeypatch):
    values = np.random.default_rng(5).random(100)
    whole = stats.bootstrap(values, np.random.default_rng(6), resamples=50)
    monkeypatch.setattr(stats, "CHUNK", 300)
    assert stats.bootstrap(values, np.random.default_rng(6), resamples=50) == whole


def test_correlation_comes_with_an_interval_that_covers_it():
    rng = np.random.default_rng(8)
    covered = []
    for _ in range(200):
        a = rng.standard_normal(80)
        b = 0.6 * a + 0.8 * rng.standard_normal(80)
        interval = stats.bootstrap_correlation(a, b, rng, resamples=200)
        covered.append(interval.low <= 0.6 <= interval.high)
    assert 0.89 < np.mean(covered) < 0.99
    gap = np.append(a, np.nan)
    assert stats.bootstrap_correlation(gap, gap, rng).mean == pytest.approx(1)
    assert np.isnan(stats.bootstrap_correlation(np.ones(80), b, rng).mean)


def test_permutation_p_is_never_zero_and_uniform_without_an_effect():
    null = np.random.default_rng(9).standard_normal((199, 2000))
    observed = np.random.default_rng(10).standard_normal(2000)
    p = stats.permutation_p(observed, null)
    assert p.min() >= 1 / 200 and p.max() <= 1
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=0.03)
    assert stats.permutation_p(np.array([1e9, np.nan]), null[:, :2])[0] == 1 / 200
    assert np.isnan(stats.permutation_p(np.array([1e9, np.nan]), null[:, :2])[1])


def test_benjamini_hochberg_by_hand_and_in_the_long_run():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005, 0.6])
    assert stats.benjamini_hochberg(p) == pytest.approx([0.025, np.nan, 0.05, 0.05, 0.025, 0.6], nan_ok=True)
    rng, false = np.random.default_rng(11), []
    for _ in range(200):
        null = np.arange(400) < 300
        q = stats.benjamini_hochberg(np.where(null, rng.random(400), rng.random(400) ** 8))
        false.append(np.mean(null[q < 0.05]) if (q < 0.05).any() else 0)
    assert np.mean(false) <= 0.05


def test_circular_difference_takes_the_short_way():
    assert stats.circular_difference(np.array([350.0, 10.0, 180.0]), np.array([10.0, 350.0, 0.0])).tolist() == [
        -20,
        20,
        -180,
    ]
    assert stats.circular_difference(175.0, 5.0, period=180) == -10
