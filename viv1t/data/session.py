"""Sessions in which short patterns were shown in blocks, as in closed-loop experiments, and read block by block.

    <data_dir>/<lab>/<recording>/<subfolder>/data/responses/<trial>.npy     (neurons, blocks x 60 frames)
                                             meta/trials/video_ids.npy      (trials, blocks) names of what was shown
                                             meta/stimuli.csv               what each name showed

A block is 15 frames of grey, 30 of the pattern, 15 of grey. Neurons keep the number that they have in the mouse's
first session; those that were not found in this one are NaN throughout. Nothing is ever unpickled.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import io
from viv1t.cli import did_you_mean
from viv1t.data import metadata, npy
from viv1t.data.mice import recording_id
from viv1t.errors import UserError

BEFORE, PATTERN, AFTER = 15, 30, 15  # frames of a block
FRAMES = BEFORE + PATTERN + AFTER
SUBFOLDER = "artificial_movies"
NAMES, STIMULI = Path("meta") / "trials" / "video_ids.npy", Path("meta") / "stimuli.csv"
NUMBERS = ("contrast", "size_deg", "direction_deg", "x", "y")  # columns of the table of stimuli that hold numbers


class Session:
    """A checked session. UserError (one line: what, which file, the cure) where it is not one; nothing is written.

    names (trials, blocks) str; coordinates (N, 3) um, unit_ids (N,): those of the mouse's recording.
    """

    def __init__(self, directory: Path | str):
        self.directory = Path(directory)
        self.names = _read_names(self.directory / NAMES)
        self.coordinates, self.unit_ids = metadata.read_neurons(_with_neurons(self.directory))

    @property
    def num_neurons(self) -> int:
        return len(self.coordinates)

    def path(self, trial: int) -> Path:
        return self.directory / "data" / "responses" / f"{trial}.npy"

    def blocks(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """(name, trial, responses (N, 60) float32) of every block in order; one trial is in memory at a time."""
        lost = None
        for trial, names in enumerate(self.names):
            responses = self._read(trial)
            unknown = np.isnan(responses)
            lost = unknown.all(axis=1) if lost is None else lost
            bad = ~np.isfinite(responses) & ~(unknown & lost[:, None])
            if bad.any() or not unknown[lost].all():
                neuron = int(np.flatnonzero(bad.any(axis=1) | (lost & ~unknown.all(axis=1)))[0])
                raise UserError(
                    f"{self.path(trial)}: neuron {neuron} is not finite in some frames only. A neuron that was not "
                    "found must be NaN in all trials, any other in none."
                )
            for block, name in enumerate(names):
                yield str(name), trial, responses[:, block * FRAMES : (block + 1) * FRAMES]

    def _read(self, trial: int) -> np.ndarray:
        path, expected = self.path(trial), (self.num_neurons, self.names.shape[1] * FRAMES)
        responses = npy.load(path)
        if responses.shape != expected or responses.dtype.kind not in "fiu":
            raise UserError(
                f"{path}: {responses.dtype} {responses.shape}, expected {expected}: {self.num_neurons} neurons, "
                f"{self.names.shape[1]} blocks of {FRAMES} frames, as {self.directory / NAMES} says."
            )
        return responses.astype(np.float32)


def find_sessions(
    data_dir: Path | str, mouse_ids: Sequence[str] | None = None, subfolder: str = SUBFOLDER
) -> dict[str, Path]:
    """Sessions below `data_dir` by mouse id (K_day2 for a later day of K): all, or those asked for."""
    found = {}
    for depth in ("", "*/", "*/*/"):
        for path in sorted(Path(data_dir).glob(f"{depth}{subfolder}/{NAMES}")):
            found.setdefault(recording_id(path.parents[3]), path.parents[2])
    if not found:
        raise UserError(f"{data_dir}: no session, <recording>/{subfolder}/{NAMES}. Check --data_dir and --subfolder.")
    for mouse_id in mouse_ids or ():
        if mouse_id not in found:
            raise UserError(
                f"--mouse_ids {mouse_id}: no session below {data_dir}{did_you_mean(mouse_id, list(found))}; found: "
                f"{', '.join(found)}."
            )
    return {mouse_id: found[mouse_id] for mouse_id in mouse_ids or found}


def read_stimuli(path: Path | str) -> pd.DataFrame:
    """The table of stimuli: one row for each `name`, with `kind` and the NUMBERS that it has, NaN where blank."""
    try:
        table = pd.read_csv(path, dtype={"name": str, "kind": str})
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file. Write a row for each name: name,kind,contrast,size_deg,direction_deg."
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
        raise UserError(f"{path}: not a table. Write it as CSV with a header, one row for each name.") from None
    for column in ("name", "kind", "contrast", "size_deg", "direction_deg"):
        if column not in table:
            raise UserError(f"{path}: no column {column}{did_you_mean(column, list(table))}. Add it.")
    twice = table["name"][table["name"].duplicated() | table["name"].isna()]
    if len(twice):
        raise UserError(f"{path}: the name '{twice.iloc[0]}' stands twice, or is empty. Give one row to each name.")
    for column in set(NUMBERS) & set(table):
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = numbers.isna() & table[column].notna()
        if wrong.any():
            raise UserError(f"{path}: {column} of '{table['name'][wrong].iloc[0]}' is not a number. Correct it.")
        table[column] = numbers.astype(float)
    return table


def write_session(
    directory: Path,
    names: np.ndarray,
    trials: Iterable[np.ndarray],
    coordinates: np.ndarray,
    stimuli: pd.DataFrame,
) -> None:
    """Write a session: names (trials, blocks), responses (N, blocks x 60) of each trial, and its table of stimuli."""
    for trial, responses in enumerate(trials):
        io.write_array(directory / "data" / "responses" / f"{trial}.npy", responses)
    io.write_array(directory / "meta" / "neurons" / "cell_motor_coordinates.npy", coordinates)
    io.write_table(directory / STIMULI, stimuli)
    io.write_array(directory / NAMES, np.asarray(names, dtype=np.str_))


def _read_names(path: Path) -> np.ndarray:
    try:
        names = npy.load(path)
    except UserError as error:
        if "Python objects" not in str(error):
            raise
        raise UserError(
            f"{path}: holds Python objects, which are never loaded. If you trust the file, save it as text: "
            f"python -c \"import numpy as np; p = '{path}'; np.save(p, np.load(p, allow_pickle=True).astype(str))\""
        ) from None
    if names.ndim != 2 or names.dtype.kind not in "US" or not names.size:
        raise UserError(f"{path}: {names.dtype} {names.shape}, expected names (trials, blocks).")
    return names.astype(np.str_)


def _with_neurons(directory: Path) -> Path:
    """The folder that says where the neurons lie: the session's own, or the recording that it belongs to."""
    known = Path("meta") / "neurons" / "cell_motor_coordinates.npy"
    for folder in (directory, directory.parent / "natural_movies", directory.parent):
        if (folder / known).is_file():
            return folder
    raise UserError(f"{directory / known}: no such file. Copy it from the mouse's first session.")
