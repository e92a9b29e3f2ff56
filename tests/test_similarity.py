"""Similarity against distance: known clustering is measured, chance is chance, duplicates are left out."""

import numpy as np
import pytest

from viv1t.estimators import similarity
from viv1t.estimators.similarity import fit_decay, tuning_similarity

LENGTH = 40.0  # um
EDGES = np.arange(0, 201, 20.0)


def cortex(N: int, rng: np.random.Generator) -> np.ndarray:
    return np.column_stack([rng.uniform(0, 600, (N, 2)), rng.choice(np.arange(200, 426, 25.0), N)])


def clustered(xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Curves (N, 16) of independent Gaussian fields with correlation exp(-distance / LENGTH)."""
    distance = np.linalg.norm(xyz[:, None] - xyz[None], axis=-1)
    root = np.linalg.cholesky(np.exp(-distance / LENGTH) + 1e-6 * np.eye(len(xyz)))
    return root @ rng.standard_normal((len(xyz), 16))


@pytest.fixture(scope="module")
def mouse():
    rng = np.random.default_rng(0)
    xyz = cortex(1200, rng)
    return clustered(xyz, rng), xyz


@pytest.fixture(scope="module")
def measured(mouse):
    return tuning_similarity(*mouse, EDGES, rng=np.random.default_rng(1), shuffles=200)


def test_length_of_the_clusters_in_three_dimensions(measured):
    decay = fit_decay(measured)
    assert decay.length_um == pytest.approx(LENGTH, rel=0.2)
    assert decay.length_low < decay.length_um < decay.length_high
    expected = np.exp(-measured.bins["distance"] / LENGTH)
    assert abs(measured.bins["mean"] - expected)[1:].max() < 0.05
    assert (measured.bins["p"][:5] == 1 / 201).all()


def test_chance_is_the_mean_over_all_pairs(mouse, measured):
    r = np.corrcoef(mouse[0])
    assert measured.chance == pytest.approx(r[np.triu_indices(len(r), 1)].mean(), abs=1e-5)
    assert measured.neurons == 1200


def test_bins_agree_with_a_plain_loop(mouse):
    curves, xyz = mouse[0][:150], mouse[1][:150]
    found = tuning_similarity(curves, xyz, [0, 50, 120], [0, 12.5, 60], rng=np.random.default_rng(2), shuffles=5).bins
    r, values = np.corrcoef(curves), {k: [] for k in range(4)}
    for i in range(150):
        for j in range(i):
            h, v = np.hypot(*(xyz[i] - xyz[j])[:2]), abs(xyz[i, 2] - xyz[j, 2])
            if h < 120 and v < 60 and not (0 < v < 30 and h < 15):
                values[2 * (v >= 12.5) + (h >= 50)].append((r[i, j], h))
    for k, pairs in values.items():
        mean, distance = np.mean(pairs, axis=0)
        assert found["n"][k] == len(pairs)
        assert found["mean"][k] == pytest.approx(mean, abs=1e-5)
        assert found["distance"][k] == pytest.approx(distance, rel=1e-6)


def test_without_clusters_p_is_uniform_and_means_are_chance():
    p, off = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = tuning_similarity(
            1 + rng.random((200, 8)), cortex(200, rng), [0, 100], rng=rng, shuffles=99, resamples=20
        )
        p.append(found.bins["p"][0])
        off.append(found.bins["mean"][0] - found.chance)
    assert np.mean(p) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(p) <= 0.1) < 0.2
    assert abs(np.mean(off)) < 0.01


def test_exchanging_neurons_destroys_the_decay(mouse):
    curves, xyz = mouse
    order = np.random.default_rng(3).permutation(len(curves))
    found = tuning_similarity(curves[order], xyz, EDGES, rng=np.random.default_rng(4), shuffles=100)
    assert abs(found.bins["mean"][1:] - found.chance).max() < 0.05
    assert (found.bins["p"] > 0.01).mean() >= 0.8


def test_cells_imaged_twice_are_left_out(mouse):
    curves, xyz = mouse
    copies = xyz[:300] + [4.0, 3.0, 25.0]
    both = np.vstack([curves, curves[:300]]), np.vstack([xyz, copies])
    options = {"edges": [0, 15], "depth_edges": [12.5, 29], "shuffles": 5, "resamples": 5}
    kept = tuning_similarity(*both, **options, exclude_um=0, rng=np.random.default_rng(5))
    dropped = tuning_similarity(*both, **options, rng=np.random.default_rng(5))
    assert kept.bins["n"][0] >= 300 and kept.bins["mean"][0] > 0.7
    assert dropped.bins["n"][0] == 0 and dropped.bins.loc[0, ["mean", "ci_low", "p"]].isna().all()


def test_interval_is_that_of_neurons_not_of_pairs():
    """A hub of copies makes thousands of pairs, and the interval knows that they are few neurons."""
    rng = np.random.default_rng(6)
    means, inside = [], []
    for _ in range(40):
        xyz, shared = cortex(150, rng), rng.standard_normal((1, 12))
        curves = rng.standard_normal((150, 12)) + rng.normal(0, 1, (150, 1)) * shared
        found = tuning_similarity(curves, xyz, [0, 400], rng=rng, shuffles=2, resamples=200).bins.iloc[0]
        means.append(found["mean"])
        inside.append((found["ci_low"], found["ci_high"]))
    low, high = np.transpose(inside)
    centre = np.mean(means)
    assert np.mean((low <= centre) & (centre <= high)) > 0.85


def test_flat_curves_take_no_part_and_scale_does_not_matter(mouse):
    curves, xyz = mouse[0][:200].copy(), mouse[1][:200]
    scaled = curves * np.random.default_rng(7).uniform(1, 9, (200, 1)) + 5
    options = {"edges": EDGES, "shuffles": 3, "resamples": 3}
    one, other = (tuning_similarity(c, xyz, **options, rng=np.random.default_rng(8)) for c in (curves, scaled))
    assert other.bins["mean"].to_numpy() == pytest.approx(one.bins["mean"].to_numpy(), abs=1e-5, nan_ok=True)
    curves[:20] = 3.0
    assert tuning_similarity(curves, xyz, **options, rng=np.random.default_rng(9)).neurons == 180


def test_work_is_bounded_by_fewer_shuffles(mouse, monkeypatch):
    monkeypatch.setattr(similarity, "WORK", 1e6)
    found = tuning_similarity(*mouse, EDGES, rng=np.random.default_rng(10), shuffles=1000, resamples=2)
    assert found.shuffles == similarity.LEAST_SHUFFLES


def test_too_few_bins_have_no_decay(measured):
    assert np.isnan(fit_decay(measured, slice(0, 3)).length_um)
