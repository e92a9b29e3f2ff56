"""Measure what sharing saves when a twin is shown gratings: directions, sizes and surrounds at every neuron's field.

    python benchmarks/probe.py [--size demo|paper] [--neurons 1000] [--centres 4] [--threads 2]

The plain way presents each pattern in a trial of 300 frames (grey before and after, as published for noise and most
exciting stimuli), computes it whole, and reads all neurons; a second plain way packs four patterns into a trial, as
published for gratings, whose responses then carry the history of the trial. The shared way is what the analyses do.
Weights are random, which does not matter for time. All ways are linear in the number of centres, so a few are timed.
Prints seconds per pattern, the ratios, the largest difference of the responses, and the growth of memory.
"""

import resource
import time
from pathlib import Path

import numpy as np
import torch

from viv1t import cli
from viv1t.data.mouse import Mouse
from viv1t.data.transforms import Transforms
from viv1t.geometry import SENSORIUM
from viv1t.inference import Twin
from viv1t.model import ModelConfig, build_model
from viv1t.presentation import Timeline, TwinPresenter
from viv1t.stimulus import gratings, windows
from viv1t.stimulus.contexts import context
from viv1t.stimulus.gratings import whole_frames
from viv1t.stimulus.levels import grey_levels

PATTERN, TRIAL = 30, 300
ALONE = Timeline(lead_in=60, pattern=PATTERN, after=TRIAL - 60 - PATTERN)
PACKED = Timeline(lead_in=60, before=15, pattern=PATTERN, after=15, per_trial=4)
SIZES = np.linspace(4, 80, 20)  # degrees
DIRECTIONS = np.arange(0, 360, 22.5)
ROOT = Path(__file__).parents[1]


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--size", type=cli.Words("demo", "paper"), default="demo", help="of the twin (default: demo)")
    parser.add_argument("--neurons", type=cli.number(int, 1), default=1000, help="of the mouse (default: 1000)")
    parser.add_argument("--centres", type=cli.number(int, 1), default=4, help="fields that are timed (default: 4)")
    parser.add_argument("--patterns", type=cli.number(int, 1), help="of each protocol that are timed (default: all)")
    parser.add_argument("--threads", type=cli.number(int, 1), default=2, help="CPU threads (default: 2)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda (default: cpu)")
    return parser


def make_twin(size: str, neurons: int, device: torch.device) -> Twin:
    """Random weights of the demo's or of the paper's architecture, and fields all over the screen."""
    words = [word for line in (ROOT / "presets" / f"{size}.txt").read_text().splitlines()
             for word in line.split("#")[0].split()]  # fmt: skip
    flags = {key: value if given else True for key, given, value in (word[2:].partition("=") for word in words)}
    flags = {key: value for key, value in flags.items() if key.startswith(("core", "readout", "shifter", "output"))}
    rng, index = np.random.default_rng(0), np.arange(neurons)
    sizes = {"video": (), "responses": (neurons,), "behavior": (2,), "pupil_center": (2,)}
    statistics = {
        name: {key: np.full(shape, value, np.float32) for key, value in
               {"min": 0, "max": 255, "median": 100, "mean": 100, "std": 50}.items()}
        for name, shape in sizes.items()
    }  # fmt: skip
    mouse = Mouse("A", rng.uniform(0, 600, (neurons, 3)), index, index, statistics, SENSORIUM)
    torch.manual_seed(0)
    model = build_model(ModelConfig.from_flags(flags), {"A": mouse}).eval().requires_grad_(False).to(device)
    model.readouts["A"].features.normal_()
    model.readouts["A"].set_positions(rng.uniform(-0.8, 0.8, (neurons, 2)))
    return Twin(model, {"A": mouse}, {"A": Transforms(statistics)}, device, "")


def direction_patterns() -> np.ndarray:
    """16 directions x 3 spatial x 3 temporal frequencies, full field, (144, 30, 36, 64)."""
    shown = [gratings.grating(SENSORIUM, direction, cpd, hertz, PATTERN)
             for cpd in (0.02, 0.04, 0.08) for hertz in (1, 2, 4) for direction in DIRECTIONS]  # fmt: skip
    return grey_levels(np.stack(shown))


def size_patterns(centre) -> np.ndarray:
    """20 sizes x 4 phases on one field, (80, 30, 36, 64)."""
    shown = []
    for size in SIZES:
        disc = windows.disc(SENSORIUM, centre, size)
        for phase in range(0, 360, 90):
            shown.append(disc * gratings.grating(SENSORIUM, 90, 0.04, 2, PATTERN, phase_deg=phase, centre=centre))
    return grey_levels(np.stack(shown))


def context_patterns(centre) -> np.ndarray:
    """2 contrasts x 4 kinds x 5 sizes x 2 directions x 4 phases on one field, (320, 30, 36, 64)."""
    shown = [
        context(SENSORIUM, centre, kind, size, direction, 0.04, 2, PATTERN, phase, contrast)
        for contrast in (0.05, 1.0) for kind in ("centre", "iso", "cross", "shift") for size in (10, 20, 30, 40, 50)
        for direction in (90, 270) for phase in whole_frames(4, 2)
    ]  # fmt: skip
    return grey_levels(np.stack(shown))


def plainly(twin: Twin, timeline: Timeline, patterns: np.ndarray, neurons: np.ndarray) -> np.ndarray:
    """Trials one by one, all neurons, then cut."""
    found = []
    for start in range(0, len(patterns), timeline.per_trial):
        shown = patterns[start : start + timeline.per_trial]
        trials = timeline.present(shown)
        responses = twin.respond("A", trials[:, None])[:, torch.as_tensor(neurons)]
        found.append(timeline.cut(responses.cpu().numpy(), len(shown))[..., :PATTERN])
    return np.concatenate(found)


def shared(twin: Twin, patterns: np.ndarray, neurons: np.ndarray, presenter: TwinPresenter) -> np.ndarray:
    presenter.listen(neurons)
    return np.concatenate([presenter.show(patterns[i : i + 16]) for i in range(0, len(patterns), 16)])


def timed(function, *args):
    start = time.perf_counter()
    return function(*args), time.perf_counter() - start


def compare(name: str, twin: Twin, groups: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """groups: (patterns, neurons) that see them."""
    count = sum(len(patterns) for patterns, _ in groups)
    known = twin.mice["A"].statistics
    start = time.perf_counter()
    timeline = Timeline(lead_in=60, pattern=PATTERN)
    presenter = TwinPresenter(twin, "A", timeline, known["behavior"]["mean"], known["pupil_center"]["mean"])
    once = time.perf_counter() - start
    seconds, parts = {"alone": 0.0, "packed": 0.0, "shared": once}, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for patterns, neurons in groups:
        ours, took = timed(shared, twin, patterns, neurons, presenter)
        seconds["shared"] += took
        parts.append([ours])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    for (patterns, neurons), part in zip(groups, parts, strict=True):
        for way, timeline in (("alone", ALONE), ("packed", PACKED)):
            found, took = timed(plainly, twin, timeline, patterns, neurons)
            seconds[way] += took
            part.append(found)
    ours, alone, packed = (np.concatenate([part[k].reshape(-1) for part in parts]) for k in range(3))
    difference = abs(ours - alone).max() / abs(alone).max()
    print(f"\n{name}: {count} patterns, {sum(len(n) for _, n in groups)} neurons")
    for way, told in (
        ("alone", "300-frame trial per pattern"),
        ("packed", "4 patterns a trial"),
        ("shared", "shared"),
    ):
        ratio = seconds[way] / seconds["shared"]
        print(f"  {told:28} {1000 * seconds[way] / count:8.1f} ms a pattern   {ratio:6.1f} x shared")
    print(f"  largest difference from the first row {difference:.1e} of the largest response; ", end="")
    print(f"correlation with the second {np.corrcoef(ours, packed)[0, 1]:.4f}; peak memory grew by {grown:.0f} MiB")


def main(args) -> None:
    torch.set_num_threads(args.threads)
    twin = make_twin(args.size, args.neurons, torch.device(args.device))
    frames = twin.model.core.max_frame
    assert frames >= TRIAL
    print(
        f"{args.size} twin, {args.neurons} neurons, {args.threads} threads, torch {torch.__version__}, {args.device}"
    )
    some = slice(args.patterns)
    with torch.inference_mode():
        compare("direction tuning, full field", twin, [(direction_patterns()[some], np.arange(args.neurons))])
        positions = twin.model.readouts["A"].mu.cpu().numpy()
        pixels = np.rint((positions + 1) / 2 * [SENSORIUM.width - 1, SENSORIUM.height - 1])
        cells, members = np.unique(pixels, axis=0, return_inverse=True)
        print(f"\n{args.neurons} neurons look at {len(cells)} pixels; {args.centres} of them are timed")
        chosen = np.linspace(0, len(cells) - 1, args.centres).round().astype(int)
        groups = [(size_patterns(cells[k])[some], np.flatnonzero(members.ravel() == k)) for k in chosen]
        compare("20 sizes x 4 phases on each field", twin, groups)
        groups = [(context_patterns(cells[k])[some], np.flatnonzero(members.ravel() == k)) for k in chosen[:2]]
        compare("contextual modulation: 2 contrasts x 5 sizes x 2 directions x 4 types x 4 phases", twin, groups)


if __name__ == "__main__":
    cli.run(main, get_parser())
