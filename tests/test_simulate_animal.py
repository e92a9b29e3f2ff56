"""The simulated animal is causal, aligned, differentiable, and tuned as its parameters say."""

import numpy as np
import pandas as pd
import pytest
import torch

from viv1t.errors import UserError
from viv1t.geometry import ROCHEFORT, SENSORIUM, Monitor
from viv1t.simulate import filters, gratings, tuning
from viv1t.simulate.animal import Animal, Setting
from viv1t.simulate.circuit import OUTPUT_POWER, SURROUND_POWER
from viv1t.simulate.population import draw_population

GREY, ONSET = 127.0, 20


def make_animal(num_neurons: int = 120, monitor: Monitor = SENSORIUM, seed: int = 1) -> Animal:
    neurons = draw_population(num_neurons, monitor, seed).assign(drive_mean=0.05)
    return Animal(neurons, Setting(monitor=monitor))


def look(animal: Animal, video: torch.Tensor, neurons=None) -> np.ndarray:
    """Response (N, T) to a video (T, H, W) with resting body and gaze."""
    frames = len(video)
    behavior = torch.tensor(animal.setting.behavior_mean)[None, :, None].expand(1, 2, frames)
    pupil = torch.tensor(animal.setting.pupil_center)[None, :, None].expand(1, 2, frames)
    return animal.respond(video[None, None], behavior, pupil, neurons)[0].numpy()


def grey(monitor: Monitor = SENSORIUM, frames: int = 60) -> torch.Tensor:
    return torch.full((frames, monitor.height, monitor.width), GREY)


@pytest.fixture(scope="module")
def animal() -> Animal:
    return make_animal()


@pytest.fixture(scope="module")
def measured(animal) -> pd.DataFrame:
    """Generative parameters beside the noiseless tuning, Gabor neurons only."""
    table = animal.neurons.join(tuning.measure(animal))
    return table[table["kind"] == "gabor"]


@pytest.fixture(scope="module")
def feedforward(measured) -> pd.DataFrame:
    return measured[measured["feedback"] == 0]


def correlation(a, b) -> float:
    return float(np.corrcoef(a, b)[0, 1])


class TestTime:
    def test_a_change_shows_one_frame_later_in_the_fastest_neurons(self, animal):
        video = grey()
        video[ONSET:] = torch.from_numpy(np.random.default_rng(0).choice((0.0, 255.0), video.shape[1:]))
        response = look(animal, video)
        changed = abs(response - response[:, :1]) > 1e-6 * abs(response).max(axis=1, keepdims=True)
        driven = (animal.neurons["kind"] != "undriven").to_numpy()
        first = changed.argmax(axis=1)[driven]
        assert changed[driven].any(axis=1).all()
        assert first.min() == ONSET + 1
        assert np.array_equal(first, ONSET + animal.neurons["latency"].to_numpy()[driven])
        assert not changed[~driven].any()

    def test_no_frame_depends_on_later_frames(self, animal):
        video = torch.rand(80, 36, 64) * 255
        other = video.clone()
        other[50:] = torch.rand(30, 36, 64) * 255
        before, after = look(animal, video), look(animal, other)
        assert np.array_equal(before[:, :51], after[:, :51])  # frame 50 itself first shows on frame 51
        assert not np.allclose(before[:, 51:], after[:, 51:])

    def test_an_impulse_is_forgotten(self, animal):
        video = grey(frames=100)
        video[10, 10:26, 20:44] = 255
        response = look(animal, video)
        assert np.allclose(response[:, 80:], response[:, :1], rtol=1e-3)


class TestInterface:
    def test_a_subset_of_neurons_answers_the_same(self, animal):
        video = torch.rand(50, 36, 64) * 255
        chosen = torch.tensor([7, 3, 90])
        assert np.allclose(look(animal, video)[chosen], look(animal, video, chosen), rtol=1e-4, atol=1e-5)

    def test_uint8_and_float_videos_are_one(self, animal):
        video = torch.randint(0, 256, (40, 36, 64))
        assert np.array_equal(look(animal, video.to(torch.uint8)), look(animal, video.float()))

    def test_the_eye_sees_whole_grey_levels(self, animal):
        video = torch.full((40, 36, 64), GREY)
        assert np.array_equal(look(animal, video + 0.4), look(animal, video))

    def test_gradients_reach_the_video_inside_the_field(self, animal):
        n = int(np.flatnonzero(animal.neurons["kind"] == "gabor")[0])
        video = (GREY + 20 * torch.randn(1, 1, 40, 36, 64)).requires_grad_()
        rest = torch.tensor(animal.setting.pupil_center)[None, :, None].expand(1, 2, 40)
        animal.drive(video, rest, [n])[..., -1].sum().backward()
        power = video.grad[0, 0].square()
        assert torch.isfinite(power).all() and power.sum() > 0
        assert power[-1].sum() == 0  # the last frame cannot act yet
        row, column = divmod(int(power.sum(0).argmax()), 64)
        field = animal.neurons.iloc[n]
        assert np.hypot(column - field["x_px"], row - field["y_px"]) < 2 * field["sigma_deg"] / 2

    def test_saved_and_loaded_it_answers_bit_identically(self, animal, tmp_path):
        animal.save(tmp_path / "animal.json")
        again = Animal.load(tmp_path / "animal.json")
        video = torch.rand(40, 36, 64) * 255
        assert np.array_equal(look(animal, video), look(again, video))

    def test_other_versions_are_refused(self, animal):
        with pytest.raises(UserError, match="version 0"):
            Animal(animal.neurons, Setting(version=0))

    def test_a_file_without_an_animal_is_refused(self, tmp_path):
        (tmp_path / "animal.json").write_text("{}")
        with pytest.raises(UserError, match=r"animal\.json: not a simulated animal"):
            Animal.load(tmp_path / "animal.json")

    @pytest.mark.parametrize("monitor", [ROCHEFORT, Monitor(56.5, 31.8, 15, 45, 27)])
    def test_any_monitor_and_resolution(self, monitor):
        animal = make_animal(40, monitor)
        table = animal.neurons.join(tuning.measure(animal))
        table = table[(table["kind"] == "gabor") & (table["direction_selectivity"] > 0.3)]
        error = abs((table["preferred_direction_deg"] - table["direction_deg"] + 180) % 360 - 180)
        assert error.max() < 10


class TestBody:
    def test_behaviour_multiplies_by_its_known_gain(self, animal):
        video, pupil = torch.rand(1, 1, 40, 36, 64) * 255, torch.zeros(1, 2, 40)
        mean, sd = (torch.tensor(x)[None, :, None].expand(1, 2, 40) for x in ([50.0, 1.0], [14.0, 3.0]))
        still, running = (animal.rate(video, mean + k * sd, pupil)[0] for k in (0, 1))
        gain = np.exp(animal.neurons["pupil_gain"] + animal.neurons["running_gain"]).to_numpy()
        assert np.allclose((running / still).numpy(), gain[:, None], rtol=1e-3)

    def test_the_field_moves_with_the_gaze(self, animal):
        pixels = 12.0  # of pupil centre, along x
        pitch = animal.monitor.degrees_per_pixel
        shift = animal.setting.gaze[0][0] * pixels / pitch
        x = torch.arange(64.0)[None, None] - 31.5
        wave = GREY + 100 * torch.sin(x / 5 + 0.4 * torch.arange(60.0)[:, None, None]).expand(60, 36, 64)
        moved = GREY + 100 * torch.sin((x - shift) / 5 + 0.4 * torch.arange(60.0)[:, None, None]).expand(60, 36, 64)
        rest = torch.tensor(animal.setting.pupil_center)[None, :, None].expand(1, 2, 60)
        gaze = rest + torch.tensor([pixels, 0.0])[:, None]
        central = np.flatnonzero((abs(animal.neurons["x_px"] - 32) < 12) & (animal.neurons["kind"] == "gabor"))
        a = animal.drive(wave[None, None], rest, central)
        b = animal.drive(moved[None, None], gaze, central)
        assert correlation(a.flatten(), b.flatten()) > 0.998


class TestTuning:
    def test_closed_form_gratings_equal_the_movie(self, animal):
        rows = np.flatnonzero(animal.neurons["kind"] == "gabor")[:4]
        neurons, frames = animal.neurons.iloc[rows], 60
        places = SENSORIUM.local_coordinates(neurons[["azimuth_deg", "elevation_deg"]].to_numpy())
        images = filters.grating(*places, neurons["direction_deg"], neurons["sf_cpd"])
        images *= np.hypot(*places)[..., 0] < 20
        seen = gratings.project(animal.circuit, torch.as_tensor(images, dtype=torch.complex64), rows)
        expected = gratings.drive(animal.circuit, seen, neurons["tf_hz"].to_numpy(), rows, frames, 1)[0]
        rest = torch.tensor(animal.setting.pupil_center)[None, :, None].expand(1, 2, frames)
        for k, row in enumerate(rows):
            wave = np.exp(-2j * np.pi * neurons["tf_hz"].iloc[k] * np.arange(frames) / 30)
            movie = torch.as_tensor(GREY + 127.5 * np.real(images[k] * wave[:, None, None]))
            shown = animal.drive(movie[None, None], rest, [row])[0, 0]
            assert torch.allclose(shown, expected[k], atol=3e-3 * float(shown.max()))

    def test_preferred_direction(self, measured):
        error = (measured["preferred_orientation_deg"] - measured["direction_deg"] + 90) % 180 - 90
        assert abs(error).max() < 5
        selective = measured[measured["direction_selectivity"] > 0.2]
        error = (selective["preferred_direction_deg"] - selective["direction_deg"] + 180) % 360 - 180
        assert abs(error).max() < 5

    def test_selectivity(self, feedforward):
        """Energy loses (1 - k) / (1 + k) against the preferred direction, the half-squared response its square."""
        opposite = (1 - feedforward["direction_selectivity"]) / (1 + feedforward["direction_selectivity"])
        simple = feedforward["simple_weight"]
        opposite = ((1 - simple) * opposite + simple * opposite**2) ** OUTPUT_POWER
        assert correlation(feedforward["dsi"], (1 - opposite) / (1 + opposite)) > 0.97
        assert feedforward["osi"].min() > 0.9

    def test_controls_are_untuned(self, animal):
        table = tuning.measure(animal)
        kind = animal.neurons["kind"]
        assert table.loc[kind == "undriven"].isna().all(axis=None)
        assert table.loc[kind.isin(["isotropic", "luminance"]), ["dsi"]].abs().max(axis=None) < 0.01
        assert table.loc[kind == "isotropic", "osi"].abs().max() < 0.1
        flat = (kind == "gabor") & (animal.neurons["direction_selectivity"] == 0) & (animal.neurons["feedback"] == 0)
        assert flat.any() and table.loc[flat, "dsi"].abs().max() < 0.1

    def test_frequencies(self, animal):
        """At low contrast, where no pool interferes, optima are those of the filters; at full contrast close to it."""
        rows = np.flatnonzero((animal.neurons["kind"] == "gabor") & (animal.neurons["feedback"] == 0))
        neurons, bench = animal.neurons.iloc[rows], tuning.Bench(animal, rows)
        faint, full = bench.frequencies(contrast=0.05), bench.frequencies()
        cpd, sigma = neurons["sf_cpd"].to_numpy(), neurons["sigma_deg"].to_numpy()
        grid = np.geomspace(0.01, 0.2, 400)[:, None]
        envelope = lambda f: np.exp(-2 * (np.pi * sigma * f) ** 2)  # noqa: E731
        pair = 2 * envelope(grid - cpd) - 2 * envelope(grid) * envelope(cpd)  # the even filter is blind to mean light
        optimum = grid[pair.argmax(axis=0), 0]
        assert correlation(faint["preferred_sf_cpd"], optimum) > 0.97
        assert correlation(faint["preferred_sf_cpd"], cpd) > 0.97
        assert correlation(faint["preferred_tf_hz"], neurons["tf_hz"]) > 0.97
        assert correlation(full["preferred_tf_hz"], neurons["tf_hz"]) > 0.97
        assert correlation(np.log(full["preferred_sf_cpd"]), np.log(optimum)) > 0.85

    def test_simple_and_complex(self, measured):
        assert correlation(measured["f1_f0"], measured["simple_weight"]) > 0.97

    def test_size_and_suppression(self, feedforward):
        """Against the equations on an endless screen: the field fills up, then the ring suppresses."""
        size, index = np.array([_on_an_endless_screen(neuron) for neuron in feedforward.itertuples()]).T
        bounded = size < 60  # without surround the best size is the screen
        assert bounded.mean() > 0.8
        assert correlation(size[bounded], feedforward["preferred_size_deg"][bounded]) > 0.9
        assert correlation(index, feedforward["suppression_index"]) > 0.97

    def test_context_and_contrast(self, feedforward):
        """The surround suppresses at contrast 1, its own orientation most; at 0.05 it does not, and helps some."""
        crowded = feedforward[feedforward["surround_strength"] > 1]
        assert (crowded["iso_1"] < crowded["centre_1"]).all()
        assert (crowded["iso_1"] < crowded["cross_1"]).mean() > 0.9
        assert (feedforward["iso_0.05"] > 0.9 * feedforward["centre_0.05"]).all()
        boost = feedforward["iso_0.05"] / feedforward["centre_0.05"]
        facilitated = feedforward["facilitation"] > 0
        assert boost[facilitated].median() > 1.2 * boost[~facilitated].median()

    def test_only_feedback_neurons_answer_inverse_gratings(self, measured):
        feedback = measured["feedback"] > 0
        assert measured.loc[~feedback, "inverse_size_deg"].isna().all()
        answering = measured[feedback & measured["inverse_size_deg"].notna()]
        assert len(answering) > 0.7 * feedback.sum()
        assert (answering["inverse_size_deg"] > answering["preferred_size_deg"]).mean() > 0.8

    def test_feedback_is_late_by_its_delay(self, measured):
        late = measured[measured["feedback_lag_ms"].notna()]
        median = late.groupby("feedback_delay")["feedback_lag_ms"].median()
        slope = np.polyfit(median.index * 1000 / 30, median, 1)[0]
        assert abs(median[0]) < 50 and 0.8 < slope < 1.2


def _on_an_endless_screen(neuron) -> tuple[float, float]:
    """Preferred diameter and suppression index of a neuron from its parameters alone."""
    radius, angle = np.linspace(0, 60, 241)[:, None], np.linspace(0, 2 * np.pi, 24, endpoint=False)
    along, across = radius * np.cos(angle), radius * np.sin(angle) / neuron.aspect
    outer = np.exp(-(radius**2) / (2 * (neuron.surround_ratio * neuron.sigma_deg) ** 2))
    hole = 1 - np.exp(-(radius**2) / (2 * (filters.HOLE * neuron.sigma_deg) ** 2))
    field = (np.exp(-(along**2 + across**2) / (2 * neuron.sigma_deg**2)) * radius).sum(axis=1).cumsum()
    ring = (outer * hole * radius)[:, 0].cumsum()
    field, ring = field / field[-1], ring / ring[-1]
    boost = 1 + neuron.facilitation * np.sqrt(ring) / (np.sqrt(ring) + 0.05)
    pool = neuron.semisaturation**2 + field + neuron.surround_strength * ring**SURROUND_POWER
    drive = (field**2 * boost / pool) ** OUTPUT_POWER
    return 2 * radius[drive.argmax(), 0], 1 - drive[-1] / drive.max()
