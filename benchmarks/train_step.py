"""Seconds and peak memory of the default ViViT against a textbook formulation of the same model, in one run.

One trial of 36 x 64 pixels and 300 frames, one mouse of 7,500 neurons. Every row is measured in a process of its
own, so that peak memory is that row's; ratios are within this run.

    python benchmarks/train_step.py                       # about 10 minutes on two cores
    python benchmarks/train_step.py --frames 60 --steps 2 # a quick look
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import torch
from textbook import TextbookModel

from viv1t import cli
from viv1t.data.mouse import Mouse
from viv1t.device import choose_device
from viv1t.model import ModelConfig, build_model
from viv1t.training.losses import poisson

ROWS = (  # formulation, precision, stochastic depth
    ("textbook", "float32", "masked"),
    ("viv1t", "float32", "masked"),
    ("viv1t", "float32", "bernoulli"),
    ("viv1t", "bfloat16", "bernoulli"),
)


def build(formulation: str, dtype: str, depth: str, neurons: int, device: str):
    """The default model, gradient checkpointing on, in one of the two formulations."""
    torch.manual_seed(0)
    index = np.arange(neurons)
    mouse = Mouse("A", np.random.default_rng(0).uniform(0, 600, (neurons, 3)), index, index, {})
    flags = {"core_use_causal_attention": True, "core_drop_path_mode": depth}
    model = build_model(ModelConfig.from_flags(flags), {"A": mouse}).to(device)
    target = model.core if formulation == "viv1t" else TextbookModel(model, "A")
    target.grad_checkpointing = True
    target.autocast_dtype = torch.bfloat16 if dtype == "bfloat16" else None
    if formulation == "viv1t":
        return model, lambda *inputs: model.predict("A", *inputs)
    return target, target


def clip(frames: int, neurons: int, device: str):
    generator = torch.Generator().manual_seed(1)
    shapes = ((1, 1, frames, 36, 64), (1, 2, frames), (1, 2, frames), (1, neurons, frames))
    *inputs, target = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    return inputs, target.abs()


def seconds(work, repeats: int, device: str) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times


def peak_gib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(row: tuple[str, str, str], args) -> dict:
    """One row: forward in evaluation, then training steps; all in this process."""
    choose_device(args.device)
    model, predict = build(*row, args.neurons, args.device)
    inputs, target = clip(args.frames, args.neurons, args.device)
    base = peak_gib(args.device)

    def forward():
        with torch.no_grad():
            predict(*inputs)

    def step():
        model.zero_grad(set_to_none=True)
        poisson(target, predict(*inputs)).backward()

    model.eval()
    forward_seconds = seconds(forward, args.steps, args.device)
    model.train()
    step_seconds = seconds(step, args.steps, args.device)
    return {
        "formulation": row[0],
        "precision": row[1],
        "depth": "everything" if row[2] == "masked" else "survivors",
        "forward_s": float(np.median(forward_seconds)),
        "step_s": float(np.median(step_seconds)),
        "peak_gib": peak_gib(args.device),
        "before_gib": base,
    }


def measure_loader(args) -> float:
    """Seconds to read one training trial of 7,500 neurons from the cache, as the trainer does."""
    from viv1t.data.cache import open_cache
    from viv1t.data.recording import Recording

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root, trials = Path(folder) / "lab" / "mouse", 8
        shapes = {
            "videos": (36, 64, 300),
            "responses": (args.neurons, 300),
            "behavior": (2, 300),
            "pupil_center": (2, 300),
        }
        for name, shape in shapes.items():
            (root / "data" / name).mkdir(parents=True)
            for trial in range(trials):
                values = rng.integers(0, 256, shape, np.uint8) if name == "videos" else rng.random(shape, np.float32)
                np.save(root / "data" / name / f"{trial}.npy", values)
        for place, values in {
            "meta/trials/tiers.npy": np.array(["train"] * trials),
            "meta/neurons/cell_motor_coordinates.npy": rng.integers(0, 9000, (args.neurons, 3)),
            "meta/neurons/unit_ids.npy": np.arange(args.neurons),
        }.items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            np.save(root / place, values)
        cache = open_cache(Recording(root))
        return float(np.median(seconds(lambda: cache.trial(rng.integers(trials)), 20, "cpu")))


def table(rows: list[dict]) -> str:
    lines = [
        "| formulation | precision | computes | forward s | step s | peak GiB | forward | step | memory |",
        "|---" * 9 + "|",
    ]
    reference = rows[0]
    for row in rows:
        forward, step = (reference[name] / row[name] for name in ("forward_s", "step_s"))
        lines.append(
            f"| {row['formulation']} | {row['precision']} | {row['depth']} | {row['forward_s']:.2f} "
            f"| {row['step_s']:.2f} | {row['peak_gib']:.2f} | {forward:.2f}x | {step:.2f}x "
            f"| {row['peak_gib'] / reference['peak_gib']:.2f} |"
        )
    return "\n".join(lines)


def parser():
    parser = cli.Parser(__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--neurons", type=int, default=7500)
    parser.add_argument("--steps", type=int, default=1, help="repeats of each measurement; the median is shown")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--only", nargs=3, metavar=("FORMULATION", "PRECISION", "DEPTH"), help="measure one row, print JSON"
    )
    return parser


def main(args):
    if args.only:
        print(json.dumps(measure(tuple(args.only), args)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, device {args.device}")
    print(f"default ViViT, 1 trial x {args.frames} frames, {args.neurons} neurons, gradient checkpointing")
    flags = [f"--{name}={getattr(args, name)}" for name in ("frames", "neurons", "steps", "device")]
    rows = []
    for row in ROWS:
        command = [sys.executable, __file__, *flags, "--only", *row]
        print(f"  {' '.join(row)} ...", file=sys.stderr)
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(table(rows))
    print(f"loader: {1000 * measure_loader(args):.1f} ms a trial")


if __name__ == "__main__":
    cli.run(main, parser())
