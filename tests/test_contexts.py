"""What lies in the disc and what lies around it, and where stimuli are centred."""

from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
from test_experiment import subject  # noqa: F401 (a fixture)

from viv1t import cli
from viv1t.errors import UserError
from viv1t.geometry import SENSORIUM
from viv1t.stimulus.contexts import KINDS, context
from viv1t.stimulus.gratings import grating, whole_frames
from viv1t.stimulus.windows import disc
from viv1t.subjects import add_subject_flags
from viv1t.targets import add_target_flags, audiences, read_targets

CENTRE, SIZE = (25.0, 14.0), 24.0
GRATING = {"sf_cpd": 0.04, "tf_hz": 2.0, "frames": 15}


def shown(kind: str, **kwargs) -> np.ndarray:
    return context(SENSORIUM, CENTRE, kind, SIZE, kwargs.pop("direction_deg", 90.0), **GRATING | kwargs)


@pytest.fixture(scope="module")
def places() -> tuple[np.ndarray, np.ndarray]:
    """Pixels wholly within the disc, and wholly outside."""
    window = disc(SENSORIUM, CENTRE, SIZE)
    return window == 1, window == 0


@pytest.mark.parametrize("kind", KINDS)
def test_centre_and_surround_are_what_their_names_say(kind, places):
    inside, outside = places
    own, turned = (grating(SENSORIUM, d, **GRATING, centre=CENTRE) for d in (90, 180))
    around = {"centre": 0 * own, "iso": own, "cross": turned, "shift": -own, "inverse": own, "inverse_cross": turned}
    pattern = shown(kind)
    assert pattern.dtype == np.float32 and pattern.shape == (15, 36, 64)
    np.testing.assert_allclose(pattern[:, inside], 0 if kind.startswith("inverse") else own[:, inside], atol=1e-6)
    np.testing.assert_allclose(pattern[:, outside], around[kind][:, outside], atol=1e-6)


def test_centre_and_inverse_add_up_to_the_full_field():
    np.testing.assert_allclose(shown("centre") + shown("inverse"), shown("iso"), atol=1e-6)
    assert not context(SENSORIUM, CENTRE, "centre", 0, 90, **GRATING).any()
    full = context(SENSORIUM, CENTRE, "inverse", 0, 90, **GRATING)
    np.testing.assert_allclose(full, shown("iso"), atol=1e-6)


def test_a_surround_can_have_a_gap_and_an_end(places):
    pattern = shown("iso", gap_deg=5, outer_deg=60)
    gap = (disc(SENSORIUM, CENTRE, SIZE) == 0) & (disc(SENSORIUM, CENTRE, SIZE + 10) == 1)
    beyond = disc(SENSORIUM, CENTRE, 60) == 0
    assert gap.sum() > 10 and beyond.sum() > 10
    assert not pattern[:, gap].any() and not pattern[:, beyond].any()
    assert abs(pattern[:, places[0]]).max() > 0.9
    with pytest.raises(ValueError, match="not one of"):
        shown("isso")


def test_a_cross_surround_turned_to_the_other_side_drifts_the_other_way(places):
    one, other = (shown("cross", side=side)[:, places[1]] for side in (1, -1))
    opposite = grating(SENSORIUM, 0, **GRATING, centre=CENTRE)[:, places[1]]
    np.testing.assert_allclose(other, opposite, atol=1e-6)
    assert abs(one - other).max() > 0.5


def test_phases_in_whole_frames_show_the_same_frames_and_still_cancel():
    phases = whole_frames(5, 2.0)
    assert np.allclose(phases, [0, 72, 144, 216, 288])
    frames = np.concatenate([shown("iso", phase_deg=phase) for phase in phases])
    assert len(np.unique(frames, axis=0)) == 15
    assert np.allclose(whole_frames(4, 2.0), [0, 96, 192, 264])
    assert np.allclose(whole_frames(4, 7.0), [0, 90, 180, 270])  # no whole number of frames to a cycle
    assert abs(np.exp(1j * np.radians(whole_frames(3, 2.0))).sum()) < 1e-9


def arguments(run_dir, *flags) -> Namespace:
    parser = cli.Parser("test")
    parser.add_argument("--output_dir")
    add_target_flags(parser)
    return parser.parse_args(["--output_dir", str(run_dir), *flags])


@pytest.fixture
def run_dir(tmp_path):
    """Fields and preferences of six neurons; 3 has no field, 5 no preference."""
    fields = {"mouse": "simA", "neuron": np.arange(6), "x": [10.0, 10.2, 30.4, 30, 40, 41],
              "y": [5.0, 5.3, 9.0, 9, 20, 20], "bad_fit": [0, 0, 0, 1, 0, 0]}  # fmt: skip
    pd.DataFrame(fields).astype({"bad_fit": bool}).to_csv(tmp_path / "aRF.csv", index=False)
    tuned = {"mouse": "simA", "neuron": np.arange(6), "preferred_direction_deg": [2.0, 357.0, 100, 90, 181, np.nan]}
    pd.DataFrame(tuned).to_csv(tmp_path / "selectivity_gratings.csv", index=False)
    return tmp_path


def shown_to(args, mouse) -> list[tuple]:
    found = audiences(args, mouse, read_targets(args, "simA"))
    return sorted((a.neurons.tolist(), a.centre, a.own) for a in found)


def test_each_neuron_sees_its_own_direction_on_its_own_field(run_dir, subject):  # noqa: F811
    found = shown_to(arguments(run_dir), subject)
    assert found == [
        ([0, 1], (10.0, 5.0), {"direction_deg": 0.0}),
        ([2], (30.0, 9.0), {"direction_deg": 105.0}),
        ([4], (40.0, 20.0), {"direction_deg": 180.0}),
    ]


def test_one_stimulus_for_all_is_centred_on_the_median_field(run_dir, subject):  # noqa: F811
    ((neurons, centre, own),) = shown_to(
        arguments(run_dir, "--centre", "population", "--directions", "90", "270"), subject
    )
    assert neurons == [0, 1, 2, 4, 5] and own == {} and np.allclose(centre, (30.4, 9.0), atol=1e-3)
    fields = pd.read_csv(run_dir / "aRF.csv").assign(bad_fit=True)
    fields.to_csv(run_dir / "aRF.csv", index=False)
    with pytest.raises(UserError, match="no neuron has an accepted field"):
        shown_to(arguments(run_dir, "--centre", "population"), subject)


def test_neurons_are_named_one_by_one_or_as_ranges():
    parser = cli.Parser("test")
    add_subject_flags(parser)
    assert parser.parse_args(["--output_dir", "x", "--neurons", "3", "7-9"]).neurons == [3, 7, 8, 9]
    assert parser.parse_args(["--output_dir", "x"]).neurons is None
    for wrong in ("9-7", "a", "3-", "-1"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--output_dir", "x", "--neurons", wrong])
