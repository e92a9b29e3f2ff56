"""Latency and memory of a live twin, frame by frame, for as long as an experiment lasts.

An untrained model of one mouse is shown noise with behaviour and gaze, as fast as it answers (weights do not
change the time). Prints a table of milliseconds from a frame to its responses, and resident memory before and after.

    python benchmarks/stream.py                            the demo's model, 1,000 neurons, 18,000 frames: 10 minutes
                                                           at 30 Hz; about 2 minutes on one core
    python benchmarks/stream.py --default_model --neurons 7500 --device cuda --precision bf16
"""

import contextlib
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from viv1t import cli
from viv1t.constants import HEIGHT, WIDTH
from viv1t.data.mouse import Mouse
from viv1t.data.transforms import Transforms
from viv1t.device import choose_device
from viv1t.inference import PRECISIONS, Twin
from viv1t.model import ModelConfig, build_model
from viv1t.streaming.latency import Latency
from viv1t.streaming.state import Stream

DEMO = Path(__file__).parents[1] / "presets" / "demo.txt"


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--frames", type=cli.number(int, 10), default=18_000, help="frames shown (default: 18000)")
    parser.add_argument("--warm_up", type=cli.number(int, 1), default=700, help="frames shown before, which fill the "
                        "memory of a model of 300 frames (default: 700)")  # fmt: skip
    parser.add_argument("--neurons", type=cli.number(int, 1), default=1000, help="neurons read out (default: 1000)")
    parser.add_argument("--preset", type=Path, default=DEMO, help="flags of the model (default: presets/demo.txt)")
    parser.add_argument("--default_model", action="store_true", help="the published ViViT, causal, instead")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps, cpu (default: auto)")
    parser.add_argument("--precision", default="32", choices=PRECISIONS, help="32 (default), tf32 or bf16")
    parser.add_argument("--threads", type=cli.number(int, 1), default=1, help="of the CPU (default: 1, as stream.py)")
    return parser


def main(args) -> None:
    torch.set_num_threads(args.threads)
    flags = {"core_use_causal_attention": True} if args.default_model else flags_of(args.preset)
    twin = build_twin(ModelConfig.from_flags(flags), args)
    stream = Stream(twin)
    run(stream, args.warm_up)
    before = resident()
    parts = run(stream, args.frames)
    after = resident()
    print(f"{machine(twin.device)}, torch {torch.__version__}, precision {args.precision}")
    print(f"{'published ViViT' if args.default_model else args.preset.name}, {args.neurons:,} neurons\n")
    print(table({"all": sum_of(parts), "first tenth": parts[0], "last tenth": parts[-1]}))
    print(
        f"\nstate {stream.nbytes / 2**20:.2f} MiB; resident memory {before:.1f} MiB before, {after:.1f} MiB after: "
        f"{after - before:+.2f} MiB"
    )


def flags_of(preset: Path) -> dict[str, str | bool]:
    """The flags of a preset that concern the model."""
    words = [line.split("#")[0].strip().removeprefix("--") for line in preset.read_text(encoding="utf-8").splitlines()]
    pairs = [word.partition("=") for word in words if word]
    model = ("core", "readout", "shifter", "output_mode")
    return {name: value if equals else True for name, equals, value in pairs if name.startswith(model)}


def build_twin(config: ModelConfig, args) -> Twin:
    """Random weights and one mouse with plausible statistics."""
    rng, index, device = np.random.default_rng(0), np.arange(args.neurons), choose_device(args.device)

    def spread(mean, std):
        values = {"mean": mean, "median": mean, "std": std, "min": mean - 3 * std, "max": mean + 3 * std}
        return {name: np.asarray(value, np.float32) for name, value in values.items()}

    statistics = {
        "video": spread(np.float32(110), np.float32(60)),
        "responses": spread(rng.uniform(1, 5, args.neurons), rng.uniform(2, 9, args.neurons)),
        "behavior": spread(np.array([50, 2]), np.array([9, 3])),
        "pupil_center": spread(np.array([140, 140]), np.array([6, 6])),
    }
    mouse = Mouse("A", rng.uniform(0, 600, (args.neurons, 3)), index, index, statistics)
    torch.manual_seed(0)
    model = build_model(config, {"A": mouse}).to(device).eval().requires_grad_(False)
    model.core.autocast_dtype = torch.bfloat16 if args.precision == "bf16" else None
    torch.set_float32_matmul_precision("highest" if args.precision == "32" else "high")
    return Twin(model, {"A": mouse}, {"A": Transforms(statistics)}, device, "")


def run(stream: Stream, frames: int) -> list[Latency]:
    """Latencies of each tenth of that many frames."""
    rng, parts = np.random.default_rng(1), [Latency() for _ in range(10)]
    movie = rng.integers(0, 256, (97, HEIGHT, WIDTH)).astype(np.uint8)
    traces = rng.normal([50, 2, 140, 140], [9, 3, 6, 6], (101, 4)).astype(np.float32)
    for i in tqdm(range(frames), unit="frame", disable=None, leave=False):
        start = time.perf_counter()
        stream.step(movie[i % len(movie)], *np.split(traces[i % len(traces)], 2))
        parts[10 * i // frames].add(time.perf_counter() - start)
    return parts


def sum_of(parts: list[Latency]) -> Latency:
    total = Latency()
    for part in parts:
        total.merge(part)
    return total


def table(rows: dict[str, Latency]) -> str:
    lines = ["| frames | number | p50 ms | p95 ms | p99 ms | max ms |", "| --- | --- | --- | --- | --- | --- |"]
    for name, latency in rows.items():
        values = " | ".join(f"{value:.2f}" for value in latency.milliseconds().values())
        lines.append(f"| {name} | {latency.frames:,} | {values} |")
    return "\n".join(lines)


def resident() -> float:
    """MiB of this process in memory; where the system does not tell, the most there ever was."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # of what getrusage counts in, bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {torch.get_num_threads()} CPU threads"


if __name__ == "__main__":
    cli.run(main, get_parser())
