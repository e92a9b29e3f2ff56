"""What a neuron answers to a drifting grating of any shape, in closed form: one complex image instead of a movie.

A drifting pattern is Re[image * exp(i phase - i w t)] from frame 0 on, grey before. Space and time separate, so linear
stages need one complex number per neuron, and pooled squares need a few; the circuit's own equations do the rest.
"""

from dataclasses import dataclass

import torch

from viv1t.constants import FPS
from viv1t.simulate.circuit import Circuit


@dataclass(frozen=True)
class Projection:
    """What the fields of K neurons take from one complex image each.

    even, odd (K,): the quadrature pair. near and the three of ring (xx, yy, xy): pooled products of slopes p, q as
    (p conj(q), p q), each (K,) complex.
    """

    even: torch.Tensor
    odd: torch.Tensor
    near: tuple[torch.Tensor, torch.Tensor]
    ring: list[tuple[torch.Tensor, torch.Tensor]]

    def scaled(self, contrast: float) -> "Projection":
        """The projection of the same image at another contrast."""
        near, *ring = (tuple(x * contrast**2 for x in pair) for pair in (self.near, *self.ring))
        return Projection(self.even * contrast, self.odd * contrast, near, ring)


def project(circuit: Circuit, images: torch.Tensor, rows) -> Projection:
    """Images (K, H, W) complex contrast, image k for neuron rows[k]."""
    near, ring = circuit.pooled_products(images, rows)
    even, odd = ((images.flatten(1) * field[rows]).sum(1) for field in (circuit.even, circuit.odd))
    return Projection(even, odd, near, ring)


def drive(circuit: Circuit, seen: Projection, hertz, rows, frames: int, phases: int) -> torch.Tensor:
    """Drive (phases, K, T) of neuron rows[k] to its own pattern at hertz[k]; phases equally spaced over the cycle."""
    turn = torch.exp(2j * torch.pi * torch.arange(phases) / phases)[:, None, None]
    angle = 2 * torch.pi * torch.tensor(hertz, dtype=torch.float64)[:, None] * torch.arange(frames)
    wave = torch.exp(-1j * (angle / FPS)).to(torch.complex64)  # (K, T)
    even, odd = (torch.real(amplitude[:, None] * wave * turn) for amplitude in (seen.even, seen.odd))
    power, square = 0.0, 0.0
    for kernel in circuit.pool_pair:  # the pool's temporal filters turn the carrier into these
        carrier = _causal(wave, kernel)
        power, square = power + abs(carrier) ** 2, square + carrier**2 * turn**2
    near, *ring = (  # Re[p] Re[q] = (Re[p conj(q)] + Re[p q]) / 2
        (steady[:, None] * power + torch.real(beating[:, None] * square)) / 2
        for steady, beating in (seen.near, *seen.ring)
    )
    return circuit.combine(circuit.energy(even, odd, rows), near, ring, rows)


def _causal(wave: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Causal convolution of complex (K, T) with (taps,)."""
    out = torch.zeros_like(wave)
    for lag, weight in enumerate(kernel[: wave.shape[1]]):
        out[:, lag:] += weight * wave[:, : wave.shape[1] - lag]
    return out
