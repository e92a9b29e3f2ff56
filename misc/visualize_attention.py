"""Draw what the transformers of a twin attend to during one trial: places within a frame, and times before it.

reads   RUN/ckpt/best.pt, or a run of the public implementation; <data_dir>/<lab>/<recording>/, or a movie
writes  RUN/figures/attention_mouse<ID>.{pdf,png,csv}: rolled out through all blocks; attention_heads_mouse<ID>.*: by
        block and head; with --animate a movie of all frames beside their attention
next    report.py

Attention is given in multiples of uniform attention (`viv1t/estimators/attention.py`). It describes the twin; what its
neurons depend on is shown by the gradient of their responses below it.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from viv1t import cli
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording, choose_trial
from viv1t.errors import UserError
from viv1t.estimators.attention import HEADS, by_lag, importance, salience
from viv1t.inference import Twin, load_twin
from viv1t.model.attention_maps import as_images, record_attention, require_transformer, stacks
from viv1t.movies import WRITTEN, write_movie
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
    check(twin, args)
    name, inputs = read_inputs(twin, mouse_id, args)
    core, video = twin.model.core, inputs[0][0, 0]
    T, P = core.output_frames(len(video)), core.grid[0] * core.grid[1]
    if T < 2:
        raise UserError(f"{name}: {len(video)} frames are too few for this twin to answer.")
    frames = np.linspace(0, T - 1, args.times + 2).round().astype(int)[1:-1]
    locations = np.unique(np.linspace(0, P - 1, args.locations).round().astype(int))
    shown = len(video) - T + frames  # output frames are the last of the video
    fps = twin.mice[mouse_id].fps

    with record_attention(core, frames.tolist(), locations.tolist(), rollout=args.heads) as attention:
        twin.respond(mouse_id, *inputs)
    attended = None if attention.space is None else as_images(core, importance(attention.space[0]))
    past = trace = None
    if attention.time is not None:
        past = by_lag(attention.time[0].mean(axis=0))[:, :LAGS]  # (T', lags)
        trace = salience(attention.time[0].mean(axis=0))
    gradient = gradients(twin, mouse_id, inputs, frames)
    caption = (
        f"Attention of the twin during {name}. Top: frames. Then spatial attention to each patch, rolled out through "
        f"{len(stacks(core)[0])} blocks ({args.heads} over heads), and the gradient of all responses at that "
        "time, root mean square over frames, both in multiples of their mean."
    )
    if past is not None:
        caption += (
            f" Bottom: temporal attention, rolled out through {len(stacks(core)[1])} blocks, mean over "
            f"{len(locations)} places: by time and lag, mean over times with 5-95 % of times, and to each frame "
            "compared with what frames get at the same lags."
        )
    fig = draw(video, shown, attended, gradient, past, trace, fps)
    save(fig, run_dir, f"attention_mouse{mouse_id}", tabulate(shown, attended, gradient, past, trace), caption)

    middle = len(frames) // 2
    with record_attention(core, [int(frames[middle])], locations.tolist()) as attention:
        twin.respond(mouse_id, *inputs)
    space = None if attention.space is None else as_images(core, importance(attention.space[0, 0]))
    past = None if attention.time is None else by_lag(attention.time[0].mean(axis=0))[..., :LAGS]
    caption = (
        f"Attention of every head (columns) of every block (rows) during {name}. Left: spatial attention at "
        f"{shown[middle] / fps:.1f} s, mean over patches that attend, in multiples of uniform attention."
    )
    if past is not None:
        caption += (
            f" Right: temporal attention by lag, mean over {len(locations)} places and over times, with 5-95 % of "
            "times."
        )
    fig = draw_heads(video[shown[middle]], space, past, fps)
    save(fig, run_dir, f"attention_heads_mouse{mouse_id}", tabulate_heads(space, past), caption)

    if args.animate:
        seen = tqdm(animation(twin, mouse_id, inputs, args.heads), "animation", T, unit="frame", disable=None)
        write_movie(args.animate, seen, fps)
        print(args.animate)


def save(fig, run_dir: Path, name: str, numbers: pd.DataFrame, caption: str) -> None:
    for path in style.save(fig, run_dir / "figures" / name, numbers, caption):
        print(path)


def check(twin: Twin, args) -> None:
    require_transformer(twin.model)
    space, time = stacks(twin.model.core)
    if not space and not time:
        raise UserError(f"{args.output_dir}: a twin without blocks attends to nothing. Name another run.")
    if any(transforms.center_crop < 1 for transforms in twin.transforms.values()):
        raise UserError(
            f"{args.output_dir}: its twin sees a crop of the frame, which has no map here. Name another run."
        )
    if args.animate and not space:
        raise UserError("--animate: this twin has no attention in space to lay over frames. Leave the flag out.")
    if args.animate and args.animate.suffix not in WRITTEN:
        raise UserError(f"--animate {args.animate}: movies are written as {' or '.join(WRITTEN)}.")


def read_inputs(twin: Twin, mouse_id: str, args) -> tuple[str, list]:
    """What is shown in words, and video (1, 1, T, H, W), behaviour and gaze (1, 2, T) or None, at most `max_frame`."""
    twin.mouse(mouse_id)
    longest, size = twin.model.core.max_frame, twin.model.core.frame_size
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
    kinds = {"attention": attended, "gradient": gradient}
    kinds = {label: images for label, images in kinds.items() if images is not None}
    rows, below = 1 + len(kinds), 0 if past is None else 1
    fig, axes = style.figure(rows + below, len(shown), height=22 * rows + 52 * below,
                             height_ratios=(1,) * rows + (2.4,) * below)  # fmt: skip
    for ax, frame, t in zip(axes[0], video[shown], shown, strict=True):
        panels.picture(ax, frame)
        ax.set_title(f"{t / fps:.1f} s")
    for row, (label, images) in zip(axes[1:], kinds.items(), strict=False):
        limits = (float(images.min()), float(np.percentile(images, 99.5)))
        for ax, frame, image in zip(row, video[shown], images, strict=True):
            mappable = maps.overlay(ax, frame, image, limits)
        fig.colorbar(mappable, ax=row, label=f"{label}\n(x mean)", aspect=8, pad=0.01)
    lettered = list(axes[:rows, 0])
    if past is not None:
        for ax in axes[rows]:
            ax.remove()
        in_time = fig.add_subfigure(axes[rows, 0].get_gridspec()[rows, :]).subplots(1, 3)
        draw_time(*in_time, past, trace, shown, fps)
        lettered += list(in_time)
    for ax, text in zip(lettered, "abcdef", strict=False):
        style.letter(ax, text)
    return fig


def draw_heads(frame, space, past, fps):
    """Blocks as rows; heads as columns, of the spatial stack on the left and of the temporal one on the right."""
    stacks = [stack for stack in (space, past) if stack is not None]
    rows = max(map(len, stacks))
    fig, axes = style.figure(rows, sum(stack.shape[1] for stack in stacks), height=16 + 24 * rows)
    for ax in axes.flat:
        ax.set_axis_off()
    if space is not None:
        limits = (float(space.min()), float(np.percentile(space, 99.5)))
        for block, head in np.ndindex(space.shape[:2]):
            axes[block, head].set_axis_on()
            mappable = maps.overlay(axes[block, head], frame, space[block, head], limits)
            axes[block, head].set_title(f"space {block + 1}, head {head + 1}")
        drawn = axes[: len(space), : space.shape[1]]
        fig.colorbar(mappable, ax=drawn, label="attention (x uniform)", pad=0.02, aspect=12, shrink=min(1, 2 / rows))
    if past is not None:
        in_time = axes[: len(past), -past.shape[1] :]
        for block, head in np.ndindex(past.shape[:2]):
            ax = in_time[block, head]
            ax.set_axis_on()
            draw_lags(ax, past[block, head], fps)
            ax.set(title=f"time {block + 1}, head {head + 1}", ylim=(1e-5, 1), yticks=[1e-4, 1e-2, 1])
            ax.set_xlabel("lag (ms)" if block == len(past) - 1 else "")
            ax.set_ylabel("share" if head == 0 else "")
            ax.tick_params(labelleft=head == 0, labelbottom=block == len(past) - 1)
    return fig


def draw_time(heat, profile, along, past, trace, shown, fps) -> None:
    """Temporal attention: times x lags, by lag, along the trial."""
    T, lags = past.shape
    seconds, lag = np.arange(T) / fps, 1000 * np.arange(lags) / fps
    limit = float(np.nanpercentile(past[:, 1:], 99)) if lags > 1 else 1.0
    image = heat.pcolormesh(lag, seconds, past, cmap=maps.LINEAR, vmin=0, vmax=limit or 1.0, rasterized=True)
    heat.figure.colorbar(image, ax=heat, label="share", extend="max")
    heat.set(xlabel="lag (ms)", ylabel="time (s)")
    draw_lags(profile, past, fps)
    profile.set(xlabel="lag (ms)", ylabel="share of attention")
    along.plot(seconds, trace, color=style.COLORS["twin"])
    along.axhline(1, color=style.GREY, linewidth=0.6, zorder=0)
    for t in shown:
        along.axvline(t / fps, color=style.COLORS["repeats"], linewidth=0.6, zorder=0)
    along.set(xlabel="time attended to (s)", ylabel="attention\n(x mean at lag)")


def draw_lags(ax, past, fps) -> None:
    """Mean over times of attention (T', lags), and 5-95 % of times."""
    low, high = np.nanpercentile(past, [5, 95], axis=0)
    lag = 1000 * np.arange(past.shape[1]) / fps
    ax.fill_between(lag, low, high, color=style.COLORS["twin"], alpha=0.2, linewidth=0)
    ax.plot(lag, np.nanmean(past, axis=0), color=style.COLORS["twin"])
    ax.set_yscale("log")


def tabulate(shown, attended, gradient, past, trace) -> pd.DataFrame:
    """Long table: kind, frame, x, y (pixels; x is the lag in frames for attention in time), value."""
    parts = []
    for kind, images in (("attention", attended), ("gradient", gradient)):
        if images is not None:
            t, y, x = np.indices(images.shape).reshape(3, -1)
            parts.append(pd.DataFrame({"kind": kind, "frame": shown[t], "x": x, "y": y, "value": images.ravel()}))
    if past is not None:
        query, lag = np.nonzero(np.isfinite(past))
        parts.append(pd.DataFrame({"kind": "attention by lag", "frame": query, "x": lag, "value": past[query, lag]}))
        parts.append(
            pd.DataFrame({"kind": "attention along the trial", "frame": np.arange(len(trace)), "value": trace})
        )
    return pd.concat(parts, ignore_index=True).astype({"x": "Int64", "y": "Int64"}).round({"value": 6})


def tabulate_heads(space, past) -> pd.DataFrame:
    """Long table: kind, block, head, x, y (pixels; x is the lag in frames for attention in time), value, low, high."""
    parts = []
    if space is not None:
        block, head, y, x = np.indices(space.shape).reshape(4, -1)
        parts.append({"kind": "space", "block": block + 1, "head": head + 1, "x": x, "y": y, "value": space.ravel()})
    if past is not None:
        mean, (low, high) = np.nanmean(past, axis=-2), np.nanpercentile(past, [5, 95], axis=-2)
        block, head, lag = np.indices(mean.shape).reshape(3, -1)
        ends = {"value": mean.ravel(), "low": low.ravel(), "high": high.ravel()}
        parts.append({"kind": "time by lag", "block": block + 1, "head": head + 1, "x": lag} | ends)
    table = pd.concat(map(pd.DataFrame, parts), ignore_index=True)
    return table.astype({"y": "Int64"} if "y" in table else {}).round(6)


def animation(twin: Twin, mouse_id: str, inputs: list, heads: str) -> Iterator[np.ndarray]:
    """Every frame beside itself under its spatial attention."""
    core, video = twin.model.core, inputs[0][0, 0]
    with record_attention(core, range(core.output_frames(len(video))), rollout=heads) as attention:
        twin.respond(mouse_id, *inputs)
    images = as_images(core, importance(attention.space[0]))
    limits = (float(images.min()), float(np.percentile(images, 99.5)))
    for frame, image in zip(video[len(video) - len(images) :], images, strict=True):
        both = np.concatenate([maps.blended(frame, image, (0, np.inf)), maps.blended(frame, image, limits)], axis=1)
        yield both.repeat(MAGNIFY, axis=0).repeat(MAGNIFY, axis=1)


if __name__ == "__main__":
    cli.run(main, get_parser())
