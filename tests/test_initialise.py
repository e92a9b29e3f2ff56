"""Readouts that start from the data start in the right place."""

import numpy as np
import pytest
import torch

from viv1t.estimators.retinotopy import LAGS, ContrastMaps, fit_positions, moving_contrast
from viv1t.model.activation import ELU1
from viv1t.model.gabors import start_as_gabors
from viv1t.training.initialise import LEAST_SLOPE, Moments, slope


def moving_video(rng, frames=300):
    """Coarse noise that changes everywhere and always."""
    coarse = rng.normal(size=(frames, 9, 16)).repeat(4, axis=1).repeat(4, axis=2)
    return (127 + 40 * coarse).clip(0, 255)


def test_contrast_counts_the_present_and_the_past_only():
    video = np.full((60, 36, 64), 127.0)
    video[30:, 16:20, 30:34] = 255
    contrast = moving_contrast(video)
    assert contrast[:30].max() == 0 and contrast[30].max() > 1
    assert np.unravel_index(contrast[30].argmax(), contrast[30].shape) == (8, 15)


def test_positions_recover_a_map_with_scatter():
    rng = np.random.default_rng(0)
    N = 80
    coordinates = rng.uniform(0, 600, (N, 3))
    expected = np.column_stack([10 + coordinates[:, 0] / 600 * 40, 8 + coordinates[:, 1] / 600 * 20])
    centre = expected + rng.normal(0, 1.0, (N, 2))
    maps = ContrastMaps(N, 36, 64)
    y, x = np.mgrid[1:36:2, 1:64:2]
    fields = np.exp(-((x - centre[:, :1, None]) ** 2 + (y - centre[:, 1:, None]) ** 2) / (2 * 3.0**2))
    for _ in range(6):
        video = moving_video(rng)
        drive = np.einsum("nyx,tyx->nt", fields, moving_contrast(video))
        drive = (drive - drive.mean(1, keepdims=True)) / drive.std(1, keepdims=True)
        maps.update(video, rng.poisson(np.exp(0.5 * np.roll(drive, 3, axis=1))).astype(np.float32))
    found = (fit_positions(maps.value(), coordinates) + 1) / 2 * [63, 35]
    error = np.hypot(*(found - centre).T)
    assert np.median(error) < 1.5 and np.quantile(error, 0.9) < 3.5


def test_silent_neurons_follow_the_map():
    rng = np.random.default_rng(1)
    coordinates = rng.uniform(0, 600, (20, 2))
    maps = rng.normal(0, 0.05, (20, 18, 32))
    maps[:2] = 0
    places = (coordinates / 600 * [20, 10] + 4).round().astype(int)
    for n in range(2, 20):  # the first two never respond
        maps[n, places[n, 1], places[n, 0]] = 1.0
    found = (fit_positions(maps, coordinates) + 1) / 2 * [31, 17]
    assert np.hypot(*(found - places).T).max() < 3


def test_ridge_recovers_a_linear_neuron():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 5, generator=generator)
    moments = Moments(3, 5, torch.device("cpu"))
    for _ in range(4):
        features = torch.randn(200, 3, 5, generator=generator) + 2
        responses = torch.einsum("tnd,nd->nt", features, weights) + 1
        moments.update(features, responses)
    assert torch.allclose(moments.ridge(1e-6), weights, atol=1e-3)


def test_gabor_pairs_are_in_quadrature_and_look_back_in_time():
    torch.manual_seed(0)
    linear = torch.nn.Linear(16 * 10 * 10, 24)
    start_as_gabors(linear, channels=1, frames=16, size=10)
    weight = linear.weight.detach().view(12, 2, 16, 100)
    first, second = weight[3:, 0].flatten(1), weight[3:, 1].flatten(1)  # the first pairs have no carrier
    overlap = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    assert overlap.abs().median() < 0.15
    assert weight[:, :, -1].abs().max() == 0, "no response to a frame before its latency"
    assert weight.abs().sum(dim=(0, 1, 3)).argmax().item() == pytest.approx(16 - 1 - 3, abs=2)


def test_a_response_is_paired_with_the_contrast_of_frames_up_to_its_own():
    video = np.full((60, 36, 64), 127.0)
    video[40, 16:20, 30:34] = 255  # a flash on one frame
    responses = np.zeros((2, 60))
    responses[0, 40 + LAGS - 1] = 1  # within reach after the flash
    responses[1, 39] = 1  # before it
    maps = ContrastMaps(2, 36, 64)
    maps.update(video, responses)
    assert maps.value()[0].max() > 0.1
    assert maps.value()[1].max() < 0.02


def test_the_slope_of_an_output_at_its_mean_rate():
    bias = torch.tensor([-1.5, 0.3, -9.0])
    expected = [np.exp(-1.5), 1.0, LEAST_SLOPE]
    assert slope(ELU1(), bias).tolist() == pytest.approx(expected, rel=1e-5)
