"""Check recordings as every other command does before it uses them, and print what they hold.

    python data/check.py --data_dir data/sensorium            all of them, reading every file (and caching it)
    python data/check.py --mouse_ids A B --quick              headers and sizes of all files only

Every error is one line that names the file and the cure. Checked: the layout, types and sizes of all files, neuron and
frame counts, values that are not finite, neurons entered twice, and clips that occur both in training and in a test.

Reads <data_dir>/<lab>/<recording>/. Writes <data_dir>/<lab>/.cache/ (nothing with --quick). Next: python train.py
"""

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.constants import STIMULI, TIERS
from viv1t.data import labels
from viv1t.data.cache import Cache, open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError


def main(args) -> None:
    rows, errors = [], []
    for id, folder in find_recordings(args.data_dir, args.mouse_ids).items():
        try:
            recording = Recording(folder, id)
            row = describe(recording)
            if not args.quick:
                cache = open_cache(recording, args.cache_dir)
                row |= describe_contents(recording, cache)
                errors += [f"note: {text}" for text in find_oddities(recording, cache)]
            rows.append(row)
        except UserError as error:
            errors.append(f"mouse {id}: {error}")
    if rows:
        print(pd.DataFrame(rows).set_index("mouse").T.to_string())
    if errors:
        print("\n".join(errors))
    failed = [error for error in errors if not error.startswith("note: ")]
    if failed:
        raise UserError(f"{len(failed)} of {len(rows) + len(failed)} recordings cannot be used; see above.")


def describe(recording: Recording) -> dict:
    """What the headers tell: neurons, depths, monitor, trials per tier."""
    depth, monitor = recording.coordinates[:, 2], recording.monitor
    row = {
        "mouse": recording.id,
        "folder": recording.directory.name
        if len(recording.directory.name) < 26
        else f"{recording.directory.name[:22]}...",
        "lab": recording.lab,
        "neurons": recording.num_neurons,
        "depth (um)": f"{depth.min():.0f} to {depth.max():.0f}",
        "frame (px)": f"{recording.frame_size[0]} x {recording.frame_size[1]}",
        "monitor (cm)": f"{monitor.width_cm} x {monitor.height_cm} at {monitor.distance_cm}" if monitor else "unknown",
        "frames per s": f"{recording.fps:g}",
    }
    return row | {f"trials {tier}": int((recording.tiers == tier).sum()) for tier in TIERS.values()}


def describe_contents(recording: Recording, cache: Cache) -> dict:
    """What the values tell: lengths, clips, kinds of stimuli, withheld responses, means over the training tier."""
    frames, kinds = cache.frames[recording.usable], cache.stimulus_ids[recording.usable]
    row = {
        "frames a trial": f"{frames.min()} to {frames.max()}",
        "distinct clips": len(np.unique(cache.clips[recording.usable])),
        "stimuli": ", ".join(STIMULI[kind] for kind in np.unique(kinds)),
        "withheld trials": int(cache.withheld.sum()),
        "clips in train and test": len(labels.find_leaks(recording, cache.clips)),
    }
    for name, values in cache.statistics.items():
        row[f"{name}, mean (sd)"] = summarise(name, values)
    return row


def summarise(name: str, statistics: dict) -> str:
    """Mean and standard deviation: of the video, of each row of a trace, averaged over neurons for responses."""
    mean, std = np.atleast_1d(statistics["mean"]), np.atleast_1d(statistics["std"])
    if name == "responses":
        mean, std = np.nanmean(mean, keepdims=True), np.nanmean(std, keepdims=True)
    return ", ".join(f"{m:.3g} ({s:.3g})" for m, s in zip(mean, std, strict=True))


def find_oddities(recording: Recording, cache: Cache) -> list[str]:
    """What is allowed but rarely meant."""
    found = []
    leaks = labels.find_leaks(recording, cache.clips)
    if leaks:
        pairs = ", ".join(f"{train} = {test}" for train, test in leaks[:5])
        found.append(f"mouse {recording.id}: training clips are shown in other tiers, too (trials {pairs}).")
    if not cache.statistics:
        return [*found, f"mouse {recording.id}: the training tier is empty; usable for prediction only."]
    video, responses = cache.statistics["video"], cache.statistics["responses"]
    if video["max"] <= 2 or video["max"] > 255 or video["min"] < 0:
        limits = f"{video['min']:.3g} to {video['max']:.3g}"
        found.append(f"mouse {recording.id}: videos range from {limits}; grey levels are 0 to 255.")
    silent = int((responses["std"] == 0).sum())
    if silent:
        found.append(f"mouse {recording.id}: {silent} neurons never respond in the training tier.")
    missing = int((~recording.matched).sum())
    if missing:
        found.append(f"mouse {recording.id}: {missing} neurons were not found in this session and are left out.")
    return found


def parse_options() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", default="data", help="where the recordings are (default: data)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="which of them (default: all)")
    parser.add_argument("--cache_dir", help="where to keep caches (default: .cache beside the recordings)")
    parser.add_argument("--quick", action="store_true", help="look at headers and sizes only")
    return parser


if __name__ == "__main__":
    cli.run(main, parse_options())
