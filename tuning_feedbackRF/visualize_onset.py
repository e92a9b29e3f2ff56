"""Draw when neurons begin to answer to classical and to inverse gratings: time courses, onsets, lags.

reads   RUN/feedbackRF/onset_mouse<ID>.h5 (predict_onset.py), RUN/response_onset.csv (estimate_onset.py)
writes  RUN/figures/response_onset.{pdf,png,csv}
next    report.py

Whether the inverse response is later is asked by estimate_onset.py. In vivo (electrophysiology, Keller et al. 2020)
it was by 50 +- 20 ms; a twin sees frames of 33 ms, and here nothing corrects for what the two stimuli drive apart from
feedback: compare_truth.py does, on simulated mice.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.errors import UserError
from viv1t.measurements import Measurement
from viv1t.plotting import panels, sizes, style
from viv1t.results import read_table, require
from viv1t.stats import hierarchical_bootstrap

KINDS = {"classical": "centre", "inverse": "inverse"}
ONSETS = {"classical": "onset_ms", "inverse": "inverse_onset_ms"}
BINS = np.arange(-200, 425, 25.0)  # ms
EXAMPLES = 3
SEED = 1


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with response_onset.csv")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    parser.add_argument(
        "--seed", type=cli.number(int, 0), default=1, metavar="N", help="of random examples (default: 1)"
    )
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    table = read_table(run_dir, "response_onset", args.mouse_ids)
    tuned = table[table["inverse_tuned"]].dropna(subset=["lag_ms"])
    if not len(tuned):
        raise UserError(f"{run_dir}: no inverse-tuned neuron has two onsets. Nothing to draw; see estimate_onset.py.")
    ms, traces = read_traces(run_dir, tuned)
    fig, axes = style.figure(2, 3, height=130, below=8)
    numbers = [draw_population(axes[0, 0], ms, traces, tuned)]
    sizes.onsets(axes[0, 1], *(table[name].to_numpy() for name in ONSETS.values()), table["inverse_tuned"].to_numpy())
    axes[0, 1].set_title(panels.told(tuned), loc="left")
    numbers.append(table[["mouse", "neuron", "inverse_tuned", *ONSETS.values(), "lag_ms"]].assign(panel="b, c"))
    draw_lags(axes[0, 2], tuned)
    examples = np.sort(np.random.default_rng(args.seed).choice(len(tuned), min(EXAMPLES, len(tuned)), replace=False))
    for ax, k in zip(axes[1], examples, strict=False):
        numbers.append(draw_example(ax, ms, {name: own[k] for name, own in traces.items()}, tuned.iloc[k]))
    for ax in axes[1, len(examples) :]:
        ax.set_visible(False)
    axes[0, 0].set_ylabel("response / peak")
    axes[1, 0].set_ylabel("response / peak")
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        style.letter(ax, text)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    others, names = axes[0, 1].get_legend_handles_labels()
    fig.legend([*handles, others[0]], [*labels, "not inverse-tuned (b)"], loc="lower left", ncols=3)
    caption = (
        f"Time courses of {panels.told(tuned)}, all inverse-tuned, to the classical and the inverse grating of their "
        "preferred sizes, above grey and averaged over phases. a: in shares of the peak, mean of mice with 95 % "
        "interval (bootstrap over mice and neurons). b: onsets of each neuron; grey: neurons that are not "
        "inverse-tuned. c: lags of inverse-tuned neurons, median (line); band: in vivo, mean and sem. d to f: "
        f"examples; triangles mark onsets. {table['inverse_tuned'].sum() - len(tuned)} inverse-tuned neurons have "
        "no lag."
    )
    shown = pd.concat(numbers, ignore_index=True).round(6)
    for path in style.save(fig, run_dir / "figures" / "response_onset", shown, caption):
        print(path)


def read_traces(run_dir: Path, tuned: pd.DataFrame) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times (F,) in ms, and for each kind of grating the traces (n, F) of the neurons in shares of their peak."""
    found, ms = {name: [] for name in KINDS}, None
    for mouse_id, own in tuned.groupby("mouse", sort=False):
        with Measurement(require(run_dir, "onset", mouse_id)) as measurement:
            rows = np.flatnonzero(np.isin(measurement.neurons, own["neuron"]))
            for name, kind in KINDS.items():
                conditions = np.flatnonzero(measurement.conditions["kind"] == kind)
                mean = measurement.responses[conditions].mean(axis=0)[rows] - measurement.spontaneous[rows, None]
                found[name].append(mean / mean.max(axis=1, keepdims=True))
            ms = np.arange(measurement.responses.shape[2]) * 1000 / measurement.about["fps"]
    return ms, {name: np.concatenate(own) for name, own in found.items()}


def draw_population(ax, ms: np.ndarray, traces: dict, tuned: pd.DataFrame) -> pd.DataFrame:
    """Mean time courses with intervals."""
    means, bands, numbers = {}, {}, []
    rows = list(tuned.reset_index(drop=True).groupby("mouse", sort=False).indices.values())
    for name, own in traces.items():
        rng = np.random.default_rng(SEED)
        found = [hierarchical_bootstrap([own[r, f] for r in rows], rng) for f in range(len(ms))]
        means[name], *bands[name] = np.array([(i.mean, i.low, i.high) for i in found]).T
        columns = {"mean": means[name], "low": bands[name][0], "high": bands[name][1]}
        numbers.append(pd.DataFrame({"panel": "a", "series": name, "ms": ms, **columns}))
    sizes.time_courses(ax, ms, means, bands)
    ax.set_title(panels.told(tuned), loc="left")
    return pd.concat(numbers)


def draw_lags(ax, tuned: pd.DataFrame) -> None:
    """Lags of inverse-tuned neurons beside the in-vivo mean."""
    sizes.distributions(ax, {"inverse": tuned["lag_ms"].to_numpy()}, BINS)
    mean, sem = sizes.IN_VIVO_LAG
    ax.axvspan(mean - sem, mean + sem, color=style.SKY, alpha=0.35, linewidth=0, zorder=0)
    ax.axvline(tuned["lag_ms"].median(), color=style.BLACK, linewidth=1)
    ax.set(xlabel="inverse - classical onset (ms)")
    ax.set_title(f"median {tuned['lag_ms'].median():.0f} ms\n{panels.told(tuned)}", loc="left")


def draw_example(ax, ms: np.ndarray, traces: dict, neuron: pd.Series) -> pd.DataFrame:
    """One neuron, with its onsets."""
    sizes.time_courses(ax, ms, traces)
    for name, column in ONSETS.items():
        ax.plot(neuron[column], 1.08, marker="v", color=sizes.COLORS[name], markersize=4, clip_on=False)
    ax.set_title(f"{neuron['mouse']}, neuron {neuron['neuron']}, lag {neuron['lag_ms']:.0f} ms", loc="left", pad=10)
    columns = {"panel": "d to f", "mouse": neuron["mouse"], "neuron": neuron["neuron"], "ms": ms}
    return pd.concat([pd.DataFrame({**columns, "series": name, "mean": own}) for name, own in traces.items()])


if __name__ == "__main__":
    cli.run(main, get_parser())
