"""Groups of neurons and trials: they split what was scored, find what is planted, and find nothing in nothing."""

import numpy as np
import pandas as pd
import pytest

from viv1t.constants import STIMULI
from viv1t.data.cache import open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.estimators import groups
from viv1t.evaluation import SCORES, Subject, score_mouse
from viv1t.results import Responses, locate, read_scores

DEPTHS = np.array([200.0, 225.0, 250.0, 275.0])


def table(rng: np.random.Generator, mice: int, neurons: int = 200, planted: float = 0.0) -> pd.DataFrame:
    """Scores of one tier that differ between mice and neurons; at 200 um `planted` is added."""
    tables = []
    for mouse in range(mice):
        depth = rng.choice(DEPTHS, neurons)
        reliability = rng.uniform(0, 1, neurons)
        score = 0.3 + rng.normal(0, 0.05) + rng.normal(0, 0.1, neurons) + planted * (depth == 200)
        own = {"mouse": f"m{mouse}", "neuron": np.arange(neurons), "tier": "live_main", "depth_um": depth}
        own |= {"challenge_correlation": score, "explainable_variance": reliability, "cell_class": np.nan}
        tables.append(pd.DataFrame(own | {"true_rate": np.nan, "oracle": 0.5 + rng.normal(0, 0.05, neurons)}))
    return pd.concat(tables, ignore_index=True)


def difference(neurons: pd.DataFrame, rng: np.random.Generator, resamples: int = 400) -> pd.Series:
    """How much better neurons at 200 um are predicted, over all mice."""
    grouped = groups.assign(neurons, "depth", "live_main")
    means, _ = groups.split(groups.summarize(grouped, [groups.DIFFERENCE], rng, resamples=resamples))
    return means[means["group"] == "200 µm"].iloc[0]


@pytest.mark.parametrize("by", ["depth", "reliability"])
def test_every_neuron_is_in_one_group(by):
    neurons = table(np.random.default_rng(0), mice=3)
    neurons.loc[:9, "explainable_variance"] = np.nan
    shuffled = neurons.sample(frac=1, random_state=0)
    grouped = groups.assign(pd.concat([shuffled, shuffled.assign(tier="validation")]), by, "live_main")
    assert grouped.groupby(["mouse", "neuron"]).size().eq(1).all() and len(grouped) == len(neurons)
    assert grouped["group"].notna().all()
    summary = groups.summarize(grouped, [groups.SCORE], np.random.default_rng(0), resamples=10)
    own = summary[summary["mouse"] == "m0"]
    assert own["neurons"].sum() == 200
    weighted = np.average(own[f"{groups.SCORE}_mean"], weights=own["neurons"])
    assert weighted == pytest.approx(neurons.loc[neurons["mouse"] == "m0", groups.SCORE].mean())


def test_quarters_are_of_each_mouse_and_unrepeated_neurons_are_counted_apart():
    neurons = table(np.random.default_rng(1), mice=2)
    neurons.loc[neurons["mouse"] == "m1", "explainable_variance"] += 10  # a mouse with cleaner recordings
    neurons.loc[:9, "explainable_variance"] = np.nan
    grouped = groups.assign(neurons, "reliability", "live_main")
    counts = grouped.groupby(["mouse", "group"], observed=True).size()
    assert counts["m1"].to_dict() == {f"quarter {i}": 50 for i in (1, 2, 3, 4)}
    assert counts["m0", "no repeats"] == 10 and counts["m0"].drop("no repeats").between(47, 48).all()
    means = grouped.groupby(["mouse", "group"], observed=True)["explainable_variance"].mean()
    assert all(means[mouse].dropna().is_monotonic_increasing for mouse in ("m0", "m1"))


def test_planes_are_depths_or_slices():
    assert (groups.planes(np.array([200, 225, 225])) == [200, 225, 225]).all()
    depth = np.linspace(100, 300, 500)
    assert set(groups.planes(depth)) == set(np.arange(100, 301, 25.0))


@pytest.mark.parametrize("mice", [1, 4])
def test_a_planted_difference_between_depths_is_recovered(mice):
    rng = np.random.default_rng(2)
    found = difference(table(rng, mice, planted=0.1), rng)
    low, high = (found[f"{groups.DIFFERENCE}_{key}"] for key in ("low", "high"))
    assert 0 < low < 0.1 < high < 0.2


@pytest.mark.parametrize("mice, repeats, least, most", [(1, 300, 0.02, 0.09), (3, 120, 0.0, 0.07)])
def test_without_a_difference_one_interval_in_twenty_misses_zero(mice, repeats, least, most):
    """Over several mice fewer: drawing mice and their neurons counts the noise of neurons twice."""
    rng = np.random.default_rng(3)
    tables = (table(rng, mice, neurons=80) for _ in range(repeats))
    found = [difference(own[own["depth_um"] <= 225], rng, resamples=300) for own in tables]
    missed = np.mean([row[f"{groups.DIFFERENCE}_low"] > 0 or row[f"{groups.DIFFERENCE}_high"] < 0 for row in found])
    assert least <= missed <= most


def test_mice_that_differ_widen_the_interval_of_a_group():
    rng = np.random.default_rng(4)
    neurons = table(rng, mice=5)
    neurons[groups.SCORE] += neurons["mouse"].str[1:].astype(int) * 0.1
    summary = groups.summarize(groups.assign(neurons, "depth", "live_main"), [groups.SCORE, groups.RATIO], rng)
    means, mice = groups.split(summary)
    assert means["mouse"].eq("5 mice").all() and len(mice) == 20
    for score in (groups.SCORE, groups.RATIO):
        width, single = (rows[f"{score}_high"] - rows[f"{score}_low"] for rows in (means, mice))
        assert width.min() > 2 * single.max()
        at_200 = mice[mice["group"] == "200 µm"][f"{score}_mean"].mean()
        assert means.iloc[0][f"{score}_mean"] == pytest.approx(at_200)


def test_the_ceiling_is_the_true_rate_where_it_is_known():
    neurons = table(np.random.default_rng(5), mice=2)
    neurons.loc[neurons["mouse"] == "m0", "true_rate"] = 0.8
    ceiling = groups.assign(neurons, "depth", "live_main").set_index("mouse")["ceiling"]
    assert (ceiling["m0"] == 0.8).all()
    assert (ceiling["m1"].to_numpy() == neurons.loc[neurons["mouse"] == "m1", "oracle"]).all()


@pytest.fixture(scope="module")
def scores(lab_twin) -> pd.DataFrame:
    return read_scores(lab_twin, groups.NEEDED)


def test_tier_and_kind_agree_with_scoring_these_trials_alone(lab, lab_twin, scores):
    """Of the tiers of a simulated recording that mix kinds of stimulus."""
    mixed = 0
    for mouse, own in scores.groupby("mouse"):
        recording = Recording(find_recordings(lab, [mouse])[mouse], mouse)
        for name in own["tier"].unique():
            tier, _, kind = name.partition(":")
            if not kind:
                continue
            with Responses(locate(lab_twin, "responses", mouse)) as responses:
                of_tier = responses.trial_ids(tier)
                trials = [i for i in of_tier if recording.stimulus_ids[i] == STIMULI.index(kind)]
                subject = Subject(open_cache(recording), responses, np.arange(recording.num_neurons))
                alone = score_mouse(subject, {"alone": trials}, None)
            assert 0 < len(trials) < len(of_tier)
            columns = [*SCORES, "true_rate", "oracle", "split_half_reliability", "trials", "repeated_videos"]
            found = own[own["tier"] == name][columns].reset_index(drop=True)
            pd.testing.assert_frame_equal(found, alone[columns], check_exact=False, atol=1e-5, rtol=1e-5)
            mixed += 1
    assert mixed >= 4  # two kinds in the last tier of both mice


def test_every_kind_is_scored_once_for_all_trials_that_showed_it(scores):
    """Also where a tier showed nothing else, so that means over mice lack none."""
    for mouse, own in scores.groupby("mouse"):
        kinds = own[own["tier"].isin(STIMULI)].groupby("tier")["trials"].first()
        tiers = own[~own["tier"].isin(STIMULI) & ~own["tier"].str.contains(":")].groupby("tier")["trials"].first()
        assert kinds.sum() == tiers.drop("validation").sum()
        for tier, parts in own[own["tier"].str.contains(":")].groupby(own["tier"].str.split(":").str[0]):
            assert parts.groupby("tier")["trials"].first().sum() == tiers[tier], mouse
    grouped = groups.assign(scores, "stimulus", "live_main")
    assert list(grouped["group"].cat.categories)[0] == "movie"
    tiers = groups.assign(scores, "tier", "live_main")
    assert len(tiers) + len(grouped) == len(scores)


def test_classes_of_cells_are_those_of_the_simulation(lab, scores):
    grouped = groups.assign(scores, "cell_class", "live_main")
    for mouse, own in grouped.groupby("mouse"):
        truth = pd.read_csv(find_recordings(lab, [mouse])[mouse] / "truth" / "neurons.csv")
        assert own["group"].astype(str).tolist() == truth["kind"].tolist()
        np.testing.assert_allclose(own["depth_um"], truth["z_um"])
    assert groups.assign(scores.assign(cell_class=np.nan), "cell_class", "live_main").empty
