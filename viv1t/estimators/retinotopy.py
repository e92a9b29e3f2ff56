"""Where neurons look, from any movie: correlation of responses with local moving contrast, and the map of the cortex.

A rough estimate that costs one pass over the training trials. It starts the readout of a model near the right place,
as the position network of the readout cannot: sensory receptive fields are small and gradients vanish far from them.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, uniform_filter1d

LAGS = 8  # frames before a response over which contrast counts: latency and integration of V1
BLUR = 2.0  # pixels of the video; contrast is local energy above this scale
STEP = 2  # pixels of the video per pixel of a map
SMOOTH = 1.0  # pixels of a map
ROUNDS = 5


def moving_contrast(video: np.ndarray) -> np.ndarray:
    """Local energy of change (T, H / 2, W / 2) of a video (T, H, W): root mean square of fine-scale differences."""
    video = np.asarray(video, dtype=np.float32)
    wide = [blur_matrix(size, 2 * BLUR) for size in video.shape[1:]]
    fine = video - wide[0] @ video @ wide[1].T
    change = np.diff(fine, axis=0, prepend=fine[:1])
    narrow = [blur_matrix(size, BLUR)[STEP // 2 :: STEP] for size in video.shape[1:]]
    return np.sqrt(narrow[0] @ np.square(change) @ narrow[1].T)


def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """Gaussian blur along an axis of `size` pixels as a matrix (size, size)."""
    return gaussian_filter1d(np.eye(size, dtype=np.float32), sigma, axis=0)


class ContrastMaps:
    """Correlation of every neuron's response with the recent moving contrast at every place, trial by trial."""

    def __init__(self, num_neurons: int, height: int, width: int):
        self.shape = (num_neurons, len(range(STEP // 2, height, STEP)), len(range(STEP // 2, width, STEP)))
        places = self.shape[1] * self.shape[2]
        self.count = 0
        self.sum_x, self.sum_xx = np.zeros(places), np.zeros(places)
        self.sum_y, self.sum_yy = np.zeros(num_neurons), np.zeros(num_neurons)
        self.sum_yx = np.zeros((num_neurons, places))

    def update(self, video: np.ndarray, responses: np.ndarray) -> None:
        """Add a trial: video (T, H, W) in grey levels, responses (N, T); frames without a full past are left out."""
        energy = moving_contrast(video).reshape(len(video), -1)
        recent = uniform_filter1d(energy, LAGS, axis=0, origin=LAGS // 2 - 1)  # frames t - LAGS + 1 ... t
        x, y = recent[LAGS:], np.asarray(responses[:, LAGS:], dtype=np.float32)
        self.count += len(x)
        self.sum_x += x.sum(axis=0)
        self.sum_xx += np.square(x).sum(axis=0)
        self.sum_y += y.sum(axis=1)
        self.sum_yy += np.square(y).sum(axis=1)
        self.sum_yx += y @ x

    def value(self) -> np.ndarray:
        """(N, h, w); zero for silent neurons and for places where nothing moves."""
        n = max(self.count, 1)
        covariance = self.sum_yx / n - np.outer(self.sum_y / n, self.sum_x / n)
        spread = np.sqrt(
            np.outer(self.sum_yy / n - (self.sum_y / n) ** 2, self.sum_xx / n - (self.sum_x / n) ** 2).clip(0)
        )
        return np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 1e-12).reshape(self.shape)


def fit_positions(maps: np.ndarray, coordinates: np.ndarray, scatter: float = 2.0) -> np.ndarray:
    """Positions (N, 2), (x, y) in [-1, 1] of the frame, from contrast maps (N, h, w) and cortical coordinates (N, 2+).

    A plane from cortex to screen is fitted to the peaks of the maps, robustly; then each neuron takes the peak of its
    own map within about `scatter` map pixels of the plane, so that a noisy map costs its neuron little.
    """
    N, h, w = maps.shape
    smooth = gaussian_filter(maps, (0, SMOOTH, SMOOTH))
    smooth = smooth - np.median(smooth, axis=(1, 2), keepdims=True)
    noise = np.maximum(1.4826 * np.median(np.abs(smooth), axis=(1, 2), keepdims=True), 1e-9)
    z = np.minimum(smooth / noise, 10.0)
    place = np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1).reshape(-1, 2).astype(float)
    cortex = np.asarray(coordinates, dtype=float)[:, :2]
    cortex = (cortex - cortex.mean(axis=0)) / max(np.abs(cortex - cortex.mean(axis=0)).max(), 1e-9)
    design = np.column_stack([np.ones(N), cortex])
    flat = z.reshape(N, -1)
    best = flat.argmax(axis=1)
    reach = 3 * scatter
    for _ in range(ROUNDS):
        weight = flat[np.arange(N), best].clip(0) ** 2
        plane = robust_plane(design, place[best], weight, reach)
        expected = design @ plane
        distance = np.square(place[None] - expected[:, None]).sum(axis=-1)
        best = (flat - 2 * distance / reach**2).argmax(axis=1)
        reach = max(reach * 0.7, scatter)
    return (place[best] / (np.array([w, h]) - 1) * 2 - 1).clip(-1, 1)


def robust_plane(design: np.ndarray, target: np.ndarray, weight: np.ndarray, reach: float) -> np.ndarray:
    """Weighted least squares (K, 2) in which points farther than `reach` lose influence (Cauchy weights)."""
    plane = np.zeros((design.shape[1], target.shape[1]))
    plane[0] = np.average(target, axis=0, weights=weight + 1e-9)
    for _ in range(20):
        residual = np.linalg.norm(target - design @ plane, axis=1)
        w = (weight + 1e-9) / (1 + np.square(residual / reach))
        normal = design.T @ (design * w[:, None]) + 1e-6 * w.sum() * np.eye(design.shape[1])
        plane = np.linalg.solve(normal, design.T @ (target * w[:, None]))
    return plane
