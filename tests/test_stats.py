"""Bootstrap intervals cover the mean as often as they say; tests by permutation reject as often as they should."""

import numpy as np
import pandas as pd
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


def test_ratios_and_differences_are_of_each_animal_before_they_are_averaged():
    rng = np.random.default_rng(9)
    below = [rng.uniform(0.2, 0.8, 300), rng.uniform(2, 8, 100)]
    above = [0.5 * below[0], 0.7 * below[1]]
    ratio = stats.hierarchical_ratio(above, below, rng)
    assert ratio.mean == pytest.approx(0.6) and (ratio.low, ratio.high) == pytest.approx((0.5, 0.7))
    difference = stats.hierarchical_difference([below[0] + 1, below[1] + 3], [below[0], below[1][::-1]], rng)
    assert difference.mean == pytest.approx(2) and difference.low < 1.1 and difference.high > 2.9
    assert difference.n == ratio.n == 400 and difference.animals == 2


def test_nothing_to_average():
    rng = np.random.default_rng(4)
    assert np.isnan(stats.bootstrap(np.array([np.nan]), rng).mean)
    assert stats.hierarchical_bootstrap([np.array([])], rng).n == 0
    assert stats.hierarchical_ratio([np.array([1.0])], [np.array([np.nan])], rng).n == 0
    assert stats.hierarchical_difference([np.array([])], [np.array([1.0])], rng).animals == 0
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


def population(rng, animals: int = 8, effect: float = 0.0, between: float = 1.0) -> pd.DataFrame:
    """40 neurons of each animal on two planes; animals differ among themselves."""
    per_animal = effect + between * rng.standard_normal(animals)
    mouse, n = np.repeat(np.arange(animals).astype(str), 40), 40 * animals
    values = np.repeat(per_animal, 40) + rng.standard_normal(n)
    return pd.DataFrame({"mouse": mouse, "z_um": np.tile([200.0, 225.0], n // 2), "difference": values})


def test_a_question_is_answered_for_animals_not_for_neurons():
    """Hundreds of neurons of a few animals that differ: no effect, and none is found more often than said."""
    rng = np.random.default_rng(9)
    answers = [stats.ask("?", "d", population(rng), "difference", rng, resamples=300) for _ in range(200)]
    assert np.mean([a.p < 0.05 for a in answers]) < 0.15  # pooled neurons would be wrong in most cases
    assert np.mean([a.low <= 0 <= a.high for a in answers]) > 0.85
    pooled = [stats.bootstrap(population(rng)["difference"].to_numpy(), rng, resamples=100) for _ in range(100)]
    assert np.mean([i.low > 0 or i.high < 0 for i in pooled]) > 0.5


def test_an_answer_tells_what_it_rests_on():
    rng = np.random.default_rng(10)
    table = population(rng, effect=2.0, between=0.1)
    table.loc[:9, "difference"] = np.nan
    answer = stats.ask("Is it larger?", "difference (a.u.)", table, "difference", rng)
    assert (answer.n, answer.planes, answer.animals) == (310, 16, 8)
    assert answer.low < 2 < answer.high and answer.p < 0.01
    assert "n = 310 neurons, 16 planes, 8 animals" in str(answer) and "Is it larger?" in str(answer)
    assert stats.counts(1, 1, 1) == "n = 1 neuron, 1 plane, 1 animal"


def test_any_statistic_of_several_columns_can_be_asked_for():
    rng = np.random.default_rng(11)
    table = population(rng, between=0)
    table["other"] = table["difference"] + rng.standard_normal(len(table))
    answer = stats.ask("Do they agree?", "r", table, ["difference", "other"], rng, 0.0,
                       lambda rows: np.corrcoef(rows.T)[0, 1], resamples=200)  # fmt: skip
    assert answer.low < 0.5**0.5 < answer.high and answer.p < 0.02
    median = stats.ask("?", "median", table.assign(difference=1.0), "difference", rng, statistic=np.median)
    assert (median.value, median.low, median.high) == (1.0, 1.0, 1.0)


def test_nothing_to_ask():
    answer = stats.ask("?", "d", population(np.random.default_rng(0)).assign(difference=np.nan), "difference",
                       np.random.default_rng(0))  # fmt: skip
    assert np.isnan(answer.p) and (answer.n, answer.planes, answer.animals) == (0, 0, 0)
