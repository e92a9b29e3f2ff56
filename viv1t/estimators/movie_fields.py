"""Receptive fields from responses to movies: where local moving contrast drives a neuron, apart from its neighbours'.

In movies, contrast moves in many places at once, so that a plain correlation map (`estimators.retinotopy`) is wider
than any field and drawn towards wherever movies move most. `MovieMaps` regresses responses on the contrast of all
places together, with a ridge penalty: linear regression in the space of local energies, to which simple and complex
cells answer alike (cf. Willmore & Smyth 2003, reverse correlation with natural images).
"""

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, uniform_filter1d

from viv1t.estimators.receptive_field import fit_receptive_fields, signed_root
from viv1t.estimators.retinotopy import BLUR, LAGS, STEP, moving_contrast

RIDGE = 1.0  # penalty, in mean variances of the contrast at one place
SMOOTH = 0.5  # samples of a map, blur before the fit


class MovieMaps:
    """Weight of the recent moving contrast at every place, for every neuron, trial by trial.

    Contrast is sampled every `STEP` pixels (`columns`, `rows`: their places) and averaged over `LAGS` frames before a
    response; of responses, the root counts, for their tails are heavy. Besides the map of all trials it keeps one of
    each half (trials in turn) and null maps, which pair responses with the videos of other trials.
    """

    def __init__(self, num_neurons: int, height: int, width: int):
        self.rows, self.columns = (np.arange(STEP // 2, size, STEP) for size in (height, width))
        places = len(self.rows) * len(self.columns)
        self._halves = [_Ridge(num_neurons, places) for _ in range(2)]
        self._nulls = [_Ridge(num_neurons, places) for _ in range(2)]
        self._past: list[np.ndarray] = []  # contrast of the last other videos
        self.trials = 0

    def update(self, video: np.ndarray, responses: np.ndarray) -> None:
        """Add a trial: video (T, H, W) in grey levels, responses (N, T); frames without a full past are left out."""
        energy = moving_contrast(video).reshape(len(video), -1)
        contrast = uniform_filter1d(energy, LAGS, axis=0, origin=LAGS // 2 - 1)[LAGS:]  # frames t - LAGS + 1 ... t
        y = signed_root(np.asarray(responses[:, LAGS:], dtype=np.float32))
        self._halves[self.trials % 2].update(y, contrast)
        others = [past for past in self._past if not np.array_equal(past, contrast)]
        for null, past in zip(self._nulls, others, strict=False):
            length = min(len(past), y.shape[1])
            null.update(y[:, :length], past[:length])
        self._past = [contrast, *others][: len(self._nulls)]
        self.trials += 1

    def value(self) -> np.ndarray:
        """(N, h, w): change of the root of the response per unit of contrast; zero without trials."""
        return self._map(self._halves[0] + self._halves[1])

    def halves(self) -> np.ndarray:
        """(2, N, h, w): the maps of either half of the trials."""
        return np.stack([self._map(half) for half in self._halves])

    def nulls(self) -> np.ndarray:
        """(K, N, h, w): what maps look like if responses have nothing to do with the video."""
        return np.stack([self._map(null) for null in self._nulls])

    def _map(self, ridge: "_Ridge") -> np.ndarray:
        return ridge.weights().reshape(-1, len(self.rows), len(self.columns))


class _Ridge:
    """Sums behind the ridge regression of responses (N, T) on regressors (T, P)."""

    def __init__(self, N: int, P: int):
        self.count = 0
        self.y, self.x, self.xx, self.yx = np.zeros(N), np.zeros(P), np.zeros((P, P)), np.zeros((N, P))

    def update(self, y: np.ndarray, x: np.ndarray) -> None:
        self.count += len(x)
        self.y += y.sum(axis=1)
        self.x += x.sum(axis=0)
        self.xx += x.T @ x
        self.yx += y @ x

    def __add__(self, other: "_Ridge") -> "_Ridge":
        total = _Ridge(len(self.y), 0)
        total.__dict__ = {name: value + getattr(other, name) for name, value in self.__dict__.items()}
        return total

    def weights(self) -> np.ndarray:
        """(N, P)."""
        n = max(self.count, 1)
        covariance = self.xx / n - np.outer(self.x / n, self.x / n)
        target = self.yx / n - np.outer(self.y / n, self.x / n)
        penalty = RIDGE * np.trace(covariance) / len(covariance) or 1.0
        return np.linalg.solve(covariance + penalty * np.eye(len(covariance)), target.T).T


def fit_movie_fields(maps: MovieMaps) -> pd.DataFrame:
    """One row per neuron, the columns of `receptive_field.fit_receptive_fields`, all places in pixels of the video.

    Widths have the blur of contrast and of the smoothing taken out, but not that of the penalty.
    """
    kinds = maps.value(), maps.halves(), maps.nulls()
    smooth = (gaussian_filter(kind, (0,) * (kind.ndim - 2) + (SMOOTH, SMOOTH)) for kind in kinds)
    return fit_receptive_fields(*smooth, float(np.hypot(BLUR, SMOOTH * STEP)), maps.columns, maps.rows)
