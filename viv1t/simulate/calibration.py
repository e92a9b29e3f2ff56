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
    drives, gains = zip(*(_watch(animal, body, child, frames) for child in seed.spawn(CLIPS)), strict=True)
    drive, gain = np.concatenate(drives, axis=1), np.concatenate(gains, axis=1)
    neurons = animal.neurons.copy()
    driven = (neurons["kind"] != "undriven").to_numpy()
    neurons["drive_mean"] = np.where(driven, drive.mean(axis=1, dtype=np.float64), 1.0)
    neurons.loc[~driven, "spontaneous"] = 1.0
    background = neurons["spontaneous"].to_numpy()[:, None]
    relative = (background + (1 - background) * drive / neurons["drive_mean"].to_numpy()[:, None]) * gain
    neurons["event_rate"] = _event_rate(neurons, relative.astype(np.float64), animal.kernels)
    return neurons


def _watch(animal: Animal, body: Body, seed: np.random.SeedSequence, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Drive and behavioural gain (N, T - SKIP) during one movie."""
    clip, life = seed.spawn(2)
    video = torch.from_numpy(natural_movie(clip, animal.monitor, frames))[None, None]
    behavior, pupil = (torch.from_numpy(x)[None] for x in behave(body, frames, life))
    with torch.no_grad():
        drive, gain = animal.drive(video, pupil), animal.gain(behavior)
    start = min(SKIP, frames // 2)
    return drive[0, :, start:].numpy(), gain[0, :, start:].numpy()


def _event_rate(neurons: pd.DataFrame, relative: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Mean events per frame (N,) such that corr(rate, response) equals `reliability`.

    With relative variance s2 of the rate, var(response) / mean^2 = s2 + X / events + L, where X holds Poisson,
    amplitude and trial-gain noise and L the shared latent.
    """
    mean = relative.mean(axis=1)
    variance = relative.var(axis=1) / mean**2
    shape, fano = neurons["amplitude_shape"].to_numpy(), neurons["fano"].to_numpy()
    poisson = (kernels**2).sum(axis=1) * (1 + 1 / shape) + (fano - 1) / FPS * (1 + variance)
    latent = np.expm1(neurons["latent_gain"].to_numpy() ** 2) * (1 + variance)
    room = variance * (1 / neurons["reliability"].to_numpy() ** 2 - 1) - latent
    driven = (neurons["kind"] != "undriven").to_numpy()
    events = np.where(driven & (room > 0), poisson / np.maximum(room, 1e-9), np.nan)
    events = np.clip(events, *EVENT_RATES)
    return np.where(np.isnan(events), np.where(driven, EVENT_RATES[1], np.nanmedian(events)), events)
