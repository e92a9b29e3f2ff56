"""Gaussian readout: every neuron reads the feature map at its own position (Lurz et al. 2021)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from viv1t.model.options import GaussianConfig
from viv1t.model.readouts.readout import CHUNK_ELEMENTS, FrameReader, Readout, in_chunks


class GaussianReadout(Readout):
    """One mouse's readout: positions (x, y) in [-1, 1] of the feature map, feature weights, bias.

    In training the position of each neuron is drawn anew for every frame (or clip) from a Gaussian around its mean;
    in evaluation the mean is used.
    """

    def __init__(
        self,
        config: GaussianConfig,
        dim: int,
        grid: tuple[int, int],
        coordinates: np.ndarray,
        mean_response: np.ndarray | None,
    ):
        super().__init__(config, dim, grid, coordinates, mean_response)
        N = self.num_neurons
        if config.grid_mode == "free":
            self._mu = nn.Parameter(torch.empty(1, N, 1, 2).uniform_(-0.2, 0.2))
        else:
            source = torch.as_tensor(np.asarray(coordinates)[:, : 2 if config.grid_mode == "xy" else 3]).float()
            planes = self.planes(np.asarray(coordinates))
            self.register_buffer("source_grid", centred(source, planes))
            self.mu_transform = self.position_map(source.shape[1], planes)
        s = config.init_sigma
        shape = {"full": (1, N, 2, 2), "uncorrelated": (1, N, 1, 2), "isotropic": (1, N, 1, 1)}[config.covariance]
        constant = torch.full(shape, s)
        self.sigma = nn.Parameter(torch.empty(shape).uniform_(-s, s) if config.covariance == "full" else constant)
        self.features = nn.Parameter(torch.full((1, dim, N), 1 / dim))
        self.bias = self.make_bias(mean_response)

    def planes(self, coordinates: np.ndarray) -> np.ndarray:
        """Which map (N,) gives a neuron's position."""
        return np.zeros(len(coordinates), dtype=int)

    def position_map(self, inputs: int, planes: np.ndarray) -> nn.Module:
        """Cortical coordinates (N, inputs), centred -> positions (N, 2)."""
        return position_network(inputs)

    @property
    def mu(self) -> torch.Tensor:
        """Mean positions (N, 2)."""
        if self.config.grid_mode == "free":
            return self._mu[0, :, 0].clamp(-1, 1)
        return self.mu_transform(self.source_grid)

    def set_positions(self, positions: np.ndarray) -> None:
        """Move the mean positions to (N, 2) in [-1, 1]; a position network is fitted to them."""
        target = torch.as_tensor(positions, dtype=torch.float32, device=self.sigma.device).clamp(-0.99, 0.99)
        if self.config.grid_mode == "free":
            self._mu.data[0, :, 0] = target
            return
        optimizer = torch.optim.LBFGS(self.mu_transform.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def distance():
            optimizer.zero_grad()
            loss = F.smooth_l1_loss(self.mu, target, beta=0.1)
            loss.backward()
            return loss

        optimizer.step(distance)
        optimizer.zero_grad(set_to_none=True)

    def positions(
        self, clips: int, frames: int, shifts: torch.Tensor | None, neurons: torch.Tensor | None
    ) -> torch.Tensor:
        """Where to read: (clips * frames, N, 2), or (1, N, 2) if the same in every frame."""
        mu, sigma = self.mu, self.sigma[0]
        if neurons is not None:
            mu, sigma = mu[neurons], sigma[neurons]
        grid = mu[None]
        if self.training:
            each = self.config.noise == "frame"
            noise = torch.randn(clips * frames if each else clips, len(mu), 2, device=mu.device)
            noise = noise if each else noise.repeat_interleave(frames, dim=0)
            if self.config.covariance == "full":
                grid = grid + torch.einsum("ncd,rnd->rnc", sigma, noise)
            else:
                grid = grid + noise * sigma[:, 0]
        grid = grid.clamp(-1, 1)
        return grid if shifts is None else grid + shifts.transpose(1, 2).reshape(-1, 1, 2)

    def weights(self, neurons: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features (N, D) and biases (N,) of these neurons."""
        features, bias = self.features[0].t(), self.bias
        if neurons is None:
            return features, bias
        return features[neurons], None if bias is None else bias[neurons]

    def reader(self, neurons: torch.Tensor, grid: tuple[int, int]) -> "Reader":
        """For reading these neurons from one feature map (h, w) after another, in evaluation."""
        return Reader(self, neurons, grid)

    def sample(self, z: torch.Tensor) -> torch.Tensor:
        """Feature maps (1, T', h, w, D) at the mean positions, without gaze shift: (T', N, D)."""
        return sample(z[0], self.mu[None])

    def forward(
        self, z: torch.Tensor, shifts: torch.Tensor | None = None, neurons: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Feature maps (B, T', h, w, D), shifts (B, 2, T') -> (B, N, T') before the output activation."""
        B, T = z.shape[:2]
        features, bias = self.weights(neurons)
        z = z.reshape(B * T, *z.shape[2:])
        grid = self.positions(B, T, shifts, neurons)
        y = in_chunks(lambda *part: read(*part, features), features.numel(), z, grid).view(B, T, -1)
        return (y if bias is None else y + bias).transpose(1, 2)


class Reader(FrameReader):
    """A readout in evaluation, for one frame after another: positions are worked out when the gaze moves."""

    @torch.inference_mode()
    def __init__(self, readout: GaussianReadout, neurons: torch.Tensor, grid: tuple[int, int]):
        self.grid, self.mu = grid, readout.positions(1, 1, None, neurons)  # (1, N, 2)
        self.features, self.bias = readout.weights(neurons)
        self.look(None)

    def look(self, shifts: torch.Tensor | None) -> None:
        """Shift all positions by (2,) half frames, until the next call."""
        self.pixels = corners(self.mu if shifts is None else self.mu + shifts, *self.grid)

    @torch.inference_mode()
    def by_place(self) -> "PlaceReader":
        """The same readings from maps that hold only the pixels that are read."""
        return PlaceReader(*(x[0] for x in self.pixels), self.features, self.bias)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Feature maps (R, h, w, D) -> (R, N) before the output activation."""
        y = contract(gather(z, *self.pixels), self.features)
        return y if self.bias is None else y + self.bias


class PlaceReader:
    """Reads many maps at the same positions: one product for each pixel, with the weights of all neurons there.

    index, weight (N, 4): pixels and bilinear weights of each neuron; features (N, D), bias (N,) or None. places: flat
    indices of the pixels that are read, ascending.
    """

    def __init__(self, index: torch.Tensor, weight: torch.Tensor, features: torch.Tensor, bias: torch.Tensor | None):
        self.places, place = torch.unique(index, return_inverse=True)
        place, count = place.flatten(), torch.bincount(place.flatten())
        order = place.argsort(stable=True)
        rank = torch.empty_like(order)  # of each reading among those of its pixel
        rank[order] = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[place[order]]
        weighted = weight[..., None] * features[:, None]  # (N, 4, D)
        self.weights = weighted.new_zeros(len(count), int(count.max()), features.shape[1])  # (places, most, D)
        self.weights[place, rank] = weighted.flatten(0, 1)
        self.rows, self.bias = place * self.weights.shape[1] + rank, bias

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Maps (R, places, D) -> (R, N) before the output activation."""
        step = max(CHUNK_ELEMENTS // self.weights[..., 0].numel(), 1)
        y = torch.cat([self.read(part) for part in z.split(step)])
        return y if self.bias is None else y + self.bias

    def read(self, z: torch.Tensor) -> torch.Tensor:
        products = torch.bmm(self.weights, z.permute(1, 2, 0)).flatten(0, 1)  # (places * most, R)
        return products[self.rows].unflatten(0, (-1, 4)).sum(1).T


def position_network(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 30), nn.ELU(), nn.Linear(30, 2), nn.Tanh())


def centred(source: torch.Tensor, planes: np.ndarray) -> torch.Tensor:
    """Coordinates (N, 2 or 3) around the mean of each plane (N,), in multiples of the plane's largest distance."""
    found = torch.empty_like(source)
    for plane in np.unique(planes):
        of_plane = torch.as_tensor(planes == plane)
        around = source[of_plane] - source[of_plane].mean(dim=0, keepdim=True)
        found[of_plane] = around / around.abs().max().clamp_min(1e-6)
    return found


def read(z: torch.Tensor, grid: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Bilinear reading of maps (R, h, w, D) at (R or 1, N, 2) and contraction with (N, D) -> (R, N)."""
    return contract(sample(z, grid), features)


def contract(sampled: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    return torch.einsum("rnd,nd->rn", sampled, features)


def sample(z: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Bilinear reading of maps (R, h, w, D) at (R or 1, N, 2) -> (R, N, D).

    Positions are those of grid_sample with align_corners=True and zeros outside. Only the four pixels around a
    position are gathered, and summed while they are (embedding_bag).
    """
    return gather(z, *corners(grid, *z.shape[1:3]))


def gather(z: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted sums of four pixels of maps (R, h, w, D), as `corners` names them, -> (R, N, D)."""
    R, h, w, D = z.shape
    N = index.shape[1]
    offset = (torch.arange(R, device=z.device) * (h * w))[:, None, None]
    index = (index + offset).reshape(R * N, 4)
    weight = weight.expand(R, N, 4).reshape(R * N, 4)
    sampled = F.embedding_bag(index, z.reshape(-1, D), mode="sum", per_sample_weights=weight.to(z.dtype))
    return sampled.view(R, N, D)


def corners(grid: torch.Tensor, h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat indices and bilinear weights (..., 4) of the pixels around positions (..., 2) in [-1, 1]."""
    x, y = (grid[..., 0] + 1) * (w - 1) / 2, (grid[..., 1] + 1) * (h - 1) / 2
    left, top = x.detach().floor(), y.detach().floor()
    across, down = x - left, y - top
    indices, weights = [], []
    for dy, share_y in ((0, 1 - down), (1, down)):
        for dx, share_x in ((0, 1 - across), (1, across)):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            indices.append((row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).long())
            weights.append(share_x * share_y * inside)
    return torch.stack(indices, dim=-1), torch.stack(weights, dim=-1)
