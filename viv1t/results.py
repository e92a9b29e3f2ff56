"""Files of a run folder: what they are called, what they hold, which script makes them; responses of whole tiers.

`responses/mouse<ID>.h5` has one dataset (N, T) float32 per trial, named by the trial's number, with the attribute
`tier`. Attributes of the file say how it was made: `checkpoint` (hash), `skip` (frames dropped at the start of every
trial), `units`, `precision`. Frames are aligned at the end of the trial.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from viv1t.cli import did_you_mean
from viv1t.constants import TIERS
from viv1t.errors import UserError
from viv1t.io import replacing, write_table
from viv1t.stats import Answer


@dataclass(frozen=True)
class Result:
    """Path in the run folder (with {mouse} where there is one per mouse), what it holds, and the script to run."""

    path: str
    holds: str
    made_by: str


RESULTS = {
    "config": Result("config.json", "the flags of the run", "train.py"),
    "log": Result("log.csv", "one row per epoch", "train.py"),
    "responses": Result("responses/mouse{mouse}.h5", "predicted responses", "predict.py"),
    "baselines": Result("baselines/mouse{mouse}.npz", "fitted baselines", "evaluate.py"),
    "evaluation": Result("evaluation_tiers.json", "scores, ceilings and baselines", "evaluate.py"),
    "neurons": Result("evaluation_neurons.csv", "scores of every neuron", "evaluate.py"),
    "ensemble": Result("ensemble.json", "the members of an ensemble", "ensemble.py"),
    "ensemble_scores": Result("ensemble.csv", "scores of the members and of all together", "ensemble.py"),
    "retinotopy": Result("retinotopy/mouse{mouse}.h5", "responses to noise", "tuning_retinotopy/predict_noise.py"),
    "maps": Result("retinotopy/maps_mouse{mouse}.npy", "maps of receptive fields", "tuning_retinotopy/fit_aRFs.py"),
    "fields": Result("aRF.csv", "artificial receptive fields", "tuning_retinotopy/fit_aRFs.py"),
    "direction": Result("direction/mouse{mouse}.h5", "responses to gratings", "tuning_direction/predict_gratings.py"),
    "report": Result("report.html", "the report", "report.py"),
}
for _source in ("gratings", "recording", "twin", "animal"):  # whose direction tuning: predicted, or in recorded trials
    _made_by = f"tuning_direction/estimate_selectivity.py --source {_source}"
    RESULTS |= {
        f"selectivity_{_source}": Result(f"selectivity_{_source}.csv", "direction selectivity", _made_by),
        f"curves_{_source}": Result(f"direction/curves_{_source}_mouse{{mouse}}.npz", "tuning curves", _made_by),
        f"similarity_{_source}": Result(
            f"tuning_similarity_{_source}.csv", "tuning similarity of pairs of neurons",
            f"tuning_direction/estimate_tuning_similarity.py --source {_source}",
        ),
    }  # fmt: skip
for _source in ("recording", "twin", "animal"):  # whose responses to recorded trials
    RESULTS |= {
        f"fields_{_source}": Result(
            f"fields_{_source}.csv", "receptive fields from movies",
            f"tuning_retinotopy/fit_recorded_fields.py --source {_source}",
        ),
        f"spatial_tuning_{_source}": Result(
            f"spatial_tuning_{_source}.csv", "responses to Gaussian dots",
            f"tuning_retinotopy/estimate_spatial_tuning.py --source {_source}",
        ),
        f"dots_{_source}": Result(
            f"retinotopy/dots_{_source}_mouse{{mouse}}.npz", "ON and OFF maps",
            f"tuning_retinotopy/estimate_spatial_tuning.py --source {_source}",
        ),
    }  # fmt: skip
RESULTS |= {
    "sizes": Result("feedbackRF/mouse{mouse}.h5", "responses to gratings in discs and around them",
                    "tuning_feedbackRF/predict_gratings.py"),
    "size_tuning": Result("size_tuning.csv", "size tuning", "tuning_feedbackRF/estimate_size_tuning.py"),
    "onset": Result("feedbackRF/onset_mouse{mouse}.h5", "time courses", "tuning_feedbackRF/predict_onset.py"),
    "response_onset": Result("response_onset.csv", "latencies", "tuning_feedbackRF/estimate_onset.py"),
    "context": Result("contextual_modulation/mouse{mouse}.h5", "responses to centre-surround gratings",
                      "tuning_contextual_modulation/predict_gratings.py"),
    "context_traces": Result("contextual_modulation/traces_mouse{mouse}.h5", "time courses",
                             "tuning_contextual_modulation/predict_gratings.py --traces"),
    "attention": Result("contextual_modulation/attention_mouse{mouse}.npz", "attention to discs and surrounds",
                        "tuning_contextual_modulation/predict_attention.py"),
    "contextual_modulation": Result("contextual_modulation.csv", "modulation by the surround",
                                    "tuning_contextual_modulation/estimate_contextual_modulation.py"),
    "contextual_flips": Result("contextual_flips.csv", "preferences that turn with contrast",
                               "tuning_contextual_modulation/estimate_contextual_modulation.py"),
}  # fmt: skip
RESULTS |= {
    "cortical_map": Result("retinotopy.csv", "maps of the cortex", "tuning_retinotopy/estimate_retinotopy.py"),
    "gaze": Result("gaze.csv", "movement of fields with the gaze", "tuning_retinotopy/compare_gaze.py"),
}


def locate(run_dir: Path | str, name: str, mouse: str = "") -> Path:
    """Where a result belongs, whether or not it exists."""
    return Path(run_dir) / RESULTS[name].path.format(mouse=mouse)


def require(run_dir: Path | str, name: str, mouse: str = "") -> Path:
    """The path of a result that must exist; the error names the command that makes it."""
    if not Path(run_dir).is_dir():
        raise UserError(f"{run_dir}: no such run folder. Train one with 'python train.py --output_dir {run_dir}'.")
    path = locate(run_dir, name, mouse)
    if not path.is_file():
        result = RESULTS[name]
        raise UserError(
            f"{path} ({result.holds}): no such file. Make it with 'python {result.made_by} --output_dir {run_dir}'."
        )
    return path


PREFERRED = ("live_main", "final_main", "validation")  # what figures show if nothing else is asked for


def read_scores(run_dir: Path | str, needed: Sequence[str] = ()) -> pd.DataFrame:
    """The scores of every neuron: one row for each mouse, neuron and tier. needed: columns that must be there."""
    path = require(run_dir, "neurons")
    table = pd.read_csv(path, dtype={"mouse": str})
    for name in needed:
        if name not in table:
            again = f"Run 'python {RESULTS['neurons'].made_by} --output_dir {run_dir}' again"
            raise UserError(f"{path}: no column {name}, as in tables of earlier versions. {again}.")
    return table


def choose_tier(name: str | None, scored: Iterable[str]) -> str:
    """One of the tiers of a table of scores, by any of its names; without a name, the main test tier among them."""
    scored = list(dict.fromkeys(scored))
    name = TIERS.get(name, name) or next((tier for tier in PREFERRED if tier in scored), scored[0])
    if name not in scored:
        raise UserError(f"--ds_tier {name} was not scored{did_you_mean(name, scored)}; scored: {', '.join(scored)}.")
    return name


def find_mice(run_dir: Path | str, name: str, mouse_ids: Sequence[str] | None = None) -> list[str]:
    """The mice for which a result exists, or those asked for, each of which must have it."""
    if mouse_ids is None:
        pattern = RESULTS[name].path.format(mouse="*")
        start, stop = map(len, pattern.split("*"))
        mouse_ids = sorted(str(p.relative_to(run_dir))[start:-stop] for p in Path(run_dir).glob(pattern)) or [""]
    for mouse_id in mouse_ids:
        require(run_dir, name, mouse_id)
    return list(mouse_ids)


def read_table(run_dir: Path | str, name: str, mouse_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """A table of all mice, or of those asked for, each of which must be in it."""
    path = require(run_dir, name)
    table = pd.read_csv(path, dtype={"mouse": str})
    known = list(dict.fromkeys(table["mouse"]))
    for mouse_id in mouse_ids or ():
        if mouse_id not in known:
            raise UserError(f"--mouse_ids {mouse_id}: not in {path}, which has {', '.join(known)}.")
    return table[table["mouse"].isin(mouse_ids or known)].reset_index(drop=True)


def read_fields(run_dir: Path | str, mouse_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """The receptive fields of all mice: a row for each `mouse` and `neuron`, with `x`, `y` in pixels and `bad_fit`."""
    return read_table(run_dir, "fields", mouse_ids)


def read_selectivity(run_dir: Path | str, source: str, mouse_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Direction selectivity of all mice, or of those asked for: one row for each `mouse` and `neuron`."""
    return read_table(run_dir, f"selectivity_{source}", mouse_ids)


def write_answers(run_dir: Path | str, analysis: str, answers: Sequence[Answer]) -> Path:
    """RUN/statistics/<analysis>.csv: one row for each question, and the same as printed lines."""
    path = Path(run_dir) / "statistics" / f"{analysis}.csv"
    write_table(path, pd.DataFrame([asdict(answer) for answer in answers]))
    for answer in answers:
        print(answer)
    return path


def write_responses(path: Path, trials: Iterable[tuple[int, str, np.ndarray]], attributes: dict) -> None:
    """Write (trial, tier, responses (N, T)) into one file, atomically. The same content gives the same bytes."""
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        for name, value in sorted(attributes.items()):
            file.attrs[name] = value
        for trial, tier, responses in trials:
            data = file.create_dataset(str(trial), data=np.asarray(responses, dtype=np.float32), track_times=False)
            data.attrs["tier"] = tier


class Responses(AbstractContextManager):
    """A response file opened for reading. attributes: how it was made; tiers: trial -> tier, ascending."""

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            self.file = h5py.File(self.path, "r")
            self.attributes = dict(self.file.attrs)
            written = self.path.stat()
            self.state = (self.path.name, written.st_size, written.st_mtime_ns)  # changes when the file does
            self.tiers = {trial: str(self.file[str(trial)].attrs["tier"]) for trial in sorted(map(int, self.file))}
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file. Run predict.py first.") from None
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).split("(")[0].strip()
            raise UserError(f"{self.path}: not a response file ({reason}). Delete it and run predict.py.") from None

    def trial_ids(self, tier: str) -> list[int]:
        return [trial for trial, name in self.tiers.items() if name == tier]

    def read(self, trial: int, neurons: Sequence[int] | slice = slice(None)) -> np.ndarray:
        """(N, T) float32."""
        try:
            return self.file[str(trial)][neurons]
        except (OSError, KeyError):
            raise UserError(
                f"{self.path}: trial {trial} cannot be read. Delete the file and run predict.py."
            ) from None

    def shape(self, trial: int) -> tuple[int, int]:
        """(N, T) of a trial, without reading it."""
        return self.file[str(trial)].shape

    def __exit__(self, *_) -> None:
        self.file.close()
