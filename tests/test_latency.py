"""Onsets lie between frames, lags are what traces were shifted by, and neither depends on the size of a response."""

import numpy as np
import pytest

from viv1t.estimators.latency import aligned_lag_ms, lag_intervals, latency_ms, rising_phase

FPS, FRAMES = 30, 18
MS = np.arange(FRAMES) * 1000 / FPS


def rises(onset_ms, duration_ms=120.0) -> np.ndarray:
    """Traces (N, F) that rise linearly from 0 at their onset to 1."""
    return np.clip((MS - np.reshape(onset_ms, (-1, 1))) / duration_ms, 0, 1)


def test_onsets_are_exact_between_frames():
    onset = np.array([50.0, 66.7, 71.3, 133.1])
    for share in (0.2, 0.5):
        found = latency_ms(rising_phase(rises(onset)), FPS, share)
        # between two frames a ramp is known exactly unless its foot lies between the same two
        assert np.allclose(found, onset + share * 120, atol=8)
    ramp = np.outer([3.0], MS)
    assert latency_ms(rising_phase(ramp), FPS, 0.5) == pytest.approx(MS[-1] / 2)


def test_onsets_and_lags_do_not_depend_on_amplitude():
    onset = np.linspace(30, 200, 9)
    first, second = rises(onset), rises(onset + 40)
    for gain in (1e-4, 1.0, 1e4):
        a, b = rising_phase(gain * first), rising_phase(second / gain)
        assert np.allclose(latency_ms(a, FPS), latency_ms(rising_phase(first), FPS))
        assert np.allclose(aligned_lag_ms(a, b, FPS), 40, atol=4)


@pytest.mark.parametrize("shift", [-150.0, -21.0, 0.0, 12.0, 50.0, 133.3, 200.0])
def test_lags_are_what_traces_were_shifted_by(shift):
    onset = np.linspace(160, 190, 7)
    a, b = rising_phase(rises(onset)), rising_phase(rises(onset + shift))
    for share in (0.2, 0.5):
        assert np.allclose(latency_ms(b, FPS, share) - latency_ms(a, FPS, share), shift, atol=9)
    assert np.allclose(aligned_lag_ms(a, b, FPS), shift, atol=4)
    assert np.allclose(aligned_lag_ms(b, a, FPS), -shift, atol=4)


def test_a_response_that_is_there_from_the_first_frame_begins_at_zero():
    assert latency_ms(rising_phase(np.ones((1, FRAMES))), FPS) == 0


def test_what_falls_after_the_peak_does_not_matter():
    trace = rises([90.0])
    late = trace.copy()
    late[:, 12:] = 0.1
    assert np.array_equal(rising_phase(trace)[:, :12], rising_phase(late)[:, :12])
    assert np.array_equal(rising_phase(late)[:, 11:], np.ones((1, 7)))


def test_without_a_response_there_is_no_onset():
    flat = np.array([np.zeros(FRAMES), -np.ones(FRAMES), np.full(FRAMES, np.nan), 0.5 * rises([90.0])[0]])
    rise = rising_phase(flat, least=np.array([0.0, 0.0, 0.0, 0.6]))
    assert np.isnan(latency_ms(rise, FPS)).all()
    assert np.isnan(aligned_lag_ms(rise, rising_phase(rises(4 * [90.0])), FPS)).all()
    phases = np.repeat(flat[:, None], 4, axis=1)
    least = np.array([0.0, 0.0, 0.0, 0.6])
    assert lag_intervals(phases, phases, FPS, np.random.default_rng(0), least).isna().all(axis=None)


def test_intervals_hold_the_lag_and_shrink_with_equal_phases():
    rng = np.random.default_rng(1)
    onset, K = np.linspace(40, 120, 40), 8
    varied = [np.stack([rises(onset + lag + rng.normal(0, 25, 40)) for _ in range(K)], axis=1) for lag in (0, 60)]
    found = lag_intervals(*varied, FPS, rng)
    lag = np.subtract(*(latency_ms(rising_phase(each.mean(axis=1)), FPS) for each in varied[::-1]))
    assert ((found["lag_low_ms"] <= lag) & (lag <= found["lag_high_ms"])).mean() > 0.95
    covered = (found["lag_low_ms"] <= 60) & (found["lag_high_ms"] >= 60)
    assert 0.7 < covered.mean() <= 1 and (found["lag_low_ms"] > 0).mean() > 0.9
    same = np.repeat(rises(onset)[:, None], K, axis=1)
    assert np.allclose(lag_intervals(same, same, FPS, rng), 0)


def test_the_same_seed_gives_the_same_intervals():
    traces = np.random.default_rng(2).random((5, 4, FRAMES)).cumsum(axis=2)
    first, second = (lag_intervals(traces, traces[::-1], FPS, np.random.default_rng(3)) for _ in range(2))
    assert first.equals(second)
