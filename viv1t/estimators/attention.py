"""What attention passes on: rollout through the blocks of a transformer, its view on frames and on the past, and how
much of it a part of the frame gets.

An attention matrix has queries as rows, keys as columns, and rows that add up to 1. Rollout (Abnar & Zuidema 2020)
follows it from the last block to the input: each block mixes what it attends to with what it was given, half and half.
It sees neither values nor feed-forward branches, nor what neurons read out: it describes, and proves nothing. Show the
gradient of the responses beside it.
"""

import numpy as np

HEADS = {"max": np.max, "mean": np.mean}


def rollout_step(rolled: np.ndarray | None, attention: np.ndarray, heads: str = "max") -> np.ndarray:
    """One block more: rollout (..., n, n) so far (None before the first block) and attention (..., heads, n, n).

    Heads are joined by their largest or mean attention (`heads`). Rows need not add up to 1, as when the columns of
    register tokens are cut; they do afterwards.
    """
    joined = HEADS[heads](attention, axis=-3) + np.eye(attention.shape[-1], dtype=attention.dtype)
    joined /= joined.sum(axis=-1, keepdims=True)
    return joined if rolled is None else joined @ rolled


def rollout(attention: np.ndarray, heads: str = "max") -> np.ndarray:
    """Attention (..., blocks, heads, n, n) -> share (..., n, n) of every input (column) in every output (row)."""
    rolled = None
    for block in np.moveaxis(attention, -4, 0):
        rolled = rollout_step(rolled, block, heads)
    return rolled


def importance(rolled: np.ndarray) -> np.ndarray:
    """Mean share (..., n) of each input over all outputs, from rollout (..., n, n)."""
    return rolled.mean(axis=-2)


def by_lag(rolled: np.ndarray) -> np.ndarray:
    """Rollout (..., n, n) over time with columns turned into lags: entry [t, k] is the share of frame t - k in t.

    NaN where t - k lies before the first frame; what non-causal attention sees of the future is left out.
    """
    n = rolled.shape[-1]
    query, lag = np.indices((n, n))
    return np.where(lag <= query, rolled[..., query, np.maximum(query - lag, 0)], np.nan)


def salience(rolled: np.ndarray) -> np.ndarray:
    """How much frames (..., n) are attended to afterwards, beyond what their lag explains, from rollout over time.

    Share of frame j in outputs j, j + 1, ..., divided by the share that frames have on average at the same lags: 1
    where attention depends on lag only. A mean over outputs would say little else than that early frames have more
    outputs after them, or, taken over the outputs that can see a frame, that recent frames are attended to most.
    """
    received = np.tril(rolled).sum(axis=-2)
    expected = np.nanmean(by_lag(rolled), axis=-2).cumsum(axis=-1)[..., ::-1]
    return received / expected


def fold(values: np.ndarray, size: int, stride: int, pad: tuple[int, ...], frame_size: tuple[int, int]) -> np.ndarray:
    """Values of patches (..., h, w) as images (..., H, W): every pixel is the mean of the patches that cover it.

    size, stride: of the square patches, in pixels; pad: pixels added to the frame (left, right, top, bottom) before it
    was cut; frame_size: (H, W). NaN where no patch lies.
    """
    H, W = frame_size
    rows = _coverage(values.shape[-2], size, stride, pad[2], H)
    columns = _coverage(values.shape[-1], size, stride, pad[0], W)
    covered = rows.sum(axis=1)[:, None] * columns.sum(axis=1)
    total = rows @ values @ columns.T
    return np.divide(total, covered, out=np.full(total.shape, np.nan), where=covered > 0)


def patch_shares(window: np.ndarray, size: int, stride: int, pad: tuple[int, ...]) -> np.ndarray:
    """Share (..., P) of every patch's area that lies in windows (..., H, W) of 0..1; geometry as for `fold`.

    What of a patch lies off the frame lies in no window, so shares of windows that make up the frame add up to less
    than 1 at its borders.
    """
    H, W = window.shape[-2:]
    rows = _coverage((H + pad[2] + pad[3] - size) // stride + 1, size, stride, pad[2], H)
    columns = _coverage((W + pad[0] + pad[1] - size) // stride + 1, size, stride, pad[0], W)
    shares = rows.T @ window @ columns / size**2
    return shares.reshape(*shares.shape[:-2], -1)


def share(attention: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Attention (..., n) that one part of the frame gets, (...), in multiples of what uniform attention would give it.

    weights (n,): how much of each patch lies in that part (`patch_shares`). 1 for uniform attention; one over the
    part's share of the frame where all attention lies inside. What register tokens get is left out: attention is
    divided by its sum. Pixels may stand for patches, and any non-negative map for attention. NaN where the part is
    empty, or the map is.
    """
    uniform = attention.sum(axis=-1) * weights.mean()
    return np.divide(attention @ weights, uniform, out=np.full(np.shape(uniform), np.nan), where=uniform > 0)


def around(images: np.ndarray, centre: tuple[float, float], reach: int) -> np.ndarray:
    """Images (..., H, W) cut out around the pixel nearest to `centre` (x, y): (..., 2 reach + 1, 2 reach + 1).

    NaN off the frame. Maps of neurons whose fields lie in different places are averaged this way.
    """
    H, W = images.shape[-2:]
    column, row = np.rint(centre).astype(int)
    cut = np.full((*images.shape[:-2], 2 * reach + 1, 2 * reach + 1), np.nan)
    top, bottom = max(row - reach, 0), min(row + reach + 1, H)
    left, right = max(column - reach, 0), min(column + reach + 1, W)
    if top < bottom and left < right:
        y, x = reach - row, reach - column
        cut[..., top + y : bottom + y, left + x : right + x] = images[..., top:bottom, left:right]
    return cut


def _coverage(patches: int, size: int, stride: int, before: int, length: int) -> np.ndarray:
    """(length, patches) 1 where a pixel of the frame lies in a patch, along one axis."""
    first = np.arange(patches) * stride - before
    pixel = np.arange(length)[:, None]
    return ((pixel >= first) & (pixel < first + size)).astype(float)
