"""Degrees and pixels agree with the published rigs and with each other."""

import numpy as np
import pytest

from viv1t.geometry import ROCHEFORT, SENSORIUM, Monitor


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
    sight = SENSORIUM.lines_of_sight()
    assert np.allclose(np.linalg.norm(sight, axis=-1), 1)
    azimuth, elevation = SENSORIUM.to_degrees(np.array([50.0, 5.0]))
    right, up, forward = sight[5, 50]
    assert np.degrees(np.arctan2(right, forward)) == pytest.approx(azimuth)
    assert np.degrees(np.arcsin(up)) == pytest.approx(elevation)
