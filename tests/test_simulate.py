"""Simulated recordings: the layout, the statistics, the truth, and bytes that depend on the design alone."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from viv1t.constants import GREY, STIMULI
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.geometry import SENSORIUM
from viv1t.movies import write_movie
from viv1t.simulate import movies, ood, targets
from viv1t.simulate.animal import Animal
from viv1t.simulate.apertures import behind_apertures
from viv1t.simulate.body import BODIES, behave
from viv1t.simulate.calcium import expected, record
from viv1t.simulate.design import Design
from viv1t.simulate.population import FIELD_OF_VIEW, draw_population
from viv1t.simulate.recording import clip_video, simulate
from viv1t.simulate.scenes import natural_image, natural_movie

SCRIPT = Path(__file__).parents[1] / "data" / "simulate.py"
SMALL = Design(neurons=16, trials=3, clips=1, repeats=2, bonus_repeats=1, frames=80, height=18, width=32)


def write(root: Path, *designs: Design, **kwargs) -> Path:
    for _ in simulate(root, list(designs), **kwargs):
        continue
    return root / designs[0].name


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def command(*flags) -> subprocess.CompletedProcess:
    flags = [str(flag) for flag in flags]
    return subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("simulated"), SMALL)


class TestRecording:
    def test_it_is_a_valid_recording(self, folder):
        recording = Recording(folder)
        assert recording.num_neurons == 16 and recording.num_trials == SMALL.num_trials == 3 + 3 * 2 + 3
        assert recording.monitor == dataclasses.replace(SENSORIUM, width=32, height=18)
        counts = {tier: len(recording.trial_ids(tier)) for tier in ("train", "validation", "live_main", "final_main")}
        assert counts == {"train": 3, "validation": 2, "live_main": 2, "final_main": 2}
        for i in range(recording.num_trials):
            trial = recording.trial(i)
            assert trial.responses.shape == recording.truth_rates(i).shape == (16, len(trial.video))
            assert (trial.responses >= 0).all() and len(trial.video) in (80, 84)

    def test_repeats_share_the_video_and_nothing_else(self, folder):
        recording = Recording(folder)
        first = recording.trial_ids("validation")[0]
        same = np.flatnonzero(recording.video_ids == recording.video_ids[first])
        assert len(same) == 2
        a, b = (recording.trial(i) for i in same)
        assert np.array_equal(a.video, b.video)
        for name in ("responses", "behavior", "pupil_center"):
            assert not np.array_equal(getattr(a, name), getattr(b, name))
        assert len(set(recording.video_ids)) == 3 + 3 + 3

    def test_the_truth_is_what_the_saved_animal_answers(self, folder):
        animal, recording = Animal.load(folder / "truth" / "animal.json"), Recording(folder)
        torch.set_num_threads(1)
        for i in (0, 5):
            trial = recording.trial(i)
            video = torch.from_numpy(trial.video)[None, None]
            with torch.no_grad():
                rate = animal.respond(video, trial.behavior[None], trial.pupil_center[None])[0].numpy()
            assert np.allclose(rate, recording.truth_rates(i), rtol=2e-3, atol=2e-3 * rate.max())

    def test_the_table_holds_parameters_and_tuning_of_every_neuron(self, folder):
        table = pd.read_csv(folder / "truth" / "neurons.csv")
        assert len(table) == 16
        assert {"azimuth_deg", "x_px", "direction_deg", "osi", "preferred_size_deg", "cmi_0.05", "onset_ms"} <= {
            *table
        }
        stored = pd.DataFrame(json.loads((folder / "truth" / "animal.json").read_text())["neurons"])
        assert np.array_equal(table["sf_cpd"], stored["sf_cpd"])

    def test_no_noise_writes_the_rate(self, tmp_path):
        recording = Recording(write(tmp_path, dataclasses.replace(SMALL, noise=0.0, bonus_repeats=0)))
        responses, rates = recording.trial(0).responses, recording.truth_rates(0)
        assert np.allclose(responses, rates, rtol=1e-3, atol=1e-3 * rates.max())

    def test_published_layout(self, tmp_path):
        design = dataclasses.replace(SMALL, layout="sensorium", trials=1, clips=1, repeats=1, bonus_repeats=0)
        folder = write(tmp_path, design)
        for name, shape in {"videos": (18, 32, 324), "responses": (16, 324), "behavior": (2, 324)}.items():
            stored = np.load(folder / "data" / name / "0.npy")
            assert stored.dtype == np.float64 and stored.shape == shape
            assert np.isnan(stored[..., 80:]).all() and np.isfinite(stored[..., :80]).all()
        assert len(Recording(folder).trial(0).video) == 80

    def test_day_two_is_the_same_animal_later(self, folder, tmp_path):
        later = write(tmp_path, dataclasses.replace(SMALL, day=2))
        assert later.name == "simA_day2"
        day1, day2 = (Animal.load(f / "truth" / "animal.json") for f in (folder, later))
        kept = ["azimuth_deg", "direction_deg", "sf_cpd", "surround_strength", "drive_mean"]
        assert np.array_equal(day1.neurons[kept], day2.neurons[kept])
        gains = np.log(day2.neurons["mean_response"] / day1.neurons["mean_response"])
        assert 0.05 < gains.std() < 0.3
        assert day1.setting.pupil_center != day2.setting.pupil_center
        lost = day2.neurons["lost"].to_numpy()
        assert lost.sum() == round(0.2 * 16)
        recordings = Recording(folder), Recording(later)
        assert np.array_equal(recordings[1].matched, ~lost)
        a, b = (r.trial(int(r.trial_ids("train")[0])) for r in recordings)
        assert np.array_equal(a.video, b.video) and np.isnan(b.responses[lost]).all()
        assert not np.array_equal(a.responses[~lost], b.responses[~lost])


class TestBytes:
    def test_an_interrupted_recording_is_completed_bit_identically(self, folder, tmp_path):
        steps = simulate(tmp_path, [SMALL])
        next(steps), next(steps), next(steps)
        steps.close()
        partial = tmp_path / SMALL.name
        assert 0 < len(list((partial / "truth" / "rates").glob("*"))) < SMALL.num_trials
        assert not (partial / "meta" / "trials" / "tiers.npy").exists()
        (partial / "data" / "videos" / ".9.npy.1.x.tmp").write_bytes(b"half a file")
        assert contents(write(tmp_path, SMALL)) == contents(folder)

    def test_seeds_and_mice_differ(self):
        designs = SMALL, dataclasses.replace(SMALL, seed=1), dataclasses.replace(SMALL, mouse=1)
        tables = [draw_population(16, SENSORIUM, d.stream("population"))["azimuth_deg"] for d in designs]
        assert not np.isclose(tables[0], tables[1]).any() and not np.isclose(tables[0], tables[2]).any()

    def test_killed_and_started_again_two_workers_end_with_the_same_bytes(self, folder, tmp_path):
        flags = ["--data_dir", tmp_path, "--mice", 1, "--num_workers", 2]
        for name in ("neurons", "trials", "clips", "repeats", "bonus_repeats", "frames", "height", "width"):
            flags += [f"--{name}", getattr(SMALL, name)]
        started = subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, flags)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        rates = tmp_path / "simulated" / "simA" / "truth" / "rates"
        deadline = time.time() + 60
        while not list(rates.glob("*.npy")) and time.time() < deadline:
            time.sleep(0.02)
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
        done = command(*flags)
        assert done.returncode == 0, done.stderr
        assert contents(tmp_path / "simulated" / "simA") == contents(folder)
        start = time.time()
        assert command(*flags).returncode == 0
        assert time.time() - start < 5  # nothing left to do: 0.5 s on an idle machine


class TestRefusals:
    def test_another_design_is_not_overwritten_unasked(self, folder):
        root, before = folder.parent, contents(folder)
        with pytest.raises(UserError, match="another neurons, noise.*--overwrite"):
            write(root, dataclasses.replace(SMALL, neurons=30, noise=2.0))
        assert contents(folder) == before

    def test_overwrite_replaces(self, tmp_path):
        tiny = dataclasses.replace(SMALL, trials=1, clips=1, repeats=1, bonus_repeats=0)
        write(tmp_path, tiny)
        folder = write(tmp_path, dataclasses.replace(tiny, trials=2), overwrite=True)
        assert Recording(folder).num_trials == 5

    def test_a_foreign_folder_is_left_alone(self, tmp_path):
        (tmp_path / "simA").mkdir()
        (tmp_path / "simA" / "notes.txt").write_text("mine")
        with pytest.raises(UserError, match="no simulated recording"):
            write(tmp_path, SMALL, overwrite=True)
        assert (tmp_path / "simA" / "notes.txt").read_text() == "mine"

    def test_command_line_errors_are_one_line(self, tmp_path):
        for flags, part in (
            (["--neurons", "3"], "outside"),
            (["--monitor", "cinema"], "sensorium"),
            (["--movies", tmp_path / "none"], "no .npy or .mp4"),
        ):
            done = command("--data_dir", tmp_path, *flags)
            assert done.returncode == 2 and part in done.stderr and done.stderr.count("\n") == 1, done.stderr


class TestStatistics:
    def test_behaviour_follows_its_targets(self):
        for body in BODIES:
            trials = [behave(body, 300, seed) for seed in range(400)]
            behavior, centre = (np.concatenate(parts, axis=1) for parts in zip(*trials, strict=True))
            mean, sd, low, high = body.pupil
            assert abs(behavior[0].mean() - mean) < 4 and abs(behavior[0].std() - sd) < 3
            assert behavior[0].min() >= low - 1e-3 and behavior[0].max() <= high + 1e-3
            assert abs(behavior[1].mean() - body.speed[0]) < 0.35 * body.speed[0] + 0.1
            assert abs(behavior[1].std() - body.speed[1]) < 0.35 * body.speed[1]
            assert np.median(behavior[1]) < 0.1 and behavior[1].max() <= body.speed[2]
            assert np.allclose(centre.mean(axis=1), body.centre, atol=1)
            assert np.allclose(centre.std(axis=1), body.centre_sd, rtol=0.15)

    def test_movies_look_natural(self):
        movie = np.stack([natural_movie(seed, SENSORIUM, 300) for seed in range(8)]).astype(np.float32)
        stills = np.stack([natural_image(seed, SENSORIUM) for seed in range(1000, 1080)])
        assert abs(stills.mean() - 80) < 10 and abs(stills.std() - 57) < 7
        spectrum = abs(np.fft.rfft(movie - movie.mean(), axis=3)).mean((0, 1, 2))
        k = np.arange(2, 24)
        assert -1.5 < np.polyfit(np.log(k), np.log(spectrum[k]), 1)[0] < -0.7
        temporal = abs(np.fft.rfft(movie - movie.mean(axis=1, keepdims=True), axis=1)).mean((0, 2, 3))
        assert np.all(np.diff(temporal[[3, 10, 30, 100]]) < 0)
        frames = movie.reshape(8, 300, -1) - movie.mean((2, 3))[..., None]
        alike = (frames[:, 1:] * frames[:, :-1]).mean(2) / (frames[:, 1:].std(2) * frames[:, :-1].std(2))
        assert 1.5 < (alike < 0.3).sum(axis=1).mean() < 4  # a hard cut every 1 to 6 s

    def test_the_population_has_its_shares(self):
        neurons = draw_population(400, SENSORIUM, 0)
        shares = neurons["kind"].value_counts(normalize=True)
        assert dict(shares.round(2)) == {"gabor": 0.75, "luminance": 0.15, "isotropic": 0.05, "undriven": 0.05}
        gabor = neurons[neurons["kind"] == "gabor"]
        assert (gabor["direction_selectivity"] == 0).sum() == 20
        assert (gabor["facilitation"] > 0).sum() == 80 and (gabor["feedback"] > 0).sum() == 160
        assert (gabor.loc[gabor["feedback"] > 0, "feedback_delay"] == 0).sum() == 20
        assert (gabor["surround_strength"] == 0).any()
        assert neurons["sigma_deg"].between(5, 9).all() and neurons["sf_cpd"].between(0.015, 0.1).all()
        assert abs(gabor["sf_cpd"].median() - 0.04) < 0.004
        assert set(neurons["z_um"]) == set(range(200, 426, 25))
        assert neurons["x_px"].between(0, 63).all() and neurons["y_px"].between(0, 35).all()

    def test_retinotopy_is_smooth_with_a_known_scatter(self):
        neurons = draw_population(600, SENSORIUM, 2)
        cortex = np.c_[neurons[["x_um", "y_um"]] / 1000, np.ones(len(neurons))]
        field = neurons[["azimuth_deg", "elevation_deg"]].to_numpy()
        slopes, *_ = np.linalg.lstsq(cortex, field, rcond=None)
        assert np.allclose((field - cortex @ slopes).std(axis=0), 3, atol=0.4)
        across = abs(slopes[:2]) * FIELD_OF_VIEW / 1000
        assert 25 < across.max() < 45

    def test_neighbours_in_cortex_prefer_similar_orientations(self):
        neurons = draw_population(800, SENSORIUM, 3)
        place, axis = (
            neurons[["x_um", "y_um"]].to_numpy(),
            np.exp(2j * np.radians(neurons["direction_deg"].to_numpy())),
        )
        distance = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
        similarity = np.real(axis[:, None] * axis[None].conj())
        near = similarity[(distance > 0) & (distance < 30)].mean()
        assert near > 0.1 > abs(similarity[distance > 300].mean()) * 2

    def test_noise_has_the_promised_mean_and_correlation(self):
        """Correlation of the rate with one noisy trial is what the event rate was solved for."""
        rng, frames = np.random.default_rng(0), 40_000
        neurons = draw_population(40, SENSORIUM, 0).assign(event_rate=0.15, latent_gain=0.0, fano=1.0 + 1e-6)
        kernels = neurons["spread"].to_numpy()[:, None] ** np.arange(3)
        kernels /= kernels.sum(axis=1, keepdims=True)
        rate = neurons["mean_response"].to_numpy()[:, None] * rng.gamma(0.3, 1 / 0.3, (40, frames // 10)).repeat(10, 1)
        noisy, mean = record(rate, neurons, kernels, 1), expected(rate, kernels)
        assert noisy.min() >= 0 and np.allclose(noisy.mean(axis=1), mean.mean(axis=1), rtol=0.15)
        power = (kernels**2).sum(axis=1) * (1 + 1 / neurons["amplitude_shape"]) / 0.15
        spread = mean.var(axis=1) / mean.mean(axis=1) ** 2
        found = [np.corrcoef(a, b)[0, 1] for a, b in zip(noisy, mean, strict=True)]
        assert np.allclose(found, np.sqrt(spread / (spread + power)), atol=0.06)
        quiet = record(rate, neurons, kernels, 1, noise=0.5)
        ratio = (quiet - mean).var(axis=1) / (noisy - mean).var(axis=1)
        assert abs(np.median(ratio) - 0.25) < 0.03
        assert np.array_equal(record(rate, neurons, kernels, 1, noise=0), mean.astype(np.float32))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    """Statistics of 100 neurons beside those of real mice."""
    design = Design(neurons=100, trials=16, clips=1, repeats=2, bonus_repeats=0, height=18, width=32)
    folder = write(tmp_path_factory.mktemp("calibrated"), design)
    return targets.compare(Recording(folder)).set_index(["quantity", "statistic"])


class TestCalibration:
    def test_responses_look_recorded(self, table):
        for quantity in ("response mean", "response sd"):
            inner = table.loc[quantity].iloc[1:4]  # the outer quantiles of 100 neurons say little
            assert inner["passed"].all(), inner
        assert table.loc[("response median is 0", "share of neurons"), "passed"]

    def test_the_true_rate_reaches_the_ceiling_of_real_mice(self, table):
        assert 0.36 < table.loc[("true rate", "correlation, train"), "measured"] < 0.50


class TestStimuli:
    @pytest.mark.parametrize("name", STIMULI[1:])
    def test_every_frame_has_its_parameters(self, name):
        design = dataclasses.replace(SMALL, frames=300, mouse=STIMULI.index(name) % 5)
        seed = design.stream("clip", 9, 0)
        video, table = ood.GENERATORS[name](0, 6, seed, SENSORIUM, 300)
        assert video.dtype == np.uint8 and video.shape[1:] == (36, 64)
        assert len(table) == len(video) == (315 if name == "gaussian_dots" else 300)
        again, _ = ood.GENERATORS[name](0, 6, seed, SENSORIUM, 300)
        assert np.array_equal(video, again)

    @pytest.mark.parametrize(
        "name, conditions", [("drifting_gabor", 72), ("gaussian_dots", 210), ("random_dots", 32), ("pink_noise", 8)]
    )
    def test_six_clips_show_every_condition(self, name, conditions):
        seeds = [SMALL.stream("clip", 9, k) for k in range(6)]
        tables = [ood.GENERATORS[name](k, 6, seed, SENSORIUM, 300)[1] for k, seed in enumerate(seeds)]
        assert len(pd.concat(tables).drop_duplicates()) == conditions

    def test_gabors_move_where_their_table_says(self):
        video, table = ood.drifting_gabor(0, 6, SMALL.stream("clip", 9, 0), SENSORIUM, 300)
        for start in range(0, 300, ood.GABOR_BLOCK):
            block = video[start : start + ood.GABOR_BLOCK].astype(float) - 127
            row = table.iloc[start]
            if row["sf_cpd"] > 0.06:
                continue  # near the resolution of the screen
            spectrum = abs(np.fft.fftn(block, (64, 64, 64), (0, 1, 2))) ** 2
            f = np.fft.fftfreq(64)
            t, y, x = np.meshgrid(f, f, f, indexing="ij")
            # power at (t, x) with t > 0 moves towards -x
            moving = spectrum * (t > 0)
            heading = -(moving * x).sum(), -(moving * y).sum()
            angle = np.degrees(np.arctan2(heading[1], -heading[0])) % 360  # 0 left, 90 down
            assert abs((angle - row["direction_deg"] + 180) % 360 - 180) < 12

    def test_dots_lie_where_their_table_says(self):
        video, table = ood.gaussian_dots(1, 6, SMALL.stream("clip", 9, 1), SENSORIUM, 300)
        for t in range(0, 315, ood.DOT_FRAMES):
            contrast = video[t].astype(float) - 127
            assert (contrast.sum() < 0) == bool(table["is_black"][t])
            row, column = np.unravel_index(abs(contrast).argmax(), contrast.shape)
            assert abs(row - table["y_px"][t]) <= 1 and abs(column - table["x_px"][t]) <= 1


class TestMovies:
    def test_own_movies_are_cut_into_clips(self, tmp_path):
        rng = np.random.default_rng(0)
        (tmp_path / "films").mkdir()
        film = rng.integers(0, 256, (500, 36, 64)).astype(np.uint8)
        np.save(tmp_path / "films" / "film.npy", film)
        _, digest = movies.find_movies(tmp_path / "films")
        design = dataclasses.replace(
            SMALL, movies=f"{tmp_path / 'films'}#{digest}", trials=2, repeats=1, bonus_repeats=0
        )
        folder = write(tmp_path / "out", design)
        recording = Recording(folder)
        clip = design.plan[1]
        assert np.array_equal(
            recording.trial(clip.trials[0]).video, np.rint(film[80:160].reshape(80, 18, 2, 32, 2).mean((2, 4)))
        )
        assert len(set(recording.video_ids)) == 5
        with pytest.raises(UserError, match="give 6 clips of 2.6.*shows 7"):
            write(tmp_path / "more", dataclasses.replace(design, trials=4))

    def test_mp4_files_are_taken_too(self, tmp_path):
        film = np.repeat(np.arange(60, dtype=np.uint8)[:, None, None] * 4, 18 * 32, axis=1).reshape(60, 18, 32)
        write_movie(tmp_path / "film.mp4", film, fps=60)
        movies.store([tmp_path / "film.mp4"], tmp_path / "stored", SENSORIUM)
        stored = np.load(tmp_path / "stored" / "film.npy")
        assert stored.shape == (30, 36, 64) and stored.dtype == np.uint8
        assert np.abs(stored.mean(axis=(1, 2)) - film[::2].mean(axis=(1, 2))).max() < 8
        (tmp_path / "torn.mp4").write_bytes((tmp_path / "film.mp4").read_bytes()[:500])
        with pytest.raises(UserError, match=r"torn\.mp4: ffmpeg cannot read it"):
            movies.store([tmp_path / "torn.mp4"], tmp_path / "stored", SENSORIUM)

    @pytest.mark.parametrize(
        "content, message",
        [(np.zeros((4, 5)), "must hold grey levels"), (np.full((200, 9, 16), 300.0), "within 0..255")],
    )
    def test_bad_movies_are_named(self, content, message, tmp_path):
        np.save(tmp_path / "film.npy", content)
        with pytest.raises(UserError, match=rf"film\.npy.*{message}"):
            movies.store([tmp_path / "film.npy"], tmp_path / "stored", SENSORIUM)

    def test_generated_clips_are_functions_of_the_design(self):
        a, b = SMALL.plan[0], SMALL.plan[1]
        first, _ = clip_video(Path(), SMALL, a)
        assert np.array_equal(first, clip_video(Path(), SMALL, a)[0])
        assert not np.array_equal(first, clip_video(Path(), SMALL, b)[0])


def test_apertures_change_training_movies_only_and_part_centre_from_surround():
    """Some clips of the design differ from those of one without apertures; all others keep their bytes."""
    design = dataclasses.replace(SMALL, trials=4, apertures=0.5)
    plain = dataclasses.replace(design, apertures=0.0)
    differ = {
        clip: not np.array_equal(clip_video(Path(), design, clip)[0], clip_video(Path(), plain, clip)[0])
        for clip in design.plan
        if not clip.stimulus
    }
    assert sum(differ.values()) == 2 and all(clip.tier == "train" for clip, changed in differ.items() if changed)
    assert {clip for clip in design.plan if design.behind_apertures(clip)} == {c for c, d in differ.items() if d}


def test_behind_apertures_the_screen_is_partly_grey_and_contrasts_vary():
    white = np.full((1200, 36, 64), 255, np.uint8)
    shown = behind_apertures([white, white], 3, SENSORIUM).astype(float) - GREY
    grey = (shown == 0).mean(axis=(1, 2))
    assert ((grey > 0.02) & (grey < 0.98)).mean() > 0.4  # the rest: both movies shown
    strongest = abs(shown).max(axis=(1, 2))
    assert (strongest > 120).mean() > 0.4 and len(np.unique(strongest)) > 4  # full contrast often, and others
    np.testing.assert_array_equal(behind_apertures([white, white], 3, SENSORIUM) - 127.0, shown)
