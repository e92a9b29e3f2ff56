"""Flashed dots: ON and OFF maps, latency, preferred places, and the spatial selectivity index."""

import numpy as np
import pytest

from viv1t.estimators import receptive_field, spatial_tuning

COLUMNS, ROWS, LENGTH = np.linspace(9, 54, 15), np.linspace(8, 27.5, 7), 9
H, W = 36, 64


@pytest.fixture(scope="module")
def dots():
    """All 210 dots in random order: x, y in pixels, is_black."""
    grid = np.stack(np.meshgrid(COLUMNS, ROWS, [0, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[np.random.default_rng(0).permutation(len(grid))].T


@pytest.fixture(scope="module")
def neurons(dots):
    """Centres (N, 2), polarity (N,) and latency (N,) of 30 neurons, and their responses (N, T) to the dots."""
    rng = np.random.default_rng(1)
    centre = np.column_stack([rng.uniform(15, 48, 30), rng.uniform(11, 24, 30)])
    black, latency = rng.integers(0, 2, 30), rng.integers(1, 7, 30)
    x, y, is_black = dots
    drive = np.exp(-((x - centre[:, :1]) ** 2 + (y - centre[:, 1:]) ** 2) / (2 * 4.0**2))
    drive = drive * np.where(is_black == black[:, None], 1.0, 0.2)  # (N, 210)
    trace = np.concatenate([np.repeat(drive, LENGTH, axis=1), np.zeros((30, 10))], axis=1)
    delayed = np.stack([np.roll(row, lag) for row, lag in zip(trace, latency, strict=True)])
    return centre, black, latency, 0.3 + delayed + rng.normal(0, 0.02, delayed.shape)


@pytest.fixture(scope="module")
def maps(dots, neurons):
    blocks = spatial_tuning.block_means(neurons[3], np.arange(210) * LENGTH, LENGTH)
    return spatial_tuning.dot_maps(blocks, *dots)


def test_blocks_are_means_and_must_fit():
    responses = np.arange(20.0)[None]
    blocks = spatial_tuning.block_means(responses, [0, 5, 12], 4, latencies=(0, 2, 6))
    assert blocks.shape == (3, 1, 3)
    assert blocks[1, 0] == pytest.approx([3.5, 8.5, 15.5])
    assert np.isnan(blocks[2, 0, 2]) and np.isfinite(blocks[2, 0, :2]).all()


def test_maps_show_place_polarity_and_latency(maps, neurons):
    centre, black, latency, _ = neurons
    assert maps.on.shape == maps.off.shape == (30, 7, 15)
    assert np.array_equal(np.array(spatial_tuning.LATENCIES)[maps.latency], latency)
    assert np.array_equal(maps.prefers_on, black == 0)
    assert np.hypot(maps.x - centre[:, 0], maps.y - centre[:, 1]).max() < 3.25


def test_a_fit_finds_the_centre_between_places(maps, neurons):
    best = np.where(maps.prefers_on[:, None, None], maps.on, maps.off)
    found = receptive_field.fit_gaussians(best, maps.columns_px, maps.rows_px)
    error = np.hypot(found["x"] - neurons[0][:, 0], found["y"] - neurons[0][:, 1])
    assert error.max() < 0.5
    assert found["sigma_minor"].median() == pytest.approx(4, rel=0.1)


def test_missing_presentations_leave_holes_and_silent_neurons_no_place(dots, neurons):
    blocks = spatial_tuning.block_means(neurons[3], np.arange(210) * LENGTH, LENGTH)
    blocks[:, :, 17] = np.nan
    blocks[:, 3] = 1.0
    maps = spatial_tuning.dot_maps(blocks, *dots)
    assert np.isnan(np.stack([maps.on, maps.off])[:, 0]).sum() == 1
    assert np.isnan(maps.x[3]) and np.isnan(maps.y[3]) and np.isfinite(maps.x[4])


def gaussian(sigma: float, cx: float = 31.5, cy: float = 17.5) -> np.ndarray:
    y, x = np.mgrid[0:H, 0:W]
    return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))


def closed_form(sigma: float) -> float:
    return -2 * np.log(sigma / 63) - 2 * np.log(sigma / 35)


def test_index_of_a_gaussian_in_closed_form():
    sigmas = (1.0, 1.5, 2.0, 3.0)
    index = spatial_tuning.spatial_selectivity(np.stack([gaussian(s) for s in sigmas]), threshold_sd=None)
    assert index == pytest.approx([closed_form(s) for s in sigmas], abs=1e-6)
    assert closed_form(2.0) == pytest.approx(12.6, abs=0.1)  # the published code gives 8.2: its grid is transposed


def test_index_does_not_depend_on_place_scale_or_sign():
    maps = np.stack([gaussian(2), 7 * gaussian(2), gaussian(2, 20.5, 12.5), 3 - gaussian(2)])
    assert np.ptp(spatial_tuning.spatial_selectivity(maps)) < 1e-6


def test_threshold_survives_noise_that_makes_the_signed_index_undefined():
    rng = np.random.default_rng(2)
    noisy = gaussian(2.5) + rng.normal(0, 0.05, (20, H, W))
    robust = spatial_tuning.spatial_selectivity(noisy)
    broad, narrow = (spatial_tuning.spatial_selectivity(gaussian(s) + rng.normal(0, 0.01, (20, H, W))) for s in (5, 2))
    assert np.isfinite(robust).all() and (narrow > broad).all()
    signed = spatial_tuning.spatial_selectivity(noisy - noisy.mean(axis=(1, 2), keepdims=True), threshold_sd=None)
    assert not np.isfinite(signed).all()


def test_nothing_has_no_index():
    maps = np.zeros((3, H, W))
    maps[1, 4, 4] = 1
    maps[2] = np.nan
    assert np.isnan(spatial_tuning.spatial_selectivity(maps)).all()


def test_weighted_average_of_frames():
    rng = np.random.default_rng(3)
    frames, responses = rng.normal(size=(200, 4, 6)), np.vstack([rng.random(200), np.zeros(200)])
    average = spatial_tuning.response_weighted_average(responses, frames)
    assert average[0] == pytest.approx(np.average(frames, axis=0, weights=responses[0]))
    assert np.isnan(average[1]).all()


def test_index_of_dots_recovers_the_width_of_the_field(dots, neurons):
    """The average of the dots shown, weighted by response, is as wide as field and dot together."""
    x, y, is_black = dots
    grid_y, grid_x = np.mgrid[0:H, 0:W]
    frames = np.exp(-((grid_x - x[:, None, None]) ** 2 + (grid_y - y[:, None, None]) ** 2) / (2 * 2.4**2))
    centre = neurons[0][:, :, None]
    drive = np.exp(-((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2) / (2 * 2.0**2)) * is_black
    average = spatial_tuning.response_weighted_average(drive, frames)
    index = spatial_tuning.spatial_selectivity(average, threshold_sd=None)
    assert np.median(abs(index - closed_form(np.hypot(2.0, 2.4)))) < 0.3
