"""Direction and frequency tuning: known curves and neurons are recovered, noise is not declared selective."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from viv1t.constants import FPS
from viv1t.estimators import selectivity
from viv1t.geometry import SENSORIUM
from viv1t.simulate.animal import Animal, Setting
from viv1t.simulate.circuit import OUTPUT_POWER
from viv1t.simulate.population import draw_population
from viv1t.stats import benjamini_hochberg, circular_difference

PARITY = Path(__file__).parent / "data" / "parity" / "tuning.npz"
EIGHT, SIXTEEN = np.arange(0, 360, 45.0), np.arange(0, 360, 22.5)
FRAMES, STEADY = 75, 15


def von_mises(angles, preferred, kappa, amplitude, opposite, baseline) -> np.ndarray:
    """Curves (N, D) from parameters (N,)."""
    turn = np.radians(angles - np.reshape(preferred, (-1, 1)))
    kappa, amplitude, opposite, baseline = (np.reshape(p, (-1, 1)) for p in (kappa, amplitude, opposite, baseline))
    bumps = amplitude * np.exp(kappa * (np.cos(turn) - 1)) + opposite * np.exp(kappa * (-np.cos(turn) - 1))
    return baseline + bumps


def show_gratings(**changes) -> tuple[pd.DataFrame, np.ndarray]:
    """Gabor neurons of an animal and their curves (N, 16) for full-field gratings of 0.04 cpd and 2 Hz."""
    population = draw_population(80, SENSORIUM, 2).assign(drive_mean=0.05, **changes)
    animal = Animal(population, Setting(monitor=SENSORIUM))
    y, x = np.mgrid[0 : SENSORIUM.height, 0 : SENSORIUM.width]
    right, up = np.moveaxis(SENSORIUM.to_degrees(np.stack([x, y], axis=-1)), -1, 0)
    rest = [torch.tensor(v)[None, :, None].expand(1, 2, FRAMES)
            for v in (animal.setting.behavior_mean, animal.setting.pupil_center)]  # fmt: skip
    curves = []
    for angle in np.radians(SIXTEEN):
        along = -right * np.cos(angle) - up * np.sin(angle)
        phase = 2 * np.pi * (0.04 * along - 2 * np.arange(FRAMES)[:, None, None] / FPS)
        video = torch.from_numpy(127 + 127.5 * np.cos(phase).astype(np.float32))
        curves.append(animal.respond(video[None, None], *rest)[0, :, STEADY:].mean(axis=1).numpy())
    gabor = (animal.neurons["kind"] == "gabor").to_numpy()
    return animal.neurons[gabor], np.stack(curves, axis=1)[gabor]


@pytest.fixture(scope="module")
def gratings():
    return show_gratings()


@pytest.fixture(scope="module")
def noise():
    """Responses (N, n) that depend on spatial frequency, with unbalanced directions, but not on direction."""
    rng = np.random.default_rng(6)
    directions = np.repeat(EIGHT, 60)
    strata = rng.integers(0, 3, len(directions))
    strata[directions == 90] = rng.choice(3, 60, p=(0.1, 0.1, 0.8))
    samples = rng.standard_gamma(0.5, (4000, 480)) * np.array([1.0, 1.2, 5.0])[strata]
    return samples, directions, strata


class TestIndices:
    def test_indices_as_published(self):
        parity = np.load(PARITY)
        curves = parity["tuning_curve"]
        found = selectivity.circular_tuning(curves, parity["directions"])
        assert found["gosi"].to_numpy() == pytest.approx(parity["OSI"], abs=1e-6)
        assert found["gdsi"].to_numpy() == pytest.approx(parity["DSI"], abs=1e-6)
        responses = parity["responses"]  # (N, D, samples)
        samples = responses.reshape(len(responses), -1)
        means, angles = selectivity.mean_curves(samples, np.repeat(parity["directions"], responses.shape[2]))
        assert np.array_equal(angles, parity["directions"]) and means == pytest.approx(curves, rel=1e-5)

    def test_extremes(self):
        one, axis = np.eye(8)[2:3], np.eye(8)[[2]] + np.eye(8)[[6]]
        found = selectivity.circular_tuning(np.vstack([one, axis]), EIGHT)
        assert found["gosi"].tolist() == pytest.approx([1, 1]) and found["gdsi"].tolist() == pytest.approx([1, 0])
        assert found["osi"].tolist() == [1, 1] and found["dsi"].tolist() == [1, 0]
        assert found["preferred_orientation_deg"].tolist() == pytest.approx([90, 90])
        assert found["preferred_direction_deg"][0] == pytest.approx(90) and found["best_deg"][0] == 90

    def test_preference_between_the_samples(self):
        rng = np.random.default_rng(0)
        preferred = rng.uniform(0, 360, 500)
        curves = von_mises(EIGHT, preferred, np.full(500, 2.0), np.ones(500), rng.uniform(0, 0.6, 500), np.zeros(500))
        found = selectivity.circular_tuning(curves, EIGHT)
        error = abs(circular_difference(found["preferred_direction_deg"], preferred))
        argmax = abs(circular_difference(found["best_deg"], preferred))
        assert error.max() < 3 and np.median(argmax) > 8

    def test_turning_the_stimulus_turns_the_preference_only(self):
        curves = np.random.default_rng(1).random((40, 8))
        one, other = (selectivity.circular_tuning(np.roll(curves, k, axis=1), EIGHT) for k in (0, 3))
        turned = circular_difference(other["preferred_direction_deg"], one["preferred_direction_deg"] + 135)
        assert abs(turned).max() < 1e-6
        for name in ("gosi", "gdsi", "osi", "dsi", "peak"):
            assert other[name].to_numpy() == pytest.approx(one[name].to_numpy())

    def test_reversed_time_and_mirrored_space(self):
        curves = von_mises(
            EIGHT, np.array([20.0, 130.0, 250.0]), np.full(3, 2.0), np.ones(3), np.full(3, 0.3), np.zeros(3)
        )
        plain = selectivity.circular_tuning(curves, EIGHT)
        reverse = selectivity.circular_tuning(np.roll(curves, 4, axis=1), EIGHT)
        mirror = selectivity.circular_tuning(curves[:, (4 - np.arange(8)) % 8], EIGHT)
        direction = plain["preferred_direction_deg"]
        assert abs(circular_difference(reverse["preferred_direction_deg"], direction + 180)).max() < 1e-6
        assert abs(circular_difference(mirror["preferred_direction_deg"], 180 - direction)).max() < 1e-6
        assert reverse["gosi"].to_numpy() == pytest.approx(plain["gosi"].to_numpy())

    def test_a_pedestal_compresses_and_the_baseline_restores(self):
        curves = von_mises(EIGHT, np.array([45.0, 45.0]), np.full(2, 3.0), np.ones(2), np.zeros(2), np.array([0, 2.0]))
        plain = selectivity.circular_tuning(curves, EIGHT)
        above = selectivity.circular_tuning(curves, EIGHT, baseline=np.array([0, 2.0]))
        assert plain["gosi"][1] < 0.3 * plain["gosi"][0]
        assert above.iloc[1].to_numpy() == pytest.approx(above.iloc[0].to_numpy())

    def test_nothing_is_nan_and_never_infinite(self):
        curves = np.array([np.zeros(8), np.full(8, -1.0), np.full(8, np.nan), np.ones(8)])
        found = selectivity.circular_tuning(curves, EIGHT)
        assert found.iloc[:3].isna().all(axis=None)
        assert found["gosi"][3] < 1e-9 and np.isnan(found["preferred_direction_deg"][3]) and np.isnan(found["dsi"][3])
        assert not np.isinf(found.to_numpy()).any()

    def test_half_a_circle_is_refused(self):
        with pytest.raises(ValueError, match="over 360 degrees"):
            selectivity.circular_tuning(np.ones((2, 4)), [0, 45, 90, 135])


class TestTheAnimal:
    def test_preferences(self, gratings):
        neurons, curves = gratings
        found = selectivity.circular_tuning(curves, SIXTEEN)
        truth = neurons["direction_deg"].to_numpy()
        error = abs(circular_difference(found["preferred_orientation_deg"], truth, 180))
        assert np.median(error) <= 3 and (error <= 10).mean() >= 0.9
        directional = (neurons["direction_selectivity"] > 0.4).to_numpy()
        error = abs(circular_difference(found["preferred_direction_deg"], truth))[directional]
        assert np.median(error) <= 5 and (error <= 22.5).mean() >= 0.9

    def test_selectivity_follows_the_neuron(self, gratings):
        neurons, curves = gratings
        index, truth = selectivity.circular_tuning(curves, SIXTEEN)["gdsi"], neurons["direction_selectivity"]
        assert spearmanr(index, truth)[0] > 0.6
        shuffled = np.random.default_rng(3).permutation(truth)
        assert abs(spearmanr(index, shuffled)[0]) < 3 / np.sqrt(len(truth))

    def test_selectivity_without_surround_and_feedback_is_that_of_the_equations(self):
        neurons, curves = show_gratings(surround_strength=0.0, feedback=0.0)
        opposite = (1 - neurons["direction_selectivity"]) / (1 + neurons["direction_selectivity"])
        simple = neurons["simple_weight"]
        opposite = ((1 - simple) * opposite + simple * opposite**2) ** OUTPUT_POWER
        index = selectivity.circular_tuning(curves, SIXTEEN)["dsi"]
        assert spearmanr(index, (1 - opposite) / (1 + opposite))[0] > 0.95


class TestVonMises:
    def test_parameters_and_width(self):
        rng = np.random.default_rng(4)
        n = 400
        truth = {
            "preferred": rng.uniform(0, 360, n),
            "kappa": rng.uniform(0.8, 6, n),
            "amplitude": rng.uniform(1, 5, n),
            "baseline": rng.uniform(0, 2, n),
        }
        truth["opposite"] = truth["amplitude"] * rng.uniform(0, 0.9, n)
        curves = von_mises(SIXTEEN, **truth)
        found = selectivity.fit_von_mises(curves, SIXTEEN)
        assert (found["r2"] > 0.999).mean() > 0.99
        assert np.quantile(abs(circular_difference(found["preferred_direction_deg"], truth["preferred"])), 0.99) < 0.5
        expected = np.degrees(np.arccos(1 + np.log((1 + np.exp(-2 * truth["kappa"])) / 2) / truth["kappa"]))
        assert np.quantile(abs(found["half_width_deg"] - expected), 0.98) < 0.5

    def test_half_width_is_where_a_bump_is_half_as_high(self):
        kappa = np.array([0.9, 2.5, 7.0])
        fine = np.arange(0, 360, 0.1)
        curves = von_mises(fine, np.zeros(3), kappa, np.ones(3), np.zeros(3), np.zeros(3))
        middle = (curves.min(axis=1) + curves.max(axis=1)) / 2
        crossing = fine[(curves[:, :1800] < middle[:, None]).argmax(axis=1)]
        fitted = selectivity.fit_von_mises(
            von_mises(SIXTEEN, np.zeros(3), kappa, np.ones(3), np.zeros(3), np.zeros(3)), SIXTEEN
        )
        assert fitted["half_width_deg"].to_numpy() == pytest.approx(crossing, abs=0.5)

    def test_noise_has_no_width(self):
        curves = np.vstack([np.random.default_rng(5).random((300, 16)), np.ones((1, 16)), np.full((1, 16), np.nan)])
        found = selectivity.fit_von_mises(curves, SIXTEEN)
        assert found["half_width_deg"].isna().mean() > 0.8
        assert found.iloc[-2:].isna().all(axis=None)


class TestPermutation:
    def test_untuned_neurons_are_declared_selective_as_often_as_stated(self, noise):
        samples, directions, strata = noise
        p = selectivity.permutation_test(samples, directions, np.random.default_rng(7), 400, strata)
        for name in ("p_osi", "p_dsi"):
            assert (p[name] <= 0.01).mean() <= 0.015
            assert (p[name] <= 0.2).mean() == pytest.approx(0.2, abs=0.03)

    def test_without_strata_other_tuning_passes_for_direction(self, noise):
        samples, directions, _ = noise
        p = selectivity.permutation_test(samples[:500], directions, np.random.default_rng(8), 400)
        assert (p["p_dsi"] <= 0.01).mean() > 0.1

    def test_false_discoveries_among_tuned_and_untuned(self, noise):
        samples, directions, strata = noise
        tuned = np.arange(len(samples)) % 2 == 0
        drive = 1 + 0.6 * np.cos(2 * np.radians(directions))
        samples = np.where(tuned[:, None], samples * drive, samples)
        p = selectivity.permutation_test(samples, directions, np.random.default_rng(9), 1000, strata)
        found = benjamini_hochberg(p["p_osi"].to_numpy()) < 0.05
        assert found[tuned].mean() > 0.9
        assert (found & ~tuned).sum() / found.sum() <= 0.06

    def test_silent_neurons_have_no_p(self):
        samples = np.zeros((2, 80))
        samples[1] = np.tile(EIGHT == 90, 10)
        p = selectivity.permutation_test(samples, np.tile(EIGHT, 10), np.random.default_rng(10), 99)
        assert p.iloc[0].isna().all() and p.iloc[1].tolist() == [0.01, 0.01]

    def test_chunks_of_neurons_do_not_matter(self, noise, monkeypatch):
        samples, directions, strata = noise
        run = lambda: selectivity.permutation_test(samples[:50], directions, np.random.default_rng(11), 50, strata)  # noqa: E731
        whole = run()
        monkeypatch.setattr(selectivity, "CHUNK", 3000)
        pd.testing.assert_frame_equal(run(), whole)

    def test_intervals_of_tuned_neurons_cover_their_index(self):
        rng = np.random.default_rng(12)
        directions = np.tile(EIGHT, 30)
        curve = von_mises(EIGHT, np.array([100.0]), [2.0], [1.0], [0.4], [0.2])
        truth = selectivity.circular_tuning(curve, EIGHT).iloc[0]
        samples = np.tile(curve, (300, 30)) * rng.standard_gamma(4, (300, 240)) / 4
        limits = selectivity.selectivity_intervals(samples, directions, rng, 200)
        for name in ("gosi", "gdsi"):
            covered = (limits[f"{name}_low"] <= truth[name]) & (truth[name] <= limits[f"{name}_high"])
            assert 0.88 < covered.mean() < 0.99


class TestAgreement:
    def test_corrected_for_noise_a_perfect_model_agrees_perfectly(self):
        rng = np.random.default_rng(13)
        curves = von_mises(
            EIGHT, rng.uniform(0, 360, 500), np.full(500, 2.0), np.ones(500), np.full(500, 0.3), np.full(500, 0.2)
        )
        samples = np.tile(curves, (1, 20)) + rng.normal(0, 1.0, (500, 160))
        labels = np.tile(EIGHT, 20)
        r = selectivity.tuning_correlation(selectivity.mean_curves(samples, labels)[0], curves)
        reliability = selectivity.split_half_reliability(samples, labels, rng)
        assert r.mean() < 0.9
        assert np.nanmedian(selectivity.noise_corrected(r, reliability)) == pytest.approx(1, abs=0.05)
        assert r.mean() / np.sqrt(reliability.mean()) == pytest.approx(1, abs=0.05)

    def test_reliability_is_that_of_all_blocks(self):
        """Signal variance 1 per condition, noise variance 2 over 8 blocks: reliability 1 / (1 + 2 / 8)."""
        rng = np.random.default_rng(14)
        samples = np.repeat(rng.standard_normal((300, 40)), 8, axis=1) + np.sqrt(2) * rng.standard_normal((300, 320))
        reliability = selectivity.split_half_reliability(samples, np.repeat(np.arange(40), 8), rng, splits=20)
        assert reliability.mean() == pytest.approx(0.8, abs=0.02)

    def test_flat_curves_and_single_blocks_have_none(self):
        flat = np.ones((2, 8))
        assert np.isnan(selectivity.tuning_correlation(flat, np.random.default_rng(0).random((2, 8)))).all()
        assert np.isnan(selectivity.split_half_reliability(flat, EIGHT, np.random.default_rng(0))).all()
        corrected = selectivity.noise_corrected(np.array([0.5, 0.5, np.nan]), np.array([0.25, -0.1, 0.5]))
        assert corrected == pytest.approx([1, np.nan, np.nan], nan_ok=True)


class TestFrequency:
    def test_preferred_frequencies_and_speed(self):
        rng = np.random.default_rng(15)
        sf, tf = np.array([0.02, 0.04, 0.08, 0.16]), np.array([1.0, 2.0, 4.0, 8.0])
        best_sf, best_tf = 2 ** rng.uniform(-5.2, -3.2, 100), 2 ** rng.uniform(0.3, 2.7, 100)
        bump = lambda f, best: np.exp(-(np.log2(f / best[:, None]) ** 2) / (2 * 0.9**2))  # noqa: E731
        responses = 3 * bump(sf, best_sf)[:, :, None] * bump(tf, best_tf)[:, None]
        found = selectivity.sf_tf_preference(responses, sf, tf)
        assert found["preferred_sf_cpd"].to_numpy() == pytest.approx(best_sf, rel=0.01)
        assert found["preferred_tf_hz"].to_numpy() == pytest.approx(best_tf, rel=0.01)
        assert found["preferred_speed_deg_s"].to_numpy() == pytest.approx(best_tf / best_sf, rel=0.02)
        assert selectivity.fit_frequencies(responses.mean(axis=2), sf)["bandwidth_octaves"].median() == pytest.approx(
            2.12, rel=0.01
        )

    def test_low_pass_neurons_are_not_inside(self):
        found = selectivity.fit_frequencies(np.array([[4.0, 2.0, 1.0], [1.0, 3.0, 1.0]]), np.array([1.0, 2.0, 4.0]))
        assert found["inside"].tolist() == [False, True]
        assert found["preferred"][1] == pytest.approx(2, rel=1e-3)

    def test_flat_and_silent_curves_prefer_nothing(self):
        found = selectivity.fit_frequencies(
            np.array([np.zeros(4), np.full(4, -1.0), np.ones(4)]), np.array([1, 2, 4, 8.0])
        )
        assert found[["preferred", "amplitude", "r2"]].isna().all(axis=None) and not found["inside"].any()
