"""From stimulus to estimate on a simulated mouse whose answers are known: nothing is learnt in between."""

import numpy as np
import pandas as pd
import pytest
from test_simulate_animal import make_animal

from viv1t.estimators.receptive_field import WeightedMaps, fit_receptive_fields, lattice_blur, signed_root
from viv1t.estimators.selectivity import circular_tuning, fit_frequencies
from viv1t.geometry import ROCHEFORT, SENSORIUM
from viv1t.presentation import AnimalPresenter, Timeline, Window
from viv1t.simulate import tuning
from viv1t.stats import circular_difference
from viv1t.stimulus import gratings, windows
from viv1t.stimulus.levels import grey_levels
from viv1t.stimulus.series import CELL, noise_pattern

NEURONS, FRAMES = 60, 30
DIRECTIONS = np.arange(0, 360, 22.5)


class Screen:
    """An animal in front of a screen, held still."""

    def __init__(self, animal, timeline=Timeline(pattern=FRAMES), dilation=0.0, running=0.0, gaze=(0.0, 0.0)):  # noqa: B008
        mean, sd = (np.array(x) for x in (animal.setting.behavior_mean, animal.setting.behavior_sd))
        body, eye = mean + sd * [dilation, running], np.array(animal.setting.pupil_center) + gaze
        self.presenter, self.monitor = AnimalPresenter(animal, timeline, body, eye), animal.monitor

    def respond(self, contrast: np.ndarray, neurons=None, window=Window(0.1, 1.0)) -> np.ndarray:  # noqa: B008
        """Mean response (K, n) to patterns (K, frames, H, W), from which that to grey is subtracted."""
        self.presenter.listen(np.arange(NEURONS) if neurons is None else np.asarray(neurons))
        responses = window.mean(self.presenter.show(grey_levels(contrast)))
        self.grey = self.presenter.spontaneous()
        return responses - self.grey

    def directions(self, cpd=0.04, hertz=2.0, change=lambda video: video, **kwargs) -> np.ndarray:
        """Curves (N, 16) for full-field gratings; `change` is done to every film."""
        films = [change(gratings.grating(self.monitor, d, cpd, hertz, FRAMES, **kwargs)) for d in DIRECTIONS]
        return self.respond(np.stack(films)).T

    def own_directions(self, neuron: pd.Series, hertz: float = 2.0) -> np.ndarray:
        """Curve (16,) of one neuron for its own frequency, in a patch of 30 degrees on its own field."""
        centre = (neuron["x_px"], neuron["y_px"])
        patch = windows.disc(self.monitor, centre, 30)
        films = [patch * gratings.grating(self.monitor, d, neuron["sf_cpd"], hertz, FRAMES, centre=centre)
                 for d in DIRECTIONS]  # fmt: skip
        return self.respond(np.stack(films), [neuron["neuron"]])[:, 0]


@pytest.fixture(scope="module")
def animal():
    return make_animal(NEURONS)


@pytest.fixture(scope="module")
def truth(animal) -> pd.DataFrame:
    return animal.neurons.join(tuning.measure(animal))


@pytest.fixture(scope="module")
def curves(animal) -> np.ndarray:
    return Screen(animal).directions()


def map_fields(animal, patterns: int = 1200, gaze=(0.0, 0.0)) -> pd.DataFrame:
    """Fields from shifted mask noise, as tuning_retinotopy maps them."""
    screen = Screen(animal, Timeline(pattern=6), gaze=gaze)
    maps = WeightedMaps(NEURONS, SENSORIUM.height, SENSORIUM.width)
    for start in range(0, patterns, 100):
        images = np.stack([noise_pattern(SENSORIUM, "mask", i, 7) for i in range(start, start + 100)])
        responses = screen.respond(np.repeat(images[:, None], 6, axis=1), window=Window(2 / 30, 6 / 30))
        maps.update(signed_root(responses), images != 0)
    return fit_receptive_fields(maps.value(), maps.halves(), maps.nulls(), blur=lattice_blur(CELL))


@pytest.fixture(scope="module")
def fields(animal) -> pd.DataFrame:
    return map_fields(animal)


def error(fields: pd.DataFrame, truth: pd.DataFrame) -> np.ndarray:
    return np.hypot(fields["x"] - truth["x_px"], fields["y"] - truth["y_px"]).to_numpy()


def test_field_centres_are_found_to_a_third_of_a_pixel(fields, truth):
    driven, wrong = (truth["kind"] != "undriven").to_numpy(), error(fields, truth)
    assert np.median(wrong[driven]) < 0.3
    for kind in ("gabor", "luminance"):
        assert (wrong[(truth["kind"] == kind).to_numpy()] < 1).mean() >= 0.95
    assert fields["bad_fit"][~driven].mean() >= 0.95
    assert fields["bad_fit"][driven].mean() <= 0.02


def test_fields_move_with_the_eye(animal, fields):
    """Two sd of the pupil to either side: the shift is that of the gaze matrix within 10 %."""
    G = np.array(animal.setting.gaze)
    for axis in range(2):
        gaze = np.zeros(2)
        gaze[axis] = 14.0  # camera pixels
        moved = map_fields(animal, gaze=gaze)
        good = ~(fields["bad_fit"] | moved["bad_fit"])
        shift = (moved[["x", "y"]] - fields[["x", "y"]])[good].median().to_numpy()
        right, up = G @ gaze
        expected = np.array([right, -up]) / SENSORIUM.degrees_per_pixel
        assert np.linalg.norm(shift - expected) < 0.1 * np.linalg.norm(expected)


def test_preferred_directions_are_found_to_two_degrees(animal, truth):
    screen = Screen(animal)
    chosen = truth[truth["kind"] == "gabor"]
    table = circular_tuning(np.stack([screen.own_directions(neuron) for _, neuron in chosen.iterrows()]), DIRECTIONS)
    axis = circular_difference(table["preferred_orientation_deg"], chosen["preferred_orientation_deg"].to_numpy(), 180)
    assert np.median(abs(axis)) <= 2 and np.quantile(abs(axis), 0.9) <= 10
    clear = (chosen["direction_selectivity"] > 0.4).to_numpy()
    heading = circular_difference(table["preferred_direction_deg"], chosen["preferred_direction_deg"].to_numpy())
    assert np.median(abs(heading[clear])) <= 2 and (abs(heading[clear]) <= 22.5).mean() >= 0.9
    spearman = {name: table["gdsi"].corr(chosen[name].reset_index(drop=True), method="spearman")
                for name in ("gdsi", "direction_selectivity")}  # fmt: skip
    assert spearman["gdsi"] >= 0.95 and spearman["direction_selectivity"] >= 0.6


def test_backwards_the_preferred_direction_turns_round(animal, curves):
    backwards = Screen(animal).directions(change=lambda film: film[::-1])
    there, back = circular_tuning(curves, DIRECTIONS), circular_tuning(backwards, DIRECTIONS)
    clear = (there["gdsi"] > 0.2).to_numpy()
    turned = circular_difference(there["preferred_direction_deg"] + 180, back["preferred_direction_deg"])
    assert clear.sum() > 20 and np.median(abs(turned[clear])) < 2
    np.testing.assert_allclose(there["gosi"][clear], back["gosi"][clear], atol=0.05)


def test_in_a_mirror_left_is_right(animal, curves):
    mirrored = Screen(animal).directions(change=lambda film: film[:, :, ::-1])
    there = [np.flatnonzero((180 - d) % 360 == DIRECTIONS)[0] for d in DIRECTIONS]
    np.testing.assert_allclose(mirrored[:, there], curves, rtol=1e-3, atol=1e-3 * curves.max())


def test_opposite_directions_share_their_axis(curves):
    opposite = np.roll(curves, 8, axis=1)
    first, second = (circular_tuning(c, DIRECTIONS)["preferred_orientation_deg"] for c in (curves, opposite))
    assert first.notna().sum() > 40
    np.testing.assert_allclose(circular_difference(first, second, 180).dropna(), 0, atol=1e-6)


def test_the_screen_does_not_change_what_is_preferred_in_degrees(truth):
    """The same neurons, in degrees, before another rig's screen."""
    table = make_animal(NEURONS).neurons
    inside = abs(table["azimuth_deg"]).lt(25) & abs(table["elevation_deg"]).lt(18) & (table["kind"] == "gabor")
    found = []
    for monitor in (SENSORIUM, ROCHEFORT):
        animal = make_animal(NEURONS, monitor=monitor)
        columns = ["azimuth_deg", "elevation_deg", "direction_deg", "sf_cpd"]
        assert np.allclose(animal.neurons.loc[inside, columns], table.loc[inside, columns])  # they are the same
        screen, curves, best = Screen(animal), [], []
        for _, neuron in animal.neurons[inside].iterrows():
            curves.append(screen.own_directions(neuron))
            centre, cpd = (neuron["x_px"], neuron["y_px"]), (0.02, 0.03, 0.045, 0.07)
            disc, direction = windows.disc(monitor, centre, 40), neuron["direction_deg"]
            films = [disc * gratings.grating(monitor, direction, f, 2, FRAMES, centre=centre) for f in cpd]
            responses = screen.respond(np.stack(films), [neuron["neuron"]])
            best.append(fit_frequencies(responses.T, np.array(cpd))["preferred"][0])
        found.append(circular_tuning(np.stack(curves), DIRECTIONS).assign(sf=best))
    a, b = found
    turned = circular_difference(a["preferred_orientation_deg"], b["preferred_orientation_deg"], 180)
    assert np.median(abs(turned)) < 2
    ratio = (a["sf"] / b["sf"]).dropna()
    assert len(ratio) > 5 and 0.9 < ratio.median() < 1.1


def test_without_contrast_nothing_is_tuned(animal):
    screen = Screen(animal)
    above = screen.directions(contrast=0.0)
    table = circular_tuning(above + screen.grey[:, None], DIRECTIONS, baseline=screen.grey)
    assert table.isna().all().all()


def test_shuffled_neurons_have_no_tuning_of_their_own(curves, fields, truth):
    order, bound = np.random.default_rng(0).permutation(NEURONS), 3 / np.sqrt(NEURONS)
    table = circular_tuning(curves, DIRECTIONS)

    def rho(a, b):
        return pd.Series(np.asarray(a)).corr(pd.Series(np.asarray(b)), method="spearman")

    assert rho(table["gdsi"], truth["gdsi"]) > 0.8 and rho(fields["x"], truth["x_px"]) > 0.95
    for estimate, true in ((table["gdsi"], truth["gdsi"]), (fields["x"], truth["x_px"]), (fields["y"], truth["y_px"])):
        assert abs(rho(estimate.to_numpy()[order], true)) < bound
    turned = circular_difference(table["preferred_orientation_deg"].to_numpy()[order],
                                 truth["preferred_orientation_deg"].to_numpy(), 180)  # fmt: skip
    turned = turned[np.isfinite(turned)]
    assert abs(np.exp(2j * np.radians(turned)).mean()) < 3 / np.sqrt(len(turned))


def test_running_scales_responses_as_its_weight_says(animal, truth):
    film = gratings.grating(SENSORIUM, 90, 0.04, 2, FRAMES)[None]
    rates = []
    for running in (0.0, 2.0):
        screen = Screen(animal, running=running)
        screen.respond(film)
        rates.append(Window(0.1, 1.0).mean(screen.presenter.show(grey_levels(film)))[0])
    expected = np.exp(2 * truth["running_gain"])
    assert (abs(rates[1] / rates[0] / expected - 1) < 0.05).all()
