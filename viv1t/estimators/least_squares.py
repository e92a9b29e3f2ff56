"""Least squares for thousands of small curves at once: bounded Levenberg-Marquardt, vectorised over rows.

SciPy fits one curve per call, which for the neurons of a mouse means minutes in Python loops; no library that we know
of fits a batch. Here every step is a few array operations on all rows that have not converged yet.
"""

from collections.abc import Callable

import numpy as np

CHUNK = 2**18  # derivatives held at once: what fits into a processor's cache
ROUNDS = 100
TOLERANCE = 1e-8  # relative gain in squared error below which a row is done
STUCK = 1e8  # damping at which no step helps any more

Model = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def least_squares(
    model: Model, data: np.ndarray, start: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters (n, P) that minimise the squared error of each row of data (n, S), and their R^2 (n,).

    `model` takes parameters (k, P) and returns values (k, S) and derivatives (k, P, S); start (n, P); low, high (P,)
    bounds. Levenberg-Marquardt with Marquardt's scaling; parameters at a bound that push outward are held (Moré 1978,
    Kanzow et al. 2004). Rows that are constant or not finite give NaN.
    """
    data, start = np.asarray(data, dtype=np.float64), np.asarray(start, dtype=np.float64)
    parameters, r2 = np.full(start.shape, np.nan), np.full(len(data), np.nan)
    usable = np.flatnonzero(np.isfinite(data).all(axis=1) & np.isfinite(start).all(axis=1))
    usable = usable[np.ptp(data[usable], axis=1) > 0]
    step = max(1, CHUNK // max(data.shape[1] * start.shape[1], 1))
    for rows in (usable[i : i + step] for i in range(0, len(usable), step)):
        parameters[rows], error = _descend(model, data[rows], start[rows].clip(low, high), low, high)
        r2[rows] = 1 - error / (data.shape[1] * data[rows].var(axis=1))
    return parameters, r2


def normalised(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, S) divided by their sd, and the sd (n,); rows that are constant or not finite become 0, with sd 0."""
    data = np.asarray(data, dtype=np.float64)
    data = np.where(np.isfinite(data).all(axis=1, keepdims=True), data, 0.0)
    sd = data.std(axis=1)
    sd[np.ptp(data, axis=1) == 0] = 0.0
    return np.divide(data, sd[:, None], out=np.zeros(data.shape), where=sd[:, None] > 0), sd


def _descend(model: Model, data, parameters, low, high) -> tuple[np.ndarray, np.ndarray]:
    n, P = parameters.shape
    error, normal, gradient = _measure(model, data, parameters)
    damping, active, diagonal = np.full(n, 1e-2), np.arange(n), np.arange(P)
    for _ in range(ROUNDS):
        held = ((parameters[active] <= low) & (gradient[active] < 0)) | (
            (parameters[active] >= high) & (gradient[active] > 0)
        )
        free = ~held
        matrix = normal[active] * (free[:, :, None] & free[:, None, :])
        curvature = normal[active][:, diagonal, diagonal]
        floor = 1e-12 * curvature.max(axis=1, keepdims=True)
        matrix[:, diagonal, diagonal] += damping[active, None] * curvature + floor + held
        move = np.linalg.solve(matrix, (gradient[active] * free)[..., None])[..., 0]
        trial = (parameters[active] + move).clip(low, high)
        new_error, new_normal, new_gradient = _measure(model, data[active], trial)
        better = new_error < error[active]
        gain = error[active] - new_error <= TOLERANCE * error[active]
        rows, worse = active[better], active[~better]
        parameters[rows], error[rows] = trial[better], new_error[better]
        normal[rows], gradient[rows] = new_normal[better], new_gradient[better]
        damping[rows] = np.maximum(damping[rows] / 5, 1e-9)
        damping[worse] *= 8
        active = active[~(better & gain) & (damping[active] < STUCK)]
        if not len(active):
            break
    return parameters, error


def _measure(model: Model, data, parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared error (k,), normal matrix (k, P, P) and downhill direction (k, P)."""
    values, slopes = model(parameters)
    residual = data - values
    return (
        np.einsum("ks,ks->k", residual, residual),
        slopes @ slopes.transpose(0, 2, 1),
        (slopes @ residual[..., None])[..., 0],
    )
