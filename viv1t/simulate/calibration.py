"""Fit each neuron's scale to natural movies, so that recordings have the statistics of real mice."""

import numpy as np
import pandas as pd
import torch

from viv1t.constants import FPS, SKIP
from viv1t.simulate.animal import Animal
from viv1t.simulate.body import Body, behave
from viv1t.simulate.scenes import natural_movie

CLIPS = 12  # movies that the calibration watches
EVENT_RATES = (0.02, 0.25)  # per frame; more would leave too few silent frames, real medians are 0


def calibrate(animal: Animal, body: Body, seed: np.random.SeedSequence, frames: int) -> pd.DataFrame:
    """The population with the columns `drive_mean` (natural drive that gives the mean response) and `event_rate`.

    The event rate is what gives every neuron its aimed correlation between rate and recording.
    """
    moments = sum(_watch(animal, body, child, frames) for child in seed.spawn(CLIPS)) / CLIPS
    neurons = animal.neurons.copy()
    driven = (neurons["kind"] != "undriven").to_numpy()
    neurons["drive_mean"] = np.where(driven, moments[0], 1.0)
    neurons.loc[~driven, "spontaneous"] = 1.0
    neurons["event_rate"] = _event_rate(neurons, _relative_variance(neurons, moments), animal.kernels)
    return neurons


def _watch(animal: Animal, body: Body, seed: np.random.SeedSequence, frames: int) -> np.ndarray:
    """Time averages (6, N) during one movie of d, g, d g, g^2, d g^2, d^2 g^2 for drive d and behavioural gain g."""
    clip, life = seed.spawn(2)
    video = torch.from_numpy(natural_movie(clip, animal.monitor, frames))[None, None]
    behavior, pupil = (x[None] for x in behave(body, frames, life))
    start = min(SKIP, frames // 2)
    with torch.no_grad():
        d, g = (x[0, :, start:].double() for x in (animal.drive(video, pupil), animal.gain(behavior)))
    return torch.stack([x.mean(1) for x in (d, g, d * g, g**2, d * g**2, (d * g) ** 2)]).numpy()


def _relative_variance(neurons: pd.DataFrame, moments: np.ndarray) -> np.ndarray:
    """Variance of the rate over its squared mean (N,); the rate is (b + a d) g."""
    b = neurons["spontaneous"].to_numpy()
    a = (1 - b) / neurons["drive_mean"].to_numpy()
    _, g, dg, gg, dgg, ddgg = moments
    mean, square = b * g + a * dg, b**2 * gg + 2 * a * b * dgg + a**2 * ddgg
    return square / mean**2 - 1


def _event_rate(neurons: pd.DataFrame, variance: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Mean events per frame (N,) such that corr(rate, response) equals `reliability`.

    With relative variance s2 of the rate, var(response) / mean^2 = s2 + X / events + L, where X holds Poisson,
    amplitude and trial-gain noise and L the shared latent.
    """
    shape, fano = neurons["amplitude_shape"].to_numpy(), neurons["fano"].to_numpy()
    poisson = (kernels**2).sum(axis=1) * (1 + 1 / shape) + (fano - 1) / FPS * (1 + variance)
    latent = np.expm1(neurons["latent_gain"].to_numpy() ** 2) * (1 + variance)
    room = variance * (1 / neurons["reliability"].to_numpy() ** 2 - 1) - latent
    driven = (neurons["kind"] != "undriven").to_numpy()
    events = np.where(driven & (room > 0), poisson / np.maximum(room, 1e-9), np.nan)
    events = np.clip(events, *EVENT_RATES)
    return np.where(np.isnan(events), np.where(driven, EVENT_RATES[1], np.nanmedian(events)), events)
