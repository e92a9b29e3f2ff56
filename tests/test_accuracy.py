"""Scores agree with the public implementation and behave as their definitions promise."""

from pathlib import Path

import numpy as np
import pytest

from viv1t.estimators import accuracy, repeats

# outputs of the public ViV1T implementation (commit d2cbafd) from random numbers
PARITY = Path(__file__).parent / "data" / "parity" / "metrics.npz"


@pytest.fixture(scope="module")
def published():
    with np.load(PARITY, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module", params=["", "ragged_"])
def trials(request, published):
    """(prefix of the expected values, y_true, y_pred, video_ids); equal and unequal lengths."""
    prefix = request.param
    y_true, y_pred = published[f"{prefix}y_true"], published[f"{prefix}y_pred"]
    lengths = published.get(f"{prefix}lengths", [y_true.shape[-1]] * len(y_true))
    cut = [(t[:, :n], p[:, :n]) for t, p, n in zip(y_true, y_pred, lengths, strict=True)]
    return prefix, [t for t, _ in cut], [p for _, p in cut], published[f"{prefix}video_ids"]


@pytest.mark.parametrize(
    "name", ["challenge_correlation", "single_trial_correlation", "correlation_to_average", "normalized_correlation"]
)
def test_scores_equal_published_values(published, trials, name):
    prefix, y_true, y_pred, video_ids = trials
    metric = getattr(accuracy, name)
    repeated = name in ("correlation_to_average", "normalized_correlation")
    values = metric(y_true, y_pred, video_ids) if repeated else metric(y_true, y_pred)
    np.testing.assert_allclose(values, published[f"{prefix}{name}_per_neuron"], rtol=1e-5, atol=1e-6)
    assert accuracy.summarize(values).mean == pytest.approx(float(published[f"{prefix}{name}"]), rel=1e-5)


@pytest.mark.parametrize("name, ours", [("sse", accuracy.msse), ("poisson_loss", accuracy.poisson_loss)])
def test_losses_equal_published_values(published, name, ours):
    y_true, y_pred = list(published["y_true"]), list(published["y_pred"])
    loss = ours(y_true, y_pred).sum()
    assert loss == pytest.approx(float(published[f"{name}_mean"]), rel=1e-5)
    assert loss * len(y_true) == pytest.approx(float(published[f"{name}_sum"]), rel=1e-5)


@pytest.mark.parametrize("key, axis", [("dim_last", -1), ("dim_0", 0), ("dim_none", None), ("numpy_dim_1", 1)])
def test_correlation_along_an_axis(published, key, axis):
    ours = accuracy.correlation(published["y_true"], published["y_pred"], axis=axis)
    np.testing.assert_allclose(ours, published[f"correlation_{key}"], rtol=1e-5, atol=1e-6)


def test_one_group_of_repeats(published):
    groups = repeats.group_repeats(published["video_ids"])
    assert [len(g) for g in groups] == published["group_sizes"].tolist()
    true = repeats.stack(published["y_true"], groups[0])
    pred = repeats.stack(published["y_pred"], groups[0])
    np.testing.assert_allclose(accuracy.cc_abs(true, pred), published["cc_abs_group0"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(accuracy.cc_norm(true, pred), published["cc_norm_group0"], rtol=1e-5, atol=1e-6)


def test_streaming_equals_all_at_once_far_from_zero():
    rng = np.random.default_rng(0)
    y_true = 1e6 + rng.standard_normal((4, 900))
    y_pred = 0.5 * y_true + rng.standard_normal((4, 900))
    stream = accuracy.StreamingCorrelation(4)
    for start, stop in [(0, 1), (1, 1), (1, 300), (300, 900)]:
        stream.update(y_true[:, start:stop], y_pred[:, start:stop])
    expected = [np.corrcoef(t, p)[0, 1] for t, p in zip(y_true, y_pred, strict=True)]
    np.testing.assert_allclose(stream.value(), expected, rtol=1e-6)


def test_constant_traces_score_zero():
    constant = [np.full((2, n), 123.4) for n in (70, 33)]
    varying = [np.random.default_rng(n).standard_normal((2, n)) for n in (70, 33)]
    np.testing.assert_allclose(accuracy.challenge_correlation(varying, constant), 0, atol=1e-6)
    np.testing.assert_allclose(accuracy.single_trial_correlation(constant, varying), 0, atol=1e-6)


def test_without_repeats_scores_are_missing_and_counted():
    rng = np.random.default_rng(1)
    y = [rng.random((5, 60)) for _ in range(3)]
    metrics = (accuracy.correlation_to_average, accuracy.normalized_correlation, accuracy.feve)
    for metric in (*metrics, accuracy.pooled_normalized_correlation):
        summary = accuracy.summarize(metric(y, y, [0, 1, 2]), "no repeats")
        assert np.isnan(summary.mean) and summary.n == 0 and summary.excluded == 5 and summary.reason == "no repeats"


def test_expected_response_reaches_the_normalised_ceiling():
    """Predicting the expected response gives a normalised correlation and a FEVE of 1, whatever the units."""
    rng = np.random.default_rng(2)
    rates = [rng.gamma(1.0, 1.0, (30, 250)) for _ in range(6)]
    video_ids = np.repeat(np.arange(6), 10)
    for unit in (1e-3, 1e3):
        pred = [unit * rates[v] for v in video_ids]
        true = [p + unit * rng.standard_normal(p.shape) for p in pred]
        assert accuracy.pooled_normalized_correlation(true, pred, video_ids) == pytest.approx(1, abs=0.03)
        assert accuracy.feve(true, pred, video_ids) == pytest.approx(1, abs=0.03)
        mean = [np.broadcast_to(p.mean(axis=1, keepdims=True), p.shape) for p in pred]
        assert accuracy.feve(true, mean, video_ids) == pytest.approx(0, abs=0.05)


def test_noise_has_no_normalised_correlation():
    rng = np.random.default_rng(3)
    true = [rng.standard_normal((40, 300)) for _ in range(20)]
    pred = [rng.standard_normal((40, 300)) for _ in range(20)]
    video_ids = np.repeat([0, 1], 10)
    assert accuracy.summarize(accuracy.pooled_normalized_correlation(true, pred, video_ids)).excluded > 30


def test_official_score_weights_neurons_and_ours_mice():
    per_mouse = [np.array([0.5, np.nan]), np.array([0.1])]
    assert accuracy.neuron_weighted(per_mouse) == pytest.approx(0.2)
    assert accuracy.mouse_weighted(per_mouse) == pytest.approx(0.3)


def test_scored_frames_are_the_last_ones():
    frames = np.arange(300.0)[None]
    np.testing.assert_array_equal(accuracy.scored(frames, 300), frames[:, 50:])
    np.testing.assert_array_equal(accuracy.scored(frames[:, 12:], 300), frames[:, 50:])
    with pytest.raises(ValueError, match="cannot be scored"):
        accuracy.scored(frames[:, :40], 40)
