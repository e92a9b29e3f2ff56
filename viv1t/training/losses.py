"""Loss functions between responses and predictions, by the names of the published command line.

Each term takes target y and prediction y_pred, both (B, N, T), and returns a scalar. `summed` terms add up over
trials; `averaged` terms do not, so when a batch is split they enter with the share of the batch they were computed on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from viv1t.constants import EPSILON


def poisson(y: Tensor, y_pred: Tensor) -> Tensor:
    """Negative Poisson log-likelihood of y at rate y_pred, without the term that depends on y alone."""
    y, y_pred = y + EPSILON, y_pred + EPSILON
    return (y_pred - y * torch.log(y_pred)).sum()


def gamma(y: Tensor, y_pred: Tensor) -> Tensor:
    """Negative log-likelihood of an exponential distribution with mean y_pred (a gamma of shape 1)."""
    y, y_pred = y + EPSILON, y_pred + EPSILON
    return (y / y_pred + torch.log(y_pred)).sum()


def mean_squared_error(y: Tensor, y_pred: Tensor) -> Tensor:
    return (y - y_pred).square().mean()


def log_mean_squared_error(y: Tensor, y_pred: Tensor) -> Tensor:
    return (torch.log(y + EPSILON) - torch.log(y_pred + EPSILON)).square().mean()


def neuron_correlation(y: Tensor, y_pred: Tensor) -> Tensor:
    """Pearson correlation over trials and frames, (B, N, T) twice -> (N,); constant traces give 0."""
    y, y_pred = (a - a.mean(dim=(0, 2), keepdim=True) for a in (y, y_pred))
    deviation = (_deviation(y) + EPSILON) * (_deviation(y_pred) + EPSILON)
    return (y * y_pred).mean(dim=(0, 2)) / deviation


def _deviation(centred: Tensor) -> Tensor:
    """Standard deviation (N,), with gradient 0 instead of NaN for a constant trace."""
    variance = centred.square().mean(dim=(0, 2))
    constant = variance == 0
    return torch.where(constant, 0.0, torch.where(constant, 1.0, variance).sqrt())


def correlation(y: Tensor, y_pred: Tensor) -> Tensor:
    return -(neuron_correlation(y, y_pred) + 1).sum()


def decorrelation(y: Tensor, y_pred: Tensor) -> Tensor:
    """1000 for every neuron without correlation, 0 for every perfect one."""
    return 1000 * (1 - neuron_correlation(y, y_pred)).sum()


@dataclass(frozen=True)
class Criterion:
    """Loss of one mouse's batch, or of a `share` of it."""

    summed: Callable[[Tensor, Tensor], Tensor] | None = None
    averaged: Callable[[Tensor, Tensor], Tensor] | None = None
    needs_positive: bool = True  # takes the logarithm of predictions

    def __call__(self, y: Tensor, y_pred: Tensor, share: float = 1.0) -> Tensor:
        if y.shape != y_pred.shape:
            raise ValueError(f"target {tuple(y.shape)} and prediction {tuple(y_pred.shape)} differ in shape")
        loss = y_pred.new_zeros(())
        if self.summed is not None:
            loss = loss + self.summed(y, y_pred)
        if self.averaged is not None:
            loss = loss + share * self.averaged(y, y_pred)
        return loss


CRITERIONS = {
    "poisson": Criterion(summed=poisson),
    "mse": Criterion(averaged=mean_squared_error, needs_positive=False),
    "logMSE": Criterion(averaged=log_mean_squared_error),
    "correlation": Criterion(averaged=correlation, needs_positive=False),
    "gamma": Criterion(summed=gamma),
    "poisson_correlation": Criterion(summed=poisson, averaged=decorrelation),
}


def mouse_weights(train_sizes: dict[str, int]) -> dict[str, float]:
    """Weight of each mouse's loss: mean number of training trials over its own, so that every mouse counts alike."""
    mean = sum(train_sizes.values()) / len(train_sizes)
    return {mouse_id: mean / size for mouse_id, size in train_sizes.items()}
