"""Natural-looking movies without a download: dead-leaves scenes that drift, loom and are cut like films.

Leaves with a power law of sizes occlude each other (1/f spectrum, edges), carry 1/f texture, and lie in two depths
that the moving observer passes at different speeds; objects move on their own. Sizes are in screen widths.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from viv1t.constants import FPS
from viv1t.geometry import Monitor

SUPERSAMPLE = 2  # canvas pixels per screen pixel
ALBEDO = (1.0, 2.2)  # Beta distribution of leaf brightness; with texture and light it gives mean 80, sd 57
RADII = (0.018, 0.5)  # leaf radius in screen widths
TEXTURE = 0.22  # sd of the 1/f texture, relative to the brightness of the leaf
CUT_SECONDS = (1.0, 6.0)


@dataclass
class Layer:
    """A periodic canvas of brightness 0..1 and its opacity, both (rows, columns)."""

    light: np.ndarray
    opacity: np.ndarray | None = None


def natural_movie(seed, monitor: Monitor, frames: int) -> np.ndarray:
    """A movie (frames, height, width) uint8, a pure function of the seed."""
    rng = np.random.default_rng(seed)
    movie = np.empty((frames, monitor.height, monitor.width), np.uint8)
    start = 0
    while start < frames:
        stop = min(frames, start + int(rng.uniform(*CUT_SECONDS) * FPS))
        movie[start:stop] = _scene(rng, monitor, stop - start)
        start = stop
    return movie


def natural_image(seed, monitor: Monitor) -> np.ndarray:
    """A still (height, width) uint8."""
    return natural_movie(seed, monitor, 1)[0]


def _scene(rng: np.random.Generator, monitor: Monitor, frames: int) -> np.ndarray:
    shape = (int(1.8 * monitor.height) * SUPERSAMPLE, int(1.6 * monitor.width) * SUPERSAMPLE)
    texture = _fractal(rng, shape)
    back = _paint(rng, shape, monitor, texture, 150)
    front = _paint(rng, shape, monitor, texture, rng.integers(4, 14), solid=False)
    path = _self_motion(rng, frames)
    (light,) = _sample([back.light], path, 1.0, monitor)
    near, opacity = _sample([front.light, front.opacity], path, rng.uniform(1.4, 2.6), monitor)
    light += opacity * (near - light)
    for _ in range(rng.integers(0, 4)):
        _add_object(rng, light, monitor)
    exposure = rng.lognormal(0, 0.22)
    return np.clip(np.rint(255 * exposure * light), 0, 255).astype(np.uint8)


def _fractal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Periodic noise of unit variance with amplitude spectrum 1/f."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(shape))
    amplitude[0, 0] = 0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * amplitude, shape)
    return (noise / noise.std()).astype(np.float32)


def _paint(rng, shape, monitor: Monitor, texture, leaves: int, solid: bool = True) -> Layer:
    """Leaves painted back to front with radii from a power law (density r^-3) on a periodic canvas."""
    unit = monitor.width * SUPERSAMPLE
    light = np.full(shape, rng.beta(*ALBEDO), np.float32)
    opacity = np.zeros(shape, np.float32)
    low, high = RADII if solid else (0.04, 0.25)
    radii = 1 / np.sqrt(rng.uniform(1 / high**2, 1 / low**2, leaves)) * unit
    if solid:  # a few large leaves first, so that no canvas is bare
        radii[:12] = rng.uniform(0.2, high, 12) * unit
    for radius in radii:
        rows, columns, mask = _leaf(rng, shape, radius)
        grain = texture[np.ix_((rows + rng.integers(shape[0])) % shape[0], columns)]
        brightness = rng.beta(*ALBEDO) * (1 + TEXTURE * grain)
        patch = np.ix_(rows, columns)
        light[patch] += mask * (brightness - light[patch])
        opacity[patch] = np.maximum(opacity[patch], mask)
    blur = dict(sigma=0.4 * SUPERSAMPLE, mode="wrap")
    light = ndimage.gaussian_filter(light, **blur)
    return Layer(light) if solid else Layer(light, ndimage.gaussian_filter(opacity, **blur))


def _leaf(rng, shape, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random ellipse or rectangle: its canvas rows and columns (periodic) and its mask 0..1."""
    reach = int(np.ceil(1.5 * radius)) + 1
    rows = np.arange(-min(reach, shape[0] // 2 - 1), min(reach, shape[0] // 2 - 1) + 1, dtype=np.int64)
    columns = np.arange(-min(reach, shape[1] // 2 - 1), min(reach, shape[1] // 2 - 1) + 1, dtype=np.int64)
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(1.0, 2.2)
    x = columns * np.float32(np.cos(angle)) + rows[:, None] * np.float32(np.sin(angle))
    y = rows[:, None] * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
    x, y = x / np.sqrt(aspect), y * np.sqrt(aspect)
    distance = np.hypot(x, y) if rng.random() < 0.7 else np.maximum(abs(x), abs(y)) * 1.1
    mask = np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)
    return (rows + rng.integers(shape[0])) % shape[0], (columns + rng.integers(shape[1])) % shape[1], mask


def _self_motion(rng: np.random.Generator, frames: int) -> dict[str, np.ndarray]:
    """Camera path: (frames,) position in screen widths, zoom and rotation, all smooth and starting anywhere."""
    speed = rng.lognormal(np.log(0.20), 0.9)  # screen widths per second
    turning = _smooth_noise(rng, (2, frames), 0.4) * 0.6 * speed
    heading = rng.uniform(0, 2 * np.pi)
    velocity = turning + speed * np.array([[np.cos(heading)], [np.sin(heading) * 0.6]])
    x, y = np.cumsum(velocity, axis=1) / FPS + rng.uniform(0, 2, (2, 1))
    looming = rng.normal(0, 0.18) + 0.15 * _smooth_noise(rng, (1, frames), 0.5)[0]
    rotation = rng.normal(0, 0.15) + 0.25 * _smooth_noise(rng, (1, frames), 0.5)[0]
    zoom = np.exp(np.clip(np.cumsum(looming) / FPS + rng.uniform(-0.05, 0.2), -0.15, 0.6))  # far views would alias
    return {"x": x, "y": y, "zoom": zoom, "angle": np.cumsum(rotation) / FPS}


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], seconds: float) -> np.ndarray:
    """Unit-variance noise smooth over about `seconds` along the last axis."""
    sigma = seconds * FPS
    noise = ndimage.gaussian_filter1d(rng.standard_normal((shape[0], shape[1] + int(8 * sigma))), sigma, axis=1)
    return noise[:, int(4 * sigma) : int(4 * sigma) + shape[1]] * np.sqrt(2 * np.sqrt(np.pi) * sigma)


def _sample(canvases: list[np.ndarray], path: dict, nearness: float, monitor: Monitor) -> list[np.ndarray]:
    """Canvases of one shape as seen along the path, (frames, height, width); near layers move and grow faster."""
    shape = canvases[0].shape
    x = (np.arange(monitor.width, dtype=np.float32) - monitor.centre[0])[None, None, :]
    y = (np.arange(monitor.height, dtype=np.float32) - monitor.centre[1])[None, :, None]
    zoom = (path["zoom"] ** -nearness)[:, None, None].astype(np.float32) * SUPERSAMPLE
    cosine, sine = (f(path["angle"])[:, None, None].astype(np.float32) * zoom for f in (np.cos, np.sin))
    unit = monitor.width * SUPERSAMPLE * nearness
    columns = cosine * x - sine * y + (path["x"] * unit % shape[1])[:, None, None].astype(np.float32)
    rows = sine * x + cosine * y + (path["y"] * unit % shape[0])[:, None, None].astype(np.float32)
    return _bilinear(canvases, rows, columns)


def _bilinear(canvases: list[np.ndarray], rows: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
    """Periodic bilinear interpolation of canvases at float positions."""
    height, width = canvases[0].shape
    row, column = np.floor(rows), np.floor(columns)
    down, right = rows - row, columns - column
    index = row.astype(np.int32) % height * (width + 1) + column.astype(np.int32) % width
    seen = []
    for canvas in canvases:
        tiled = np.pad(canvas, ((0, 1), (0, 1)), mode="wrap").ravel()
        top, bottom = tiled[index], tiled[index + (width + 1)]
        top += right * (tiled[index + 1] - top)
        bottom += right * (tiled[index + (width + 2)] - bottom)
        seen.append(top + down * (bottom - top))
    return seen


def _add_object(rng: np.random.Generator, light: np.ndarray, monitor: Monitor) -> None:
    """Draw an elliptic object with stripes of texture that crosses the view on its own smooth path, in place."""
    frames = len(light)
    radius = rng.uniform(0.03, 0.12) * monitor.width
    wander = _smooth_noise(rng, (2, frames), 0.3) * rng.uniform(0.05, 0.5) * monitor.width / FPS
    course = rng.normal(0, 0.35, (2, 1)) * monitor.width / FPS
    start = rng.uniform(0, 1, (2, 1)) * np.array([[monitor.width], [monitor.height]])
    x0, y0 = np.cumsum(wander + course, axis=1) + start
    x0, y0 = x0 % (1.3 * monitor.width) - 0.15 * monitor.width, y0 % (1.3 * monitor.height) - 0.15 * monitor.height
    angle, aspect, stripes = rng.uniform(0, np.pi), rng.uniform(1, 1.8), rng.uniform(1.0, 3.0)
    brightness, depth = rng.beta(*ALBEDO), rng.uniform(0, 0.5)
    reach = int(1.5 * radius) + 2
    for t in range(frames):
        left, top = int(x0[t]) - reach, int(y0[t]) - reach
        columns = np.arange(max(left, 0), min(left + 2 * reach + 1, monitor.width), dtype=np.float32)
        rows = np.arange(max(top, 0), min(top + 2 * reach + 1, monitor.height), dtype=np.float32)
        if not len(columns) or not len(rows):
            continue
        dx, dy = columns - np.float32(x0[t]), (rows - np.float32(y0[t]))[:, None]
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / np.sqrt(aspect)
        v = (dy * np.cos(angle) - dx * np.sin(angle)) * np.sqrt(aspect)
        mask = np.clip(radius - np.hypot(u, v) + 0.5, 0, 1)
        pattern = brightness * (1 + depth * np.sin(np.pi * stripes * u / radius))
        window = light[t, int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
        window += (mask * (pattern - window)).astype(np.float32)
