"""Does a simulated recording look like a real one? Its statistics beside those of published mice A, B and F."""

import numpy as np
import pandas as pd

from viv1t.constants import SKIP
from viv1t.data.recording import Recording
from viv1t.estimators.accuracy import StreamingCorrelation
from viv1t.simulate.body import BODIES

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # over neurons
# training tier of mice A, B, F
REAL = {
    "mean": ((0.68, 1.26, 2.25, 4.34, 10.6), (0.74, 1.27, 2.16, 4.01, 10.1), (0.89, 1.53, 2.50, 4.40, 10.0)),
    "sd": ((2.6, 4.9, 9.9, 20.8, 50.7), (3.2, 5.7, 10.7, 21.0, 50.1), (3.8, 6.8, 12.6, 24.3, 51.9)),
    "maximum": ((65, 151, 332, 753, 1592), (91, 181, 363, 755, 1580), (118, 261, 528, 1010, 1845)),
}
VIDEO = {"mean": (79.3, 80.7), "sd": (57.0, 59.7)}
# a quantile may lie outside the range of the three mice by this factor, since a default mouse is 300 neurons; maxima
# by more, since it is a third of the frames
SLACK = {"mean": 1.4, "sd": 1.4, "maximum": 1.7}
CEILING = (0.40, 0.45)  # correlation of the true rate with single trials, mean over neurons


def compare(recording: Recording, mouse: int = 0) -> pd.DataFrame:
    """Statistics of a simulated recording against their bands: quantity, statistic, measured, low, high, passed.

    Everything is of the training tier, but the ceilings: these are of every tier that shows movies. `mouse` is the
    index of the animal within its simulation, which decides the body it has.
    """
    rows = _responses(recording) + _surroundings(recording, BODIES[mouse % len(BODIES)]) + _ceilings(recording)
    table = pd.DataFrame(rows, columns=["quantity", "statistic", "measured", "low", "high"])
    table["passed"] = table["measured"].between(table["low"], table["high"])
    return table


def response_statistics(recording: Recording) -> dict[str, np.ndarray]:
    """Mean, sd, maximum and share of silent frames of every matched neuron over the training tier, each (N,)."""
    total, square, silent, frames = 0.0, 0.0, 0.0, 0
    maximum = np.zeros(recording.matched.sum())
    for trial in recording.trial_ids("train"):
        responses = recording.trial(trial).responses[recording.matched].astype(np.float64)
        total, square = total + responses.sum(axis=1), square + (responses**2).sum(axis=1)
        silent, frames = silent + (responses == 0).sum(axis=1), frames + responses.shape[1]
        maximum = np.maximum(maximum, responses.max(axis=1))
    mean = total / frames
    return {"mean": mean, "sd": np.sqrt(square / frames - mean**2), "maximum": maximum, "silent": silent / frames}


def ceilings(recording: Recording, tier: str) -> np.ndarray:
    """Correlation (N,) of the true rate with the recording, trials end to end without their first frames."""
    stream = StreamingCorrelation(recording.num_neurons)
    for trial in recording.trial_ids(tier):
        responses, rates = recording.trial(trial).responses, recording.truth_rates(trial)
        stream.update(responses[:, SKIP:], rates[:, SKIP:])
    return np.where(recording.matched, stream.value(), np.nan)


def _responses(recording: Recording) -> list[tuple]:
    found, rows = response_statistics(recording), []
    for name, mice in REAL.items():
        slack = SLACK[name]
        for q, measured, real in zip(QUANTILES, np.quantile(found[name], QUANTILES), np.transpose(mice), strict=True):
            rows.append((f"response {name}", f"{q:.0%} quantile", measured, min(real) / slack, max(real) * slack))
    return [*rows, ("response median is 0", "share of neurons", (found["silent"] >= 0.5).mean(), 0.99, 1.0)]


def _surroundings(recording: Recording, body) -> list[tuple]:
    trials = map(recording.trial, recording.trial_ids("train"))
    kept = [(t.behavior, t.pupil_center, t.video.mean(dtype=float), (t.video**2).mean(dtype=float)) for t in trials]
    behavior, centre, means, squares = zip(*kept, strict=True)
    behavior, centre = (np.concatenate(parts, axis=1) for parts in (behavior, centre))
    mean, square = np.mean(means), np.mean(squares)
    (pupil_mean, pupil_sd, low, high), (speed_mean, speed_sd, fastest) = body.pupil, body.speed
    rows = [
        ("video", "mean", mean, VIDEO["mean"][0] - 6, VIDEO["mean"][1] + 6),
        ("video", "sd", np.sqrt(square - mean**2), VIDEO["sd"][0] - 4, VIDEO["sd"][1] + 4),
        ("pupil dilation", "mean", behavior[0].mean(), pupil_mean - 4, pupil_mean + 4),
        ("pupil dilation", "sd", behavior[0].std(), 0.8 * pupil_sd, 1.2 * pupil_sd),
        ("pupil dilation", "min", behavior[0].min(), low - 0.1, low + pupil_sd),
        ("pupil dilation", "max", behavior[0].max(), high - pupil_sd, high + 0.1),
        ("running speed", "mean", behavior[1].mean(), 0.6 * speed_mean, 1.6 * speed_mean),
        ("running speed", "sd", behavior[1].std(), 0.6 * speed_sd, 1.6 * speed_sd),
        ("running speed", "median", np.median(behavior[1]), 0.0, 0.1),
        ("running speed", "max", behavior[1].max(), 0.4 * fastest, fastest + 0.1),
    ]
    for k, axis in enumerate("xy"):
        rows.append((f"pupil centre {axis}", "mean", centre[k].mean(), body.centre[k] - 2, body.centre[k] + 2))
        rows.append((f"pupil centre {axis}", "sd", centre[k].std(), 0.8 * body.centre_sd[k], 1.2 * body.centre_sd[k]))
    return rows


def _ceilings(recording: Recording) -> list[tuple]:
    rows = []
    for tier in ("train", "validation", "live_main", "final_main"):
        if len(recording.trial_ids(tier)):
            slack = 0.0 if tier == "train" else 0.03  # six clips say less about a neuron than all training movies
            found = np.nanmean(ceilings(recording, tier))
            rows.append(("true rate", f"correlation, {tier}", found, CEILING[0] - slack, CEILING[1] + slack))
    return rows
