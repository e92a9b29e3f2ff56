"""The design of a simulated recording: every choice that decides its bytes, and which trial shows what."""

import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from viv1t import io
from viv1t.constants import HEIGHT, TRIAL_FRAMES, WIDTH
from viv1t.errors import UserError
from viv1t.geometry import MONITORS, Monitor

PADDED_FRAMES = 324  # length of the arrays in real recordings; frames after the trial are NaN
# independent random streams
STREAMS = ("population", "calibration", "order", "clip", "body", "noise", "day", "aperture")
TIERS = ("train", "oracle", "live_test_main", "final_test_main")  # that hold movies
# stimulus ids of (live_test_bonus, final_test_bonus) in the ten real recordings; simulated mice take them in turn
BONUS = (
    ((1,), (2, 3)),
    ((4,), (1, 5)),
    ((3,), (4, 5)),
    ((5,), (1, 2)),
    ((2,), (3, 4)),
    ((1,), (2, 3)),
    ((4,), (3, 5)),
    ((2,), (1, 5)),
    ((3,), (2, 4)),
    ((5,), (1, 4)),
)


@dataclass(frozen=True)
class Clip:
    """One video of a design and the trials that show it; `number` counts within its tier and stimulus."""

    tier: str
    stimulus: int
    number: int
    trials: tuple[int, ...]


@dataclass(frozen=True)
class Design:
    """Everything that decides the bytes of one simulated recording; equal designs give equal files."""

    mouse: int = 0  # which animal of this seed
    seed: int = 1234
    neurons: int = 300
    trials: int = 120  # training movies, each shown once
    clips: int = 6  # movies per main test tier, and videos per bonus stimulus
    repeats: int = 10  # of every main test movie
    bonus_repeats: int = 4
    frames: int = TRIAL_FRAMES
    noise: float = 1.0
    monitor: str = "sensorium"
    height: int = HEIGHT
    width: int = WIDTH
    layout: str = "compact"
    day: int = 1
    movies: str | None = None  # folder of the user's own movies, and a digest of what it holds
    apertures: float = 0.0  # share of the training movies that are shown behind apertures

    @property
    def name(self) -> str:
        """simA ... simZ, then sim26 ...; later days end in _day2 ..."""
        name = f"sim{chr(ord('A') + self.mouse)}" if self.mouse < 26 else f"sim{self.mouse}"
        return name if self.day == 1 else f"{name}_day{self.day}"

    @property
    def screen(self) -> Monitor:
        screen = MONITORS[self.monitor]
        return Monitor(screen.width_cm, screen.height_cm, screen.distance_cm, self.width, self.height)

    def stream(self, name: str, *index: int) -> np.random.SeedSequence:
        """The seed of one random stream of this mouse."""
        return np.random.SeedSequence(self.seed, spawn_key=(self.mouse, STREAMS.index(name), *index))

    @cached_property
    def plan(self) -> list[Clip]:
        """All videos with their trials; the order of trials is shuffled, as in real recordings."""
        live, final = BONUS[self.mouse % len(BONUS)]
        shows = [("train", 0, number, 1) for number in range(self.trials)]
        shows += [(tier, 0, number, self.repeats) for tier in TIERS[1:] for number in range(self.clips)]
        for tier, stimuli in (("live_test_bonus", live), ("final_test_bonus", final)):
            for stimulus in stimuli if self.bonus_repeats else ():
                shows += [(tier, stimulus, number, self.bonus_repeats) for number in range(self.clips)]
        order = np.random.default_rng(self.stream("order")).permutation(sum(show[3] for show in shows))
        ends = np.cumsum([show[3] for show in shows])
        trials = [tuple(map(int, np.sort(part))) for part in np.split(order, ends[:-1])]
        return [Clip(*show[:3], shown) for show, shown in zip(shows, trials, strict=True)]

    def behind_apertures(self, clip: Clip) -> bool:
        """Whether a clip is one of those; they are spread evenly over the training movies."""
        before, after = (int(number * self.apertures) for number in (clip.number, clip.number + 1))
        return clip.tier == "train" and after > before

    @property
    def num_trials(self) -> int:
        return sum(len(clip.trials) for clip in self.plan)

    @property
    def bytes(self) -> int:
        """Size on disk: videos, responses, true rates, behaviour."""
        padded = self.layout == "sensorium"
        frames, size = (PADDED_FRAMES, 8) if padded else (self.frames, 4)
        stored = frames * (self.height * self.width * (8 if padded else 1) + (self.neurons + 4) * size)
        return self.num_trials * (stored + 2 * self.neurons * self.frames)


def is_written(folder: Path, design: Design, overwrite: bool = False) -> bool:
    """Whether `folder` holds this recording complete; False if it is absent or unfinished.

    Another recording there is removed if it is simulated and `overwrite` is set, else UserError.
    """
    path = folder / "truth" / "animal.json"
    if not path.exists():
        if any(p.is_file() and p.suffix != ".tmp" for p in folder.rglob("*")):
            raise UserError(f"{folder}: exists and is no simulated recording; choose another --data_dir.")
        return False
    found = io.read_json(path).get("design", {})
    different = sorted(key for key, value in asdict(design).items() if found.get(key, found) != value)
    if not different:
        return (folder / "meta" / "trials" / "tiers.npy").exists()  # the tiers are written last
    if not overwrite:
        raise UserError(
            f"{folder}: holds a simulated recording with another {', '.join(different)}. "
            "Use --overwrite to replace it, or another --data_dir."
        )
    shutil.rmtree(removed(folder), ignore_errors=True)
    shutil.rmtree(folder.rename(removed(folder)))
    return False


def removed(folder: Path) -> Path:
    """What a recording is called while it is deleted: a deletion that was cut short leaves no half recording."""
    return folder.with_name(f".{folder.name}.tmp")
