"""Starting values of a model that come from the recordings."""

import numpy as np
import torch
from tqdm import tqdm

from viv1t.constants import TRIAL_FRAMES
from viv1t.data.loader import MouseData
from viv1t.data.transforms import Transforms
from viv1t.estimators.retinotopy import ContrastMaps, fit_positions
from viv1t.model import Model

TRIALS = 120  # of the training tier, evenly spaced: enough for a start, seconds per mouse
WARM_UP = 20  # frames at the start of a trial whose feature maps lack a past
RIDGE = 0.01  # of the mean feature variance
LEAST_SLOPE = 0.05  # of an output activation, so that almost silent neurons do not get huge weights


def start_readouts(
    model: Model, mice: dict[str, MouseData], transforms: dict[str, Transforms], trained_core: bool = False
) -> None:
    """Positions and features of new readouts, as far as the configuration takes them from the data.

    trained_core: the core was trained before, so that readouts start from what it gives, not from its first maps.
    Readouts that read no positions (`local` is False) have nothing to be started with.
    """
    readout = model.config.readout_config
    if not readout.local:
        return
    if readout.positions == "contrast":
        set_readout_positions(model, mice)
    if readout.features == "ridge":
        set_readout_features(model, mice, transforms, trained_core)


def set_readout_positions(model: Model, mice: dict[str, MouseData]) -> None:
    """Put every neuron's readout where its responses follow the moving contrast of the training movies."""
    for mouse_id, data in tqdm(mice.items(), desc="readout positions", unit="mouse", leave=False, disable=None):
        model.readouts[mouse_id].set_positions(estimate_positions(data))


def estimate_positions(data: MouseData) -> np.ndarray:
    """(N, 2) positions (x, y) in [-1, 1] of the frame."""
    maps = None
    for trial in spread_out(data.train_ids):
        batch = data.batch(trial, frames=TRIAL_FRAMES)
        video = batch.video[0, 0].numpy()
        maps = maps or ContrastMaps(data.num_neurons, *video.shape[1:])
        maps.update(video, batch.responses[0].numpy())
    return fit_positions(maps.value(), data.mouse.coordinates)


@torch.no_grad()
def set_readout_features(
    model: Model, mice: dict[str, MouseData], transforms: dict[str, Transforms], trained_core: bool = False
) -> None:
    """Start feature weights and biases as the ridge regression of responses on the core's feature maps.

    Those of a core that is not yet trained are taken before its residual blocks (`core.first_maps`), which start close
    to the identity. Small deviations of an output a(b + u) from a(b) are a'(b) u, so features regress response /
    a'(b). One pass over some training trials; N x D x D memory per mouse.
    """
    device = next(model.parameters()).device
    model.eval()
    for mouse_id, data in tqdm(mice.items(), desc="readout features", unit="mouse", leave=False, disable=None):
        t, readout = transforms[mouse_id], model.readouts[mouse_id]
        moments = Moments(readout.num_neurons, model.core.dim, device)
        for trial in spread_out(data.train_ids):
            batch = data.batch(trial, frames=TRIAL_FRAMES).to(device)
            inputs = t.video(batch.video), t.behavior(batch.behavior), t.pupil_center(batch.pupil_center)
            z = model.core(*inputs) if trained_core else model.core.first_maps(*inputs)
            sampled = readout.sample(z)[WARM_UP:]  # (T, N, D)
            moments.update(sampled, t.responses(batch.responses)[0, :, -len(sampled) :])
        bias = torch.zeros(readout.num_neurons, device=device) if readout.bias is None else readout.bias
        readout.features[0] = (moments.ridge(RIDGE) / slope(model.output_activation[mouse_id], bias)[:, None]).t()
        if readout.bias is not None:
            readout.bias -= (readout.features[0] * moments.mean_features.t()).sum(dim=0)
    model.train()


@torch.enable_grad()
def slope(activation: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Derivative of an output activation at x, not below LEAST_SLOPE."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(activation(x).sum(), x)[0].clamp_min(LEAST_SLOPE)


class Moments:
    """Running second moments of features (T, N, D) and responses (N, T), neuron by neuron."""

    def __init__(self, num_neurons: int, dim: int, device: torch.device):
        self.count = 0
        self.x = torch.zeros(num_neurons, dim, device=device)
        self.y = torch.zeros(num_neurons, device=device)
        self.xx = torch.zeros(num_neurons, dim, dim, device=device)
        self.xy = torch.zeros(num_neurons, dim, device=device)

    def update(self, features: torch.Tensor, responses: torch.Tensor) -> None:
        x = features.transpose(0, 1)  # (N, T, D)
        self.count += x.shape[1]
        self.x += x.sum(dim=1)
        self.y += responses.sum(dim=1)
        self.xx += x.transpose(1, 2) @ x
        self.xy += torch.einsum("ntd,nt->nd", x, responses)

    @property
    def mean_features(self) -> torch.Tensor:
        return self.x / self.count

    @property
    def mean_response(self) -> torch.Tensor:
        return self.y / self.count

    def ridge(self, penalty: float) -> torch.Tensor:
        """Weights (N, D) of centred features for centred responses; penalty relative to the mean feature variance."""
        x, y = self.mean_features, self.mean_response
        covariance = self.xx / self.count - x[:, :, None] * x[:, None]
        scale = covariance.diagonal(dim1=1, dim2=2).mean(dim=1)
        covariance += (penalty * scale)[:, None, None] * torch.eye(x.shape[1], device=x.device)
        return torch.linalg.solve(covariance, self.xy / self.count - x * y[:, None])


def spread_out(trials: np.ndarray) -> np.ndarray:
    return trials[:: max(len(trials) // TRIALS, 1)][:TRIALS]
