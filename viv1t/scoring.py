"""The scores of a run folder: its predictions, checked against weights and recordings, scored once and kept."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import evaluation, io
from viv1t.cli import did_you_mean
from viv1t.constants import SKIP, TIERS
from viv1t.data.cache import Cache, open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.origin import is_ensemble, origin_of
from viv1t.results import RESULTS, Responses, locate, require

ALL_TIERS = tuple(tier for tier in TIERS.values() if tier != "none")


def open_subjects(
    run_dir: Path,
    data_dir: Path | str,
    mouse_ids: Sequence[str] | None,
    cache_dir: Path | str | None,
    opened: contextlib.ExitStack,
) -> list[evaluation.Subject]:
    """Recordings and predictions of the mice, or of all predicted ones, checked against the weights."""
    origin = origin_of(run_dir)
    mouse_ids = mouse_ids or predicted_mice(run_dir, list(origin.neurons))
    made_by = RESULTS["ensemble"].made_by if is_ensemble(run_dir) else RESULTS["responses"].made_by
    subjects = []
    for mouse_id, folder in find_recordings(data_dir, mouse_ids).items():
        cache = open_cache(Recording(folder, mouse_id), cache_dir)
        responses = opened.enter_context(Responses(require(run_dir, "responses", mouse_id)))
        check_responses(responses, cache, origin.hash, made_by)
        subjects.append(evaluation.Subject(cache, responses, origin.neurons[mouse_id]))
    return subjects


def predicted_mice(run_dir: Path, mouse_ids: list[str]) -> list[str]:
    found = [id for id in mouse_ids if locate(run_dir, "responses", id).is_file()]
    if not found:
        raise UserError(
            f"{run_dir / 'responses'}: nothing predicted yet. "
            f"Run 'python {RESULTS['responses'].made_by} --output_dir {run_dir}' first."
        )
    return found


def check_responses(responses: Responses, cache: Cache, hash: str, made_by: str) -> None:
    """Predictions must come from the present weights and recording, in recorded units, with all scored frames."""
    made = responses.attributes
    again = f"Run {made_by} again"
    if made.get("checkpoint") != hash:
        raise UserError(f"{responses.path}: made by other weights than those in the run folder. {again}.")
    if made.get("recording") != cache.recording.fingerprint:
        raise UserError(f"{responses.path}: made from another state of {cache.recording.directory}. {again}.")
    if made.get("units") != "recorded" or made.get("skip", 0) > SKIP:
        raise UserError(f"{responses.path}: scores need recorded units and all frames from {SKIP} on. "
                        f"Run predict.py again with --units recorded --skip {SKIP} or less.")  # fmt: skip


def choose_tiers(names: Sequence[str]) -> list[str]:
    """Tiers by any of their names; without names all but the training tier."""
    tiers = [TIERS.get(name, name) for name in names if name]
    for tier in tiers:
        if tier not in ALL_TIERS:
            raise UserError(f"--ds_tier {tier} is unknown{did_you_mean(tier, ALL_TIERS)}.")
    return tiers or [tier for tier in ALL_TIERS if tier != "train"]


def score_run(run_dir: Path, subjects: list[evaluation.Subject], tiers: list[str], with_baselines: bool) -> dict:
    """The content of RUN/evaluation_tiers.json, computed and written unless these very predictions were scored."""
    key = evaluation.fingerprint(subjects, tiers, with_baselines)
    summary = scored_before(run_dir, key)
    if summary is None:
        neurons, left_out = score(run_dir, subjects, tiers, with_baselines)
        summary = {"key": key, "skip": SKIP, "left_out": left_out} | evaluation.summarize(neurons)
        summary = without_nan(summary)
        io.write_table(locate(run_dir, "neurons"), neurons.round(6))
        io.write_json(locate(run_dir, "evaluation"), summary)
    return summary


def scored_before(run_dir: Path, key: str) -> dict | None:
    """The scores of an earlier run on the same predictions, recordings and settings."""
    path = locate(run_dir, "evaluation")
    if not path.is_file() or not locate(run_dir, "neurons").is_file():
        return None
    summary = io.read_json(path)
    return summary if summary.get("key") == key else None


def score(run_dir: Path, subjects: list, tiers: list[str], with_baselines: bool) -> tuple[pd.DataFrame, dict]:
    """The table of neurons, and per mouse the tiers that could not be scored."""
    tables, left_out = [], {}
    for subject in subjects:
        sets, left_out[subject.id] = evaluation.trial_sets(subject, tiers)
        if not sets:
            continue
        path = locate(run_dir, "baselines", subject.id)
        fitted = evaluation.fitted_baselines(subject, path) if with_baselines else None
        tables.append(evaluation.score_mouse(subject, sets, fitted))
    if not tables:
        raise UserError(f"{run_dir / 'responses'}: no predicted trial of {', '.join(tiers)} has recorded responses.")
    return pd.concat(tables, ignore_index=True), left_out


def without_nan(value):
    """NaN as null, which every reader of JSON understands."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
