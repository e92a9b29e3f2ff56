"""Score predicted responses against recordings, ceilings, and trivial baselines.

reads   RUN/responses/ (predict.py), RUN/ckpt/, <data_dir>/<lab>/<recording>/ and its truth/ if it is simulated
writes  RUN/evaluation_tiers.json, RUN/evaluation_neurons.csv, RUN/baselines/mouse<ID>.npz
next    report.py, misc/visualize_performance.py, misc/visualize_traces.py

The challenge correlation is the competition's: all trials of a tier end to end, frames from 50 on. Its ceiling is the
score of the true rate on simulated mice, else the oracle: the mean of the other repeats. All numbers are means over
neurons with a 95 % bootstrap interval; what could not be computed for a neuron is left out and counted.
"""

import contextlib
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, evaluation, io
from viv1t.checkpoint import RunLock, load_checkpoint
from viv1t.constants import SKIP, TIERS
from viv1t.data.cache import open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.inference import file_hash
from viv1t.results import RESULTS, Responses, locate, require

ALL_TIERS = tuple(tier for tier in TIERS.values() if tier != "none")


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder with responses/")
    parser.add_argument("--data_dir", default="data", help="folder of the recordings (default: data)")
    parser.add_argument("--cache_dir", help="folder of the compact copies (default: .cache beside the recording)")
    parser.add_argument(
        "--mouse_ids", nargs="+", metavar="ID", help="mice to score (default: all that were predicted)"
    )
    parser.add_argument(
        "--ds_tier",
        nargs="*",
        default=[],
        metavar="TIER",
        help=f"{', '.join(ALL_TIERS)} (default: all that were predicted, but train)",
    )
    parser.add_argument(
        "--baselines",
        type=cli.switch,
        default=True,
        help="1 (default): score the mean response, behaviour, and a linear-nonlinear model as well; 0: do not",
    )
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    tiers = choose_tiers(args.ds_tier)
    with contextlib.ExitStack() as opened:
        subjects = open_subjects(run_dir, args, opened)
        opened.enter_context(RunLock(run_dir / "responses"))
        key = evaluation.fingerprint(subjects, tiers, args.baselines)
        summary = scored_before(run_dir, key)
        if summary is None:
            neurons, left_out = score(run_dir, subjects, tiers, args.baselines)
            summary = {"key": key, "skip": SKIP, "left_out": left_out} | evaluation.summarize(neurons)
            io.write_table(locate(run_dir, "neurons"), neurons.round(6))
            io.write_json(locate(run_dir, "evaluation"), without_nan(summary))
    print_scores(without_nan(summary))
    print(f"{locate(run_dir, 'evaluation')}\n{locate(run_dir, 'neurons')}")


def open_subjects(run_dir: Path, args, opened: contextlib.ExitStack) -> list[evaluation.Subject]:
    """Recordings and predictions of the mice, checked against the weights in the run folder."""
    checkpoint = load_checkpoint(run_dir)
    hash = file_hash(checkpoint.path)
    subjects = []
    mouse_ids = args.mouse_ids or predicted_mice(run_dir, list(checkpoint.neurons))
    for mouse_id, folder in find_recordings(args.data_dir, mouse_ids).items():
        cache = open_cache(Recording(folder, mouse_id), args.cache_dir)
        responses = opened.enter_context(Responses(require(run_dir, "responses", mouse_id)))
        check_responses(responses, cache, hash)
        subjects.append(evaluation.Subject(cache, responses, checkpoint.neurons[mouse_id]))
    return subjects


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


def choose_tiers(names: list[str]) -> list[str]:
    tiers = [TIERS.get(name, name) for name in names if name]
    for tier in tiers:
        if tier not in ALL_TIERS:
            raise UserError(f"--ds_tier {tier} is unknown{cli.did_you_mean(tier, ALL_TIERS)}.")
    return tiers or [tier for tier in ALL_TIERS if tier != "train"]


def predicted_mice(run_dir: Path, mouse_ids: list[str]) -> list[str]:
    found = [id for id in mouse_ids if locate(run_dir, "responses", id).is_file()]
    if not found:
        raise UserError(
            f"{run_dir / 'responses'}: nothing predicted yet. "
            f"Run 'python {RESULTS['responses'].made_by} --output_dir {run_dir}' first."
        )
    return found


def check_responses(responses: Responses, cache, hash: str) -> None:
    """Predictions must come from the present checkpoint and recording, in recorded units, with all scored frames."""
    made = responses.attributes
    again = "Run predict.py again"
    if made.get("checkpoint") != hash:
        raise UserError(f"{responses.path}: made by other weights than those in the run folder. {again}.")
    if made.get("recording") != cache.recording.fingerprint:
        raise UserError(f"{responses.path}: made from another state of {cache.recording.directory}. {again}.")
    if made.get("units") != "recorded" or made.get("skip", 0) > SKIP:
        raise UserError(f"{responses.path}: scores need recorded units and all frames from {SKIP} on. "
                        f"{again} with --units recorded --skip {SKIP} or less.")  # fmt: skip


HEADER = (
    f"\n{'mouse':10} {'tier':14} {'correlation [95 %]':>21} {'ceiling':>17} {'ratio [95 %]':>17}"
    "  trial  norm.   FEVE |   mean behav.     LN | neurons (left out of norm., FEVE)"
)


def print_scores(summary: dict) -> None:
    """One line per mouse and tier."""
    print(HEADER)
    for mouse, tiers in summary["mice"].items():
        for tier, scores in tiers.items():
            print(f"{mouse:10} {tier:14} {line(scores)}")
            if scores["beats_true_rate"]:
                print(
                    "WARNING: better than the true rate: responses leak into the inputs, or the truth is not theirs."
                )
    for tier, scores in summary["all"].items():
        if scores["mice"] > 1:
            pooled = scores["challenge_correlation_neuron_weighted"]
            mean = interval(scores["challenge_correlation"], 3)
            print(f"{scores['mice']:3} mice   {tier:14} {mean} over animals; {pooled:.3f} with neurons pooled")
    for mouse, reasons in summary["left_out"].items():
        for tier, reason in reasons.items():
            print(f"{mouse:10} {tier:14} not scored: {reason}")


def line(scores: dict) -> str:
    """Correlation, ceiling, ratio, other scores, baselines and numbers of neurons of one mouse and tier."""
    others = ("single_trial_correlation", "pooled_normalized_correlation", "feve")
    left_out = ", ".join(str(scores[name]["excluded"]) for name in others[1:])
    bound, correlation = scores["ceiling"], scores["challenge_correlation"]
    means = [" ".join(number(scores[name]["mean"]) for name in names) for names in (others, evaluation.BASELINES)]
    return (
        f"{interval(correlation, 3)} {number(scores[bound]['mean'])} {bound.replace('_', ' '):>10} "
        f"{interval(scores['ratio_to_ceiling'], 2)} {means[0]} | {means[1]} | {correlation['n']} ({left_out})"
    )


def interval(values: dict, digits: int) -> str:
    width = digits + 3
    if not values["n"]:
        return "-".rjust(width) + " " * (2 * width + 4)
    mean, low, high = (f"{values[key]:{width}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low},{high}]"


def without_nan(value):
    """NaN as null, which every reader of JSON understands."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def number(value: float | None) -> str:
    return f"{'-':>6}" if value is None else f"{value:6.3f}"


if __name__ == "__main__":
    cli.run(main, get_parser())
