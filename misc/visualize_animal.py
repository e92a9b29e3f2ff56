"""Draw who a simulated mouse is, and how its recording compares with real ones.

reads   DATA_DIR/simulated/<mouse>/ (data/simulate.py)
writes  OUTPUT_DIR/<mouse>_{population,fields,responses,calibration}.{pdf,png,csv}
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.constants import FPS, SKIP, TIERS
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.estimators.accuracy import correlation
from viv1t.plotting import style
from viv1t.simulate import targets
from viv1t.simulate.animal import Animal

HISTOGRAMS = {  # column -> axis label, scale
    "gosi": ("global OSI", "linear"),
    "dsi": ("DSI", "linear"),
    "preferred_sf_cpd": ("preferred SF (cycles/deg)", "log"),
    "preferred_tf_hz": ("preferred TF (Hz)", "log"),
    "preferred_size_deg": ("preferred size (deg)", "log"),
    "suppression_index": ("suppression index", "linear"),
    "cmi_1": ("(cross - iso) / (cross + iso)", "linear"),
    "onset_ms": ("onset latency (ms)", "linear"),
}
EXAMPLES = 6


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where data/simulate.py wrote")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice to draw (default: all simulated)")
    return parser


def main(args) -> None:
    for mouse, directory in find_recordings(args.data_dir, args.mouse_ids).items():
        if not (directory / "truth" / "animal.json").exists():
            raise UserError(f"{directory}: no truth/animal.json, so this is no simulated mouse; choose --mouse_ids.")
        recording, animal = Recording(directory), Animal.load(directory / "truth" / "animal.json")
        neurons = pd.read_csv(directory / "truth" / "neurons.csv")
        index = io.read_json(directory / "truth" / "animal.json").get("design", {}).get("mouse", 0)
        examples = choose_examples(neurons)
        figures = {
            "population": draw_population(mouse, neurons),
            "fields": draw_fields(mouse, animal, neurons, examples),
            "responses": draw_responses(mouse, recording, neurons, examples),
            "calibration": draw_calibration(mouse, recording, targets.compare(recording, index)),
        }
        for name, (fig, numbers, caption) in figures.items():
            for path in style.save(fig, args.output_dir / f"{mouse}_{name}", numbers, caption):
                print(path)


def choose_examples(neurons: pd.DataFrame) -> np.ndarray:
    """Two simple, two complex and two untuned neurons with central fields."""
    central = neurons[neurons["azimuth_deg"].abs().lt(25) & neurons["elevation_deg"].abs().lt(20)]
    gabor = central[central["kind"] == "gabor"].sort_values("simple_weight")
    others = [central[central["kind"] == kind].head(1) for kind in ("luminance", "isotropic")]
    return pd.concat([gabor.tail(2), gabor.head(2), *others])["neuron"].to_numpy()[:EXAMPLES]


def draw_population(mouse: str, neurons: pd.DataFrame):
    fig, axes = style.figure(3, 4, height=145, height_ratios=(1.5, 1, 1))
    tuned = neurons[neurons["kind"] == "gabor"]
    maps = (
        (neurons, "azimuth_deg", "azimuth (deg)", "viridis", None),
        (neurons, "elevation_deg", "elevation (deg)", "viridis", None),
        (tuned, "preferred_orientation_deg", "preferred axis (deg)", "twilight", (0, 180)),
    )
    for ax, (table, column, label, colors, limits) in zip(axes[0], maps, strict=False):
        vmin, vmax = limits or (None, None)
        points = ax.scatter(
            table["x_um"], table["y_um"], c=table[column], cmap=colors, vmin=vmin, vmax=vmax, s=6, linewidths=0
        )
        fig.colorbar(points, ax=ax, label=label, location="top", aspect=14, pad=0.03)
        ax.set(
            xlabel="cortex x (µm)", ylabel="cortex y (µm)", box_aspect=1, xticks=(-250, 0, 250), yticks=(-250, 0, 250)
        )
    kinds = neurons["kind"].value_counts()
    axes[0, 3].barh(kinds.index, kinds, color=style.BLUE)
    axes[0, 3].set(xlabel=f"neurons (of {len(neurons)})")
    axes[0, 3].invert_yaxis()
    for ax, (column, (label, scale)) in zip(axes[1:].flat, HISTOGRAMS.items(), strict=True):
        values = tuned[column].dropna()
        space = np.geomspace if scale == "log" else np.linspace
        ax.hist(values, space(values.min(), values.max(), 22), color=style.BLUE, alpha=0.85)
        ax.axvline(values.median(), color=style.VERMILION)
        ax.set(xlabel=label, ylabel="neurons", xscale=scale, title=f"median {values.median():.3g}")
        if scale == "log":
            ax.xaxis.set_minor_formatter("")
            ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 1, 2, 4, 10, 20, 40, 80) if values.min() <= t <= values.max()]
            ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    for ax, text in zip(axes.flat, "abcdefghijkl", strict=True):
        style.letter(ax, text)
    caption = (
        f"{mouse}: the population. a, b: retinotopy. c: preferred axis of motion over the cortical sheet. d: kinds of "
        f"neurons. e-l: noiseless tuning of the Gabor neurons (n = {len(tuned)}) to gratings on their own fields; "
        "red: median."
    )
    columns = ["neuron", "kind", "x_um", "y_um", "z_um", "azimuth_deg", "elevation_deg", "preferred_orientation_deg"]
    return fig, neurons[[*columns, *HISTOGRAMS]], caption


def draw_fields(mouse: str, animal: Animal, neurons: pd.DataFrame, examples: np.ndarray):
    fig, axes = style.figure(3, len(examples), height=96, height_ratios=(1, 1, 1.1), below=8)
    circuit, monitor, numbers = animal.circuit, animal.monitor, []
    seconds = np.arange(circuit.pair[0].shape[1]) / FPS
    for column, n in zip(axes.T, examples, strict=True):
        neuron = neurons.iloc[n]
        for ax, weights in zip(column, (circuit.even, circuit.odd), strict=False):
            image = weights[n].cpu().numpy().reshape(monitor.height, monitor.width)
            limit = abs(image).max() or 1.0
            ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.plot(neuron["x_px"], neuron["y_px"], "+", color=style.BLACK, markersize=4, markeredgewidth=0.6)
            ax.set(xticks=[], yticks=[])
        column[0].set_title(f"neuron {n}\n{neuron['kind']}\nsimple {neuron['simple_weight']:.2f}")
        for kernel, color, label in zip(circuit.pair, (style.BLUE, style.VERMILION), ("cosine", "sine"), strict=True):
            kernel = kernel[n].cpu().numpy()
            column[2].plot(1000 * seconds, kernel, color=color, label=label)
            numbers += [
                {"neuron": n, "kernel": label, "ms": 1000 * s, "weight": w}
                for s, w in zip(seconds, kernel, strict=True)
            ]
        column[2].axhline(0, color=style.GREY, linewidth=0.6)
        column[2].set(xlabel="lag (ms)", yticks=[0], xlim=(0, 600))
    axes[0, 0].set_ylabel("even")
    axes[1, 0].set_ylabel("odd")
    axes[2, 0].set_ylabel("weight")
    axes[2, 0].legend(loc="upper left", bbox_to_anchor=(0, -0.55), ncols=2, borderaxespad=0).set_in_layout(False)
    for ax, text in zip(axes[:, 0], "abc", strict=True):
        style.letter(ax, text)
    caption = (
        f"{mouse}: receptive fields of {len(examples)} neurons on the screen. a, b: the two spatial filters of the "
        "quadrature pair (red positive, each scaled to its maximum; unoriented fields have one). c: temporal kernels."
    )
    return fig, pd.DataFrame(numbers), caption


def draw_responses(mouse: str, recording: Recording, neurons: pd.DataFrame, examples: np.ndarray):
    tier = next(tier for tier in ("validation", "live_main", "train") if len(recording.trial_ids(tier)))
    trial = recording.trial_ids(tier)[0]
    repeats = [i for i in recording.trial_ids(tier) if recording.video_ids[i] == recording.video_ids[trial]]
    recorded, rate = recording.trial(trial).responses, recording.truth_rates(trial)
    others = np.mean([recording.trial(i).responses for i in repeats], axis=0)
    seconds = np.arange(recorded.shape[1]) / FPS
    fig, axes = style.figure(len(examples), 1, height=22 * len(examples), sharex=True)
    numbers = []
    for ax, n in zip(axes[:, 0], examples, strict=True):
        ax.plot(seconds, recorded[n], color=style.COLORS["repeats"], linewidth=0.8, label="one trial")
        ax.plot(seconds, others[n], color=style.BLACK, linewidth=0.8, label=f"mean of {len(repeats)} repeats")
        ax.plot(seconds, rate[n], color=style.COLORS["true rate"], label="true rate of the trial")
        top = 1.6 * max(rate[n].max(), others[n].max())
        r = correlation(rate[n, SKIP:], recorded[n, SKIP:])
        ax.set(ylim=(0, top), xlim=(0, seconds[-1]), ylabel="response\n(a.u.)")
        ax.set_title(f"neuron {n} ({neurons['kind'][n]}), r(rate, trial) = {r:.2f}", loc="left")
        numbers.append(
            pd.DataFrame({"neuron": n, "s": seconds, "trial": recorded[n], "mean": others[n], "rate": rate[n]})
        )
    axes[-1, 0].set_xlabel("time (s)")
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)
    caption = (
        f"{mouse}: recording and truth during one movie of tier {tier} (trial {trial}). Single trials are cut off "
        "above the axis; the mean of the repeats differs from the rate by noise, gaze and behaviour."
    )
    return fig, pd.concat(numbers), caption


def draw_calibration(mouse: str, recording: Recording, table: pd.DataFrame):
    fig, axes = style.figure(1, 4, height=70, width_ratios=(1, 1, 1, 1.5), below=12)
    percent = [100 * q for q in targets.QUANTILES]
    for ax, (name, mice) in zip(axes[0], targets.REAL.items(), strict=False):
        measured = table.loc[table["quantity"] == f"response {name}", "measured"]
        ax.fill_between(
            percent,
            np.min(mice, axis=0),
            np.max(mice, axis=0),
            color=style.GREY,
            alpha=0.5,
            linewidth=0,
            label="real mice A, B, F",
        )
        ax.plot(percent, measured, "o-", color=style.BLUE, markersize=3, label=mouse)
        ax.set(yscale="log", xlabel="neurons (%)", title=name, xticks=percent)
        ax.set_xticklabels([f"{p:g}" for p in percent])
        ax.yaxis.set_minor_formatter("")
    axes[0, 0].set_ylabel("response (recorded units)")
    style.legend_below(axes[0, 0])
    tiers = [tier for tier in TIERS.values() if tier != "none" and len(recording.trial_ids(tier))]
    values = {tier: targets.ceilings(recording, tier) for tier in tiers}
    axes[0, 3].axvspan(*targets.CEILING, color=style.GREY, alpha=0.5, linewidth=0, label="aim (mean, movies)")
    mean = {"marker": "D", "markersize": 3, "markerfacecolor": style.VERMILION, "markeredgewidth": 0}
    boxes = axes[0, 3].boxplot(
        [found[np.isfinite(found)] for found in values.values()],
        tick_labels=[tier.replace("_", " ") for tier in tiers],
        orientation="horizontal",
        patch_artist=True,
        showfliers=False,
        showmeans=True,
        meanprops=mean,
        medianprops={"color": style.BLACK},
    )
    for box in boxes["boxes"]:
        box.set(facecolor=style.SKY, linewidth=0.8)
    axes[0, 3].invert_yaxis()
    axes[0, 3].set(xlabel="r (true rate, recording)", title=f"ceiling, n = {recording.matched.sum()}")
    style.legend_below(axes[0, 3])
    for ax, text in zip(axes[0], "abcd", strict=True):
        style.letter(ax, text)
    caption = (
        f"{mouse}: {table['passed'].sum()} of {len(table)} statistics lie within their bands (table beside). a-c: "
        "quantiles over neurons, training tier. d: ceiling of any model, trials end to end (box: quartiles, "
        "diamond: mean)."
    )
    return fig, table, caption


if __name__ == "__main__":
    cli.run(main, get_parser())
