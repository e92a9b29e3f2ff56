"""Bootstrap intervals cover the mean as often as they say."""

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
