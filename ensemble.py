"""Average the predictions of several runs and score them: each member, and all of them together.

  python ensemble.py --output_dir runs/ensemble --members runs/a runs/b runs/c --data_dir data/simulated

reads   MEMBER/responses/ (predict.py) and MEMBER/evaluation_tiers.json, evaluation_neurons.csv (evaluate.py) of every
        member, <data_dir>/<lab>/<recording>/
writes  RUN/ensemble.json: the members and their weights; RUN/responses/mouse<ID>.h5 as predict.py writes it,
        RUN/evaluation_tiers.json, RUN/evaluation_neurons.csv as evaluate.py; RUN/ensemble.csv: scores side by side
next    report.py, misc/visualize_performance.py, misc/visualize_traces.py

Members that differ in their initial weights, or in anything else, err differently; what they err in alone averages
out. Responses are averaged in recorded units, trial by trial. `correlation` is the challenge correlation, `normalized`
the pooled normalised correlation, `ratio` the fraction of the ceiling (docs/scores.md). `gain` is what the ensemble
adds to a run's correlation, with a 95 % bootstrap interval over the same neurons; intervals of the scores themselves
are wider, because neurons differ more than runs do.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from viv1t import cli, evaluation, io, scoring, stats
from viv1t.checkpoint import RunLock
from viv1t.constants import TIERS
from viv1t.errors import UserError
from viv1t.evaluation import Subject
from viv1t.origin import Origin, together, twin_of, write_members
from viv1t.results import Responses, locate, read_scores, write_responses


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder of the ensemble")
    parser.add_argument("--members", required=True, nargs="+", metavar="RUN", help="runs, predicted and scored")
    parser.add_argument("--data_dir", default="data", help="folder of the recordings (default: data)")
    parser.add_argument("--cache_dir", help="folder of the compact copies (default: .cache beside the recording)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all that were predicted)")
    parser.add_argument(
        "--ds_tier",
        nargs="*",
        default=[],
        metavar="TIER",
        help=f"{', '.join(scoring.ALL_TIERS)} (default: average all that were predicted, score all but train)",
    )
    parser.add_argument(
        "--baselines", type=cli.switch, default=True, help="as evaluate.py was told for the members (default: 1)"
    )
    return parser


def main(args) -> None:
    run_dir, tiers = Path(args.output_dir), scoring.choose_tiers(args.ds_tier)
    folders = choose_members(args.members, run_dir)
    twins = [twin_of(folder) for folder in folders]
    with contextlib.ExitStack() as opened:
        given = (args.data_dir, args.mouse_ids, args.cache_dir, opened)
        members = [scoring.open_subjects(folder, *given) for folder in folders]
        averaged = tiers if args.ds_tier else scoring.ALL_TIERS
        for folder, subjects in zip(folders[1:], members[1:], strict=True):
            check_same(folders[0], members[0], folder, subjects, averaged)
        for folder, subjects in zip(folders, members, strict=True):
            require_scores(folder, subjects, tiers, args)
        opened.enter_context(RunLock(run_dir / "responses"))
        write_members(run_dir, folders, twins)
        for of_mouse in zip(*members, strict=True):
            average(run_dir, of_mouse, averaged, together(twins))
            take_baselines(run_dir, folders[0], of_mouse[0].id)
        scoring.score_run(run_dir, scoring.open_subjects(run_dir, *given), tiers, args.baselines)
    table = compare(run_dir, folders)
    io.write_table(locate(run_dir, "ensemble_scores"), table)
    print_scores(table)
    print(f"{locate(run_dir, 'evaluation')}\n{locate(run_dir, 'ensemble_scores')}")


def choose_members(members: Sequence[str], run_dir: Path) -> list[Path]:
    folders = [Path(member) for member in members]
    places = [folder.resolve() for folder in folders]
    twice = [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]
    if len(folders) < 2 or twice:
        raise UserError(f"--members: name two or more different runs{f', not {twice[0]} twice' if twice else ''}.")
    if any(locate(run_dir, name).exists() for name in ("config", "log")) or run_dir.resolve() in places:
        raise UserError(f"--output_dir {run_dir}: holds a run of train.py. Name a folder for the ensemble.")
    return folders


def check_same(first: Path, known: list[Subject], folder: Path, subjects: list[Subject], tiers: Sequence[str]) -> None:
    """Only responses of the same neurons to the same trials can be averaged."""
    mice, others = [", ".join(subject.id for subject in of) for of in (known, subjects)]
    if mice != others:
        raise UserError(
            f"--members: {folder} predicts mice {others}, {first} mice {mice}. Choose common ones with --mouse_ids."
        )
    for a, b in zip(known, subjects, strict=True):
        where = f"{b.responses.path}: mouse {b.id} differs from {first} in"
        if not np.array_equal(a.neurons, b.neurons):
            raise UserError(f"{where} its neurons ({len(b.neurons)}, {len(a.neurons)} there). Train both on the same.")
        if a.responses.attributes["skip"] != b.responses.attributes["skip"]:
            raise UserError(f"{where} the frames left out. Run predict.py on both with the same --skip.")
        for tier in tiers:
            trials, common = (set(subject.responses.trial_ids(tier)) for subject in (b, a))
            if trials != common:
                raise UserError(
                    f"{where} its {tier} trials ({len(trials)}, {len(common)} there). "
                    "Run predict.py on both with the same --ds_tier, or choose common tiers with --ds_tier."
                )


def require_scores(folder: Path, subjects: list[Subject], tiers: list[str], args) -> None:
    """A member must have been scored on its present predictions, with the same settings."""
    if scoring.scored_before(folder, evaluation.fingerprint(subjects, tiers, args.baselines)) is None:
        given = {"--mouse_ids": args.mouse_ids, "--ds_tier": args.ds_tier, "--cache_dir": [args.cache_dir or ""]}
        flags = "".join(f" {flag} {' '.join(values)}" for flag, values in given.items() if values and all(values))
        flags += "" if args.baselines else " --baselines 0"
        raise UserError(
            f"{locate(folder, 'evaluation')}: lacks the scores of these predictions. "
            f"Run 'python evaluate.py --output_dir {folder} --data_dir {args.data_dir}{flags}' first."
        )


def average(run_dir: Path, members: Sequence[Subject], tiers: Sequence[str], origin: Origin) -> None:
    """RUN/responses/mouse<ID>.h5, unless it holds the mean of these very predictions."""
    files = [member.responses for member in members]
    path = locate(run_dir, "responses", members[0].id)
    attributes = files[0].attributes | {
        "checkpoint": origin.hash,
        "precision": " ".join(str(file.attributes["precision"]) for file in files),
    }
    trials = {trial: tier for trial, tier in files[0].tiers.items() if tier in tiers}
    if averaged_before(path, attributes, trials):
        print(f"mouse {members[0].id}: nothing to average, {path} is complete.")
        return
    write_responses(path, means(files, trials, f"mouse {members[0].id}: averaging"), attributes)


def averaged_before(path: Path, attributes: dict, trials: dict[int, str]) -> bool:
    if not path.is_file():
        return False
    with Responses(path) as responses:
        return responses.attributes == attributes and trials.items() <= responses.tiers.items()


def means(files: Sequence[Responses], trials: dict[int, str], title: str) -> Iterator[tuple[int, str, np.ndarray]]:
    """(trial, tier, mean responses (N, T)), one trial in memory at a time."""
    for trial, tier in tqdm(trials.items(), desc=title, unit="trial", leave=False, disable=None):
        total = np.float64(0)
        for file in files:
            total = total + file.read(trial)
        yield trial, tier, total / len(files)


def take_baselines(run_dir: Path, member: Path, mouse_id: str) -> None:
    """Baselines know nothing of twins: those fitted for a member serve the ensemble."""
    source, path = (locate(folder, "baselines", mouse_id) for folder in (member, run_dir))
    if source.is_file() and not path.is_file():
        with io.replacing(path) as temporary:
            shutil.copyfile(source, temporary)


def compare(run_dir: Path, folders: list[Path]) -> pd.DataFrame:
    """One row for each mouse (and all mice together), set of trials, and member, the ensemble last."""
    rng = np.random.default_rng(0)
    runs = [*folders, run_dir]
    index = ["mouse", "tier", "neuron"]
    neurons = {run: read_scores(run).set_index(index)["challenge_correlation"].sort_index() for run in runs}
    rows = []
    for run in runs:
        summary, gains = io.read_json(locate(run, "evaluation")), neurons[run_dir] - neurons[run]
        if run == run_dir:
            gains[:] = np.nan
        for mouse, tiers in summary["mice"].items():
            for tier, scores in tiers.items():
                gain = stats.bootstrap(gains.loc[mouse, tier].to_numpy(), rng)
                rows.append(row(mouse, tier, run, scores, gain))
        for tier, scores in summary["all"].items():
            if scores["mice"] > 1:
                per_mouse = [gain.to_numpy() for _, gain in gains.xs(tier, level="tier").groupby("mouse")]
                gain = stats.hierarchical_bootstrap(per_mouse, rng)
                rows.append(row(f"{scores['mice']} mice", tier, run, scores, gain))
    by_run = pd.DataFrame(rows)
    return pd.concat([part for _, part in by_run.groupby(["mouse", "tier"], sort=False)], ignore_index=True)


def row(mouse: str, tier: str, run: Path, scores: dict, gain: stats.Interval) -> dict:
    correlation, ratio = scores["challenge_correlation"], scores["ratio_to_ceiling"]
    return {
        "mouse": mouse,
        "tier": tier,
        "run": run,
        "n": correlation["n"],
        "correlation": correlation["mean"],
        "low": correlation["low"],
        "high": correlation["high"],
        "normalized": scores["pooled_normalized_correlation"]["mean"],
        "ratio": ratio["mean"],
        "ratio_low": ratio["low"],
        "ratio_high": ratio["high"],
        "gain": gain.mean,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }


def print_scores(table: pd.DataFrame) -> None:
    """Tiers only; the file has the kinds of stimuli, too."""
    shown = table[table["tier"].isin(TIERS.values())]
    print(shown.to_string(index=False, float_format="{:.3f}".format, na_rep="-"))


if __name__ == "__main__":
    cli.run(main, get_parser())
