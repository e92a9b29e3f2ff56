"""How exactly, and how fast, receptive fields are found: local contrast noise shown to the simulated animal.

Distances are from the true centres, over driven neurons; the time is that of a whole mouse.

    python benchmarks/fit_fields.py            # under a minute on two cores
"""

import resource
import time

import numpy as np
import torch

from viv1t import cli
from viv1t.estimators.receptive_field import WeightedMaps, fit_receptive_fields, lattice_blur, signed_root
from viv1t.geometry import SENSORIUM
from viv1t.simulate.animal import Animal, Setting
from viv1t.simulate.population import draw_population
from viv1t.stimulus.series import CELL, noise_pattern

SHOWN, START, BATCH = 5, 2, 50  # frames of a pattern; responses count from START


def main(args) -> None:
    population = draw_population(args.neurons, SENSORIUM, args.seed).assign(drive_mean=0.05)
    animal = Animal(population, Setting(monitor=SENSORIUM))
    contrast = np.stack([noise_pattern(SENSORIUM, "mask", k, args.seed) for k in range(max(args.patterns))])
    responses, masks = signed_root(respond(animal, contrast)), contrast != 0
    print("| patterns | neurons | median px | within 1 px | within 2 px | flagged |")
    print("|---|---|---|---|---|---|")
    for patterns in args.patterns:
        fields = fit(gather(responses[:patterns], masks[:patterns]))
        report(patterns, animal, fields)
    responses = np.tile(responses, -(-args.mouse // args.neurons))[:, : args.mouse]
    clock = [(time.perf_counter(), time.process_time())]
    maps = gather(responses, masks)
    clock.append((time.perf_counter(), time.process_time()))
    fit(maps)
    clock.append((time.perf_counter(), time.process_time()))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{args.mouse} neurons, {len(masks)} patterns, peak memory {memory:.1f} GB")
    for part, (wall, work) in zip(
        ("maps", "fits of the maps and of both halves"), np.diff(clock, axis=0), strict=True
    ):
        print(f"{part}: {wall:.1f} s, {work:.1f} s of processor time")


def respond(animal: Animal, contrast: np.ndarray) -> np.ndarray:
    """Noiseless responses (n, N) to patterns (n, H, W), less those to grey."""
    setting, answers = animal.setting, []
    for start in range(0, len(contrast), BATCH):
        shown = torch.from_numpy(127 + 127.5 * contrast[start : start + BATCH, None, None])
        rest = [torch.tensor(x)[None, :, None].expand(len(shown), 2, SHOWN)
                for x in (setting.behavior_mean, setting.pupil_center)]  # fmt: skip
        answers.append(animal.respond(shown.expand(-1, -1, SHOWN, -1, -1), *rest).numpy())
    answers = np.concatenate(answers)
    return answers[:, :, START:].mean(axis=2) - answers[:, :, 0]


def gather(responses: np.ndarray, masks: np.ndarray) -> WeightedMaps:
    maps = WeightedMaps(responses.shape[1], *masks.shape[1:])
    for start in range(0, len(masks), 250):
        maps.update(responses[start : start + 250], masks[start : start + 250])
    return maps


def fit(maps: WeightedMaps):
    return fit_receptive_fields(maps.value(), maps.halves(), maps.nulls(), lattice_blur(CELL))


def report(patterns: int, animal: Animal, fields) -> None:
    neurons = animal.neurons
    error = np.hypot(fields["x"] - neurons["x_px"], fields["y"] - neurons["y_px"])
    gabor, simple, undriven = neurons["kind"] == "gabor", neurons["simple_weight"], neurons["kind"] == "undriven"
    groups = {
        "driven": ~undriven,
        "complex": gabor & (simple < 0.3),
        "mixed": gabor & simple.between(0.3, 0.7),
        "simple": gabor & (simple > 0.7),
        "luminance": neurons["kind"] == "luminance",
    }
    for name, rows in groups.items():
        e, flagged = error[rows], fields["bad_fit"][rows].mean()
        row = f"{e.median():.2f} | {(e < 1).mean():.3f} | {(e < 2).mean():.3f} | {flagged:.3f}"
        print(f"| {patterns} | {name} ({rows.sum()}) | {row} |")
    print(f"| {patterns} | undriven ({undriven.sum()}) | | | | {fields['bad_fit'][undriven].mean():.3f} |")


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--neurons", type=cli.number(int, 20), default=400, metavar="N", help="simulated (default: 400)"
    )
    parser.add_argument("--patterns", type=cli.number(int, 20), nargs="+", default=[500, 1000, 2000], metavar="N",
                        help="how many are shown (default: 500 1000 2000)")  # fmt: skip
    parser.add_argument("--mouse", type=cli.number(int, 1), default=8000, metavar="N",
                        help="neurons of the mouse whose fits are timed (default: 8000)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, metavar="N", help="(default: 0)")
    return parser


if __name__ == "__main__":
    cli.run(main, get_parser())
