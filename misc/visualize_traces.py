"""Draw recorded and predicted responses of good, of median, or of the most reliable neurons to one repeated video.

reads   RUN/responses/ (predict.py), RUN/evaluation_neurons.csv (evaluate.py), <data_dir>/<lab>/<recording>/
writes  RUN/figures/traces_mouse<ID>.{pdf,png,csv}, or traces_reliable_mouse<ID> with --reliable
next    report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.constants import TIERS
from viv1t.data.cache import open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.estimators.repeats import group_repeats
from viv1t.origin import origin_of
from viv1t.plotting import panels, style
from viv1t.results import PREFERRED, Responses, read_scores, require

QUANTILES = {"good": 0.95, "median": 0.5}  # of the correlation over neurons
CAPTIONS = {
    False: "single trials (grey, cut off), their mean, the twin's prediction averaged over the same trials, and the "
    "true rate if it is known. r: correlation over all trials of the tier.",
    True: "mean over the repeats and the twin's prediction for them, of the neurons with the largest split-half "
    "reliability, each scaled to its largest value. r: correlation over all trials of the tier.",
}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder with evaluation_neurons.csv")
    parser.add_argument("--data_dir", default="data", help="folder of the recordings (default: data)")
    parser.add_argument("--cache_dir", help="folder of the compact copies (default: .cache beside the recording)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice to draw (default: all that were scored)")
    parser.add_argument("--ds_tier", metavar="TIER", help="tier to draw (default: the main test tier)")
    parser.add_argument(
        "--video", type=cli.number(int, 0), default=0, help="which repeated video, from 0 (default: 0)"
    )
    parser.add_argument(
        "--reliable", type=cli.number(int, 1), metavar="N", help="draw the N neurons whose repeats agree best, instead"
    )
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    scores = read_scores(run_dir)
    mouse_ids = args.mouse_ids or list(dict.fromkeys(scores["mouse"]))
    neurons = origin_of(run_dir).neurons
    for mouse_id, folder in find_recordings(args.data_dir, mouse_ids).items():
        of_mouse = scores[scores["mouse"] == mouse_id]
        tier = choose_tier(args.ds_tier, mouse_id, of_mouse)
        of_tier = of_mouse[of_mouse["tier"] == tier]
        chosen = choose_reliable(of_tier, args.reliable) if args.reliable else choose_neurons(of_tier)
        cache = open_cache(Recording(folder, mouse_id), args.cache_dir)
        with Responses(require(run_dir, "responses", mouse_id)) as predicted:
            table, shown = read_traces(cache, predicted, tier, args.video, chosen, neurons[mouse_id])
        fig = draw_reliable(table, chosen) if args.reliable else draw(table, chosen)
        caption = f"Mouse {mouse_id}, {shown} repeats of one {tier} video: {CAPTIONS[bool(args.reliable)]}"
        name = "traces_reliable" if args.reliable else "traces"
        for path in style.save(fig, run_dir / "figures" / f"{name}_mouse{mouse_id}", table, caption):
            print(path)


def choose_tier(name: str | None, mouse_id: str, scores: pd.DataFrame) -> str:
    repeated = list(dict.fromkeys(scores.loc[scores["repeated_videos"] > 0, "tier"]))
    repeated = [tier for tier in repeated if tier in TIERS.values()]
    name = TIERS.get(name, name) or next((tier for tier in PREFERRED if tier in repeated), None)
    if name not in repeated:
        raise UserError(
            f"mouse {mouse_id}: no scored tier {name or ''} with repeated videos; "
            f"there are: {', '.join(repeated) or 'none'}. Run predict.py and evaluate.py for one that repeats them."
        )
    return name


def choose_neurons(scores: pd.DataFrame) -> pd.DataFrame:
    """Two neurons at each of QUANTILES of the correlation; one row each, with the column `kind`."""
    ranked = scores.dropna(subset=["challenge_correlation"]).sort_values("challenge_correlation")
    rows = []
    for kind, quantile in QUANTILES.items():
        middle = int(quantile * (len(ranked) - 1))
        rows.append(ranked.iloc[max(0, middle - 1) : middle + 1][::-1].assign(kind=kind))
    return pd.concat(rows)


def choose_reliable(scores: pd.DataFrame, number: int) -> pd.DataFrame:
    """The neurons with the largest split-half reliability, best first."""
    return scores.dropna(subset=["split_half_reliability"]).nlargest(number, "split_half_reliability")


def read_traces(cache, predicted: Responses, tier: str, video: int, chosen: pd.DataFrame, neurons: np.ndarray):
    """Long table (neuron, trace, second, response) of the frames that all repeats have; and the number of repeats."""
    trials = np.array([i for i in predicted.trial_ids(tier) if not cache.withheld[i]])
    groups = group_repeats(cache.video_ids[trials])
    if video >= len(groups):
        raise UserError(f"--video {video}: tier {tier} has {len(groups)} repeated videos, counted from 0.")
    trials = trials[groups[video]]
    length = min(min(cache.frames[i], predicted.shape(i)[1]) for i in trials)
    rows = chosen["neuron"].to_numpy()
    order = [neurons.tolist().index(row) for row in rows]
    recorded = np.stack([cache.responses(i)[-length:, rows].astype(np.float32).T for i in trials])  # (R, n, T)
    prediction = np.stack([predicted.read(i)[order, -length:] for i in trials]).mean(axis=0)
    rates = [cache.recording.truth_rates(i) for i in trials]
    traces = {f"trial {i}": y for i, y in zip(trials, recorded, strict=True)}
    traces |= {"recorded mean": recorded.mean(axis=0), "twin": prediction}
    if rates[0] is not None:
        traces["true rate"] = np.mean([rate[rows, -length:] for rate in rates], axis=0)
    seconds = (cache.frames[trials[0]] - length + np.arange(length)) / cache.recording.fps
    parts = [
        pd.DataFrame({"neuron": row, "trace": name, "second": seconds.round(4), "response": y[n].astype(np.float32)})
        for name, y in traces.items()
        for n, row in enumerate(rows)
    ]
    return pd.concat(parts, ignore_index=True), len(trials)


def draw(table: pd.DataFrame, chosen: pd.DataFrame):
    fig, axes = style.figure(len(chosen), 1, height=24 * len(chosen) + 14, sharex=True)
    for ax, (_, neuron) in zip(axes[:, 0], chosen.iterrows(), strict=True):
        wide = table[table["neuron"] == neuron["neuron"]].pivot(index="second", columns="trace", values="response")
        single = [name for name in wide if name.startswith("trial ")]
        named = {name: wide[name].to_numpy() for name in ("recorded mean", "true rate", "twin") if name in wide}
        panels.traces(ax, wide.index.to_numpy(), wide[single].to_numpy().T, named)
        ax.set_title(
            f"{neuron['kind']}: neuron {neuron['neuron']}, r = {neuron['challenge_correlation']:.2f}", loc="left"
        )
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4)
    axes[-1, 0].set_xlabel("time from trial onset (s)")
    fig.supylabel("response (recorded units)")
    return fig


def draw_reliable(table: pd.DataFrame, chosen: pd.DataFrame):
    fig, axes = style.figure(height=5.5 * len(chosen) + 22)
    wide = table.pivot(index=["neuron", "second"], columns="trace", values="response")
    seconds = np.sort(table["second"].unique())
    names = [name for name in ("recorded mean", "twin") if name in wide]
    lines = {name: wide[name].unstack("second").loc[chosen["neuron"]].to_numpy() for name in names}
    labels = [f"{n}, r = {r:.2f}" for n, r in zip(chosen["neuron"], chosen["challenge_correlation"], strict=True)]
    panels.stacked_traces(axes[0, 0], seconds, lines, labels)
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    axes[0, 0].set(xlabel="time from trial onset (s)", ylabel="neuron; responses in shares of the maximum")
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
