"""Draw what is in each recording: trials, stimuli, neurons, responses, behaviour and movies, one page per mouse.

reads   <data_dir>/<lab>/<recording>/
writes  OUTPUT_DIR/dataset_mouse<ID>.{pdf,png,csv}
next    train.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.constants import STIMULI, TIERS
from viv1t.data.cache import Cache, open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.estimators import groups, spectrum
from viv1t.plotting import maps, panels, style

MOVIES = 40  # training movies whose grey levels and spectra are measured
RESPONSES = {"mean": style.BLUE, "std": style.GREEN, "max": style.VERMILION}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", default="data", help="folder of the recordings (default: data)")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--cache_dir", help="folder of the compact copies (default: .cache beside the recording)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice to draw (default: all)")
    return parser


def main(args) -> None:
    for mouse_id, folder in find_recordings(args.data_dir, args.mouse_ids).items():
        cache = open_cache(Recording(folder, mouse_id), args.cache_dir)
        fig, numbers = draw(cache)
        caption = (
            f"Recording of mouse {mouse_id}. a: trials of each tier (different videos). b: trials by stimulus. "
            "c: neurons by plane. d: response of every neuron over the training tier. e-h: behaviour and gaze in "
            f"training trials. i-l: frames, grey levels and amplitude spectra of {MOVIES} training movies at most."
        )
        for path in style.save(fig, args.output_dir / f"dataset_mouse{mouse_id}", numbers, caption):
            print(path)


def draw(cache: Cache):
    fig, axes = style.figure(3, 4, height=140)
    parts = [
        *draw_contents(axes[0], cache),
        *draw_behavior(axes[1], cache),
        *draw_movies(axes[2], cache),
    ]
    for ax, text in zip(axes.flat, "abcdefghijkl", strict=True):
        style.letter(ax, text)
    return fig, pd.concat([pd.DataFrame(dict(zip(("panel", "x", "value"), part, strict=True))) for part in parts])


def draw_contents(axes, cache: Cache):
    """Trials by tier and stimulus, neurons by plane, and responses; yields (panel, x, values) drawn."""
    recording, statistics = cache.recording, cache.mouse().statistics["responses"]
    trials = {tier: recording.trial_ids(tier) for tier in TIERS.values()}
    trials = {tier: ids for tier, ids in trials.items() if len(ids)}
    videos = {tier: len(np.unique(cache.video_ids[ids])) if tier != "none" else 0 for tier, ids in trials.items()}
    named = {f"{tier.replace('_', ' ')} ({videos[tier]})": len(ids) for tier, ids in trials.items()}
    panels.bars(axes[0], named, "trials (videos)")
    frames = cache.frames[recording.usable]
    axes[0].set_title(f"{frames.min()}–{frames.max()} frames" if np.ptp(frames) else f"{frames[0]} frames")
    yield "trials of tier", list(trials), [len(ids) for ids in trials.values()]
    yield "videos of tier", list(videos), list(videos.values())

    kinds = cache.stimulus_ids[recording.usable]
    counts = {name: int((kinds == kind).sum()) for kind, name in enumerate(STIMULI)} | {
        "unknown": int((kinds < 0).sum())
    }
    counts = {name: count for name, count in counts.items() if count}
    panels.bars(axes[1], {name.replace("_", " "): count for name, count in counts.items()}, "trials")
    yield "trials of stimulus", list(counts), list(counts.values())

    depth, neurons = np.unique(groups.planes(recording.coordinates[:, 2]), return_counts=True)
    axes[2].barh(depth, neurons, height=0.7 * (np.diff(depth).min() if len(depth) > 1 else 10), color=style.BLUE)
    axes[2].invert_yaxis()
    lost = int((~recording.matched).sum())
    title = f"{recording.num_neurons} neurons" + (f", {lost} not found" if lost else "")
    axes[2].set(xlabel="neurons", ylabel="depth (µm)", title=title)
    yield "neurons at depth (um)", depth, neurons

    found = {name: statistics[name][recording.matched] for name in RESPONSES}
    shown = np.concatenate([values[values > 0] for values in found.values()])
    bins = np.geomspace(shown.min(), shown.max() * 1.001, 40)
    for name, values in found.items():
        axes[3].hist(values, bins, histtype="step", color=RESPONSES[name], label=name, linewidth=1.2)
        quantiles = np.percentile(values, [5, 25, 50, 75, 95])
        yield f"response {name} (recorded units), quantile", [0.05, 0.25, 0.5, 0.75, 0.95], quantiles
    axes[3].set(xscale="log", xlabel="recorded units", ylabel="neurons")
    axes[3].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, columnspacing=0.8, handlelength=0.7)


def draw_behavior(axes, cache: Cache):
    """Distributions over all frames of the training tier; yields (panel, x, values) drawn."""
    trials = cache.recording.trial_ids("train")
    dilation, speed, *gaze = np.concatenate([cache.traces(i) for i in trials], axis=1)
    for ax, values, label in ((axes[0], dilation, "pupil dilation"), (axes[1], speed, "running speed (cm/s)")):
        low, high = np.percentile(values, [0.1, 99.9])
        bins = np.linspace(low, max(high, low + 1e-3), 41)
        yield f"% of frames, {label}", bins[:-1], panels.shares(ax, values, bins, label)
    axes[1].set_yscale("log")
    yield from draw_gaze(axes[2], np.array(gaze))
    seconds = np.arange(cache.frames[trials[0]]) / cache.recording.fps
    for row, (label, color) in enumerate((("pupil dilation", style.BLUE), ("running speed", style.VERMILION))):
        trace = cache.traces(trials[0])[row]
        axes[3].plot(seconds, (trace - trace.mean()) / (trace.std() or 1) - 5 * row, color=color)
        yield f"{label}, trial {trials[0]}, at second", seconds, trace
    axes[3].set(xlabel="time (s)", title=f"trial {trials[0]}, z-scores")
    axes[3].set_yticks([0, -5], ["dilation", "speed"])


def draw_gaze(ax, gaze: np.ndarray):
    """Where the pupil was, (2, frames)."""
    edges = [np.linspace(*np.percentile(values, [0.5, 99.5]) + (-1e-3, 1e-3), 31) for values in gaze]
    counts = np.histogram2d(*gaze, edges)[0]
    ax.pcolormesh(*edges, np.where(counts > 0, 100 * counts / counts.sum(), np.nan).T, cmap=maps.LINEAR)
    ax.set(xlabel="pupil x (camera px)", ylabel="pupil y (camera px)", title=f"{gaze.shape[1]} frames")
    ax.set_aspect("equal")
    for name, values in zip("xy", gaze, strict=True):
        yield (
            f"pupil {name} (camera px), quantile",
            [0.05, 0.25, 0.5, 0.75, 0.95],
            np.percentile(values, [5, 25, 50, 75, 95]),
        )


def draw_movies(axes, cache: Cache):
    """Frames, grey levels and spectra of training movies; yields (panel, x, values) drawn."""
    recording = cache.recording
    trials = recording.trial_ids("train")[:MOVIES]
    movies = [cache.video(i) for i in trials]
    still = np.concatenate([movie[len(movie) // 2] for movie in movies[:3]])
    panels.picture(axes[0], still)
    axes[0].set_title("middle of three movies")
    levels = np.concatenate([np.asarray(movie[::10]).ravel() for movie in movies])
    bins = np.arange(0, 261, 5)
    yield "% of pixels, grey level", bins[:-1], panels.shares(axes[1], levels, bins, "grey level")
    axes[1].set_title(f"mean {levels.mean():.0f}, sd {levels.std():.0f}")
    frames = min(map(len, movies))
    monitor, fps = recording.monitor, recording.fps
    space = [spectrum.spatial_spectrum(movie) for movie in movies]
    time = [spectrum.temporal_spectrum(movie[:frames], fps) for movie in movies]
    pitch, unit_of_space = (monitor.degrees_per_pixel, "cycles/deg") if monitor else (1, "cycles/px")
    for ax, found, scale, unit in ((axes[2], space, pitch, unit_of_space), (axes[3], time, 1, "Hz")):
        frequency, amplitude = found[0][0] / scale, np.mean([values for _, values in found], axis=0)
        slope, line = spectrum.power_law(frequency, amplitude)
        panels.spectrum(ax, frequency, amplitude, line, slope, unit)
        yield f"amplitude at {unit}", frequency, amplitude


if __name__ == "__main__":
    cli.run(main, get_parser())
