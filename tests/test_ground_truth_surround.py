"""Where a stimulus lies, which way it drifts and what came before it: what surrounds can be asked, and what not."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from test_ground_truth import NEURONS, Screen, make_animal

from viv1t.presentation import Timeline, Window
from viv1t.simulate import tuning
from viv1t.stimulus.contexts import context

SIZES = (10, 20, 30, 40, 60)
FRAMES, LATE = 30, Window(0.5, 1.0)  # one cycle of the grating


@pytest.fixture(scope="module")
def animal():
    return make_animal(NEURONS)


@pytest.fixture(scope="module")
def truth(animal) -> pd.DataFrame:
    """Oriented neurons with a surround."""
    table = animal.neurons.join(tuning.measure(animal))
    return table[(table["kind"] == "gabor") & (table["surround_strength"] > 0)]


def responses(animal, truth, stimuli, miss=0.0, turn=None, timeline=Timeline(pattern=FRAMES)) -> np.ndarray:  # noqa: B008
    """Answers (neurons, stimuli) to (kind, size) at each field; stimuli may be a function of the neuron.

    miss: pixels by which the stimulus lies beside the field; turn: one direction for all, instead of each neuron's.
    """
    screen = Screen(animal, timeline)
    found = []
    for neuron in truth.to_dict("records"):
        way = np.exp(1j * neuron["neuron"])  # in any direction, but onto the screen
        centre = np.clip([neuron["x_px"] + miss * way.real, neuron["y_px"] + miss * way.imag], 0, [63, 35])
        direction = neuron["direction_deg"] if turn is None else turn
        own = stimuli(neuron) if callable(stimuli) else stimuli
        shown = [context(animal.monitor, centre, kind, size, direction, 0.04, 2.0, FRAMES) for kind, size in own]
        found.append(screen.respond(np.stack(shown), [neuron["neuron"]], LATE)[:, 0])
    return np.array(found)


def suppression(animal, truth, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    """Best size, and (best - full field) / best."""
    curves = responses(animal, truth, [*(("centre", size) for size in SIZES), ("iso", 0)], **kwargs)
    best = curves[:, :-1].argmax(axis=1)
    peak = curves[np.arange(len(curves)), best]
    return np.array(SIZES)[best], (peak - curves[:, -1]) / peak


def test_a_miss_of_two_pixels_is_harmless_and_one_of_four_is_not(animal, truth):
    """Why fields are required, and neurons more than 2 pixels from the stimulus are left out."""
    sizes, shares = zip(*(suppression(animal, truth, miss=miss) for miss in (0, 2, 4)), strict=True)
    agreement = [spearmanr(share, truth["surround_strength"]).statistic for share in shares]
    stable = [np.mean(abs(found - sizes[0]) <= 10) for found in sizes]
    assert agreement[0] > 0.7 and stable[1] > 0.9
    assert stable[2] < stable[1] - 0.2 and agreement[2] < agreement[0] - 0.05


def own_disc(neuron: dict) -> list[tuple]:
    return [("iso", 0), ("cross", neuron["preferred_size_deg"])]


def test_only_the_preferred_direction_tells_the_surround(animal, truth):
    size = truth["preferred_size_deg"].reindex(range(NEURONS)).to_numpy()
    expected, found = tuning.measure_contexts(animal, size, 0.04, 2.0, (1.0,)).loc[truth.index], []
    for turn in (None, 90.0):
        iso, cross = np.maximum(responses(animal, truth, own_disc, turn=turn), 1e-9).T
        found.append(spearmanr((cross - iso) / (cross + iso), expected["cmi_1"]).statistic)
    assert found[0] > 0.9 and found[1] < 0.6


def test_the_closed_form_is_what_the_screen_shows(animal, truth):
    """Drives to the grating of an experiment, without pixels' grey levels or a beginning, against its answers."""
    size = np.full(NEURONS, 25.0)
    expected = tuning.measure_contexts(animal, size, 0.04, 2.0, (1.0,)).loc[truth.index]
    kinds = ("centre", "iso", "cross", "shift")
    found = responses(animal, truth, [(kind, 25) for kind in kinds])
    for kind, answers in zip(kinds, found.T, strict=True):
        assert np.corrcoef(answers / truth["mean_response"], expected[f"{kind}_1"])[0, 1] > 0.98, kind
    nothing = tuning.measure_contexts(animal, np.full(NEURONS, np.nan), 0.04, 2.0, (1.0,))
    assert len(nothing) == NEURONS and nothing.isna().all(axis=None)
