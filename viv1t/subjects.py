"""Who is shown the stimuli: the mice of a trained twin, or simulated animals; opened from the flags of a script."""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from viv1t import cli
from viv1t.constants import FPS
from viv1t.data.mice import find_recordings
from viv1t.data.mouse import Mouse
from viv1t.errors import UserError
from viv1t.geometry import MONITORS, Monitor
from viv1t.inference import PRECISIONS, file_hash, load_twin
from viv1t.presentation import AnimalPresenter, Timeline, TwinPresenter
from viv1t.simulate.animal import Animal

BEHAVIORS = ("median", "mean", "still", "running")


@dataclass(frozen=True)
class Subject:
    """One mouse that answers to patterns.

    neurons (N,): rows in the recording; chosen: positions in `neurons` that are asked for; behavior, pupil_center
    (2,): held throughout; presenter(timeline): see `viv1t.presentation`.
    """

    id: str
    source: str  # "twin" or "animal"
    hash: str
    monitor: Monitor
    fps: float
    neurons: np.ndarray
    unit_ids: np.ndarray
    coordinates: np.ndarray
    chosen: np.ndarray
    behavior: np.ndarray
    pupil_center: np.ndarray
    presenter: Callable[[Timeline], TwinPresenter | AnimalPresenter]
    noise: float = 0.0
    precision: str = "32"

    @property
    def num_neurons(self) -> int:
        return len(self.neurons)

    def about(self) -> dict:
        told = {"noise": self.noise} if self.noise else {}
        told |= {"precision": self.precision} if self.precision != "32" else {}
        return told | {
            "mouse": self.id,
            "source": self.source,
            "hash": self.hash,
            "monitor": self.monitor.to_dict(),
            "fps": float(self.fps),
            "behavior": [float(x) for x in self.behavior],
            "pupil_center": [float(x) for x in self.pupil_center],
        }


def add_subject_flags(parser: cli.Parser) -> None:
    group = parser.add_argument_group("who is shown the stimuli")
    group.add_argument("--output_dir", required=True, metavar="RUN", help="run folder: twin's checkpoint, and results")
    group.add_argument(
        "--animal",
        action="store_true",
        help="show them to the simulated animals instead of to the twin; RUN then only takes results",
    )
    group.add_argument("--noise", type=cli.number(float, 0, 10), default=0.0, metavar="X",
                       help="with --animal: answers as recorded, noise scaled by X (default: 0, none)")  # fmt: skip
    group.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the run)")
    group.add_argument("--neurons", nargs="+", type=rows_of, action=_Joined, metavar="N",
                       help="rows in the recording, like 3 8 or 0-79 (default: all)")  # fmt: skip
    words = cli.Words(*BEHAVIORS)
    group.add_argument("--behavior", type=words, default="median", metavar="WORD",
                       help=f"pupil dilation and running, held: {words} (default: median)")  # fmt: skip
    group.add_argument("--gaze", nargs=2, type=float, default=(0.0, 0.0), metavar=("X", "Y"),
                       help="pupil centre, held, in camera pixels from its mean (default: 0 0)")  # fmt: skip
    group.add_argument("--monitor", type=monitor_of, metavar="WORD",
                       help="sensorium, rochefort, or like 56.5x31.8@15 in cm (default: the recording's)")  # fmt: skip
    group.add_argument("--data_dir", default="data", help="recordings, where they are needed (default: data)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    group.add_argument("--precision", choices=PRECISIONS, default="32", help="of the twin (default: 32)")
    group.add_argument("--batch_size", type=cli.number(int, 1), default=16, metavar="N", help="patterns (default: 16)")


def open_subjects(args) -> list[Subject]:
    """The mice that the flags of `add_subject_flags` name."""
    if args.noise and not args.animal:
        raise UserError(
            "--noise: only simulated animals are noisy, a twin predicts the mean. Add --animal, or leave it."
        )
    return _animals(args) if args.animal else _twins(args)


class _Joined(argparse.Action):
    """Lists of all values of a flag as one list."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, [row for part in values for row in part])


def rows_of(text: str) -> list[int]:
    """A row, or the first and last of several: 7, or 0-79."""
    first, dash, last = text.partition("-")
    try:
        rows = list(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        rows = []
    if not rows:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a row, like 7, nor several, like 0-79")
    return rows


def monitor_of(text: str) -> Monitor:
    """A word of `geometry.MONITORS`, or 56.5x31.8@15."""
    if text in MONITORS:
        return MONITORS[text]
    numbers = re.fullmatch(r"([\d.]+)x([\d.]+)@([\d.]+)", text)
    try:
        return Monitor(*map(float, numbers.groups()))
    except (AttributeError, ValueError):
        raise argparse.ArgumentTypeError(f"'{text}' is neither {', '.join(MONITORS)} nor like 56.5x31.8@15") from None


def _monitor(mouse: Mouse, given: Monitor | None, frame_size: tuple[int, int]) -> Monitor:
    monitor = given or mouse.monitor
    if monitor is None:
        raise UserError(
            f"mouse {mouse.id}: its recording named no monitor, so degrees mean nothing. Give --monitor, e.g. "
            "--monitor 56.5x31.8@15 (cm), or write its meta/monitor.json and train again."
        )
    return replace(monitor, height=frame_size[0], width=frame_size[1])


def _twins(args) -> list[Subject]:
    twin = load_twin(args.output_dir, args.device, args.precision, args.data_dir)
    subjects = []
    for mouse_id in args.mouse_ids or twin.mice:
        mouse = twin.mouse(mouse_id)
        monitor = _monitor(mouse, args.monitor, twin.model.core.frame_size)
        behavior = _held_behavior(mouse.statistics["behavior"], args.behavior)
        pupil_center = mouse.statistics["pupil_center"]["mean"] + np.asarray(args.gaze)

        def presenter(timeline, mouse_id=mouse_id, behavior=behavior, pupil_center=pupil_center):
            return TwinPresenter(twin, mouse_id, timeline, behavior, pupil_center)

        chosen = _chosen(mouse_id, args.neurons, mouse.neurons)
        subjects.append(
            Subject(mouse_id, "twin", twin.hash, monitor, mouse.fps, mouse.neurons, mouse.unit_ids,
                    mouse.coordinates, chosen, behavior, pupil_center, presenter, precision=args.precision)
        )  # fmt: skip
    return subjects


def _animals(args) -> list[Subject]:
    subjects = []
    for mouse_id, folder in find_recordings(args.data_dir, args.mouse_ids).items():
        path = animal_file(folder)
        animal = Animal.load(path, "cpu" if args.device == "auto" else args.device)
        mean, sd = (np.array(x, dtype=np.float32) for x in (animal.setting.behavior_mean, animal.setting.behavior_sd))
        statistics = {"mean": mean, "std": sd, "median": mean * [1, 0], "min": mean * [1, 0]}
        behavior = _held_behavior(statistics, args.behavior)
        pupil_center = np.array(animal.setting.pupil_center) + np.asarray(args.gaze)
        rows = np.arange(animal.num_neurons)

        def presenter(timeline, animal=animal, behavior=behavior, pupil_center=pupil_center):
            return AnimalPresenter(animal, timeline, behavior, pupil_center, args.noise)

        coordinates = animal.neurons[["x_um", "y_um", "z_um"]].to_numpy(np.float32)
        subjects.append(
            Subject(mouse_id, "animal", file_hash(path), animal.monitor, FPS, rows, rows, coordinates,
                    _chosen(mouse_id, args.neurons, rows), behavior, pupil_center, presenter, args.noise)
        )  # fmt: skip
    return subjects


def animal_file(folder: Path) -> Path:
    """The file from which a simulated mouse is rebuilt; UserError for real recordings."""
    path = folder / "truth" / "animal.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a simulated mouse ({path} is missing). Simulate some with data/simulate.py.")
    return path


def _held_behavior(statistics: dict, word: str) -> np.ndarray:
    """(pupil dilation, running speed); running: two sd above the mean speed."""
    typical = statistics["mean" if word == "mean" else "median"].astype(np.float32)
    speed = {"still": statistics["min"][1], "running": statistics["mean"][1] + 2 * statistics["std"][1]}
    return np.array([typical[0], speed.get(word, typical[1])], dtype=np.float32)


def _chosen(mouse_id: str, asked: list[int] | None, neurons: np.ndarray) -> np.ndarray:
    """Positions of the neurons asked for; all if none are named."""
    if asked is None:
        return np.arange(len(neurons))
    unknown = sorted(set(asked) - set(neurons.tolist()))
    if unknown:
        raise UserError(f"--neurons {unknown[0]}: mouse {mouse_id} has neurons {neurons.min()} to {neurons.max()}.")
    return np.flatnonzero(np.isin(neurons, asked))
