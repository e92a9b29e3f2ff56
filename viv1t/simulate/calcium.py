"""From the rate to what a microscope delivers after deconvolution: sparse, heavy-tailed, never negative."""

import numpy as np
import pandas as pd

from viv1t.constants import FPS
from viv1t.simulate.body import wander


def record(rate: np.ndarray, neurons: pd.DataFrame, kernels: np.ndarray, seed, noise: float = 1.0) -> np.ndarray:
    """One noisy trial whose expectation is `rate` spread by `kernels`.

    rate (N, T) in recorded units before events spread over frames; kernels (N, 3) sum to 1; `noise` scales the
    deviations (their variance by noise**2), 0 gives the expectation. Returns (N, T) float32.

    Events are Poisson around the rate times two gains with mean 1, one per trial and neuron and one slow and shared;
    amplitudes are gamma distributed.
    """
    if noise == 0:
        return expected(rate, kernels).astype(np.float32)
    rng = np.random.default_rng(seed)
    column = {name: neurons[name].to_numpy()[:, None] for name in ("event_rate", "amplitude_shape", "mean_response")}
    events = column["event_rate"] / noise**2
    rate = _with_lead_in(rate, kernels)
    gain = _trial_gain(neurons, events, noise, rng) * _latent_gain(neurons, rate.shape[1], noise, rng)
    counts = rng.poisson(events / column["mean_response"] * rate * gain)
    shape = column["amplitude_shape"]
    amplitude = column["mean_response"] / events
    return _spread(rng.standard_gamma(shape * counts) * (amplitude / shape), kernels).astype(np.float32)


def _trial_gain(neurons: pd.DataFrame, events: np.ndarray, noise: float, rng) -> np.ndarray:
    """(N, 1) gamma gains; their variance gives counts within 1 s the Fano factor of the table."""
    variance = np.clip((neurons["fano"].to_numpy()[:, None] - 1) / (FPS * events), 1e-6, 1.0)
    return rng.gamma(1 / variance, variance)


def _latent_gain(neurons: pd.DataFrame, frames: int, noise: float, rng) -> np.ndarray:
    """(N, T) gains that follow one slow state of the whole population: the source of noise correlations."""
    weight = neurons["latent_gain"].to_numpy()[:, None] * noise
    return np.exp(weight * wander(rng, frames, 2.0) - weight**2 / 2)


def expected(rate: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """The mean of `record` over its noise: the rate (N, T) spread by kernels (N, 3)."""
    return _spread(_with_lead_in(rate, kernels), kernels)


def _with_lead_in(rate: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """The rate with earlier frames like its first, whose events leak into the trial."""
    return np.concatenate([np.repeat(rate[:, :1], kernels.shape[1] - 1, axis=1), rate], axis=1)


def _spread(events: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Each event leaks into the next frames; the lead-in is dropped."""
    lags, frames = kernels.shape[1], events.shape[1] - kernels.shape[1] + 1
    return sum(kernels[:, lag, None] * events[:, lags - 1 - lag : lags - 1 - lag + frames] for lag in range(lags))
