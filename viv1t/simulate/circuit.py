"""The neurons' equations: motion energy, divided by the contrast around, joined by a late feedback field.

All functions of the `Circuit` are torch, vectorised over neurons, causal, and differentiable in the frames. Its rows
are neurons; `rows` below picks some of them.
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from viv1t.geometry import Monitor, drift_axis
from viv1t.simulate import filters

SURROUND_POWER = 1.5  # of the surround's energy: negligible at contrast 0.05, strong at 1
FACILITATION_HALF = 0.05  # surround contrast at which low-contrast facilitation is half complete
FEEDBACK_HALF = 0.03  # surround energy that half drives the feedback field on a grey centre
FEEDBACK_RIVALRY = 6.0  # how much contrast in the centre silences the feedback field
OUTPUT_POWER = 1.2  # from membrane to events: expansive, and with it natural responses as sparse as real ones
FEEDBACK_PATH = 3  # frames; with them a field without extra delay rises together with the feedforward drive
CELL = 2  # pixels; contrast is pooled over cells of 2 x 2


class Circuit:
    """Filters and equations of a population on one monitor; all responses are about 1 for the best grating."""

    def __init__(self, neurons: pd.DataFrame, monitor: Monitor, device: str | torch.device = "cpu"):
        self.neurons, self.monitor, self.device = neurons, monitor, torch.device(device)
        names = (
            "direction_selectivity", "simple_weight", "polarity", "semisaturation", "surround_strength",
            "surround_tuning", "facilitation", "feedback",
        )  # fmt: skip
        self._column = {name: self._tensor(neurons[name])[:, None] for name in names}
        self._driven = self._tensor(neurons["kind"] != "undriven")[:, None]
        self._build_space()
        self._build_time()
        self._normalise()

    def drive(self, contrast: torch.Tensor, rows=slice(None)) -> torch.Tensor:
        """Visual drive (B, N, T) for contrast on the retina (B, T, H, W), -1..1."""
        frames = contrast.flatten(2)
        even, odd = ((frames @ weights[rows].T).movedim(2, 1) for weights in (self.even, self.odd))
        xx = yy = xy = contrast.new_zeros(contrast.shape)  # moving contrast as a structure tensor
        for x, y in self.slopes(contrast):
            for kernel in self.pool_pair:
                p, q = (along_time(slope.flatten(2), kernel).view_as(slope) for slope in (x, y))
                xx, yy, xy = xx.addcmul(p, p), yy.addcmul(q, q), xy.addcmul(p, q)
        near = ((xx + yy).flatten(2) @ self.centre[rows].T).movedim(2, 1)
        ring = [(self.cells(x) @ self.ring[rows].T).movedim(2, 1) for x in (xx, yy, xy)]
        return self.combine(self.energy(even, odd, rows), near, ring, rows)

    def energy(self, even: torch.Tensor, odd: torch.Tensor, rows=slice(None)) -> torch.Tensor:
        """Motion energy mixed with the half-squared linear response, from the spatial pair's outputs (B, N, T)."""
        (a_c, a_s), (b_c, b_s) = ([convolve(x, kernel[rows]) for kernel in self.pair] for x in (even, odd))
        selectivity, simple = self._column["direction_selectivity"][rows], self._column["simple_weight"][rows]
        along = (a_c - b_s) ** 2 + (b_c + a_s) ** 2
        against = (a_c + b_s) ** 2 + (b_c - a_s) ** 2
        energy = ((1 + selectivity) * along + (1 - selectivity) * against) / 2
        linear = (self._column["polarity"][rows] * (a_c - selectivity * b_s)).clamp(min=0) ** 2
        return (1 - simple) * energy * self.energy_scale[rows] + simple * linear * self.linear_scale[rows]

    def combine(self, energy: torch.Tensor, near: torch.Tensor, ring: list[torch.Tensor], rows=slice(None)):
        """Drive (B, N, T) from the energy, the moving contrast in the field, and that around it as (xx, yy, xy)."""
        column = {name: values[rows] for name, values in self._column.items()}
        near, around = near * self.near_scale[rows], self._oriented(ring, rows) * self.ring_scale[rows]
        prompt = self.prompt[rows]
        pool, surround = convolve(near, prompt), convolve(around, prompt).clamp(min=0)
        amplitude = torch.sqrt(surround + 1e-10)
        boost = 1 + column["facilitation"] * amplitude / (amplitude + FACILITATION_HALF)
        suppression = column["surround_strength"] * amplitude ** (2 * SURROUND_POWER)
        feedforward = energy * boost / (column["semisaturation"] ** 2 + pool + suppression)
        near, around = (convolve(x, self.late[rows]) for x in (near, around))
        feedback = around**2 / (FEEDBACK_HALF**2 + around**2 + (FEEDBACK_RIVALRY * near) ** 2)
        return (feedforward + column["feedback"] * feedback) ** OUTPUT_POWER * self._driven[rows]

    def _oriented(self, ring: list[torch.Tensor], rows) -> torch.Tensor:
        """Contrast around the field, weighted towards the neuron's own axis; 1 for its own grating."""
        xx, yy, xy = ring
        tuning, x, y = self._column["surround_tuning"][rows], *self._axis[:, rows, None]
        own = x**2 * xx + y**2 * yy + 2 * x * y * xy
        return ((1 - tuning) * (xx + yy) / 2 + tuning * own) / ((1 + tuning) / 2)

    def slopes(self, image: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Gradients (along columns, along rows) of images (..., H, W), real or complex, at every scale of the pool."""
        matrices = ([matrix.to(image.dtype) for matrix in scale] for scale in self._scales)
        return [(smooth_y @ image @ slope_x.T, slope_y @ image @ smooth_x.T)
                for smooth_y, smooth_x, slope_y, slope_x in matrices]  # fmt: skip

    def cells(self, maps: torch.Tensor) -> torch.Tensor:
        """Mean over cells of pixels: (..., H, W) -> (..., cells)."""
        pooled = F.avg_pool2d(maps.flatten(0, -3), CELL, ceil_mode=True, count_include_pad=False)
        return pooled.flatten(1).unflatten(0, maps.shape[:-2])

    # -- construction ----------------------------------------------------------------------------------------------

    def _build_space(self) -> None:
        even, odd, centre, ring = filters.spatial_filters(self.neurons, self.monitor, CELL)
        self._amplitudes = filters.grating_response(self.neurons, self.monitor, even, odd)
        # equal gain for the neuron's own grating makes the pair a true quadrature pair
        balance = np.divide(*map(abs, self._amplitudes), out=np.zeros(len(odd)), where=abs(self._amplitudes[1]) > 0)
        odd *= balance[:, None].astype(np.float32)
        self._amplitudes[1] *= balance
        self.even, self.odd, self.centre, self.ring = map(self._tensor, (even, odd, centre, ring))
        self._scales = [list(map(self._tensor, self._derivatives(blur))) for blur in filters.POOL_BLURS]
        right, up = drift_axis(self.neurons["direction_deg"].to_numpy())
        self._axis = self._tensor(np.stack([right, -up]))  # rows of an image grow downward

    def _derivatives(self, blur: float) -> tuple[np.ndarray, ...]:
        """Matrices that blur (rows, columns) and that take the slope of the blurred image, scaled to equal power."""
        pitch, sizes = self.monitor.degrees_per_pixel, (self.monitor.height, self.monitor.width)
        smooth = [filters.blur_matrix(size, blur / pitch) for size in sizes]
        slope = [
            filters.derivative_matrix(size) @ matrix * blur / pitch for size, matrix in zip(sizes, smooth, strict=True)
        ]
        return (*smooth, *slope)

    def _build_time(self) -> None:
        self._latency = self.neurons["latency"].to_numpy()
        self._kernels = filters.temporal_pair(self.neurons["tf_hz"].to_numpy(), self._latency)
        self._pool_kernels = filters.temporal_pair(filters.POOL_TF, 1, filters.POOL_DECAY)
        self.pair = [self._tensor(kernel) for kernel in self._kernels]
        self.pool_pair = [self._tensor(kernel[0]) for kernel in self._pool_kernels]
        self.prompt = self._tensor(filters.smoothing(self._latency - 1))
        wait = self._latency - 1 + FEEDBACK_PATH + self.neurons["feedback_delay"].to_numpy()
        self.late = self._tensor(filters.smoothing(wait))

    def _normalise(self) -> None:
        """Scale energy, linear drive and pool to 1 for each neuron's own grating, from the filters themselves."""
        hertz = self.neurons["tf_hz"].to_numpy()
        even, odd = self._amplitudes
        cosine, sine = (filters.transfer(kernel, hertz) for kernel in self._kernels)
        kappa = self.neurons["direction_selectivity"].to_numpy()
        along = (abs(even * cosine - odd * sine) ** 2 + abs(odd * cosine + even * sine) ** 2) / 2
        against = (abs(even * cosine + odd * sine) ** 2 + abs(odd * cosine - even * sine) ** 2) / 2
        self.energy_scale = self._tensor(2 / ((1 + kappa) * along + (1 - kappa) * against))[:, None]
        self.linear_scale = self._tensor(4 / abs(even * cosine - kappa * odd * sine) ** 2)[:, None]
        power = sum(abs(filters.transfer(kernel, hertz)) ** 2 for kernel in self._pool_kernels) / 2
        near, ring = self._contrast_of_gratings()
        self.near_scale = self._tensor(1 / (near * power))[:, None]
        self.ring_scale = self._tensor(1 / (ring * power))[:, None]

    def _contrast_of_gratings(self) -> tuple[np.ndarray, np.ndarray]:
        """What the pools (N,) take from each neuron's own full-field grating."""
        near, ring = [], []
        for start in range(0, len(self.neurons), 64):
            block = self.neurons.iloc[start : start + 64]
            rows = slice(start, start + len(block))
            places = self.monitor.local_coordinates(block[["azimuth_deg", "elevation_deg"]].to_numpy())
            cpd = np.where(block["kind"] == "luminance", filters.POOL_CPD, block["sf_cpd"])
            image = filters.grating(*places, block["direction_deg"], cpd).astype(np.complex64)
            pools = self.pooled_products(torch.as_tensor(image, device=self.device), rows)
            near.append(pools[0][0])
            ring.append(self._oriented([steady[:, None] for steady, _ in pools[1]], rows)[:, 0])
        return torch.cat(near).cpu().numpy(), torch.cat(ring).cpu().numpy()

    def pooled_products(self, images: torch.Tensor, rows) -> tuple[tuple, list[tuple]]:
        """Slopes p, q of complex images (K, H, W), pooled by neurons rows[k]: near, and the ring's (xx, yy, xy).

        Each is a pair (p conj(q), p q) of shape (K,), which holds for every phase of the images.
        """
        steady, beating = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
        for x, y in self.slopes(images):
            for k, (p, q) in enumerate(((x, x), (y, y), (x, y))):
                steady[k], beating[k] = steady[k] + torch.real(p * q.conj()), beating[k] + p * q
        near = tuple(((x + y).flatten(1) * self.centre[rows]).sum(1) for x, y, _ in (steady, beating))
        weights = self.ring[rows]
        ring = [
            (
                (self.cells(s) * weights).sum(1),
                torch.complex(*((self.cells(part) * weights).sum(1) for part in (b.real, b.imag))),
            )
            for s, b in zip(steady, beating, strict=True)
        ]
        return near, ring

    def _tensor(self, values) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32), device=self.device)


def convolve(signals: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Causal convolution along the last axis: signals (B, N, T) with kernels (N, taps), lag 0 first."""
    padded = F.pad(signals, (kernels.shape[1] - 1, 0))
    return F.conv1d(padded, kernels.flip(1)[:, None], groups=len(kernels))


def along_time(frames: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Causal convolution of frames (B, T, P) with one kernel (taps,), as products with blocks of a banded matrix."""
    T, taps, block = frames.shape[1], len(kernel), 100
    lag = torch.arange(block, device=frames.device)[:, None] - torch.arange(1 - taps, block, device=frames.device)
    band = torch.where((lag >= 0) & (lag < taps), kernel[lag.clamp(0, taps - 1)], 0.0)
    padded = F.pad(frames, (0, 0, taps - 1, 0))
    starts = range(0, T, block)
    sizes = [min(block, T - start) for start in starts]
    parts = [band[:n, : n + taps - 1] @ padded[:, s : s + n + taps - 1] for s, n in zip(starts, sizes, strict=True)]
    return torch.cat(parts, dim=1)
