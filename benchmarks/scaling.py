"""Steps per second of training with one and with several processes on this machine, each with one thread.

    python benchmarks/scaling.py                              one and two processes, about a minute
    python benchmarks/scaling.py --processes 1 2 4 8 --device cuda --frames 300 --width 112       on eight GPUs

A step shows one clip of every mouse; the processes share them out. Losses must agree. `exchange` is the part of a step
in which processes wait for each other and add up gradients.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from viv1t import cli, distributed
from viv1t.data.loader import load_mice
from viv1t.device import choose_device
from viv1t.errors import UserError
from viv1t.model import build_model
from viv1t.training.config import TrainConfig
from viv1t.training.optimizers import GradientClip, build_optimizer, parameter_groups
from viv1t.training.task import ResponseTask
from viv1t.training.team import form_team

QUIET = dict.fromkeys(("core_p_dropout", "core_mha_dropout", "core_ff_dropout", "core_drop_path"), 0.0)
WARM_UP = 2  # steps


def write_recordings(folder: Path, args) -> None:
    """Random numbers in the layout of a recording; `steps` training trials for each mouse."""
    rng = np.random.default_rng(0)
    shapes = {"videos": (36, 64), "responses": (args.neurons,), "behavior": (2,), "pupil_center": (2,)}
    for mouse in range(args.mice):
        root, trials = folder / "random" / f"mouse{mouse}", WARM_UP + args.steps
        for name, shape in shapes.items():
            (root / "data" / name).mkdir(parents=True)
            for trial in range(trials):
                np.save(root / "data" / name / f"{trial}.npy", rng.random((*shape, args.frames), np.float32))
        for name, values in {
            "trials/tiers": np.array(["train"] * trials),
            "neurons/cell_motor_coordinates": rng.integers(0, 9000, (args.neurons, 3)),
            "neurons/unit_ids": np.arange(args.neurons),
        }.items():
            path = root / "meta" / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)


def measure(args) -> dict:
    """Train in this process, with the others there are; median seconds of a step and of its exchange."""
    torch.set_num_threads(1)
    size = {"core_emb_dim": args.width, "core_ff_dim": 2 * args.width, "core_head_dim": 16, "core_num_heads": 2}
    size |= {"core_spatial_depth": 2, "core_temporal_depth": 2, "core_spatial_patch_stride": 4}
    flags = {"output_dir": "", "crop_frame": args.frames, "autocast": args.autocast, "core_use_causal_attention": True}
    config = TrainConfig.from_flags({**flags, **size, **QUIET})
    device = choose_device(args.device)
    mice = load_mice(args.data_dir)
    torch.manual_seed(0)
    model = build_model(config.model, {id: data.mouse for id, data in mice.items()})
    team = form_team(model, list(mice), 1)
    task = ResponseTask(model.to(device).train(), mice, config, device, team)
    optimizer = build_optimizer(parameter_groups(model.parameter_groups(), 1e-4, 0, 1e-4, 0), config.optimizer)
    clip, seconds, losses = GradientClip(), [], []
    for number, batch in enumerate(task.batches(0, 0)):
        start = time.perf_counter()
        torch.manual_seed(number)
        parts = []
        for loss in task.losses(batch, 1):
            loss.backward()
            parts.append(float(loss.detach()))
        computed = time.perf_counter()
        loss, norm = team.reduce(sum(parts))
        waited = time.perf_counter() - computed
        clip(model.parameters(), norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append((time.perf_counter() - start, waited))
        losses.append(loss)
    step, exchange = np.median(seconds[WARM_UP:], axis=0)
    core = sum(parameter.numel() for parameter in model.core.parameters())
    return {"step": step, "exchange": exchange, "core": core, "loss": losses[-1]}


def launch(processes: int, flags: list[str]) -> dict:
    """Start this script in several processes by torchrun; what the main one found."""
    command = f"torch.distributed.run --standalone --nproc_per_node {processes} {__file__} --measure".split()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *command, *flags], capture_output=True, text=True, env=environment)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError(next((line for line in said if line.startswith("scaling.py")), f"failed: {said[-1]}"))
    return json.loads(done.stdout.splitlines()[-1])


def main(args) -> None:
    names = ("mice", "frames", "neurons", "width", "steps", "device", "autocast")
    flags = [f"--{name}={getattr(args, name)}" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder), args)
        found = {n: launch(n, [*flags, f"--data_dir={folder}"]) for n in args.processes}
    first = found[args.processes[0]]
    print(f"{args.mice} mice, clips of {args.frames} frames, core of {first['core'] / 1e6:.2f} M parameters:")
    print("| processes | trials each | steps/s | speed | exchange, ms | gradients, MB | loss after the last step |")
    print("|---" * 7 + "|")
    for n, row in found.items():
        each = "-".join(map(str, sorted({args.mice // n, -(-args.mice // n)})))
        print(
            f"| {n} | {each} | {1 / row['step']:.2f} | {first['step'] / row['step']:.2f}x | "
            f"{1000 * row['exchange']:.1f} | {4e-6 * row['core'] * (n > 1):.1f} | {row['loss']:.4f} |"
        )


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--processes", type=cli.number(int, 1), nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--mice", type=cli.number(int, 1), default=4, help="default: 4")
    parser.add_argument("--frames", type=cli.number(int, 51), default=60, help="of a clip (default: 60)")
    parser.add_argument("--neurons", type=cli.number(int, 1), default=200, help="of each mouse (default: 200)")
    parser.add_argument("--width", type=cli.number(int, 4, even=True), default=48, help="of the core (default: 48)")
    parser.add_argument("--steps", type=cli.number(int, 1), default=6, help="that are measured (default: 6)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--autocast", default="disable", help="bfloat16 in the core: disable (default) or auto")
    parser.add_argument("--data_dir", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser


def measured(args) -> None:
    """One of the processes that `launch` started."""
    with distributed.joined():
        print(json.dumps(measure(args)))


if __name__ == "__main__":
    cli.run(lambda args: measured(args) if args.measure else main(args), get_parser())
