"""Draw what the transformers of a twin attend to during one trial: places within a frame, and times before it.

reads   RUN/ckpt/best.pt, or a run of the public implementation; <data_dir>/<lab>/<recording>/, or a movie
writes  RUN/figures/attention_mouse<ID>.{pdf,png,csv}; with --animate a movie of all frames beside their attention
next    report.py

Attention is rolled out through all blocks (`viv1t/estimators/attention.py`) and given in multiples of uniform
attention. It describes the twin; what its neurons depend on is shown by the gradient of their responses below it.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from viv1t import cli
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording, choose_trial
from viv1t.errors import UserError
from viv1t.estimators.attention import HEADS, by_lag, fold, importance, salience
from viv1t.inference import Twin, load_twin
from viv1t.model.attention_maps import record_attention
from viv1t.movies import write_movie
from viv1t.plotting import maps, panels, style
from viv1t.streaming.sources import open_movie

LAGS = 60  # frames shown of the past
NEURONS = 500  # whose responses are followed back to the pixels
MAGNIFY = 4  # of the animation


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder that train.py wrote")
    parser.add_argument("--data_dir", default="data", help="folder of the recordings (default: data)")
    parser.add_argument("--mouse_id", metavar="ID", help="mouse whose trial is shown (default: the run's first)")
    parser.add_argument("--trial", type=cli.number(int, 0), help="trial to show (default: the first of a test tier)")
    parser.add_argument(
        "--video", metavar="FILE", help="show this movie or .npy (T, H, W) instead, at mean behaviour and gaze"
    )
    parser.add_argument("--heads", choices=list(HEADS), default="max", help="how heads are joined (default: max)")
    parser.add_argument("--times", type=cli.number(int, 1, 12), default=6, help="frames to draw (default: 6)")
    parser.add_argument(
        "--locations",
        type=cli.number(int, 1),
        default=24,
        help="places whose attention in time is drawn (default: 24)",
    )
    parser.add_argument("--animate", type=Path, metavar="FILE", help="also write a movie, .mp4 or .gif")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu (default: auto)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    twin = load_twin(run_dir, args.device, data_dir=args.data_dir)
    mouse_id = args.mouse_id or next(iter(twin.mice))
    check(twin, run_dir)
    name, inputs = read_inputs(twin, mouse_id, args)
    core, video = twin.model.core, inputs[0][0, 0]
    T, P = core.output_frames(len(video)), core.grid[0] * core.grid[1]
    if T < 2:
        raise UserError(f"{name}: {len(video)} frames are too few for this twin to answer.")
    frames = np.linspace(0, T - 1, args.times + 2).round().astype(int)[1:-1]
    locations = np.unique(np.linspace(0, P - 1, args.locations).round().astype(int))
    with record_attention(core, frames.tolist(), locations.tolist(), rollout=args.heads) as attention:
        twin.respond(mouse_id, *inputs)
    attended = on_frame(twin, attention.space[0])
    past = by_lag(attention.time[0].mean(axis=0))[:, :LAGS]  # (T', lags)
    trace = salience(attention.time[0].mean(axis=0))
    gradient = gradients(twin, mouse_id, inputs, frames)
    shown = len(video) - T + frames  # output frames are the last of the video
    fps = twin.mice[mouse_id].fps
    fig = draw(video, shown, attended, gradient, past, trace, fps)
    caption = (
        f"Attention of the twin during {name}. Top: frames. Second row: spatial attention to each patch, rolled out "
        f"through {core.config.spatial_depth} blocks ({args.heads} over heads). Third: gradient of all responses at "
        "that time, root mean square over frames. Both in multiples of their mean. Bottom: temporal attention, rolled "
        f"out through {core.config.temporal_depth} blocks, mean over {len(locations)} places: by time and lag, mean "
        "over times with 5-95 % of times, and to each frame compared with what frames get at the same lags."
    )
    numbers = tabulate(shown, attended, gradient, past, trace)
    for path in style.save(fig, run_dir / "figures" / f"attention_mouse{mouse_id}", numbers, caption):
        print(path)
    if args.animate:
        write_movie(args.animate, animation(twin, mouse_id, inputs, args.heads), fps)
        print(args.animate)


def check(twin: Twin, run_dir: Path) -> None:
    config = twin.model.core.config
    if not config.spatial_depth or not config.temporal_depth:
        raise UserError(f"{run_dir}: a twin without blocks in space or in time attends to nothing. Name another run.")
    if any(transforms.center_crop < 1 for transforms in twin.transforms.values()):
        raise UserError(f"{run_dir}: its twin sees a crop of the frame, which has no map here. Name another run.")


def read_inputs(twin: Twin, mouse_id: str, args) -> tuple[str, list]:
    """What is shown in words, and video (1, 1, T, H, W), behaviour and gaze (1, 2, T) or None, at most `max_frame`."""
    twin.mouse(mouse_id)
    longest, size = twin.model.core.max_frame, twin.model.core.tokenizer.tokenizer.frame_size
    if args.video:
        if not Path(args.video).exists():
            raise UserError(f"--video {args.video}: no such file.")
        frames = list(islice(open_movie(args.video, size, resize=True), longest))
        return f"{Path(args.video).name} (mouse {mouse_id})", [np.stack(frames)[None, None], None, None]
    recording = Recording(find_recordings(args.data_dir, [mouse_id])[mouse_id], mouse_id)
    number = choose_trial(recording, args.trial)
    trial = recording.trial(number)
    shown = trial.video[:longest][None], trial.behavior[:, :longest], trial.pupil_center[:, :longest]
    return f"trial {number} of mouse {mouse_id}", [np.array([part]) for part in shown]


def on_frame(twin: Twin, rolled: np.ndarray) -> np.ndarray:
    """Rollout (F, P, P) as images (F, H, W) in multiples of uniform attention; 1 where no patch lies."""
    core, patches = twin.model.core, twin.model.core.tokenizer.tokenizer
    values = (importance(rolled) * rolled.shape[-1]).reshape(-1, *core.grid)
    return np.nan_to_num(fold(values, patches.size, patches.stride, patches.pad, patches.frame_size), nan=1.0)


def gradients(twin: Twin, mouse_id: str, inputs: list, frames: np.ndarray) -> np.ndarray:
    """How the standardised responses at each output frame, summed over NEURONS of them, depend on pixels: (F, H, W).

    Root mean square over the frames of the trial, in multiples of the mean over pixels.
    """
    twin.model.core.grad_checkpointing = True  # one trial's activations may be large
    video = torch.tensor(inputs[0], dtype=torch.float32, device=twin.device, requires_grad=True)
    N = twin.mice[mouse_id].num_neurons
    neurons = np.unique(np.linspace(0, N - 1, min(N, NEURONS)).round().astype(int))
    responses = twin.respond(mouse_id, video, *inputs[1:], neurons=neurons)  # (1, n, T')
    summed = (responses[0] * twin.transforms[mouse_id].precision[neurons].to(twin.device)[:, None]).sum(dim=0)
    found = []
    for frame in frames:
        (gradient,) = torch.autograd.grad(summed[frame], video, retain_graph=True)
        image = gradient[0, 0].square().mean(dim=0).sqrt()
        found.append((image / image.mean().clamp_min(1e-12)).cpu().numpy())
    twin.model.core.grad_checkpointing = False
    return np.stack(found)


def draw(video, shown, attended, gradient, past, trace, fps):
    F = len(shown)
    fig, axes = style.figure(4, F, height=118, height_ratios=(1, 1, 1, 2.4))
    for row, images, label in ((axes[1], attended, "attention"), (axes[2], gradient, "gradient")):
        limits = (float(images.min()), float(np.percentile(images, 99.5)))
        for ax, frame, image in zip(row, video[shown], images, strict=True):
            mappable = maps.overlay(ax, frame, image, limits)
        fig.colorbar(mappable, ax=row, label=f"{label}\n(x mean)", aspect=8, pad=0.01)
    for ax, frame, t in zip(axes[0], video[shown], shown, strict=True):
        panels.picture(ax, frame)
        ax.set_title(f"{t / fps:.1f} s")
    for ax in axes[3]:
        ax.remove()
    below = fig.add_subfigure(axes[3, 0].get_gridspec()[3, :])
    heat, profile, along = below.subplots(1, 3)
    draw_time(heat, profile, along, past, trace, shown, fps)
    for ax, text in (
        (axes[0, 0], "a"),
        (axes[1, 0], "b"),
        (axes[2, 0], "c"),
        (heat, "d"),
        (profile, "e"),
        (along, "f"),
    ):
        style.letter(ax, text)
    return fig


def draw_time(heat, profile, along, past, trace, shown, fps) -> None:
    """Temporal attention: times x lags, by lag, along the trial."""
    T, lags = past.shape
    seconds, lag = np.arange(T) / fps, 1000 * np.arange(lags) / fps
    limit = float(np.nanpercentile(past[:, 1:], 99)) if lags > 1 else 1.0
    image = heat.pcolormesh(lag, seconds, past, cmap=maps.LINEAR, vmin=0, vmax=limit or 1.0, rasterized=True)
    heat.figure.colorbar(image, ax=heat, label="share", extend="max")
    heat.set(xlabel="lag (ms)", ylabel="time (s)")
    low, high = np.nanpercentile(past, [5, 95], axis=0)
    profile.fill_between(lag, low, high, color=style.COLORS["twin"], alpha=0.2, linewidth=0)
    profile.plot(lag, np.nanmean(past, axis=0), color=style.COLORS["twin"])
    profile.set(xlabel="lag (ms)", ylabel="share of attention", yscale="log")
    along.plot(seconds, trace, color=style.COLORS["twin"])
    along.axhline(1, color=style.GREY, linewidth=0.6, zorder=0)
    for t in shown:
        along.axvline(t / fps, color=style.COLORS["repeats"], linewidth=0.6, zorder=0)
    along.set(xlabel="time attended to (s)", ylabel="attention\n(x mean at lag)")


def tabulate(shown, attended, gradient, past, trace) -> pd.DataFrame:
    """Long table: kind, frame, x, y (pixels; x is the lag in frames for attention in time), value."""
    t, y, x = np.indices(attended.shape).reshape(3, -1)
    parts = [
        pd.DataFrame({"kind": kind, "frame": shown[t], "x": x, "y": y, "value": images.ravel()})
        for kind, images in (("attention", attended), ("gradient", gradient))
    ]
    query, lag = np.nonzero(np.isfinite(past))
    parts.append(pd.DataFrame({"kind": "attention by lag", "frame": query, "x": lag, "value": past[query, lag]}))
    parts.append(pd.DataFrame({"kind": "attention along the trial", "frame": np.arange(len(trace)), "value": trace}))
    return pd.concat(parts, ignore_index=True).astype({"x": "Int64", "y": "Int64"}).round({"value": 6})


def animation(twin: Twin, mouse_id: str, inputs: list, heads: str) -> Iterator[np.ndarray]:
    """Every frame beside itself under its spatial attention."""
    core, video = twin.model.core, inputs[0][0, 0]
    with record_attention(core, range(core.output_frames(len(video))), rollout=heads) as attention:
        twin.respond(mouse_id, *inputs)
    images = on_frame(twin, attention.space[0])
    limits = (float(images.min()), float(np.percentile(images, 99.5)))
    for frame, image in zip(video[len(video) - len(images) :], images, strict=True):
        both = np.concatenate([maps.blended(frame, image, (0, np.inf)), maps.blended(frame, image, limits)], axis=1)
        yield both.repeat(MAGNIFY, axis=0).repeat(MAGNIFY, axis=1)


if __name__ == "__main__":
    cli.run(main, get_parser())
