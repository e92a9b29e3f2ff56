"""Baselines find what they are made to find, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest

from viv1t import baselines
from viv1t.errors import UserError
from viv1t.estimators.accuracy import challenge_correlation

TRIALS, T, H, W = 40, 150, 12, 16


@pytest.fixture(scope="module")
def recording():
    """Smooth random movies and four neurons: linear, rectified linear, gain modulated by running, and noise."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((12, H, W))
    field = rng.standard_normal((H, W))
    trials = []
    for _ in range(TRIALS):
        contrast = rng.standard_normal((T, 12))
        video = 127 + 8 * np.tensordot(contrast, patterns, axes=1)
        drive = np.tensordot(video - 127, field, axes=2) / 300
        drive = np.concatenate([np.zeros(4), drive[:-4]])  # 4 frames later
        running = np.abs(np.repeat(rng.standard_normal(T // 10), 10))
        rates = np.stack([3 + drive, 3 * np.maximum(drive, 0), 1 + np.roll(running, 5), np.ones(T)])
        trials.append(
            SimpleNamespace(
                video=video.astype(np.float32),
                responses=(rates + 0.5 * rng.standard_normal(rates.shape)).astype(np.float32),
                behavior=np.stack([rng.random(T), running]).astype(np.float32),
                pupil_center=np.full((2, T), 100, dtype=np.float32),
                rates=rates,
            )
        )
    return trials


@pytest.fixture(scope="module")
def scores(recording):
    """Correlation with the noiseless rate on trials that were not fitted, per baseline (N,)."""
    fitted = baselines.fit_baselines(recording.__getitem__, range(30), num_components=20)
    predictions = [fitted.predict(trial) for trial in recording[30:]]
    rates = [trial.rates[:, 40:] for trial in recording[30:]]
    return {n: challenge_correlation(rates, [p[n][:, 40:] for p in predictions]) for n in baselines.NAMES}, fitted


def test_linear_nonlinear_recovers_a_linear_neuron(scores):
    assert scores[0]["linear_nonlinear"][0] > 0.97


def test_nonlinearity_recovers_a_rectified_neuron(scores, recording):
    correlations, fitted = scores
    assert correlations["linear_nonlinear"][1] > 0.97
    drive_below = fitted.nonlinearity.heights[1, 0]
    assert drive_below == pytest.approx(0, abs=0.3)


def test_behavior_recovers_a_gain_neuron_and_misses_the_video(scores):
    assert scores[0]["behavior"][2] > 0.9
    assert np.abs(scores[0]["behavior"][:2]).max() < 0.1


def test_mean_predicts_the_mean_and_scores_zero(scores, recording):
    correlations, fitted = scores
    assert np.abs(correlations["mean"]).max() < 1e-6
    mean = np.mean([t.responses[:, 30:] for t in recording[:30]], axis=(0, 2))
    np.testing.assert_allclose(fitted.mean, mean, rtol=1e-6)


def test_streaming_ridge_equals_least_squares(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((500, 6)), rng.standard_normal((3, 500))
    parts = [baselines.NormalEquations(6, 3) for _ in range(2)]
    for start in range(0, 500, 100):
        parts[start // 100 % 2].update(x[start : start + 100], y[:, start : start + 100])
    monkeypatch.setattr(baselines, "PENALTIES", (1e-12,))
    _, weights, _ = baselines.solve_ridge(*parts, 6)
    expected = np.linalg.lstsq(np.column_stack([x, np.ones(500)]), y.T, rcond=None)[0][:6]
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_saved_baselines_predict_the_same(scores, recording, tmp_path):
    fitted = scores[1]
    np.savez(tmp_path / "mouse.npz", **fitted.to_arrays())
    with np.load(tmp_path / "mouse.npz", allow_pickle=False) as file:
        loaded = baselines.Baselines.from_arrays(dict(file))
    first, second = fitted.predict(recording[0]), loaded.predict(recording[0])
    assert all(np.array_equal(first[name], second[name]) for name in baselines.NAMES)


def test_too_few_trials(recording):
    with pytest.raises(UserError, match="at least 2"):
        baselines.fit_baselines(recording.__getitem__, [0])
