"""Tell the six kinds of competition clips apart by what defines each of them.

image           the screen stands still for many frames between sudden changes, on full-frame pictures
gaussian_dots   it stands still too, but only a small spot differs from the even background
random_dots     many spots on an even background, moving all the time
drifting_gabor  a few frames of it span two dimensions (a drifting grating is a sum of two still ones)
pink_noise      filtered Gaussian noise: differences of neighbouring pixels are Gaussian
movie           anything else: differences of neighbouring pixels have heavy tails, as edges make them
"""

import numpy as np
from scipy.stats import kurtosis

WINDOW = 12  # frames; shorter than a block of any stimulus
STILL = 0.5  # mean change in grey levels below which two frames are the same picture
EVEN = 4.0  # grey levels around the background that count as background


def classify(video: np.ndarray) -> str:
    """Kind of a clip (T, H, W) in grey levels, one of `constants.STIMULI`."""
    video = np.asarray(video, dtype=np.float32)
    background = background_share(video)
    if still_share(video) > 0.7:
        return "gaussian_dots" if background > 0.6 else "image"
    if grating_share(video) > 0.97:
        return "drifting_gabor"
    if background > 0.4:
        return "random_dots"
    return "pink_noise" if edge_kurtosis(video) < 4.5 else "movie"


def still_share(video: np.ndarray) -> float:
    """Share of frames that equal the one before."""
    change = np.abs(np.diff(video, axis=0)).mean(axis=(1, 2))
    return float((change < STILL).mean()) if len(change) else 1.0


def background_share(video: np.ndarray) -> float:
    """Median over frames that are not blank of the share of pixels within EVEN of the frame's own median."""
    frames = video.reshape(len(video), -1)
    share = (np.abs(frames - np.median(frames, axis=1, keepdims=True)) <= EVEN).mean(axis=1)
    return float(np.median(share[share < 0.995])) if (share < 0.995).any() else 1.0


def grating_share(video: np.ndarray) -> float:
    """Median over windows of the energy, around the window's mean picture, held by its two largest components."""
    shares = []
    for start in range(0, len(video) - WINDOW + 1, WINDOW):
        window = video[start : start + WINDOW].reshape(WINDOW, -1).astype(np.float64)
        window -= window.mean(axis=0)
        energy = np.linalg.eigvalsh(window @ window.T)
        if energy.sum() > window.size * STILL**2:  # a blank window says nothing
            shares.append(energy[-2:].sum() / energy.sum())
    return float(np.median(shares)) if shares else 0.0


def edge_kurtosis(video: np.ndarray) -> float:
    """Kurtosis (3 for a Gaussian) of differences between horizontal neighbours; median over frames not blank."""
    difference = np.diff(video, axis=2).reshape(len(video), -1)
    structured = difference[difference.std(axis=1) > STILL]
    return float(np.median(kurtosis(structured, axis=1, fisher=False))) if len(structured) else 3.0
