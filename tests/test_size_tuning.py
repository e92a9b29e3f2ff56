"""Preferred sizes, suppression and inverse tuning of known curves and of the animal; what is not there is NaN."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.special import erf
from test_simulate_animal import make_animal

from viv1t.estimators.size_tuning import (
    Criteria,
    SizeCurves,
    fit_classical,
    fit_inverse,
    inverse_rise,
    inverse_tuning_index,
    size_curves,
    size_tuning,
    suppression_index,
    underfilled,
)
from viv1t.presentation import AnimalPresenter, Timeline, Window
from viv1t.stimulus.contexts import context
from viv1t.stimulus.levels import grey_levels

SIZES = np.array([5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 80.0])
DENSE = np.linspace(5, 80, 400)
WIDTHS = ((15, 50), (20, 60), (25, 90), (30, 80), (40, 120))
GAINS = (1.0, 3.0, 8.0)


def ratio(sizes, wc, ws, gain) -> np.ndarray:
    return erf(np.asarray(sizes) / wc) ** 2 / (1 + gain * erf(np.asarray(sizes) / ws) ** 2)


def bump(sizes, full, width, peak, place, spread) -> np.ndarray:
    sizes = np.maximum(sizes, 1e-9)
    return full * np.exp(-((sizes / width) ** 2)) + peak * np.exp(-(np.log(sizes / place) ** 2) / 2 / spread**2)


def classical() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Curves, full-field responses, and true preferred sizes of ratios of Gaussians."""
    shapes = [(*widths, gain) for widths, gain in product(WIDTHS, GAINS)]
    curves, dense = (np.array([ratio(sizes, *shape) for shape in shapes]) for sizes in (SIZES, DENSE))
    return curves, np.array([1 / (1 + gain) for *_, gain in shapes]), DENSE[dense.argmax(axis=1)]


def curves_of(classical, inverse, full, noise=0.0) -> SizeCurves:
    return SizeCurves(SIZES, np.atleast_2d(classical), np.atleast_2d(inverse), np.atleast_1d(full),
                      np.full(len(np.atleast_1d(full)), noise))  # fmt: skip


def test_fits_find_known_preferred_sizes_whatever_the_unit():
    curves, full, true = classical()
    for unit in (1e-3, 1.0, 1e3):
        fit = fit_classical(SIZES, unit * curves, unit * full)
        top, preferred, reached = fit.peak(SIZES[0], SIZES[-1], 0.95)
        assert fit.r2.min() > 0.999
        assert abs(preferred - true).max() < 1.5
        assert np.allclose(top, unit * curves.max(axis=1), rtol=0.02)
        assert np.allclose(fit.at([np.inf])[:, 0], unit * full, rtol=0.02)
        assert (reached < preferred).all()


def test_fits_are_nearer_than_the_sampled_maximum_in_noise():
    curves, full, true = classical()
    rng = np.random.default_rng(0)
    noisy = np.repeat(curves, 10, axis=0) / curves.max(axis=1).repeat(10)[:, None]
    noisy = noisy + rng.normal(0, 0.1, noisy.shape)
    found = fit_classical(SIZES, noisy, (full / curves.max(axis=1)).repeat(10))
    error = abs(found.peak(SIZES[0], SIZES[-1])[1] - true.repeat(10))
    sampled = abs(SIZES[noisy.argmax(axis=1)] - true.repeat(10))
    assert np.mean(error) < 0.75 * np.mean(sampled)


def test_inverse_fits_find_the_peak_beside_the_remains_of_the_full_field():
    shapes = [(full, 15, 1.0, place, 0.35) for full, place in product((0.0, 0.2, 0.8), (25, 40, 55))]
    curves = np.array([bump(SIZES, *shape) for shape in shapes])
    fit = fit_inverse(SIZES, curves, np.array([full for full, *_ in shapes]))
    assert fit.r2.min() > 0.99
    # a width is not told by one flank alone, the place of the peak is
    peak = fit.peak(20, SIZES[-1])[1]
    assert np.allclose(peak, [place for *_, place, _ in shapes], atol=2.5)


def test_a_classical_field_has_no_inverse_peak():
    falling = np.array([bump(SIZES, 0.25, width, 0, 40, 0.3) for width in (15, 25, 40)])
    table = size_tuning(curves_of(np.tile(ratio(SIZES, 20, 60, 3), (3, 1)), falling, np.ones(3) / 4), np.zeros(3))
    assert (table["class"] == "classical").all() and table["inverse_size_deg"].isna().all()
    assert (table["inverse_rise"] == 0).all()


def test_indices_have_their_textbook_values():
    suppression = suppression_index(np.array([4.0, 4.0, 4.0, 4.0, 0.0]), np.array([1.0, 0.0, 4.0, 6.0, 1.0]))
    assert suppression[:4].tolist() == [0.75, 1.0, 0.0, 0.0] and np.isnan(suppression[4])
    index = inverse_tuning_index(np.array([3.0, 1.0, 2.0, 1.0]), np.array([1.0, 3.0, 2.0, 1.0]), np.ones(4))
    assert index[:3].tolist() == [0.0, 1.0, 0.5] and np.isnan(index[3])
    # the definition, with peaks above the full field
    cla, inv, full = np.array([3.0]), np.array([2.2]), np.array([0.7])
    assert inverse_tuning_index(cla, inv, full) == pytest.approx((inv - cla) / (2 * (inv - full + cla - full)) + 0.5)
    assert inverse_rise(np.array([[1.0, 0.2, 0.9, 0.3]]), np.array([2.0])) == pytest.approx(0.7)


def test_a_feedback_field_makes_a_neuron_inverse_tuned_by_its_amplitude():
    curve, full = ratio(SIZES, 20, 60, 3), 0.25
    peak = curve.max()
    found = {}
    for share in (0.1, 0.5, 1.0, 3.0):
        inverse = bump(SIZES, full, 15, share * peak, 50, 0.3)
        found[share] = size_tuning(curves_of(curve, inverse, full), np.zeros(1)).iloc[0]
    assert [own["inverse_tuned"] for own in found.values()] == [False, False, True, True]
    assert found[1.0]["inverse_tuning_index"] == pytest.approx(0.5, abs=0.02)
    assert found[3.0]["inverse_size_deg"] == pytest.approx(50, abs=3)
    # half of the peak lies below the full field of this neuron plus a tenth: lower thresholds find it
    lax = Criteria(least_gain=-1.0)
    assert size_tuning(curves_of(curve, bump(SIZES, full, 15, 0.5 * peak, 50, 0.3), full), np.zeros(1), lax)[
        "inverse_tuned"
    ].all()


def test_amplitude_decides_who_responds_and_noise_forbids():
    curves, full, _ = classical()
    own = curves_of(curves, np.zeros_like(curves), full)
    assert size_tuning(own, np.full(len(full), 0.9 * curves.max(axis=1)))["responsive"].all()
    assert not size_tuning(own, np.full(len(full), 1.1 * curves.max(axis=1)))["responsive"].any()
    loud = curves_of(curves, np.zeros_like(curves), full, noise=curves.max() / 3)
    quiet = size_tuning(loud, np.zeros(len(full)))
    assert not quiet["responsive"].any() and (quiet["class"] == "not responsive").all()
    assert quiet.filter(regex="_deg$|_index$|_r2$|_rise$").isna().all(axis=None)


def test_silence_is_undefined_and_never_infinite():
    for value in (0.0, -1.0, np.nan):
        flat = np.full((2, len(SIZES)), value)
        table = size_tuning(curves_of(flat, flat, flat[:, 0]), np.zeros(2))
        assert not table["responsive"].any() and not table["inverse_tuned"].any()
        assert not np.isinf(table.select_dtypes("number")).any(axis=None)
        assert table.filter(regex="_deg$|_index$|_r2$").isna().all(axis=None)


def test_a_z_score_across_sizes_does_not_tell_who_is_tuned():
    """Ten sizes cannot give more than z = 3, and suppression to a plateau never gives the 1.98 that was asked for."""
    sizes = np.arange(0, 100, 10.0)
    curves = np.array([ratio(sizes, *widths, gain) for widths, gain in product(WIDTHS, GAINS)])
    z = (curves - curves.mean(axis=1, keepdims=True)) / curves.std(axis=1, keepdims=True)
    assert (z.max(axis=1) >= 1.98).mean() < 0.1
    assert np.max((np.eye(10)[0] - 0.1) / np.eye(10)[0].std()) == pytest.approx(3)
    own, full, _ = classical()
    table = size_tuning(curves_of(own, np.zeros_like(own), full), np.full(len(full), 0.01))
    assert table["responsive"].all() and (table["suppression_index"] > 0.1).mean() > 0.9


def test_discs_that_do_not_fill_the_field_are_told():
    curve = np.array([[0.2, 0.7, 0.85, 1.0, 0.6, 0.3]])
    assert underfilled(curve, np.arange(10, 70, 10)).tolist() == [[True, True, False, False, False, False]]
    assert underfilled(curve, np.arange(10, 70, 10), least=0.9).sum() == 3


def test_curves_are_means_above_grey_and_their_noise_is_that_of_repeats():
    rng = np.random.default_rng(3)
    rows = [*product(["centre"], (10, 20)), *product(["inverse"], (0, 10, 20))]
    table = pd.DataFrame([(*row, np.nan, phase, repeat) for row in rows for phase in (0, 180) for repeat in range(8)],
                         columns=["kind", "size_deg", "direction_deg", "phase_deg", "repeat"])  # fmt: skip
    table = table.sample(frac=1, random_state=0).reset_index(drop=True)
    mean = table["size_deg"].to_numpy() + 100 * (table["kind"] == "inverse").to_numpy()
    responses = (
        mean[:, None] + 40 * (table["phase_deg"] == 180).to_numpy()[:, None] + rng.normal(0, 5, (len(table), 300))
    )
    found = size_curves(table, responses, np.full(300, 20.0))
    assert found.classical.mean(axis=0) == pytest.approx([10, 20], abs=1)
    assert found.inverse.mean(axis=0) == pytest.approx([110, 120], abs=1)
    assert found.full.mean() == pytest.approx(100, abs=1)
    # 16 responses make a mean; what phases do is no noise where there are repeats
    assert found.noise.mean() == pytest.approx(5 / 4, rel=0.05)
    once = table["repeat"] == 0
    phases = size_curves(table[once].reset_index(drop=True), responses[once.to_numpy()], np.zeros(300))
    assert phases.noise.mean() == pytest.approx(np.sqrt(5**2 / 2 + 40**2 / 4), rel=0.1)


NEURONS = 24


@pytest.fixture(scope="module")
def dense() -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """Oriented neurons of an animal, dense sizes, and their responses to classical and inverse gratings (n, S)."""
    animal = make_animal(40)
    neurons = animal.neurons[animal.neurons["kind"] == "gabor"].head(NEURONS)
    presenter = AnimalPresenter(
        animal, Timeline(pattern=30), animal.setting.behavior_mean, animal.setting.pupil_center
    )
    sizes = np.unique([*SIZES, *range(4, 84, 4)])
    found = np.zeros((2, NEURONS, len(sizes) + 1))
    for n, (row, neuron) in enumerate(neurons.iterrows()):
        presenter.listen([row])
        place, direction = (neuron["x_px"], neuron["y_px"]), neuron["direction_deg"]
        films = [context(animal.monitor, place, kind, size, direction, 0.04, 2, 30)
                 for kind in ("centre", "inverse") for size in (*sizes, 0)]  # fmt: skip
        responses = Window(0.5, 1.0).mean(presenter.show(grey_levels(np.stack(films))))[:, 0]
        found[:, n] = (responses - presenter.spontaneous()[0]).reshape(2, -1)
    return neurons, sizes, found[0, :, :-1], found[1]


def test_the_animal_prefers_the_sizes_of_its_own_dense_curve(dense):
    neurons, sizes, centre, around = dense
    shown = np.isin(sizes, SIZES)
    table = size_tuning(curves_of(centre[:, shown], around[:, :-1][:, shown], around[:, -1]), np.zeros(NEURONS))
    true = sizes[centre.argmax(axis=1)]
    assert table["responsive"].all() and (table["size_r2"] > 0.8).mean() > 0.9
    assert (abs(table["preferred_size_deg"] - true) <= 10).mean() >= 0.95
    strength = neurons["surround_strength"].reset_index(drop=True)
    assert table["suppression_index"].corr(strength, "spearman") >= 0.7


def test_the_animals_feedback_is_found_by_the_rise_of_its_inverse_response(dense):
    neurons, sizes, centre, around = dense
    shown = np.isin(sizes, SIZES)
    table = size_tuning(curves_of(centre[:, shown], around[:, :-1][:, shown], around[:, -1]), np.zeros(NEURONS))
    fed = (neurons["feedback"] > 0).to_numpy()
    assert table.loc[fed, "inverse_tuned"].mean() >= 0.65 and not table.loc[~fed, "inverse_tuned"].any()
    assert table.loc[fed, "inverse_tuning_index"].median() > 0.35
    assert table.loc[~fed, "inverse_tuning_index"].median() < 0.1
    assert table.loc[fed, "inverse_rise"].min() > table.loc[~fed, "inverse_rise"].max()
