"""An experiment goes on where it was stopped, and its file says what was shown to whom."""

import json

import numpy as np
import pandas as pd
import pytest
from test_simulate_animal import make_animal

from viv1t.errors import UserError
from viv1t.experiment import Audience, Experiment, at_fields, at_screen_centre, run
from viv1t.geometry import SENSORIUM
from viv1t.measurements import Measurement
from viv1t.presentation import AnimalPresenter, Timeline, Window
from viv1t.stimulus.levels import grey_levels
from viv1t.subjects import Subject

NEURONS = 12
MEAN = Window(0, 0.2)


@pytest.fixture(scope="module")
def subject() -> Subject:
    animal, rows = make_animal(NEURONS), np.arange(NEURONS)
    held = np.array(animal.setting.behavior_mean), np.array(animal.setting.pupil_center)
    coordinates = animal.neurons[["x_um", "y_um", "z_um"]].to_numpy(np.float32)
    return Subject(
        "simA", "animal", "0", SENSORIUM, 30, rows, rows + 100, coordinates, rows, *held,
        lambda timeline: AnimalPresenter(animal, timeline, *held),
    )  # fmt: skip


class Stopped(Exception):
    pass


def flashes(count: int = 300, window: Window | None = MEAN, stop_at: int | None = None) -> Experiment:
    """Bright squares at the audience's centre, of a size that the condition tells."""
    conditions = pd.DataFrame({"size": 1 + np.arange(count) % 30, "kind": ["bright", "dark"] * (count // 2)})
    drawn = []

    def draw(monitor, condition, audience):
        drawn.append(condition)
        if len(drawn) == stop_at:
            raise Stopped
        image, (x, y) = np.zeros((monitor.height, monitor.width), np.float32), map(round, audience.centre)
        half = int(condition["size"]) // 2
        image[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1] = 1
        return np.repeat(image[None] * (1 if condition["kind"] == "bright" else -1), 6, axis=0)

    return Experiment(conditions, draw, Timeline(pattern=6), window, {"experiment": "flashes"})


def audiences() -> list[Audience]:
    return [Audience(np.array([0, 3, 4]), (20.0, 10.0)), Audience(np.array([7]), (40.0, 20.0))]


def content(path) -> dict:
    with Measurement(path) as found:
        return {
            "responses": found.responses[:],
            "centre": found.centre,
            "spontaneous": found.spontaneous,
            "conditions": found.conditions,
            "about": found.about,
        }


def test_a_file_says_what_was_shown_to_whom(subject, tmp_path):
    experiment, path = flashes(), tmp_path / "mousesimA.h5"
    run(subject, experiment, audiences(), path, batch_size=16)
    with Measurement(path) as found:
        pd.testing.assert_frame_equal(found.conditions, experiment.conditions, check_dtype=False)
        assert found.monitor == SENSORIUM and found.about["source"] == "animal"
        assert found.about["window"] == {"start": 0, "stop": 0.2}
        assert np.flatnonzero(found.shown).tolist() == [0, 3, 4, 7]
        assert np.isnan(found.responses[:][:, ~found.shown]).all()
        assert np.isfinite(found.responses[:][:, found.shown]).all()
        assert found.unit_ids.tolist() == list(range(100, 112))
    presenter = subject.presenter(experiment.timeline)
    presenter.listen(np.array([7]))
    pattern = np.full((1, 6, 36, 64), 127, np.uint8)
    pattern[0, :, 18:23, 38:43] = grey_levels(1.0)  # size 5 at (40, 20)
    expected = presenter.show(pattern)[0, 0].mean()
    assert content(path)["responses"][4, 7] == pytest.approx(expected, rel=1e-5)


def test_stopped_anywhere_it_goes_on_and_ends_the_same(subject, tmp_path):
    run(subject, flashes(), audiences(), tmp_path / "whole.h5", batch_size=16)
    path = tmp_path / "resumed.h5"
    for stop_at in (40, 150, 200):  # within the first, the second and the fourth part
        with pytest.raises(Stopped):
            run(subject, flashes(stop_at=stop_at), audiences(), path, batch_size=16)
        assert not path.exists()
    run(subject, flashes(), audiences(), path, batch_size=16)
    whole, resumed = content(tmp_path / "whole.h5"), content(path)
    np.testing.assert_allclose(resumed["responses"], whole["responses"], rtol=1e-6)
    assert resumed["about"] == whole["about"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["resumed.h5", "whole.h5"]


def test_a_finished_experiment_is_not_repeated_and_another_one_is(subject, tmp_path, capsys):
    path = tmp_path / "mouse.h5"
    run(subject, flashes(100), audiences(), path, batch_size=16)
    before = path.stat().st_mtime_ns
    run(subject, flashes(100, stop_at=1), audiences(), path, batch_size=16)
    assert path.stat().st_mtime_ns == before and "nothing to show" in capsys.readouterr().out
    run(subject, flashes(60), audiences(), path, batch_size=16)
    assert content(path)["responses"].shape == (60, NEURONS)
    elsewhere = [Audience(np.array([0, 3, 4]), (21.0, 10.0))]
    run(subject, flashes(60), elsewhere, path, batch_size=16)
    assert np.isfinite(content(path)["centre"][:, 0]).sum() == 3


def test_neither_the_order_nor_the_batch_size_matters(subject, tmp_path):
    results = []
    for name, order, batch_size in (("a", 1, 16), ("b", -1, 7)):
        run(subject, flashes(90), audiences()[::order], tmp_path / name, batch_size)
        results.append(content(tmp_path / name)["responses"])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-7)


def test_without_a_window_traces_are_kept(subject, tmp_path):
    run(subject, flashes(40, window=None), audiences(), tmp_path / "traces", batch_size=16)
    run(subject, flashes(40), audiences(), tmp_path / "means", batch_size=16)
    traces, means = (content(tmp_path / name)["responses"] for name in ("traces", "means"))
    assert traces.shape == (40, NEURONS, 6)
    np.testing.assert_allclose(traces.mean(axis=2), means, rtol=1e-6)


def test_neurons_without_a_field_are_counted_and_never_centred(subject, tmp_path, capsys):
    fields = pd.DataFrame({
        "mouse": "simA",
        "neuron": [0, 1, 2, 3, 4],
        "x": [20.1, 20.3, 31.0, np.nan, 5.0],
        "y": [9.8, 10.2, 8.0, np.nan, 5.0],
        "bad_fit": [False, False, False, False, True],
        "direction": [0.0, 0.0, 90.0, 0.0, 0.0],
    })  # fmt: skip
    found = at_fields(subject, fields)
    assert "3 of 12 neurons have a field" in capsys.readouterr().out
    assert [(a.neurons.tolist(), a.centre) for a in found] == [([0, 1], (20.0, 10.0)), ([2], (31.0, 8.0))]
    found = at_fields(subject, fields.assign(direction=[0.0, 45.0, 90.0, 0.0, 0.0]), own=["direction"])
    assert [(a.neurons.tolist(), a.own["direction"]) for a in found] == [([0], 0), ([1], 45), ([2], 90)]
    coarse = at_fields(subject, fields, step=4)
    assert coarse[0].centre == (20.0, 8.0)
    run(subject, flashes(10), found, tmp_path / "mouse.h5", batch_size=16)
    assert np.isfinite(content(tmp_path / "mouse.h5")["spontaneous"]).sum() == 3
    with pytest.raises(UserError, match=r"neuron 3 .*\(70\.0, 10\.0\), off the screen of 64 x 36"):
        run(subject, flashes(10), [Audience(np.array([3]), (70.0, 10.0))], tmp_path / "off.h5", batch_size=16)
    with pytest.raises(UserError, match="no neuron"):
        run(subject, flashes(10), [], tmp_path / "none.h5", batch_size=16)


def test_all_chosen_neurons_see_the_screen_centre(subject):
    (everyone,) = at_screen_centre(subject)
    assert everyone.centre == (31.5, 17.5) and len(everyone.neurons) == NEURONS


@pytest.mark.parametrize("spoil", ["truncate", "text", "other"])
def test_a_file_that_is_not_a_measurement_is_named(subject, tmp_path, spoil):
    path = tmp_path / "mouse.h5"
    run(subject, flashes(10), audiences(), path, batch_size=16)
    if spoil == "truncate":
        path.write_bytes(path.read_bytes()[:500])
    elif spoil == "text":
        path.write_text(json.dumps({"responses": 1}))
    else:
        import h5py

        with h5py.File(path, "a") as file:
            del file["centre"]
    with pytest.raises(UserError, match=r"mouse\.h5.*Delete it"):
        Measurement(path)
