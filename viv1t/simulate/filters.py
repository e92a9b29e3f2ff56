"""Receptive fields as arrays: from degrees of visual angle to weights on pixels, and causal temporal kernels."""

import numpy as np
import pandas as pd

from viv1t.constants import FPS
from viv1t.geometry import Monitor, drift_axis
from viv1t.stimulus.gratings import plane_wave

TAPS = 28  # frames of memory of the feedforward path
DECAY = 3.0  # frames, time constant of the temporal kernels
POOL_TF, POOL_DECAY = 3.0, 1.5  # Hz and frames: the normalisation pool is broadly tuned in time
POOL_BLURS = (2.0, 6.0)  # deg, two scales of contrast detectors: together flat from 0.02 to 0.1 cycles/deg
POOL_CPD = 0.04  # cycles/deg at which the pool of an untuned neuron counts as 1
HOLE = 3.0  # the surround spares the field: width of its hole, in envelope sd
SUBPIXELS = 2  # each pixel's weight is the mean over a 2 x 2 grid of points in it


def spatial_filters(neurons: pd.DataFrame, monitor: Monitor, cell: int) -> tuple[np.ndarray, ...]:
    """Weights of every neuron, float32: even, odd and centre (N, pixels), ring (N, cells of `cell` x `cell` pixels).

    even, odd: the quadrature pair (odd is zero for unoriented fields); centre, ring: pooling windows that sum to 1.
    """
    pixels, cells = monitor.height * monitor.width, -(-monitor.height // cell) * -(-monitor.width // cell)
    even, odd, centre = (np.empty((len(neurons), pixels), np.float32) for _ in range(3))
    ring = np.empty((len(neurons), cells), np.float32)
    for start in range(0, len(neurons), 64):  # in blocks, to bound memory
        rows = slice(start, start + 64)
        even[rows], odd[rows], centre[rows], around = map(_flat, _filter_block(neurons.iloc[rows], monitor))
        ring[rows] = _flat(_by_cell(around.reshape(-1, monitor.height, monitor.width), cell))
    return even, odd, centre, ring


def _flat(weights: np.ndarray) -> np.ndarray:
    """(N, H, W) -> (N, H * W) float32 without far tails: denormal numbers make processors ten times slower."""
    weights = weights.reshape(len(weights), -1)
    return np.where(abs(weights) < 1e-6 * abs(weights).max(axis=1, keepdims=True), 0.0, weights).astype(np.float32)


def _by_cell(weights: np.ndarray, cell: int) -> np.ndarray:
    """Sums over cells of pixels; the last cells may be cut off."""
    rows, columns = (np.arange(0, size, cell) for size in weights.shape[1:])
    return np.add.reduceat(np.add.reduceat(weights, rows, axis=1), columns, axis=2)


def _filter_block(neurons: pd.DataFrame, monitor: Monitor) -> tuple[np.ndarray, ...]:
    def column(name):
        return neurons[name].to_numpy(float)[:, None, None, None]

    right, up = monitor.local_coordinates(neurons[["azimuth_deg", "elevation_deg"]].to_numpy(), SUBPIXELS)
    area = monitor.solid_angle()
    ex, ey = drift_axis(column("direction_deg"))
    along, across = right * ex + up * ey, right * ey - up * ex
    sigma, radius = column("sigma_deg"), np.hypot(right, up)
    envelope = np.exp(-(along**2 + (across / column("aspect")) ** 2) / (2 * sigma**2))
    phase = 2 * np.pi * column("sf_cpd") * along
    kind = neurons["kind"].to_numpy()[:, None, None]
    window = envelope.mean(-1) * area
    wide = np.exp(-(radius**2) / (2 * (1.6 * sigma) ** 2)).mean(-1) * area
    even = (envelope * np.cos(phase)).mean(-1) * area
    odd = (envelope * np.sin(phase)).mean(-1) * area
    even, odd = (w - window * (_total(w) / _total(window)) for w in (even, odd))  # blind to uniform light
    even = np.where(kind == "isotropic", window / _total(window) - wide / _total(wide), even)
    even = np.where(kind == "luminance", window / _total(window), even)
    odd = np.where(kind == "gabor", odd, 0.0)
    outer = np.exp(-(radius**2) / (2 * (column("surround_ratio") * sigma) ** 2))
    ring = (outer * (1 - np.exp(-(radius**2) / (2 * (HOLE * sigma) ** 2)))).mean(-1) * area
    return even, odd, window / _total(window), ring / _total(ring)


def _total(weights: np.ndarray) -> np.ndarray:
    return weights.sum(axis=(1, 2), keepdims=True)


def grating_response(neurons: pd.DataFrame, monitor: Monitor, even: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """Complex amplitudes (2, N) of the filters `even` and `odd` (N, pixels) for each neuron's own full-field grating.

    For luminance neurons that is a flickering uniform screen.
    """
    amplitudes = []
    for start in range(0, len(neurons), 64):
        rows = slice(start, start + 64)
        cpd = np.where(neurons["kind"].iloc[rows] == "luminance", 0.0, neurons["sf_cpd"].iloc[rows])
        places = monitor.local_coordinates(neurons[["azimuth_deg", "elevation_deg"]].iloc[rows].to_numpy())
        wave = grating(*places, neurons["direction_deg"].iloc[rows], cpd).conj().reshape(len(cpd), -1)
        amplitudes.append([(weights[rows] * wave).sum(axis=1) for weights in (even, odd)])
    return np.concatenate(amplitudes, axis=1)


def grating(right: np.ndarray, up: np.ndarray, direction_deg, cpd) -> np.ndarray:
    """A plane wave for each of N neurons, (N, H, W) complex, at positions (N, H, W, 1) around its field."""
    direction, cpd = (np.reshape(x, (-1, 1, 1)) for x in (np.asarray(direction_deg, dtype=float), np.asarray(cpd)))
    return plane_wave(right[..., 0], up[..., 0], direction, cpd)


def temporal_pair(tf_hz, latency, decay=DECAY, taps=TAPS) -> tuple[np.ndarray, np.ndarray]:
    """Causal quadrature kernels (N, taps), lag 0 first; the first weight that is not zero is at lag `latency`."""
    lag = np.arange(taps) - np.reshape(latency, (-1, 1)) + 1
    window = np.where(lag > 0, lag / decay * np.exp(1 - lag / decay), 0.0)
    window = window / window.sum(axis=1, keepdims=True)
    phase = 2 * np.pi * np.reshape(tf_hz, (-1, 1)) * lag / FPS
    return window * np.cos(phase), window * np.sin(phase)


def smoothing(delay, decay=2.0, taps=TAPS) -> np.ndarray:
    """Causal exponential kernels (N, taps) that start `delay` frames late and sum to 1."""
    lag = np.arange(taps) - np.reshape(delay, (-1, 1))
    kernel = np.where(lag >= 0, np.exp(-np.maximum(lag, 0) / decay), 0.0)
    return kernel / kernel.sum(axis=1, keepdims=True)


def transfer(kernel: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Fourier transform of kernels (N, taps) at one frequency each (N,), complex (N,)."""
    lag = np.arange(kernel.shape[1])
    return (kernel * np.exp(-2j * np.pi * np.reshape(hertz, (-1, 1)) * lag / FPS)).sum(axis=1)


def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """(size, size) matrix that blurs one axis with a Gaussian (sd in pixels), edges renormalised."""
    distance = np.arange(size)[:, None] - np.arange(size)
    weights = np.where(abs(distance) <= 5 * sigma + 1, np.exp(-(distance**2) / (2 * sigma**2)), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def derivative_matrix(size: int) -> np.ndarray:
    """(size, size) matrix of central differences per pixel; zero at both ends."""
    matrix = (np.eye(size, k=1) - np.eye(size, k=-1)) / 2
    matrix[[0, -1]] = 0.0
    return matrix
