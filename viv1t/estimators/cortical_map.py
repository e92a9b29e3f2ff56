"""The map from cortex to visual field: receptive-field centres regressed on the neurons' cortical coordinates."""

from dataclasses import dataclass

import numpy as np

from viv1t.estimators.retinotopy import robust_plane

REACH = 4.0  # robust sd beyond which a centre loses influence
OUTLIER = 4.0  # robust sd of the distance from the map (sqrt(2) sd per axis) beyond which it is no inlier
ROUNDS = 10
LEAST = 6  # neurons


@dataclass(frozen=True)
class CorticalMap:
    """centre = intercept + jacobian @ (x, y): degrees of (azimuth, elevation) from mm of cortical (x, y).

    jacobian (2, 2) deg/mm, intercept (2,) deg at the origin of the cortical coordinates, r2 (2,) of inliers for each
    axis, scatter_deg (2,) sd of inliers around the map for each axis, inliers (N,) bool. `scatter` is their root sum
    square, the sd of the distance in two dimensions.
    """

    jacobian: np.ndarray
    intercept: np.ndarray
    r2: np.ndarray
    scatter_deg: np.ndarray
    inliers: np.ndarray

    @property
    def scatter(self) -> float:
        return float(np.sqrt(np.sum(self.scatter_deg**2)))

    def predict(self, cortex_um: np.ndarray) -> np.ndarray:
        """Expected centres (K, 2) in degrees at cortical places (K, 2+) in um."""
        return self.intercept + np.asarray(cortex_um, dtype=float)[:, :2] / 1000 @ self.jacobian.T


def fit_cortical_map(centres_deg: np.ndarray, cortex_um: np.ndarray, weights: np.ndarray | None = None) -> CorticalMap:
    """Robust regression of centres (N, 2) on cortical coordinates (N, 2+), of which x and y count.

    Iterated least squares with Cauchy weights, whose scale follows the median distance from the map. weights (N,):
    trust in each centre, e.g. R^2 of its fit. Neurons with NaN anywhere, or no weight, are no inliers; with fewer
    than 6 others everything is NaN.
    """
    centres, cortex = np.asarray(centres_deg, dtype=float), np.asarray(cortex_um, dtype=float)[:, :2] / 1000
    weights = np.ones(len(centres)) if weights is None else np.nan_to_num(np.asarray(weights, dtype=float))
    usable = np.isfinite(centres).all(axis=1) & np.isfinite(cortex).all(axis=1) & (weights > 0)
    if usable.sum() < LEAST:
        nothing = np.full(2, np.nan)
        return CorticalMap(np.full((2, 2), np.nan), nothing, nothing, nothing, np.zeros(len(centres), bool))
    middle = cortex[usable].mean(axis=0)
    design = np.column_stack([np.ones(usable.sum()), cortex[usable] - middle])
    target, reach = centres[usable], np.ptp(centres[usable], axis=0).max() + 1e-9
    for _ in range(ROUNDS):
        plane = robust_plane(design, target, weights[usable], reach)
        distance = np.linalg.norm(target - design @ plane, axis=1)
        sd = np.median(distance) / np.sqrt(2 * np.log(2)) + 1e-9  # per axis, of a round Gaussian
        reach = REACH * sd
    near = distance < OUTLIER * sd
    inliers = np.zeros(len(centres), bool)
    inliers[np.flatnonzero(usable)[near]] = True
    residual, kept = (target - design @ plane)[near], target[near]
    variance = np.square(residual).sum(axis=0) / max(near.sum() - 3, 1)
    spread = kept.var(axis=0)
    r2 = 1 - np.divide(np.square(residual).mean(axis=0), spread, out=np.full(2, np.nan), where=spread > 0)
    return CorticalMap(plane[1:].T, plane[0] - plane[1:].T @ middle, r2, np.sqrt(variance), inliers)
