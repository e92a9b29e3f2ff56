"""Patterns are what they say: direction, speed, frequency, size and contrast, measured on the frames."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from viv1t.constants import FPS, GREY
from viv1t.geometry import ROCHEFORT, SENSORIUM, Monitor
from viv1t.stimulus import dots, natural, noise
from viv1t.stimulus.gratings import gabor, grating
from viv1t.stimulus.levels import contrast_of, grey_levels
from viv1t.stimulus.windows import annulus, centre_surround, classical, disc, inverse

DIRECTIONS = range(0, 360, 45)
GEOMETRIES = ("flat", "spherical")
RIGHT = 180  # the direction of motion


def peak(video: np.ndarray) -> tuple[int, int, int]:
    """Bin (t, y, x) of the strongest frequency of a video on 64 x 64 pixels, in the half of motion, t < 0."""
    power = abs(np.fft.fftn(video, (len(video), 64, 64), axes=(0, 1, 2)))
    power[: len(video) // 2 + 1] = 0
    bins = np.unravel_index(power.argmax(), power.shape)
    return tuple(int(i) - n if i > n // 2 else int(i) for i, n in zip(bins, power.shape, strict=True))


class TestGratings:
    @pytest.mark.parametrize("direction", DIRECTIONS)
    @pytest.mark.parametrize("geometry", GEOMETRIES)
    @pytest.mark.parametrize("monitor", [SENSORIUM, ROCHEFORT])
    def test_drift_and_speed_are_those_of_the_spectrum(self, monitor, geometry, direction):
        """At 2 Hz, 30 frames are 2 cycles; 8.4 cycles on 64 pixels are 6 along each diagonal."""
        cpd = 8.4 / 64 / monitor.degrees_per_pixel
        small = gabor(monitor, direction, cpd, 2, FPS, 8, geometry=geometry)
        full = grating(monitor, direction, cpd, 2, FPS, geometry="flat")
        x, y = -8.4 * np.cos(np.radians(direction)), 8.4 * np.sin(np.radians(direction))  # 0 left, 90 down
        assert peak(small) == peak(full) == (-2, round(y), round(x))

    def test_frequency_is_per_degree_wherever_the_centre_is(self):
        """Along the horizon of the eye, the angle from the centre is the difference in azimuth."""
        monitor = Monitor(56.5, 31.8, 15, width=65, height=37)  # with a row at elevation 0
        centre = 50, 18
        row = grating(monitor, RIGHT, 0.04, 0, 1, centre=centre)[0, 18]
        azimuth = monitor.to_degrees(np.stack([np.arange(65), np.full(65, 18)], -1))[:, 0]
        assert np.allclose(row, np.cos(2 * np.pi * 0.04 * (azimuth - azimuth[50])), atol=1e-6)

    @pytest.mark.parametrize("monitor, pixels", [(SENSORIUM, 7.42), (ROCHEFORT, 10.95)])
    def test_a_frequency_per_degree_is_another_per_pixel_on_another_screen(self, monitor, pixels):
        wide = dataclasses.replace(monitor, width=6400, width_cm=monitor.width_cm * 100)
        spectrum = abs(np.fft.rfft(grating(wide, RIGHT, 0.04, 0, 1, geometry="flat")[0, 0]))
        assert 6400 / spectrum.argmax() == pytest.approx(pixels, abs=0.02)

    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_mirrors_and_reversed_time(self, direction):
        video = grating(SENSORIUM, direction, 0.05, 3, 20, phase_deg=40)
        mirrored = grating(SENSORIUM, 180 - direction, 0.05, 3, 20, phase_deg=40)
        assert np.allclose(video[:, :, ::-1], mirrored, atol=1e-5)
        back = grating(SENSORIUM, direction + 180, 0.05, 3, 20, phase_deg=-40 - 360 * 3 * 19 / FPS)
        assert np.allclose(video[::-1], back, atol=1e-5)

    @pytest.mark.parametrize("tf_hz, period", [(2, 15), (1.7, 300), (2 / 3, 45), (0, 1)])
    def test_frames_a_cycle_apart_are_equal_to_the_last_bit(self, tf_hz, period):
        """Whoever shows a video may share the work on equal frames."""
        video = grating(SENSORIUM, 30, 0.04, tf_hz, 601, phase_deg=77)
        assert np.array_equal(video[period:], video[:-period])
        assert not any(np.array_equal(video[0], video[t]) for t in range(1, period))

    def test_phase_is_the_way_already_gone(self):
        later = grating(SENSORIUM, 30, 0.04, 2, 10)[5]
        assert np.allclose(grating(SENSORIUM, 30, 0.04, 2, 1, phase_deg=360 * 2 * 5 / FPS)[0], later, atol=1e-6)

    def test_contrast(self):
        grey = grating(SENSORIUM, 30, 0.04, 2, 15, contrast=0)
        assert (grey_levels(grey) == GREY).all()
        faint = grey_levels(grating(SENSORIUM, 90, 0.04, 2, 15, contrast=0.05, geometry="flat"))
        assert (faint.min(), faint.max()) == (121, 133)

    @pytest.mark.parametrize("geometry", GEOMETRIES)
    @pytest.mark.parametrize("direction", DIRECTIONS)
    def test_mean_luminance_is_the_background(self, direction, geometry):
        shown = grey_levels(grating(SENSORIUM, direction, 0.04, 2, 15, geometry=geometry))
        assert shown.mean() == pytest.approx(GREY, abs=0.1)

    def test_a_gabor_is_a_grating_under_a_window(self):
        window = np.exp(-(SENSORIUM.eccentricity((40, 12)) ** 2) / (2 * 15**2))
        full = grating(SENSORIUM, 60, 0.05, 2, 9, 30, 0.5, (40, 12))
        assert np.allclose(gabor(SENSORIUM, 60, 0.05, 2, 9, 15, 30, 0.5, (40, 12)), window * full, atol=1e-6)


class TestWindows:
    @pytest.mark.parametrize("monitor", [SENSORIUM, ROCHEFORT])
    @pytest.mark.parametrize("centre", [None, (32.0, 18.0), (15.3, 20.7), (47.5, 10.0)])
    @pytest.mark.parametrize("diameter", [10, 20, 30])
    def test_a_disc_covers_its_solid_angle(self, monitor, centre, diameter):
        window = disc(monitor, centre, diameter)
        pixel = np.degrees(monitor.pitch[0] / monitor.distance_cm) * np.degrees(monitor.pitch[1] / monitor.distance_cm)
        covered = (window * monitor.solid_angle()).sum() * pixel
        cap = 2 * np.pi * (1 - np.cos(np.radians(diameter / 2))) * np.degrees(1) ** 2
        assert covered == pytest.approx(cap, rel=0.015)

    @pytest.mark.parametrize("diameter", [5, 20, 45])
    def test_pixels_well_inside_are_whole_and_well_outside_empty(self, diameter):
        centre = (20.0, 25.0)
        window, distance = disc(SENSORIUM, centre, diameter), SENSORIUM.eccentricity(centre)
        assert (window[distance < diameter / 2 - 2.5] == 1).all() and (
            window[distance > diameter / 2 + 2.5] == 0
        ).all()
        assert ((window > 0) & (window < 1)).any()

    def test_size_grows_smoothly(self):
        """Areas of discs that differ by a tenth of a pixel differ; whole pixels would come in steps."""
        areas = [disc(SENSORIUM, (31.2, 17.9), d).sum() for d in np.arange(8, 14, 0.25)]
        assert (np.diff(areas) > 0).all()

    def test_flat_discs_have_the_area_of_a_circle(self):
        for diameter in (10, 30, 60):
            radius = SENSORIUM.radius_px(diameter)
            area = disc(SENSORIUM, (31.7, 17.6), diameter, geometry="flat").sum()
            assert area == pytest.approx(np.pi * radius**2, rel=0.01)

    def test_published_masks_count_whole_pixels(self):
        counts = {10: 9, 20: 25, 30: 69, 40: 121, 50: 193, 60: 293, 70: 437, 80: 641, 90: 889}
        for diameter, count in counts.items():
            mask = disc(SENSORIUM, None, diameter, geometry="flat", subpixels=1)
            assert set(np.unique(mask)) == {0, 1} and mask.sum() == count

    def test_at_the_screen_centre_both_geometries_agree(self):
        square = Monitor(56.5, 56.5 * 36 / 64, 15)  # the rule by pixels knows one pitch only
        for diameter in (10, 40):
            spherical = disc(square, square.centre, diameter)
            flat = disc(square, square.centre, diameter, geometry="flat")
            assert np.allclose(spherical, flat, atol=0.04)

    def test_nothing_and_nonsense(self):
        assert disc(SENSORIUM, (32, 18), 0).sum() == 0
        for bad in (dict(centre=(np.nan, 18)), dict(diameter_deg=-1), dict(geometry="round")):
            with pytest.raises(ValueError):
                disc(SENSORIUM, **{"centre": (32, 18), "diameter_deg": 20} | bad)
        with pytest.raises(ValueError, match="inner"):
            annulus(SENSORIUM, None, 30, 20)

    def test_patterns_put_together(self):
        g, other = (grating(SENSORIUM, d, 0.04, 2, 4) for d in (0, 90))
        window = disc(SENSORIUM, None, 20)
        assert np.allclose(classical(g, window) + inverse(g, window), g, atol=1e-6)
        assert np.allclose(centre_surround(g, g, window), g, atol=1e-6)  # iso is the full field
        assert np.array_equal(centre_surround(g, 0, window), classical(g, window))
        assert np.array_equal(centre_surround(0, g, window), inverse(g, window))
        cross = centre_surround(g, other, window, annulus(SENSORIUM, None, 30, 60))
        away = SENSORIUM.eccentricity(SENSORIUM.centre)
        for near, far, expected in ((0, 7, g), (13, 12.9, 0), (18, 27, other), (34, 90, 0)):
            where = (away >= near) & (away <= far)
            assert np.allclose(cross[:, where], np.broadcast_to(expected, g.shape)[:, where], atol=1e-6)
        assert cross.dtype == np.float32


class TestNoise:
    def test_white_noise_is_independent_and_uniform(self):
        contrast = noise.white_noise(SENSORIUM, 200, np.random.default_rng(0))
        assert contrast.shape == (200, 36, 64) and contrast.dtype == np.float32
        assert abs(contrast.mean()) < 0.005 and contrast.var() == pytest.approx(1 / 3, rel=0.01)
        neighbours = (contrast[..., 1:] * contrast[..., :-1]).mean() * 3
        assert abs(neighbours) < 0.01

    def test_checks_are_cut_at_the_border(self):
        contrast = noise.white_noise(SENSORIUM, 2, np.random.default_rng(0), check_px=5)  # 36 = 7 x 5 + 1
        assert (contrast[:, 30:35, 5:10] == contrast[:, 30:31, 5:6]).all()
        assert contrast.shape == (2, 36, 64) and (contrast[:, 35, :5] != contrast[:, 34, :5]).all()

    @pytest.mark.parametrize("cell", [4, 5])
    def test_mask_noise_is_texture_in_cells_that_are_on(self, cell):
        contrast, masks = noise.mask_noise(SENSORIUM, 400, np.random.default_rng(0), cell_px=cell)
        assert masks.shape == (400, -(-36 // cell), -(-64 // cell)) and masks.dtype == bool
        on = np.kron(masks, np.ones((1, cell, cell), bool))[:, :36, :64]
        assert (abs(contrast) == on).all()
        assert masks.mean() == pytest.approx(0.15, abs=0.01)
        assert abs(contrast[on].mean()) < 0.01  # black as often as white: luminance says nothing about the mask

    def test_a_seed_gives_the_same_noise(self):
        for make in (noise.white_noise, lambda *a: noise.mask_noise(*a)[0], noise.pink_noise):
            first, second = (make(SENSORIUM, 3, np.random.default_rng(5)) for _ in range(2))
            assert np.array_equal(first, second) and not np.array_equal(first[0], first[1])

    def test_pink_noise_has_amplitude_1_over_f(self):
        images = noise.pink_noise(SENSORIUM, 200, np.random.default_rng(0))
        assert images.std() == pytest.approx(0.42, abs=0.04)
        window = np.hanning(36)[:, None] * np.hanning(64)
        amplitude = np.sqrt((abs(np.fft.fft2(images * window)) ** 2).mean(0))[0, 3:20]
        slope = np.polyfit(np.log(np.arange(3, 20)), np.log(amplitude), 1)[0]
        assert slope == pytest.approx(-1, abs=0.15)

    def test_directional_noise_moves_as_a_whole(self):
        speed = 2 * FPS * SENSORIUM.degrees_per_pixel  # two pixels a frame
        video = noise.directional_noise(SENSORIUM, RIGHT, speed, 5, np.random.default_rng(0))
        assert np.allclose(video[1:, :, 2:], video[:-1, :, :-2], atol=1e-5)
        down = noise.directional_noise(SENSORIUM, 90, speed / 2, 5, np.random.default_rng(0))
        assert np.allclose(down[1:, 1:], down[:-1, :-1], atol=1e-5)
        along, across = (np.diff(video, axis=axis).std() for axis in (2, 1))
        assert along > 2 * across  # stripes lie across the motion


class TestDots:
    def test_a_dot_is_gaussian_on_the_sphere(self):
        black = dots.gaussian_dot(SENSORIUM, (45, 11), 8, -1, 3)
        assert black.shape == (3, 36, 64) and (black == black[0]).all()
        assert np.allclose(black[0], -np.exp(-(SENSORIUM.eccentricity((45, 11)) ** 2) / 128), atol=1e-6)
        assert black[0, 11, 45] == -1

    def test_coherent_dots_move_together(self):
        speed = FPS * SENSORIUM.degrees_per_pixel  # one pixel a frame
        video = dots.random_dots(SENSORIUM, RIGHT, 1, 20, np.random.default_rng(0), speed, life=10**6)
        assert np.allclose(video[1:, :, 8:56], video[:-1, :, 7:55], atol=1e-4)
        assert 0.2 < (video != 0).mean() < 0.4

    def test_the_share_that_moves_is_the_coherence(self):
        """The product of a frame with the last one, one pixel back, minus one pixel on, grows with coherence."""
        flow = []
        for coherence in (0, 0.3, 0.6, 1):
            rng = np.random.default_rng(1)
            video = dots.random_dots(SENSORIUM, RIGHT, coherence, 300, rng, FPS * SENSORIUM.degrees_per_pixel)
            with_it, against = ((video[1:, :, 8:56] * video[:-1, :, 8 + step : 56 + step]).mean() for step in (-1, 1))
            flow.append((with_it - against) / (video**2).mean())
        assert abs(flow[0]) < 0.1 * flow[3]
        assert np.allclose(np.array(flow[1:3]) / flow[3], [0.3, 0.6], atol=0.12)

    def test_signals_may_change_from_frame_to_frame(self):
        turn = np.repeat([RIGHT, 0], 10)
        video = dots.random_dots(
            SENSORIUM, turn, 1, 20, np.random.default_rng(0), FPS * SENSORIUM.degrees_per_pixel, life=10**6
        )
        assert np.allclose(video[11:, :, 7:55], video[10:-1, :, 8:56], atol=1e-4)


class TestNatural:
    def test_grey_levels_survive(self):
        grey = np.arange(256, dtype=np.uint8)
        assert np.array_equal(grey_levels(contrast_of(grey)), grey)
        assert contrast_of(np.array(GREY)) == 0

    def test_clips_and_flashes_are_the_movie(self):
        movie = np.random.default_rng(0).integers(0, 256, (50, 36, 64), dtype=np.uint8)
        cut = natural.clips(SENSORIUM, movie, 20, 15)
        assert cut.shape == (3, 20, 36, 64) and cut.dtype == np.float32
        assert np.array_equal(grey_levels(cut[2]), movie[30:50])
        shown = natural.flash(SENSORIUM, movie[7], 5)
        assert shown.shape == (5, 36, 64) and (grey_levels(shown) == movie[7]).all()

    def test_what_does_not_fit_is_refused(self):
        movie = np.zeros((10, 36, 64), np.uint8)
        with pytest.raises(ValueError, match="clips of 11"):
            natural.clips(SENSORIUM, movie, 11, 1)
        with pytest.raises(ValueError, match="pixels"):
            natural.flash(SENSORIUM, movie[0, :30], 5)


class TestPublished:
    """The public implementation: flat geometry, 8-bit frames. Grey levels may differ by one.

    It truncates (contrast + 1) x 127.5 where we round 127 + 127.5 x contrast. Its phase-shifted surround, 255 minus
    the grating, is therefore one grey level brighter than ours, whose mean stays the background.
    """

    @pytest.fixture
    def published(self):
        with np.load(Path(__file__).parent / "data" / "parity" / "stimulus.npz") as arrays:
            return dict(arrays)

    @staticmethod
    def shown(direction, cpd, cpf, frames, phase, contrast):
        video = grating(SENSORIUM, direction, cpd, cpf * FPS, int(frames), phase, contrast, geometry="flat")
        return grey_levels(video).astype(int)

    def test_gratings(self, published):
        for k, parameters in enumerate(published["grating_params"]):
            assert abs(self.shown(*parameters) - published[f"grating_{k}"][0]).max() <= 1

    def test_masks(self, published):
        for k, (diameter, x, y, *screen) in enumerate(published["mask_params"]):
            centre = None if np.isnan(x) else (x, y)
            mask = disc(Monitor(*screen), centre, diameter, geometry="flat", subpixels=1)
            assert np.array_equal(np.broadcast_to(mask, (2, 36, 64)), published[f"mask_{k}"][0])

    def test_centre_and_surround(self, published):
        for k, row in enumerate(published["center_surround_params"]):
            diameter, x, y, direction, around, cpd, cpf, frames, phase, contrast = row
            pattern = [cpd, cpf * FPS, int(frames), phase, contrast, None, "flat"]
            centre = grating(SENSORIUM, direction, *pattern)
            surround = 0 if around == -1 else grating(SENSORIUM, around, *pattern)
            window = disc(SENSORIUM, (x, y), diameter, geometry="flat", subpixels=1)
            video = grey_levels(centre_surround(centre, surround, window)).astype(int)
            assert abs(video - published[f"center_surround_{k}"][0]).max() <= 1

    def test_phase_shifted_surrounds(self, published):
        k = published["grating_params"][:, 5].argmax()
        parameters = published["grating_params"][k].copy()
        parameters[4] += 180
        brighter = 255 - published[f"grating_{k}"][0].astype(int) - self.shown(*parameters)
        assert brighter.min() >= 0 and brighter.max() == 1 and brighter.mean() > 0.99

    def test_sizes_in_pixels(self, published):
        for monitor, key in ((SENSORIUM, "coverage2radius_default"), (ROCHEFORT, "coverage2radius_monitor2")):
            assert np.allclose(monitor.radius_px(published["coverage_deg"]), published[key])


def test_the_figure_shows_every_pattern(tmp_path):
    script = Path(__file__).parents[1] / "misc" / "visualize_stimuli.py"
    subprocess.run([sys.executable, script, "--output_dir", tmp_path, "--monitor", "rochefort"], check=True)
    table = pd.read_csv(tmp_path / "stimuli.csv")
    assert (tmp_path / "stimuli.png").stat().st_size > 20_000
    assert (table.groupby("pattern")["grey_level"].count() == 36 * 64).all() and table["pattern"].nunique() == 16
    centre = table[(table["x"] == 32) & (table["y"] == 18)]
    assert (abs(centre[["azimuth_deg", "elevation_deg"]]) < 1.2).all(axis=None)
