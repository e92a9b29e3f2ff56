"""Degrees and pixels agree with the published rigs and with each other."""

import numpy as np
import pytest

from viv1t.geometry import ROCHEFORT, SENSORIUM, Monitor, drift_axis


@pytest.mark.parametrize(("monitor", "degrees"), [(SENSORIUM, 3.371), (ROCHEFORT, 2.283)])
def test_size_of_a_pixel_at_the_centre_of_the_published_rigs(monitor, degrees):
    assert monitor.degrees_per_pixel == pytest.approx(degrees, abs=1e-3)


@pytest.mark.parametrize("monitor", [SENSORIUM, ROCHEFORT, Monitor(40, 30, 20, width=80, height=60)])
def test_pixels_and_degrees_are_inverse(monitor):
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, [monitor.width - 1, monitor.height - 1], (50, 2))
    assert np.allclose(monitor.to_pixels(monitor.to_degrees(xy)), xy)


def test_right_is_positive_azimuth_and_up_is_positive_elevation():
    azimuth, elevation = SENSORIUM.to_degrees(np.array([63.0, 0.0]))
    assert azimuth > 0 and elevation > 0
    assert np.allclose(SENSORIUM.to_degrees(np.array(SENSORIUM.centre)), 0)


def test_lines_of_sight_point_where_degrees_say():
    sight = SENSORIUM.lines_of_sight(np.array([50.0, 5.0]))
    assert np.linalg.norm(sight) == pytest.approx(1)
    azimuth, elevation = SENSORIUM.to_degrees(np.array([50.0, 5.0]))
    right, up, forward = sight
    assert np.degrees(np.arctan2(right, forward)) == pytest.approx(azimuth)
    assert np.degrees(np.arcsin(up)) == pytest.approx(elevation)


def test_points_lie_evenly_within_their_pixel():
    points = SENSORIUM.points(4)
    assert points.shape == (36, 64, 16, 2)
    assert np.allclose(points.mean(axis=2), SENSORIUM.points()[:, :, 0])
    assert np.array_equal(SENSORIUM.points()[7, 50, 0], (50, 7))
    assert np.ptp(points[7, 50], axis=0) == pytest.approx(0.75)


@pytest.mark.parametrize(("monitor", "edge"), [(SENSORIUM, 0.760), (ROCHEFORT, 0.887)])
def test_pixels_shrink_towards_the_edge_of_the_published_rigs(monitor, edge):
    middle, left = monitor.degrees_per_pixel_at([monitor.centre, (0, monitor.centre[1])])
    assert middle[0] == pytest.approx(monitor.degrees_per_pixel)
    assert left[0] == pytest.approx(edge, abs=1e-3)
    assert edge < left[1] < middle[1]  # seen from the side, a pixel narrows more than it flattens


def test_pixels_of_a_row_add_up_to_the_field_of_view():
    middle = SENSORIUM.centre[1]
    spans = SENSORIUM.degrees_per_pixel_at(np.stack([np.arange(64), np.full(64, middle)], axis=-1))
    assert spans[:, 0].sum() == pytest.approx(124.1, abs=0.1)
    spans = SENSORIUM.degrees_per_pixel_at(np.stack([np.full(36, SENSORIUM.centre[0]), np.arange(36)], axis=-1))
    assert spans[:, 1].sum() == pytest.approx(93.3, abs=0.1)


def test_eccentricity_is_the_angle_between_lines_of_sight():
    centre = (45.2, 7.9)
    sight = SENSORIUM.lines_of_sight(SENSORIUM.points()[:, :, 0]) @ SENSORIUM.lines_of_sight(centre)
    assert np.allclose(SENSORIUM.eccentricity(centre), np.degrees(np.arccos(sight)))
    assert SENSORIUM.eccentricity((45, 8))[8, 45] == pytest.approx(0, abs=1e-9)


def test_local_coordinates_are_degrees_to_the_right_and_upward():
    right, up = (x[0, :, :, 0] for x in SENSORIUM.local_coordinates(SENSORIUM.to_degrees(np.array([[45.0, 8.0]]))))
    assert np.allclose(np.hypot(right, up), SENSORIUM.eccentricity((45, 8)))
    assert right[8, 46] > 0 > right[8, 44] and up[7, 45] > 0 > up[9, 45]
    across = np.hypot(right[8, 46] - right[8, 44], up[8, 46] - up[8, 44]) / 2
    along = np.hypot(right[7, 45] - right[9, 45], up[7, 45] - up[9, 45]) / 2
    assert np.allclose((across, along), SENSORIUM.degrees_per_pixel_at((45, 8)), rtol=0.01)


def test_solid_angles_of_the_pixels_fill_the_screen():
    """A rectangle of half-angles a and b, seen from its axis, fills 4 arcsin(sin a sin b)."""
    pixel = SENSORIUM.pitch[0] * SENSORIUM.pitch[1] / SENSORIUM.distance_cm**2
    a, b = np.arctan(56.5 / 2 / 15), np.arctan(31.8 / 2 / 15)
    assert (SENSORIUM.solid_angle() * pixel).sum() == pytest.approx(4 * np.arcsin(np.sin(a) * np.sin(b)), rel=1e-3)


def test_a_disc_around_the_centre_has_its_radius_in_pixels():
    sizes = {10: 1.49, 20: 3.00, 30: 4.55, 60: 9.81, 90: 16.99}
    assert SENSORIUM.radius_px(np.array(list(sizes))) == pytest.approx(np.array(list(sizes.values())), abs=0.006)
    edge = np.array(SENSORIUM.centre) + (SENSORIUM.radius_px(40), 0)
    assert SENSORIUM.to_degrees(edge)[0] == pytest.approx(20)


@pytest.mark.parametrize(("direction", "vector"), [(0, (-1, 0)), (90, (0, -1)), (180, (1, 0)), (270, (0, 1))])
def test_directions_of_motion(direction, vector):
    assert drift_axis(direction) == pytest.approx(vector, abs=1e-12)
