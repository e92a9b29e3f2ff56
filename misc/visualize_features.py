"""Draw feature maps of a twin's core while it watches one recorded trial: a few channels at a few times.

reads   RUN/ckpt/best.pt, or a run of the public implementation; <data_dir>/<lab>/<recording>/
writes  RUN/figures/features_mouse<ID>.{pdf,png,csv}
next    report.py

Shown are the channels that vary most over the trial. Maps are what the readout of every neuron samples.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording, choose_trial
from viv1t.inference import load_twin, predict_trials
from viv1t.plotting import panels, style


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder that train.py wrote")
    parser.add_argument("--data_dir", default="data", help="folder of the recordings (default: data)")
    parser.add_argument("--mouse_id", metavar="ID", help="mouse whose trial is shown (default: the run's first)")
    parser.add_argument("--trial", type=cli.number(int, 0), help="trial to show (default: the first of a test tier)")
    parser.add_argument("--channels", type=cli.number(int, 1, 20), default=6, help="channels to draw (default: 6)")
    parser.add_argument("--times", type=cli.number(int, 1, 12), default=8, help="times to draw (default: 8)")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu (default: auto)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    twin = load_twin(run_dir, args.device, data_dir=args.data_dir)
    mouse_id = args.mouse_id or next(iter(twin.mice))
    twin.mouse(mouse_id)
    recording = Recording(find_recordings(args.data_dir, [mouse_id])[mouse_id], mouse_id)
    number = choose_trial(recording, args.trial)
    trial = recording.trial(number)
    maps = []
    handle = twin.model.core.register_forward_hook(lambda _, inputs, output: maps.append(output[0].cpu().numpy()))
    predict_trials(twin, mouse_id, [trial], neurons=[0])
    handle.remove()
    features = maps[0]  # (T', h, w, D)
    channels = np.argsort(-features.std(axis=(0, 1, 2)))[: args.channels]
    frames = np.linspace(0, len(features) - 1, args.times + 2).round().astype(int)[1:-1]
    late = trial.frames - len(features)  # frames before the first output
    fig = draw(trial.video[late + frames], features[frames][..., channels], channels, (late + frames) / recording.fps)
    t, row, column, channel = np.indices(features[frames][..., channels].shape).reshape(4, -1)
    numbers = {
        "frame": (late + frames)[t],
        "channel": channels[channel],
        "row": row,
        "column": column,
        "value": features[frames][..., channels].ravel(),
    }
    caption = (
        f"Core output, trial {number} of mouse {mouse_id}: frames shown, and the {len(channels)} of "
        f"{features.shape[-1]} channels that vary most, each on one scale around its median."
    )
    for path in style.save(fig, run_dir / "figures" / f"features_mouse{mouse_id}", pd.DataFrame(numbers), caption):
        print(path)


def draw(video: np.ndarray, features: np.ndarray, channels: np.ndarray, seconds: np.ndarray):
    """Frames (K, H, W) above feature maps (K, h, w, C)."""
    fig, axes = style.figure(1 + len(channels), len(video), height=11.5 * (1 + len(channels)) + 6)
    for column, frame, maps, second in zip(axes.T, video, features, seconds, strict=True):
        panels.picture(column[0], frame)
        column[0].set_title(f"{second:.1f} s")
        for ax, image, whole in zip(column[1:], np.moveaxis(maps, -1, 0), np.moveaxis(features, -1, 0), strict=True):
            middle = float(np.median(whole))
            panels.picture(ax, image - middle, float(np.percentile(abs(whole - middle), 99.5)) or 1.0)
    for ax, channel in zip(axes[1:, 0], channels, strict=True):
        ax.set_ylabel(f"channel {channel}", rotation=0, ha="right", va="center")
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
