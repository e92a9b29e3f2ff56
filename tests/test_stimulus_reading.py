"""Parameters of recorded Gabors and dots are found in their frames alone."""

import numpy as np
import pandas as pd
import pytest

from viv1t.constants import FPS
from viv1t.geometry import SENSORIUM
from viv1t.simulate import ood
from viv1t.stimulus.gratings import gabor
from viv1t.stimulus.levels import grey_levels
from viv1t.stimulus.reading import read_dots, read_gabors, snap_dots, snap_gabors

CLIPS = 6
WAVELENGTHS, SPEEDS = (0.18, 0.38, 0.65), (0.19, 0.54, 1.34)  # half screen heights; the same in a block of 25 frames
CONDITION = ["direction_deg", "sf_cpd", "tf_hz"]


def simulated(kind: str) -> tuple[list[np.ndarray], list[pd.DataFrame]]:
    """The six clips of a kind as the simulated animals see them, with their true parameters per frame."""
    make = ood.GENERATORS[kind]
    seeds = [np.random.SeedSequence(4, spawn_key=(9, k)) for k in range(CLIPS)]
    return tuple(zip(*[make(k, CLIPS, seed, SENSORIUM, 300) for k, seed in enumerate(seeds)], strict=True))


def read_all(read, videos, truths, **kwargs) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Readings of all videos end to end, and the truth at the first frame of each."""
    tables = [read(video, SENSORIUM, **kwargs) for video in videos]
    truth = [truth.iloc[table["start"]] for table, truth in zip(tables, truths, strict=True)]
    return pd.concat(tables, ignore_index=True), pd.concat(truth, ignore_index=True)


def turn(a, b):
    return abs((a - b + 180) % 360 - 180)


class TestGabors:
    def test_the_simulated_recording_shows_its_72_conditions(self):
        read, truth = read_all(read_gabors, *simulated("drifting_gabor"))
        assert len(read) == 72 and ((read["stop"] - read["start"]) == 25).all()
        assert turn(read["direction_deg"], truth["direction_deg"]).max() < 0.1
        for name in ("sf_cpd", "tf_hz"):
            assert np.allclose(read[name], truth[name], rtol=0.003)
        assert turn(read["phase_deg"], 360 * truth["tf_hz"] * read["start"] / FPS).max() < 0.5
        assert np.allclose(read["sigma_deg"], ood.GABOR_SIGMA, rtol=0.01) and np.allclose(
            read["contrast"], 1, atol=0.01
        )
        assert (read["r"] > 0.99).all()
        snapped = snap_gabors(read)
        assert len(snapped[CONDITION].drop_duplicates()) == 72
        assert np.array_equal(snapped["direction_deg"], truth["direction_deg"])
        assert np.allclose(snapped[CONDITION[1:]], truth[CONDITION[1:]], rtol=0.001)

    @pytest.mark.parametrize("cut, noise", [(0, 0), (10, 3), (17, 10)])
    def test_the_published_design_has_three_speeds(self, cut, noise):
        """Fast narrow stripes drift at 9 Hz, slow wide ones at 0.4 Hz: outside the published bank of filters.

        Videos may begin within a block, and be noisy (sd in grey levels).
        """
        videos, truths = published_gabors(noise)
        read, truth = read_all(
            read_gabors, [v[cut:] for v in videos], [t[cut:].reset_index(drop=True) for t in truths], geometry="flat"
        )
        assert len(read) == (72 if cut <= 12 else 66)
        snapped = snap_gabors(read)
        assert len(snapped[CONDITION].drop_duplicates()) == len(read)
        assert np.array_equal(snapped["direction_deg"], truth["direction_deg"])
        assert np.allclose(read["sf_cpd"], truth["sf_cpd"], rtol=0.01)
        assert np.allclose(read["tf_hz"], truth["tf_hz"], rtol=0.05)  # steps of the ladder are factors of 2.5

    def test_in_the_other_geometry_frequencies_are_a_little_off_but_conditions_are_not(self):
        read, truth = read_all(read_gabors, *published_gabors(0))
        assert np.allclose(read["sf_cpd"] / truth["sf_cpd"], 1.06, atol=0.02)  # pixels shrink away from the centre
        assert len(snap_gabors(read)[CONDITION].drop_duplicates()) == 72

    def test_faster_than_half_the_frame_rate_is_the_other_way(self):
        fast, slow = (
            read_gabors(grey_levels(gabor(SENSORIUM, direction, 0.04, tf, 25, 17)), SENSORIUM).iloc[0]
            for direction, tf in ((0, 20), (180, 10))
        )
        assert fast["tf_hz"] == pytest.approx(10, rel=1e-3) and turn(fast["direction_deg"], 180) < 0.1
        assert fast["sf_cpd"] == pytest.approx(slow["sf_cpd"], rel=1e-3)

    @pytest.mark.parametrize("kind", ["pink_noise", "gaussian_dots", "random_dots", "image"])
    def test_other_videos_are_refused(self, kind):
        video, _ = ood.GENERATORS[kind](0, CLIPS, np.random.SeedSequence(4, spawn_key=(9, 0)), SENSORIUM, 300)
        with pytest.raises(ValueError, match="does not show drifting Gabors"):
            read_gabors(video, SENSORIUM)


def published_gabors(noise: float) -> tuple[list[np.ndarray], list[pd.DataFrame]]:
    """8 directions x 3 wavelengths x 3 speeds, 25 frames each, 12 to a video, in flat geometry with a random phase."""
    rng = np.random.default_rng(0)
    pixels = SENSORIUM.height / 2 * SENSORIUM.degrees_per_pixel  # degrees in half a screen height
    deck = [
        (direction, 1 / (wavelength * pixels), speed / wavelength * FPS / 25)
        for direction in range(0, 360, 45)
        for wavelength in WAVELENGTHS
        for speed in SPEEDS
    ]
    deck = [deck[k] for k in rng.permutation(len(deck))]
    videos, truths = [], []
    for k in range(0, len(deck), 12):
        shown = deck[k : k + 12]
        blocks = [
            gabor(SENSORIUM, *row, 25, 17.7, rng.uniform(0, 360), centre=SENSORIUM.centre, geometry="flat")
            for row in shown
        ]
        contrast = np.concatenate(blocks)
        videos.append(grey_levels(contrast + noise / 127.5 * rng.standard_normal(contrast.shape)))
        truths.append(pd.DataFrame(np.repeat(shown, 25, axis=0), columns=CONDITION))
    return videos, truths


class TestDots:
    def test_all_210_dots_are_found_once_each(self):
        read, truth = read_all(read_dots, *simulated("gaussian_dots"))
        assert len(read) == 210 and ((read["stop"] - read["start"]) == 9).all()
        assert np.allclose(read[["x", "y"]], truth[["x_px", "y_px"]], atol=0.02)
        assert np.array_equal(read["is_black"], truth["is_black"].astype(bool))
        assert np.allclose(read["sigma_deg"], ood.DOT_SIGMA, atol=0.05)
        snapped = snap_dots(read)
        assert np.allclose(snapped[["x", "y"]], truth[["x_px", "y_px"]], atol=0.005)
        assert len(snapped[["column", "row", "is_black"]].drop_duplicates()) == 210
        assert (snapped["column"].max(), snapped["row"].max()) == (14, 6)
        with pytest.raises(ValueError, match="were all videos read"):
            snap_dots(read[read["x"] < 40])

    @pytest.mark.parametrize("cut, stop", [(0, 300), (4, 300), (8, 315)])
    def test_videos_may_begin_and_end_within_a_presentation(self, cut, stop):
        video, truth = ood.gaussian_dots(0, CLIPS, np.random.SeedSequence(4, spawn_key=(9, 0)), SENSORIUM, 300)
        video = video[cut:stop].astype(float)
        video[1:] = (
            np.where(np.arange(1, len(video)) % 9 == (9 - cut) % 9, 1, 0)[:, None, None]
            * ((video[:-1] + video[1:]) / 2 - video[1:])
            + video[1:]
        )  # the first frame of each dot is half the one before, as in resampled videos
        read = read_dots(video, SENSORIUM)
        assert ((read["start"] + cut) % 9 == 0)[1:].all()
        truth = truth.iloc[read["start"] + cut]
        assert np.allclose(read[["x", "y"]], truth[["x_px", "y_px"]], atol=0.05)
        assert np.array_equal(read["is_black"], truth["is_black"].astype(bool))

    @pytest.mark.parametrize("kind", ["pink_noise", "drifting_gabor", "random_dots", "image"])
    def test_other_videos_are_refused(self, kind):
        video, _ = ood.GENERATORS[kind](0, CLIPS, np.random.SeedSequence(4, spawn_key=(9, 0)), SENSORIUM, 300)
        with pytest.raises(ValueError, match="does not show Gaussian dots"):
            read_dots(video, SENSORIUM)


@pytest.mark.parametrize("read", [read_gabors, read_dots])
def test_a_grey_screen_shows_nothing(read):
    with pytest.raises(ValueError, match="the screen is grey"):
        read(np.full((60, 36, 64), 127, np.uint8), SENSORIUM)
