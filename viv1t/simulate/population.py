"""Who lives in the simulated cortex: every parameter of every neuron, drawn from one seed.

Angles follow the field's convention for motion on the screen: 0 left, 90 down, 180 right, 270 up. Degrees of visual
angle everywhere; frames at 30 Hz.
"""

import numpy as np
import pandas as pd

from viv1t.geometry import Monitor

KINDS = ("gabor", "luminance", "isotropic", "undriven")
PLANES = np.arange(200, 426, 25)  # um below the surface
FIELD_OF_VIEW = 600.0  # um, side of the imaged square
RETINOTOPY = np.array([[-52.0, 12.0], [10.0, 40.0]])  # deg of (azimuth, elevation) per mm of cortical (x, y)
SCATTER = 3.0  # deg, sd of a field centre around the map
COLUMN = 60.0  # um, distance over which preferred directions stay similar
MARGIN = 6.0  # deg, least distance of a field centre from the edge of the screen
LATENCIES = (1, 2, 3)  # frames until the first response
GAIN_DRIFT, LOST = 0.15, 0.2  # from day to day: sd of the log gain, share of neurons not found again


def draw_population(num_neurons: int, monitor: Monitor, seed) -> pd.DataFrame:
    """One row per neuron (see the column names for units); `seed` is anything `np.random.default_rng` takes.

    `calibration.calibrate` adds the columns `drive_mean` and `event_rate`.
    """
    rng = np.random.default_rng(seed)
    neurons = pd.DataFrame({"neuron": np.arange(num_neurons)})
    _place(neurons, monitor, rng)
    _kinds(neurons, rng)
    _fields(neurons, rng)
    _surrounds(neurons, rng)
    _behaviour(neurons, rng)
    _responses(neurons, rng)
    return neurons


def age(neurons: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The same neurons on a later day: gains drift, and some are not found again (column `lost`)."""
    later = neurons.copy()
    later["mean_response"] *= rng.lognormal(0, GAIN_DRIFT, len(neurons))
    later["lost"] = np.isin(np.arange(len(neurons)), rng.permutation(len(neurons))[: round(LOST * len(neurons))])
    return later


def _place(neurons: pd.DataFrame, monitor: Monitor, rng: np.random.Generator) -> None:
    n = len(neurons)
    cortex = rng.uniform(-FIELD_OF_VIEW / 2, FIELD_OF_VIEW / 2, (n, 2))
    neurons["x_um"], neurons["y_um"] = cortex.T.round()
    neurons["z_um"] = rng.choice(PLANES, n)
    turn = np.radians(rng.normal(0, 8))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = rng.normal(0, 3, 2) + cortex / 1000 @ (rotation @ RETINOTOPY).T + rng.normal(0, SCATTER, (n, 2))
    corner = monitor.to_degrees([[monitor.width - 1, monitor.centre[1]], [monitor.centre[0], 0]])
    limit = np.array([corner[0, 0], corner[1, 1]]) - MARGIN
    centre = np.clip(centre, -limit, limit)
    neurons["azimuth_deg"], neurons["elevation_deg"] = centre.T
    neurons["x_px"], neurons["y_px"] = monitor.to_pixels(centre).T


def _kinds(neurons: pd.DataFrame, rng: np.random.Generator) -> None:
    """15 % luminance, 5 % isotropic, 5 % undriven, the rest Gabor; exact shares, random neurons."""
    n = len(neurons)
    shares = {"luminance": 0.15, "isotropic": 0.05, "undriven": 0.05}
    kind = np.full(n, "gabor", dtype="<U9")
    order, start = rng.permutation(n), 0
    for name, share in shares.items():
        stop = start + round(share * n)
        kind[order[start:stop]] = name
        start = stop
    neurons["kind"] = kind


def _fields(neurons: pd.DataFrame, rng: np.random.Generator) -> None:
    n = len(neurons)
    gabor = (neurons["kind"] == "gabor").to_numpy()
    neurons["direction_deg"] = _clustered_directions(neurons, rng)
    neurons["sf_cpd"] = np.clip(0.04 * rng.lognormal(0, 0.32, n), 0.015, 0.1)
    # low frequencies come with wide fields, so that bandwidth in octaves stays V1-like
    neurons["sigma_deg"] = np.clip(0.23 / neurons["sf_cpd"] * rng.lognormal(0, 0.15, n), 5.0, 9.0)
    neurons["aspect"] = np.where(gabor, rng.uniform(1.0, 1.5, n), 1.0)
    neurons["tf_hz"] = np.clip(2.8 * rng.lognormal(0, 0.22, n), 2.0, 4.0)
    neurons["latency"] = rng.choice(LATENCIES, n, p=(0.35, 0.45, 0.2))
    selective = rng.beta(1.1, 1.8, n)
    selective[rng.permutation(np.flatnonzero(gabor))[: round(0.05 * n)]] = 0.0
    neurons["direction_selectivity"] = np.where(gabor, selective, 0.0)
    simple = rng.beta(0.6, 0.6, n)
    neurons["simple_weight"] = np.where(neurons["kind"] == "luminance", 0.8, np.where(gabor, simple, 0.3))
    neurons["polarity"] = rng.choice((-1, 1), n)


def _clustered_directions(neurons: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Preferred directions from a smooth random field over the cortical sheet, mixed with independent ones."""
    waves = 64
    frequency = rng.normal(0, 1 / COLUMN, (waves, 2))  # random Fourier features of a Gaussian correlation
    phase = rng.uniform(0, 2 * np.pi, (2, waves))
    position = neurons[["x_um", "y_um"]].to_numpy() @ frequency.T
    real, imaginary = (np.cos(position + p).sum(axis=1) / np.sqrt(waves / 2) for p in phase)
    own = rng.normal(0, 0.8, (2, len(neurons)))
    angle = np.degrees(np.arctan2(imaginary + own[1], real + own[0])) / 2  # an orientation
    return (angle + 180 * rng.integers(0, 2, len(neurons))) % 360


def _surrounds(neurons: pd.DataFrame, rng: np.random.Generator) -> None:
    """Divisive surround, its low-contrast facilitation (20 %), and the delayed feedback field (40 %)."""
    n = len(neurons)
    field = np.isin(neurons["kind"], ("gabor", "isotropic", "luminance"))
    gabor = (neurons["kind"] == "gabor").to_numpy()
    neurons["semisaturation"] = np.clip(0.15 * rng.lognormal(0, 0.2, n), 0.08, 0.3)  # contrast
    neurons["surround_ratio"] = rng.uniform(2.0, 3.0, n)
    neurons["surround_tuning"] = np.where(gabor, rng.uniform(0.5, 1.0, n), 0.0)  # 0 untuned, 1 own orientation only
    strength = rng.uniform(0.5, 4.0, n)
    roles = rng.permutation(np.flatnonzero(gabor))
    flips, absent = roles[: round(0.2 * n)], roles[round(0.2 * n) : round(0.25 * n)]
    strength[flips] = rng.uniform(3.5, 5.0, len(flips))
    strength[absent] = 0.0
    neurons["surround_strength"] = np.where(field, strength, 0.0)
    neurons["facilitation"] = np.where(np.isin(np.arange(n), flips), 1.5, 0.0)
    feedback = rng.permutation(np.flatnonzero(gabor))[: round(0.4 * n)]
    neurons["feedback"] = 0.0
    neurons.loc[feedback, "feedback"] = rng.uniform(0.5, 0.9, len(feedback))
    delay = np.zeros(n, dtype=int)
    delay[feedback] = rng.integers(3, 7, len(feedback))
    delay[feedback[: round(0.05 * n)]] = 0  # controls: a feedback field without delay
    neurons["feedback_delay"] = delay


def _behaviour(neurons: pd.DataFrame, rng: np.random.Generator) -> None:
    n = len(neurons)
    neurons["running_gain"] = rng.normal(0.12, 0.12, n)
    neurons["pupil_gain"] = rng.normal(0.10, 0.12, n)
    neurons["latent_gain"] = np.abs(rng.normal(0.0, 0.25, n))


def _responses(neurons: pd.DataFrame, rng: np.random.Generator) -> None:
    """Scale of the recorded units and the noise of each neuron."""
    n = len(neurons)
    z = rng.normal(0, 1, n)
    neurons["mean_response"] = 2.3 * np.exp(np.where(z < 0, 0.70, 0.92) * z)
    neurons["spontaneous"] = rng.uniform(0.01, 0.05, n)  # share of the mean response that needs no stimulus
    neurons["reliability"] = np.clip(rng.normal(0.48, 0.09, n), 0.2, 0.75)  # aimed correlation rate-response
    neurons["amplitude_shape"] = rng.uniform(0.4, 1.1, n)  # gamma shape of event amplitudes
    neurons["fano"] = rng.uniform(1.2, 2.0, n)  # of event counts in 1 s
    neurons["lost"] = False
    neurons["spread"] = rng.uniform(0.0, 0.5, n)  # how much of an event leaks into the next frame
