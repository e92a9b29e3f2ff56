"""Score predicted responses against recordings, ceilings, and trivial baselines.

reads   RUN/responses/ (predict.py), RUN/ckpt/, <data_dir>/<lab>/<recording>/ and its truth/ if it is simulated
writes  RUN/evaluation_tiers.json, RUN/evaluation_neurons.csv, RUN/baselines/mouse<ID>.npz
next    report.py, misc/visualize_performance.py, misc/visualize_groups.py, misc/visualize_traces.py

The challenge correlation is the competition's: all trials of a tier end to end, frames from 50 on. Its ceiling is the
score of the true rate on simulated mice, else the oracle: the mean of the other repeats. All numbers are means over
neurons with a 95 % bootstrap interval; what could not be computed for a neuron is left out and counted.

Rows are tiers, kinds of stimulus over all test tiers, and the kinds in a tier that mixes them (live_bonus:image).
"""

import contextlib
from pathlib import Path

from viv1t import cli, evaluation, scoring
from viv1t.checkpoint import RunLock
from viv1t.results import locate


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
        help=f"{', '.join(scoring.ALL_TIERS)} (default: all that were predicted, but train)",
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
    tiers = scoring.choose_tiers(args.ds_tier)
    with contextlib.ExitStack() as opened:
        subjects = scoring.open_subjects(run_dir, args.data_dir, args.mouse_ids, args.cache_dir, opened)
        opened.enter_context(RunLock(run_dir / "responses"))
        summary = scoring.score_run(run_dir, subjects, tiers, args.baselines)
    print_scores(summary)
    print(f"{locate(run_dir, 'evaluation')}\n{locate(run_dir, 'neurons')}")


HEADER = (
    f"\n{'mouse':10} {'tier':25} {'correlation [95 %]':>21} {'ceiling':>17} {'ratio [95 %]':>17}"
    "  trial  norm.   FEVE |   mean behav.     LN | neurons (left out of norm., FEVE)"
)


def print_scores(summary: dict) -> None:
    """One line per mouse and tier."""
    print(HEADER)
    for mouse, tiers in summary["mice"].items():
        for tier, scores in tiers.items():
            print(f"{mouse:10} {tier:25} {line(scores)}")
            if scores["beats_true_rate"]:
                print(
                    "WARNING: better than the true rate: responses leak into the inputs, or the truth is not theirs."
                )
    for tier, scores in summary["all"].items():
        if scores["mice"] > 1:
            pooled = scores["challenge_correlation_neuron_weighted"]
            mean = interval(scores["challenge_correlation"], 3)
            print(f"{scores['mice']:3} mice   {tier:25} {mean} over animals; {pooled:.3f} with neurons pooled")
    for mouse, reasons in summary["left_out"].items():
        for tier, reason in reasons.items():
            print(f"{mouse:10} {tier:25} not scored: {reason}")


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


def number(value: float | None) -> str:
    return f"{'-':>6}" if value is None else f"{value:6.3f}"


if __name__ == "__main__":
    cli.run(main, get_parser())
