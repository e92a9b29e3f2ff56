"""Noiseless tuning of the animal, measured with gratings on every neuron's own field: the truth for the analyses.

Amplitudes are mean drives from 1 s to 3 s after onset.
"""

import numpy as np
import pandas as pd
import torch

from viv1t.constants import FPS
from viv1t.simulate import filters, gratings
from viv1t.simulate.animal import Animal

FRAMES, STEADY, PHASES = 90, 30, 8  # the phases are for onsets; over whole cycles phase does not matter
DIRECTIONS = np.arange(0, 360, 30.0)
CPD = np.geomspace(0.01, 0.14, 12)
HERTZ = np.geomspace(0.5, 10, 14)
DIAMETERS = np.array([5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 80.0])  # deg
CONTRASTS = (0.05, 0.2, 1.0)
BLOCK = 64  # neurons measured at a time


def measure(animal: Animal) -> pd.DataFrame:
    """One row per neuron; NaN where a neuron does not answer to gratings.

    preferred_direction_deg, preferred_orientation_deg (of motion, modulo 180), osi, dsi (preferred against orthogonal
    and opposite), gosi, gdsi (vector sums), preferred_sf_cpd, preferred_tf_hz, f1_f0, preferred_size_deg,
    suppression_index, inverse_size_deg (of the grey disc), inverse_tuning_index (0 classical only, 0.5 equal),
    <centre, iso, cross, shift>_<contrast> (drive), cmi_<contrast> = (cross - iso) / (cross + iso),
    onset_ms, inverse_onset_ms (half-maximum latencies), feedback_lag_ms (their difference).
    """
    with torch.no_grad(), np.errstate(divide="ignore", invalid="ignore"):
        blocks = [_measure_block(animal, np.arange(start, min(start + BLOCK, animal.num_neurons)))
                  for start in range(0, animal.num_neurons, BLOCK)]  # fmt: skip
    table = pd.concat(blocks, ignore_index=True)
    table[(animal.neurons["kind"] == "undriven").to_numpy()] = np.nan
    return table


def _measure_block(animal: Animal, rows: np.ndarray) -> pd.DataFrame:
    bench = Bench(animal, rows)
    table = bench.directions() | bench.frequencies() | bench.sizes()
    table |= bench.context(bench.size, CONTRASTS) | bench.onsets()
    return pd.DataFrame(table)


def measure_contexts(animal: Animal, size_deg: np.ndarray, cpd: float, hertz: float, contrasts) -> pd.DataFrame:
    """What `measure` says of contexts, for discs (N,) and frequencies of an experiment instead of the neurons' own.

    Columns <centre, iso, cross, shift>_<contrast> and cmi_<contrast>; NaN where a size is, and of undriven neurons.
    """
    size_deg = np.asarray(size_deg, dtype=float)
    return _ask(
        animal, np.isfinite(size_deg), cpd, hertz, lambda bench: bench.context(size_deg[bench.rows], contrasts)
    )


def measure_sizes(animal: Animal, cpd: float, hertz: float) -> pd.DataFrame:
    """What `measure` says of sizes, for frequencies of an experiment instead of the neurons' own."""
    return _ask(animal, np.ones(animal.num_neurons, dtype=bool), cpd, hertz, Bench.sizes)


def _ask(animal: Animal, chosen: np.ndarray, cpd: float, hertz: float, question) -> pd.DataFrame:
    """A row for each neuron; NaN for those that were not chosen (N,), and for undriven ones."""
    rows = np.flatnonzero(chosen & (animal.neurons["kind"] != "undriven").to_numpy())
    parts = [pd.DataFrame()]
    with torch.no_grad(), np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            parts.append(pd.DataFrame(question(Bench(animal, block, cpd, hertz)), index=block))
    return pd.concat(parts).reindex(range(animal.num_neurons))


class Bench:
    """Shows patterns to some neurons, each on its own field and drifting its own way, at own frequencies or given."""

    def __init__(self, animal: Animal, rows: np.ndarray, cpd: float | None = None, hertz: float | None = None):
        self.circuit, self.rows, self.monitor = animal.circuit, rows, animal.monitor
        self.neurons = animal.neurons.iloc[rows]
        self.direction = self.neurons["direction_deg"].to_numpy()
        own = (self.neurons[name].to_numpy() for name in ("sf_cpd", "tf_hz"))
        self.cpd, self.hertz = (
            found if given is None else np.full(len(rows), given)
            for found, given in zip(own, (cpd, hertz), strict=True)
        )
        centres = self.neurons[["azimuth_deg", "elevation_deg"]].to_numpy()
        self.places = [x.astype(np.float32) for x in self.monitor.local_coordinates(centres)]
        self.eccentricity = np.hypot(*self.places)[..., 0]
        self.grating = self.image(self.direction, self.cpd)
        self.orthogonal = self.image(self.direction + 90, self.cpd)

    def image(self, direction, cpd) -> np.ndarray:
        """Full-field gratings (K, H, W) complex; direction and cpd are (K,) or numbers."""
        return filters.grating(*self.places, np.float32(direction), np.float32(cpd))

    def disc(self, diameter) -> np.ndarray:
        """1 within a disc of that diameter around the field centre, with one-pixel edges, (K, H, W)."""
        edge = (np.reshape(diameter, (-1, 1, 1)) / 2 - self.eccentricity) / self.monitor.degrees_per_pixel
        return np.clip(edge + 0.5, 0, 1)

    def show(self, image: np.ndarray) -> gratings.Projection:
        return gratings.project(self.circuit, torch.as_tensor(image.astype(np.complex64)), self.rows)

    def traces(self, seen: gratings.Projection, hertz=None, phases: int = 1) -> np.ndarray:
        """Drives (K, T), averaged over phases."""
        hertz = self.hertz if hertz is None else np.full(len(self.rows), hertz)
        return gratings.drive(self.circuit, seen, hertz, self.rows, FRAMES, phases).mean(0).numpy()

    def steady(self, seen: gratings.Projection, hertz=None) -> np.ndarray:
        return self.traces(seen, hertz)[:, STEADY:].mean(axis=1)

    def directions(self) -> dict:
        curve = np.stack([self.steady(self.show(self.image(direction, self.cpd))) for direction in DIRECTIONS], axis=1)
        angle = np.radians(DIRECTIONS)
        axis, heading = ((curve * np.exp(1j * k * angle)).sum(axis=1) / curve.sum(axis=1) for k in (2, 1))
        orientation = np.degrees(np.angle(axis)) / 2 % 180
        towards = np.real(heading * np.exp(-1j * np.radians(orientation))) >= 0
        preferred = np.where(towards, orientation, orientation + 180)
        best, opposite, side, other = (
            self.steady(self.show(self.image(preferred + d, self.cpd))) for d in (0, 180, 90, 270)
        )
        orthogonal = (side + other) / 2
        return {
            "preferred_direction_deg": preferred,
            "preferred_orientation_deg": orientation,
            "osi": (best - orthogonal) / (best + orthogonal),
            "dsi": (best - opposite) / (best + opposite),
            "gosi": abs(axis),
            "gdsi": abs(heading),
        }

    def frequencies(self, contrast: float = 1.0) -> dict:
        seen = [self.show(self.image(self.direction, cpd)).scaled(contrast) for cpd in CPD]
        own = self.show(self.grating).scaled(contrast)
        space = np.stack([self.steady(image) for image in seen], axis=1)
        time = np.stack([self.steady(own, hertz) for hertz in HERTZ], axis=1)
        trace = self.traces(own)[:, STEADY:]
        carrier = np.exp(-2j * np.pi * self.hertz[:, None] * np.arange(trace.shape[1]) / FPS)
        modulation = 2 * abs((trace * carrier).mean(axis=1))
        return {
            "preferred_sf_cpd": _peak(space, CPD),
            "preferred_tf_hz": _peak(time, HERTZ),
            "f1_f0": modulation / trace.mean(axis=1),
        }

    def sizes(self) -> dict:
        full = self.steady(self.show(self.grating))
        discs = [self.disc(size) for size in DIAMETERS]
        classical = np.stack([self.steady(self.show(self.grating * disc)) for disc in discs], axis=1)
        inverse = np.stack([self.steady(self.show(self.grating * (1 - disc))) for disc in discs], axis=1)
        best, other = np.maximum(classical.max(axis=1), full), np.maximum(inverse.max(axis=1), full)
        self.size, self.hole = _peak(classical, DIAMETERS), DIAMETERS[inverse.argmax(axis=1)]
        return {
            "preferred_size_deg": self.size,
            "suppression_index": (best - full) / best,
            "inverse_size_deg": np.where(other > full, self.hole, np.nan),
            "inverse_tuning_index": (other - best) / (2 * (other + best - 2 * full)) + 0.5,
        }

    def context(self, size: np.ndarray, contrasts) -> dict:
        """Centres of these diameters (K,); the surround fills the screen."""
        disc, table = self.disc(size), {}
        kinds = {"centre": 0, "iso": self.grating, "cross": self.orthogonal, "shift": -self.grating}
        seen = {kind: self.show(disc * self.grating + (1 - disc) * around) for kind, around in kinds.items()}
        for contrast in contrasts:
            for kind, image in seen.items():
                table[f"{kind}_{contrast:g}"] = self.steady(image.scaled(contrast))
            iso, cross = table[f"iso_{contrast:g}"], table[f"cross_{contrast:g}"]
            table[f"cmi_{contrast:g}"] = (cross - iso) / (cross + iso)
        return table

    def onsets(self) -> dict:
        masks = self.disc(self.size), 1 - self.disc(self.hole)
        onset, inverse = (
            _half_maximum(self.traces(self.show(self.grating * mask), phases=PHASES)[:, :STEADY]) for mask in masks
        )
        inverse = np.where(self.neurons["feedback"] > 0, inverse, np.nan)
        return {"onset_ms": onset, "inverse_onset_ms": inverse, "feedback_lag_ms": inverse - onset}


def _peak(curve: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Argument of the maximum of curves (K, G) by a parabola through three points on a logarithmic axis."""
    best = np.clip(curve.argmax(axis=1), 1, len(grid) - 2)
    rows, x = np.arange(len(curve)), np.log(grid)
    left, centre, right = (curve[rows, best + d] for d in (-1, 0, 1))
    a, b = x[best] - x[best - 1], x[best + 1] - x[best]
    curvature = (right - centre) / b + (left - centre) / a
    slope = ((right - centre) / b * a - (left - centre) / a * b) / (a + b)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(curvature < 0, -slope * (a + b) / (2 * curvature), 0.0)
    return np.exp(np.clip(x[best] + step, x[best - 1], x[best + 1]))


def _half_maximum(traces: np.ndarray) -> np.ndarray:
    """First crossing of half the maximum by traces (K, T), in ms after the onset on frame 0, between frames."""
    share = traces / traces.max(axis=1, keepdims=True)
    after = (share >= 0.5).argmax(axis=1)
    rows, before = np.arange(len(share)), np.maximum(after - 1, 0)
    low, high = share[rows, before], share[rows, after]
    fraction = np.where(after > before, (0.5 - low) / np.maximum(high - low, 1e-12), 0.0)
    return (before + fraction) * 1000 / FPS
