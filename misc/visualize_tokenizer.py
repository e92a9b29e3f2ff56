"""Draw what the patches of a twin look for: the filters of the strongest channels, and where the patches lie.

reads   RUN/ckpt/best.pt, or a run of the public implementation; <data_dir>/<lab>/<recording>/ if it is given
writes  RUN/figures/tokenizer.{pdf,png,csv}
next    report.py

A filter is what the patch embedding multiplies the standardised video with, its normalisation included. Filters are
sorted by their norm.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.constants import FPS, GREY
from viv1t.data.cache import open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.inference import load_twin
from viv1t.model.attention_maps import require_transformer
from viv1t.model.cores.vivit import ViViTCore
from viv1t.plotting import maps, panels, style

COLUMNS = 9  # frames of a filter


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder that train.py wrote")
    parser.add_argument("--data_dir", help="folder of the recordings, to lay the patches over a frame (default: grey)")
    parser.add_argument("--channels", type=cli.number(int, 1, 30), default=8, help="filters to draw (default: 8)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    twin = load_twin(run_dir, "cpu", data_dir=args.data_dir)
    require_transformer(twin.model, ViViTCore)
    patches = twin.model.core.tokenizer.tokenizer
    kernels = patches.kernels().video.numpy()  # (D, frames, rows, columns)
    strength = np.sqrt(np.square(kernels).sum(axis=(1, 2, 3)))
    strongest = np.argsort(-strength)[: args.channels]
    frame = first_frame(args.data_dir, list(twin.mice)) if args.data_dir else np.full(patches.frame_size, GREY)
    fig = draw(kernels, strongest, patches, frame)
    index = np.indices(kernels[strongest].shape).reshape(4, -1)
    names = ("channel", "frame", "row", "column")
    numbers = pd.DataFrame(dict(zip(names, index, strict=True)) | {"weight": kernels[strongest].ravel()})
    numbers["channel"] = strongest[numbers["channel"]]
    caption = (
        f"Patch embedding: {patches.frames} frames of {patches.size} x {patches.size} px every {patches.stride} px, "
        f"{len(kernels)} filters. Left: one patch (red) and the centres of all; those outside the frame see padding. "
        "Right: the strongest filters, each scaled to its largest weight (red positive), past to present."
    )
    for path in style.save(fig, run_dir / "figures" / "tokenizer", numbers, caption):
        print(path)


def first_frame(data_dir: str, mouse_ids: list[str]) -> np.ndarray:
    """The middle frame of the first training trial of the first mouse."""
    mouse_id, folder = next(iter(find_recordings(data_dir, mouse_ids).items()))
    recording = Recording(folder, mouse_id)
    cache = open_cache(recording)
    trial = int((*recording.trial_ids("train"), *recording.usable)[0])
    return np.asarray(cache.video(trial)[int(cache.frames[trial]) // 2])


def draw(kernels: np.ndarray, channels: np.ndarray, patches, frame: np.ndarray):
    shown = np.unique(np.linspace(0, kernels.shape[1] - 1, min(COLUMNS, kernels.shape[1])).round().astype(int))
    fig, axes = style.figure(len(channels), len(shown), height=max(11 * len(channels) + 6, 50))
    fig.get_layout_engine().set(rect=(0.42, 0, 0.58, 1))  # the grid stands to the left
    for row, channel in zip(axes, channels, strict=True):
        limit = float(abs(kernels[channel]).max()) or 1.0
        for ax, t in zip(row, shown, strict=True):
            panels.picture(ax, kernels[channel, t], limit)
        row[0].set_ylabel(f"channel {channel}", rotation=0, ha="right", va="center")
    for ax, t in zip(axes[0], shown, strict=True):
        ax.set_title(f"{1000 * (t - kernels.shape[1] + 1) / FPS:.0f}" + (" ms" if t == shown[-1] else ""))
    grid = fig.add_axes((0.02, 0.25, 0.33, 0.5))
    maps.patch_grid(grid, frame, patches.size, patches.stride, patches.pad, patches.grid)
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
