"""Kill every stage at random moments, run it again until it ends, and compare with a run that nobody disturbed.

    python benchmarks/kill_anywhere.py                          ten kills of each stage, about five minutes
    python benchmarks/kill_anywhere.py --stages train --times 50

Stages: simulate (data/simulate.py in one process), parallel (the same in two), cache (first opening of a recording),
train (schedule-free, state saved after every step), cosine (likewise, readouts started from data) and predict. kill -9
falls at a random moment after the first file was touched. A stage that ends before its kill starts anew. What comes
out at last must be identical bit by bit, and no half-written or temporary file may be left. Prints one line per stage;
the exit code is 2 if any differs.
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from viv1t import cli, io
from viv1t.errors import UserError
from viv1t.measurements import Measurement

ROOT = Path(__file__).parents[1]
SIMULATE = "data/simulate.py --data_dir {out} --mice 1 --neurons 8 --trials 8 --clips 1 --repeats 2 --frames 70"
MODEL = (
    "--core_emb_dim 8 --core_ff_dim 8 --core_head_dim 4 --core_num_heads 1 --core_spatial_depth 1 "
    "--core_temporal_depth 1 --core_spatial_patch_stride 8 --core_reg_tokens 1 --device cpu"
)
FROM_DATA = (
    "--core_patch_mode energy --core_patch_init gabor --core_emb_dim 12 --readout_positions contrast "
    "--readout_features ridge --readout_bias_mode rate --lr_schedule cosine"
)
TRAIN = f"train.py --data_dir {{data}} --output_dir {{out}} {MODEL} --crop_frame 60 --epochs 3 --save_every 0"
PREDICT = "predict.py --data_dir {data} --output_dir {out} --device cpu"
PROBE = "tuning_retinotopy/predict_noise.py --output_dir {out} --device cpu --patterns 1200"
LEFTOVERS = (".*.tmp", ".*.parts", ".movies", ".lock", "step.pt")
LOCKS = ".*.lock"  # empty; one may stay if the kill came after the last byte, until the next writer takes it


@dataclass(frozen=True)
class Stage:
    """A command that writes below {out}, how two results are compared, and what must lie in {out} before."""

    command: str
    compare: Callable[[Path, Path], list[str]]
    begins_with: str | None = None  # a folder of the workshop


def main(args) -> None:
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="kill_anywhere") as folder:
        workshop = Path(folder)
        print("making a recording and a run that nobody disturbs", flush=True)
        done = {"simulate": undisturbed("simulate", workshop, "data"), "train": undisturbed("train", workshop, "run")}
        print(f"{'stage':<9} {'work':>9} {'kills':>6} {'fresh starts':>12}   result", flush=True)
        failed = [name for name in args.stages if not report(name, workshop, done, args.times, rng)]
    if failed:
        raise UserError(f"not the same after a kill: {', '.join(failed)}; see above. Repeat with --seed {args.seed}.")


def undisturbed(name: str, workshop: Path, folder: str) -> tuple[Path, float]:
    """The result of a stage, and how many seconds it worked."""
    calm = workshop / folder
    lay_out(STAGES[name], workshop, calm)
    return calm, finish(fill(STAGES[name].command, workshop, calm), watch=calm)


def report(name: str, workshop: Path, done: dict, times: int, rng: random.Random) -> bool:
    """Try one stage and print its line; whether everything was identical."""
    stage, disturbed = STAGES[name], workshop / f"{name}_disturbed"
    calm, seconds = done.get(name) or undisturbed(name, workshop, f"{name}_calm")
    starts = disturb(stage, workshop, disturbed, times, seconds, rng)
    faults = stage.compare(calm, disturbed) + leftovers(disturbed)
    result = "DIFFERENT" if faults else "identical"
    print(f"{name:<9} {seconds:>7.1f} s {times:>6} {starts:>12}   {result}", flush=True)
    for fault in faults[:10]:
        print(f"    {fault}")
    return not faults


def disturb(stage: Stage, workshop: Path, out: Path, times: int, seconds: float, rng: random.Random) -> int:
    """Kill the stage `times` times, then let it end; returns how often it began from nothing."""
    command, starts = fill(stage.command, workshop, out), 1
    lay_out(stage, workshop, out)
    for _ in tqdm(range(times), unit="kill", leave=False, disable=None):
        while not killed(command, out, rng.uniform(0, seconds)):
            lay_out(stage, workshop, out)
            starts += 1
    finish(command)
    return starts


def killed(command: list[str], out: Path, after: float) -> bool:
    """Start a command and kill it some seconds after it touched the first file; False if it had ended by then."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_for_work(process, out)
            code = process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait() == -signal.SIGKILL
        output.seek(0)
        require_success(command, code, output.read().decode())
    return False


def finish(command: list[str], watch: Path | None = None) -> float:
    """Run a command to its end; seconds from the first change below `watch` on."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        if watch:
            wait_for_work(process, watch)
        start, code = time.monotonic(), process.wait()
        output.seek(0)
        require_success(command, code, output.read().decode())
    return time.monotonic() - start


def wait_for_work(process: subprocess.Popen, folder: Path) -> None:
    """Until a file comes or goes below a folder, or the process ends."""
    before = listing(folder)
    while process.poll() is None and listing(folder) == before:
        time.sleep(0.002)


def require_success(command: list[str], code: int, output: str) -> None:
    if code:
        print(f"{' '.join(map(str, command))}\n{output}")
        raise UserError(f"{Path(command[1]).name} ended with exit code {code}; its output is above. Mend it first.")


def fill(command: str, workshop: Path, out: Path) -> list[str]:
    script, *flags = command.format(out=out, data=workshop / "data").split()
    return [sys.executable, str(ROOT / script), *flags]


def lay_out(stage: Stage, workshop: Path, out: Path) -> None:
    """Make `out` what it is before the stage."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    if stage.begins_with:
        shutil.copytree(workshop / stage.begins_with, out, dirs_exist_ok=True)


def listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def leftovers(folder: Path) -> list[str]:
    found = sorted({path for pattern in LEFTOVERS for path in folder.rglob(pattern)})
    return [f"left behind: {path.relative_to(folder)}" for path in found]


def compare_files(calm: Path, disturbed: Path) -> list[str]:
    """Names and bytes of all files that are no leftovers."""
    names = [{str(p.relative_to(d)) for p in files(d)} for d in (calm, disturbed)]
    faults = [f"missing: {name}" for name in sorted(names[0] - names[1])]
    faults += [f"extra: {name}" for name in sorted(names[1] - names[0])]
    shared = sorted(names[0] & names[1])
    return faults + [
        f"other bytes: {name}" for name in shared if (calm / name).read_bytes() != (disturbed / name).read_bytes()
    ]


def files(folder: Path) -> list[Path]:
    """All files but leftovers and locks, and but caches that later stages add beside a recording."""
    unwanted = {path for pattern in (*LEFTOVERS, LOCKS) for path in folder.rglob(pattern)}
    return [p for p in folder.rglob("*") if p.is_file() and p not in unwanted and p.parent.name != ".cache"]


def compare_runs(calm: Path, disturbed: Path) -> list[str]:
    """Weights, state of the optimiser, flags, log and scores of two training runs; times may differ."""
    faults = []
    for name in ("best.pt", "last.pt"):
        found = [torch.load(run / "ckpt" / name, weights_only=True) for run in (calm, disturbed)]
        faults += [f"ckpt/{name}: {fault}" for fault in compare_values(*found)]
    flags = [io.read_json(run / "config.json") for run in (calm, disturbed)]
    faults += [f"config.json: {fault}" for fault in compare_values(*flags)]
    logs = [pd.read_csv(run / "log.csv").drop(columns="seconds") for run in (calm, disturbed)]
    faults += [] if logs[0].equals(logs[1]) else ["log.csv: other numbers"]
    scores = [(run / "evaluation.json").read_bytes() for run in (calm, disturbed)]
    return faults + ([] if scores[0] == scores[1] else ["evaluation.json: other numbers"])


def compare_experiments(calm: Path, disturbed: Path) -> list[str]:
    """All files, but responses to rounding: with several threads, PyTorch does not promise the last bit."""
    names = [sorted(str(p.relative_to(folder)) for p in files(folder)) for folder in (calm, disturbed)]
    faults = [] if names[0] == names[1] else ["other files"]
    for path in (calm / "retinotopy").glob("*.h5"):
        with Measurement(path) as a, Measurement(disturbed / "retinotopy" / path.name) as b:
            same = a.about == b.about and a.conditions.equals(b.conditions)
            close = np.allclose(a.responses[:], b.responses[:], rtol=1e-5, atol=1e-7)
            faults += [] if same and close else [f"other numbers: {path.name}"]
    return faults


def compare_values(a, b, where: str = "") -> list[str]:
    """Where two nested values differ; the times and places of the two runs are no difference."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in a.keys() | b.keys() if key not in ("seconds", "output_dir")]
        return [f for key in sorted(keys, key=str) for f in compare_values(a.get(key), b.get(key), f"{where}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [f for i, pair in enumerate(zip(a, b, strict=True)) for f in compare_values(*pair, f"{where}/{i}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else same_value(a, b)
    return [] if same else [f"{where} differs"]


def same_value(a, b) -> bool:
    return bool(np.array_equal(a, b)) or a != a and b != b  # NaN is as good as itself


STAGES = {
    "simulate": Stage(f"{SIMULATE} --num_workers 1", compare_files),
    "parallel": Stage(f"{SIMULATE} --num_workers 2", compare_files),
    "cache": Stage("data/check.py --data_dir {data} --cache_dir {out}", compare_files),
    "train": Stage(f"{TRAIN} --schedule_free", compare_runs),
    "cosine": Stage(f"{TRAIN} {FROM_DATA}", compare_runs),
    "predict": Stage(PREDICT, compare_files, begins_with="run"),
    "probe": Stage(PROBE, compare_experiments, begins_with="run"),
}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES), metavar="STAGE",
                        help=f"{', '.join(STAGES)} (default: all)")  # fmt: skip
    parser.add_argument("--times", type=cli.number(int, 1), default=10, help="kills of each stage (default: 10)")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="of the moments (default: 0)")
    return parser


if __name__ == "__main__":
    cli.run(main, get_parser())
