"""Simulated recordings on disk: the Sensorium 2023 layout plus the truth, written in parallel and resumable.

A trial is a pure function of (design, trial), so any number of workers writes the same bytes. `truth/animal.json`
comes first, `meta/trials/tiers.npy` last: a folder without tiers is unfinished, and the same command completes it.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from viv1t import io
from viv1t.constants import FPS, STIMULI
from viv1t.data.locking import locked
from viv1t.simulate import movies, ood, tuning
from viv1t.simulate.animal import Animal, Setting
from viv1t.simulate.apertures import behind_apertures
from viv1t.simulate.body import BODIES, Body, behave
from viv1t.simulate.calcium import expected, record
from viv1t.simulate.calibration import calibrate
from viv1t.simulate.design import PADDED_FRAMES, TIERS, Clip, Design, is_written, removed
from viv1t.simulate.population import age, draw_population
from viv1t.simulate.scenes import natural_movie
from viv1t.simulate.workers import Workers

GAZE_DRIFT = 3.0  # camera pixels, sd of the offset of the pupil on later days
STORED = ".movies"  # beside the recordings: the user's movies in frames of the monitor


def simulate(root: Path, designs: list[Design], workers: int = 1, overwrite: bool = False) -> Iterator[int]:
    """Write recordings to root/<name>; yields the numbers of trials done as they come.

    Unfinished recordings are completed; UserError if a folder holds another design and `overwrite` is not set.
    """
    todo = {root / design.name: design for design in designs if not is_written(root / design.name, design, overwrite)}
    yield sum(design.num_trials for design in designs if root / design.name not in todo)
    if not todo:
        return
    with contextlib.ExitStack() as stack:
        for folder in todo:
            busy = f"{folder}: another process is writing this recording; wait for it."
            stack.enter_context(locked(folder.with_name(f".{folder.name}.lock"), busy))
            shutil.rmtree(removed(folder), ignore_errors=True)
        pool = stack.enter_context(Workers(workers))
        stack.callback(shutil.rmtree, root / STORED, ignore_errors=True)
        _store_movies(root, designs[0])
        for _ in pool.run(prepare, list(todo.items())):
            continue
        clips = [(folder, design, clip) for folder, design in todo.items() for clip in design.plan]
        yield from pool.run(write_clip, clips)
        for _ in pool.run(finish, list(todo.items())):
            continue


def _store_movies(root: Path, design: Design) -> None:
    if design.movies:
        paths, _ = movies.find_movies(Path(design.movies.rpartition("#")[0]))
        movies.store(paths, root / STORED, design.screen)
        movies.cut(root / STORED, design.frames, design.trials + (len(TIERS) - 1) * design.clips)


def prepare(folder: Path, design: Design) -> None:
    """Write the animal, unless it is there."""
    if not (folder / "truth" / "animal.json").exists():
        make_animal(design).save(folder / "truth" / "animal.json", design=asdict(design))


def make_animal(design: Design) -> Animal:
    """Draw the population of a design, calibrate it on natural movies, and let it age if the day asks for it."""
    body = _body(design)
    neurons = draw_population(design.neurons, design.screen, design.stream("population"))
    rng = np.random.default_rng(design.stream("population", 1))
    angle, size = rng.normal(0, 0.12), rng.lognormal(0, 0.08) / 6
    gaze = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    setting = {
        "gaze": gaze.tolist(),
        "behavior_mean": [body.pupil[0], body.speed[0]],
        "behavior_sd": [body.pupil[1], body.speed[1]],
        "monitor": design.screen,
    }
    centre = np.array(body.centre)
    neurons = calibrate(
        Animal(neurons, Setting(pupil_center=centre.tolist(), **setting)),
        body,
        design.stream("calibration"),
        design.frames,
    )
    if design.day > 1:
        rng = np.random.default_rng(design.stream("day", design.day))
        neurons, centre = age(neurons, rng), centre + rng.normal(0, GAZE_DRIFT, 2)
    return Animal(neurons, Setting(pupil_center=centre.tolist(), **setting))


def _body(design: Design) -> Body:
    return BODIES[design.mouse % len(BODIES)]


def clip_video(root: Path, design: Design, clip: Clip) -> tuple[np.ndarray, pd.DataFrame | None]:
    """Video (T, H, W) uint8 of a clip, and the parameters of every frame if it is no movie."""
    if clip.stimulus:
        seed = design.stream("clip", len(TIERS) + clip.stimulus, clip.number)
        show = ood.GENERATORS[STIMULI[clip.stimulus]]
        return show(clip.number, design.clips, seed, design.screen, design.frames)
    movie = _movie(root, design, clip)
    if design.behind_apertures(clip):
        around = natural_movie(design.stream("aperture", clip.number, 0), design.screen, design.frames)
        movie = behind_apertures([movie, around], design.stream("aperture", clip.number, 1), design.screen)
    return movie, None


def _movie(root: Path, design: Design, clip: Clip) -> np.ndarray:
    tier = TIERS.index(clip.tier)
    if design.movies is None:
        return natural_movie(design.stream("clip", tier, clip.number), design.screen, design.frames)
    index = clip.number if tier == 0 else design.trials + (tier - 1) * design.clips + clip.number
    path, start = movies.cut(root / STORED, design.frames, index + 1)[index]
    return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[start : start + design.frames])


def write_clip(folder: Path, design: Design, clip: Clip) -> int:
    """Write the missing trials of a clip; returns how many trials it has."""
    missing = [trial for trial in clip.trials if not (folder / "truth" / "rates" / f"{trial}.npy").exists()]
    if missing:
        video, parameters = clip_video(folder.parent, design, clip)
        animal = _animal(folder)
        for trial in missing:
            _write_trial(folder, design, animal, trial, video, parameters)
    return len(clip.trials)


def _write_trial(folder: Path, design: Design, animal: Animal, trial: int, video: np.ndarray, parameters) -> None:
    """Show a video to the animal; write what a laboratory would, and what only a simulation knows."""
    behavior, pupil = behave(_body(design), len(video), design.stream("body", design.day, trial))
    with torch.no_grad():
        rate = animal.rate(torch.from_numpy(video)[None, None], behavior[None], pupil[None])[0].numpy()
    seed = design.stream("noise", design.day, trial)
    responses = record(rate, animal.neurons, animal.kernels, seed, design.noise)
    responses[animal.neurons["lost"]] = np.nan
    layers = {"videos": np.moveaxis(video, 0, 2), "responses": responses, "behavior": behavior, "pupil_center": pupil}
    for name, values in layers.items():
        io.write_array(folder / "data" / name / f"{trial}.npy", _laid_out(values, design))
    if parameters is not None:
        io.write_table(folder / "truth" / "ood" / f"{trial}.csv", parameters)
    # written last: its presence says that the trial is complete
    io.write_array(folder / "truth" / "rates" / f"{trial}.npy", expected(rate, animal.kernels).astype(np.float16))


def _laid_out(values: np.ndarray, design: Design) -> np.ndarray:
    """As stored: unchanged, or float64 with NaN up to 324 frames as in the published recordings."""
    if design.layout == "compact":
        return values
    padded = np.full((*values.shape[:-1], max(PADDED_FRAMES, values.shape[-1])), np.nan)
    padded[..., : values.shape[-1]] = values
    return padded


def finish(folder: Path, design: Design) -> None:
    """Measure the tuning and write the metadata, ending with the tiers that declare the recording complete."""
    for part in folder.rglob(".*.tmp"):
        part.unlink(missing_ok=True)
    animal, meta = _animal(folder), folder / "meta"
    tiers = np.full(design.num_trials, "none", dtype="<U16")
    video_ids, stimulus_ids = np.full((2, len(tiers)), -1, dtype=np.int64)
    for number, clip in enumerate(sorted(design.plan, key=lambda clip: clip.trials[0])):
        trials = list(clip.trials)
        tiers[trials], video_ids[trials], stimulus_ids[trials] = clip.tier, number, clip.stimulus
    neurons = animal.neurons
    coordinates = neurons[["x_um", "y_um", "z_um"]].to_numpy().astype(np.int64)
    io.write_table(folder / "truth" / "neurons.csv", neurons.join(tuning.measure(animal)))
    io.write_array(meta / "neurons" / "cell_motor_coordinates.npy", coordinates)
    io.write_array(meta / "neurons" / "unit_ids.npy", neurons["neuron"].to_numpy() + 1)
    io.write_json(meta / "monitor.json", {**animal.monitor.to_dict(), "fps": FPS})
    io.write_array(meta / "trials" / "video_ids.npy", video_ids)
    io.write_array(meta / "trials" / "stimulus_ids.npy", stimulus_ids)
    io.write_array(meta / "trials" / "tiers.npy", tiers)


@lru_cache(maxsize=1)
def _animal(folder: Path) -> Animal:
    return Animal.load(folder / "truth" / "animal.json")
