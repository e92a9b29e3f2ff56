"""What a twin must beat: the mean response, behaviour alone, and a linear-nonlinear model of video and behaviour.

All three come from one pass over the training trials: ridge regression from running sums of products (no design
matrix is ever held), for all neurons at once, with the strength of the penalty chosen per neuron on held-out training
trials. A trial is anything with `.video (T, H, W)`, `.responses (N, T)`, `.behavior (2, T)`, `.pupil_center (2, T)`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from tqdm import tqdm

from viv1t.errors import UserError

VIDEO_LAGS = tuple(range(12))  # frames before the response: 0 to 0.4 s
BEHAVIOR_LAGS = tuple(range(0, 31, 5))  # 0 to 1 s; behaviour changes slowly
COMPONENTS = 150  # principal components of the frames
ROWS = 18  # frames are averaged to about 18 x 32 before
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # in units of the mean variance of the features
HELD_OUT = 5  # every fifth training trial chooses the penalty and shapes the nonlinearity
KNOTS = np.linspace(-2.0, 4.0, 13)  # of the nonlinearity, in standard deviations of the linear drive
NAMES = ("mean", "behavior", "linear_nonlinear")


def shrink(video: np.ndarray) -> np.ndarray:
    """Frames (T, H, W) averaged over squares of pixels to about ROWS rows, flattened to (T, P)."""
    T, H, W = video.shape
    k = max(1, H // ROWS)
    h, w = H // k, W // k
    inside = video[:, : h * k, : w * k]
    total = sum(inside[:, i::k, j::k].astype(np.float32) for i in range(k) for j in range(k))
    return total.reshape(T, h * w) / k**2


def lagged(signals: np.ndarray, lags: Sequence[int]) -> np.ndarray:
    """(T, D) -> (T, lags * D): the signals some frames ago; before the first frame its value holds."""
    rows = np.arange(len(signals))[:, None] - np.asarray(lags)  # (T, lags)
    return signals[np.maximum(rows, 0)].reshape(len(signals), -1)


def targets(trial, start: int) -> np.ndarray:
    """Responses (N, T - start); neurons that the session lacks (NaN) count as silent."""
    return np.nan_to_num(trial.responses[:, start:])


def signals(trial) -> np.ndarray:
    """Pupil dilation, running speed and eye position as (T, 4)."""
    return np.concatenate([trial.behavior, trial.pupil_center]).T.astype(np.float32)


@dataclass(frozen=True)
class Features:
    """What the linear models see at each frame: lagged behaviour, then lagged principal components of the video.

    frame (P,) mean frame, components (P, K) scaled to unit total variance over K, signal_mean and signal_std (4,).
    """

    frame: np.ndarray
    components: np.ndarray
    signal_mean: np.ndarray
    signal_std: np.ndarray

    @property
    def num_behavior(self) -> int:
        return len(self.signal_mean) * len(BEHAVIOR_LAGS)

    @property
    def size(self) -> int:
        return self.num_behavior + self.components.shape[1] * len(VIDEO_LAGS)

    def behavior(self, trial) -> np.ndarray:
        """(T, num_behavior)."""
        return lagged((signals(trial) - self.signal_mean) / self.signal_std, BEHAVIOR_LAGS)

    def __call__(self, trial) -> np.ndarray:
        """(T, size)."""
        video = lagged((shrink(trial.video) - self.frame) @ self.components, VIDEO_LAGS)
        return np.concatenate([self.behavior(trial), video], axis=1)


def fit_features(trials: Iterable, num_components: int = COMPONENTS) -> Features:
    """Mean frame, principal components and behaviour statistics of some trials (every fifth frame of each)."""
    frames = Moments()
    behavior = Moments()
    for trial in trials:
        frames.update(shrink(trial.video[::5]))
        behavior.update(signals(trial))
    values, vectors = np.linalg.eigh(frames.covariance())  # ascending
    keep = max(1, min(num_components, int((values > 1e-6 * values[-1]).sum())))
    scale = np.sqrt(max(values[-keep:].mean(), 1e-12))
    components = vectors[:, : -keep - 1 : -1] / scale
    std = np.sqrt(np.diag(behavior.covariance()))
    std = np.where(std > 1e-6, std, 1.0)  # a signal that never changes explains nothing
    arrays = (frames.mean(), components, behavior.mean(), std)
    return Features(*(array.astype(np.float32) for array in arrays))


class Moments:
    """Running mean and covariance of rows (T, D), in float64."""

    def __init__(self):
        self.count, self.sum, self.products = 0, 0.0, 0.0

    def update(self, rows: np.ndarray) -> None:
        rows = rows.astype(np.float64)
        self.count += len(rows)
        self.sum = self.sum + rows.sum(axis=0)
        self.products = self.products + rows.T @ rows

    def mean(self) -> np.ndarray:
        return self.sum / self.count

    def covariance(self) -> np.ndarray:
        return self.products / self.count - np.outer(self.mean(), self.mean())


class NormalEquations:
    """Running sums of a least-squares problem: features (T, D) against responses (N, T); memory D (D + N)."""

    def __init__(self, D: int, N: int):
        self.count = 0
        self.x, self.y, self.yy = np.zeros(D), np.zeros(N), np.zeros(N)
        self.xx, self.xy = np.zeros((D, D)), np.zeros((D, N))

    def update(self, x: np.ndarray, y: np.ndarray) -> None:
        self.count += len(x)
        self.x += x.sum(axis=0)
        self.y += y.sum(axis=1)
        self.yy += (y * y).sum(axis=1)
        self.xx += x.T @ x
        self.xy += x.T @ y.T

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        total = NormalEquations(*self.xy.shape)
        total.count = self.count + other.count
        for name in ("x", "y", "yy", "xx", "xy"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def covariances(self, D: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the first D features with themselves (D, D) and with the responses (D, N); variance of those (N,)."""
        x, y = self.x[:D] / self.count, self.y / self.count
        xx = self.xx[:D, :D] / self.count - np.outer(x, x)
        return xx, self.xy[:D] / self.count - np.outer(x, y), self.yy / self.count - y**2


def solve_ridge(fit: NormalEquations, held_out: NormalEquations, D: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ridge weights of the first D features, (D, N) float32, fitted on `fit`, refitted on all, and penalties (N,).

    Each neuron takes the penalty of least squared error on `held_out`.
    """
    xx, xy, _ = held_out.covariances(D)
    N = xy.shape[1]
    least, choice = np.full(N, np.inf), np.zeros(N, dtype=int)
    weights = np.zeros((D, N), dtype=np.float32)
    for k, penalty in enumerate(PENALTIES):
        candidate = _ridge(fit, D, penalty, slice(None))
        error = ((xx @ candidate - 2 * xy) * candidate).sum(axis=0)
        better = error < least
        least[better], choice[better], weights[:, better] = error[better], k, candidate[:, better]
    refitted = np.zeros_like(weights)
    everything = fit + held_out
    for k in np.unique(choice):
        refitted[:, choice == k] = _ridge(everything, D, PENALTIES[k], choice == k)
    return weights, refitted, np.asarray(PENALTIES)[choice]


def _ridge(equations: NormalEquations, D: int, penalty: float, neurons) -> np.ndarray:
    xx, xy, _ = equations.covariances(D)
    xx[np.diag_indices(D)] += penalty * max(np.trace(xx) / D, 1e-12)
    return cho_solve(cho_factor(xx, overwrite_a=True), xy[:, neurons], overwrite_b=True)


@dataclass(frozen=True)
class Nonlinearity:
    """A curve per neuron: linear between KNOTS of the standardised drive, constant outside.

    center, scale (N,) standardise the drive; heights (N, K) are responses at the knots.
    """

    center: np.ndarray
    scale: np.ndarray
    heights: np.ndarray

    def __call__(self, drive: np.ndarray) -> np.ndarray:
        """(N, T) -> (N, T)."""
        left, share = _between_knots((drive - self.center[:, None]) / self.scale[:, None])
        rows = np.arange(len(drive))[:, None]
        return (1 - share) * self.heights[rows, left] + share * self.heights[rows, left + 1]


def _between_knots(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the knot to the left of each value and how far it is to the next, in [0, 1]."""
    position = np.clip((z - KNOTS[0]) / (KNOTS[1] - KNOTS[0]), 0, len(KNOTS) - 1)
    left = np.minimum(position.astype(np.intp), len(KNOTS) - 2)
    return left, position - left


def fit_nonlinearity(
    pairs: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], center: np.ndarray, scale: np.ndarray
) -> Nonlinearity:
    """Least-squares curve through (drive, responses) pairs of (N, T), drawn towards the line drive = response.

    The pull equals 1 % of the frames, so knots that no frame reaches stay on the line.
    """
    N, K = len(center), len(KNOTS)
    products, targets, count = np.zeros((N, K, K)), np.zeros((N, K)), 0
    rows = np.arange(N)[:, None]
    for drive, responses in pairs():
        left, share = _between_knots((drive - center[:, None]) / scale[:, None])
        hats = np.zeros((N, drive.shape[1], K))  # linear B-splines
        frames = np.arange(drive.shape[1])
        hats[rows, frames, left] = 1 - share
        hats[rows, frames, left + 1] = share
        products += hats.transpose(0, 2, 1) @ hats
        targets += np.einsum("ntk,nt->nk", hats, responses)
        count += drive.shape[1]
    line = center[:, None] + scale[:, None] * KNOTS
    pull = 0.01 * count / K
    heights = np.linalg.solve(products + pull * np.eye(K), (targets + pull * line)[..., None])[..., 0]
    return Nonlinearity(center, scale, heights)


@dataclass(frozen=True)
class Baselines:
    """The fitted baselines of one recording; `predict` gives responses in recorded units."""

    mean: np.ndarray  # (N,)
    features: Features
    behavior: np.ndarray  # (D_b, N)
    behavior_offset: np.ndarray  # (N,)
    linear: np.ndarray  # (D, N)
    linear_offset: np.ndarray  # (N,)
    nonlinearity: Nonlinearity

    def predict(self, trial) -> dict[str, np.ndarray]:
        """Responses (N, T) float32 under each of NAMES."""
        x = self.features(trial)
        behavior = x[:, : self.features.num_behavior] @ self.behavior + self.behavior_offset
        drive = x @ self.linear + self.linear_offset
        mean = np.repeat(self.mean[:, None], len(x), axis=1)
        predictions = (mean, behavior.T, self.nonlinearity(drive.T))
        return {name: p.astype(np.float32) for name, p in zip(NAMES, predictions, strict=True)}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Flat names and arrays, for one .npz file."""
        own = {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        parts = {"features": self.features, "nonlinearity": self.nonlinearity}
        return own | {f"{p}.{k}": v for p, part in parts.items() for k, v in vars(part).items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Baselines":
        def part(kind, name):
            return kind(**{k.split(".")[1]: v for k, v in arrays.items() if k.startswith(f"{name}.")})

        own = {k: v for k, v in arrays.items() if "." not in k}
        return cls(**own, features=part(Features, "features"), nonlinearity=part(Nonlinearity, "nonlinearity"))


def fit_baselines(
    read: Callable[[int], object], trial_ids: Sequence[int], num_components: int = COMPONENTS, progress: str = ""
) -> Baselines:
    """Fit the three baselines on the trials `read(i)` for i in `trial_ids` (the training tier).

    Frames before the longest lag are not fitted. `progress` names the bar; empty shows none.
    """
    trial_ids = [int(i) for i in trial_ids]
    if len(trial_ids) < 2:
        raise UserError(f"baselines need at least 2 training trials, found {len(trial_ids)}.")
    features = fit_features((read(i) for i in trial_ids), num_components)
    start = max(*VIDEO_LAGS, *BEHAVIOR_LAGS)
    chosen = trial_ids[HELD_OUT - 1 :: HELD_OUT] or trial_ids[-1:]
    N = len(read(trial_ids[0]).responses)
    fit, held_out = NormalEquations(features.size, N), NormalEquations(features.size, N)
    for i in tqdm(trial_ids, desc=progress, unit="trial", disable=None if progress else True, leave=False):
        trial = read(i)
        equations = held_out if i in chosen else fit
        equations.update(features(trial)[start:], targets(trial, start))
    everything = fit + held_out
    mean, mean_x = everything.y / everything.count, everything.x / everything.count
    D_b = features.num_behavior
    _, behavior, _ = solve_ridge(fit, held_out, D_b)
    weights, linear, _ = solve_ridge(fit, held_out, features.size)

    def pairs():
        for i in chosen:
            trial = read(i)
            drive = (features(trial)[start:] - mean_x.astype(np.float32)) @ weights + mean
            yield drive.T, targets(trial, start)

    xx, _, _ = fit.covariances(features.size)
    scale = np.sqrt(np.maximum(((xx @ weights) * weights).sum(axis=0), 1e-12))
    return Baselines(
        mean=mean,
        features=features,
        behavior=behavior,
        behavior_offset=mean - mean_x[:D_b] @ behavior,
        linear=linear,
        linear_offset=mean - mean_x @ linear,
        nonlinearity=fit_nonlinearity(pairs, mean, scale),
    )
