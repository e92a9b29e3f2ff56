"""The map from cortex to visual field, with outliers, missing centres and known scatter."""

import numpy as np
import pytest

from viv1t.estimators.cortical_map import fit_cortical_map
from viv1t.geometry import SENSORIUM
from viv1t.simulate.population import RETINOTOPY, SCATTER, draw_population

JACOBIAN = np.array([[-52.0, 12.0], [10.0, 40.0]])  # deg / mm
INTERCEPT = np.array([4.0, -3.0])


@pytest.fixture
def mouse():
    """600 neurons: centres (N, 2) in degrees with a scatter of 3 deg, coordinates (N, 3) in um."""
    rng = np.random.default_rng(0)
    cortex = np.column_stack([rng.uniform(1000, 1600, (600, 2)), rng.choice((200, 225, 250), 600)])
    centres = INTERCEPT + (cortex[:, :2] / 1000) @ JACOBIAN.T + rng.normal(0, 3, (600, 2))
    return centres, cortex


def close(found: np.ndarray, truth: np.ndarray) -> bool:
    return bool((abs(found - truth) < np.maximum(0.1 * abs(truth), 2)).all())


def test_jacobian_scatter_and_prediction(mouse):
    found = fit_cortical_map(*mouse)
    assert close(found.jacobian, JACOBIAN)
    assert found.scatter_deg == pytest.approx([3, 3], abs=0.3)
    assert found.scatter == pytest.approx(np.sqrt(18), abs=0.4)
    assert found.inliers.mean() > 0.99
    signal = np.var(mouse[0], axis=0)
    assert found.r2 == pytest.approx(1 - 9 / signal, abs=0.05)
    places = np.array([[1100.0, 1500.0], [1300.0, 1300.0]])
    assert found.predict(places) == pytest.approx(INTERCEPT + places / 1000 @ JACOBIAN.T, abs=1)


def test_a_tenth_of_wild_centres_changes_little(mouse):
    centres, cortex = mouse
    wild = np.random.default_rng(1).permutation(600)[:60]
    centres[wild] = np.random.default_rng(2).uniform(-60, 60, (60, 2))
    found = fit_cortical_map(centres, cortex)
    assert close(found.jacobian, JACOBIAN)
    assert found.scatter_deg == pytest.approx([3, 3], abs=0.5)
    assert found.inliers[wild].mean() < 0.25 and np.delete(found.inliers, wild).mean() > 0.98


def test_weights_and_missing_centres(mouse):
    centres, cortex = mouse
    whole = fit_cortical_map(centres[:300], cortex[:300])
    spoiled = centres.copy()
    spoiled[300:450], spoiled[450:] = np.nan, 30.0
    weights = np.repeat([1.0, 0.0], [450, 150])
    found = fit_cortical_map(spoiled, cortex, weights)
    assert found.jacobian == pytest.approx(whole.jacobian, abs=1e-6)
    assert not found.inliers[300:].any()


def test_the_population_of_the_animal(mouse):
    neurons = draw_population(1000, SENSORIUM, 5)
    found = fit_cortical_map(
        neurons[["azimuth_deg", "elevation_deg"]].to_numpy(), neurons[["x_um", "y_um"]].to_numpy()
    )
    turned = found.jacobian @ np.linalg.inv(RETINOTOPY)  # the animal turns its map by a few degrees
    assert abs(np.linalg.det(turned) - 1) < 0.1 and abs(turned @ turned.T - np.eye(2)).max() < 0.1
    assert found.scatter_deg == pytest.approx([SCATTER, SCATTER], abs=0.5)


def test_rotating_the_cortex_rotates_the_jacobian(mouse):
    centres, cortex = mouse
    angle = np.radians(30)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = fit_cortical_map(centres, cortex[:, :2] @ rotation.T)
    assert turned.jacobian @ rotation == pytest.approx(fit_cortical_map(centres, cortex).jacobian, abs=0.05)


def test_too_few_neurons_have_no_map(mouse):
    found = fit_cortical_map(mouse[0][:4], mouse[1][:4])
    assert np.isnan(found.jacobian).all() and np.isnan(found.scatter) and not found.inliers.any()
