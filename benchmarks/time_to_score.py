"""Minutes from the start of train.py to a good twin: this checkout against another commit, same recordings.

Both train the demo's preset on the simulated mice, one after the other for every seed, and are validated after every
epoch. The goal is a share of the validation correlation with which the other commit's run ends.

    python data/simulate.py
    python benchmarks/time_to_score.py --against 49320ad --seeds 1 2 3       # 40 minutes on two cores
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.errors import UserError

ROOT = Path(__file__).parents[1]


def check_out(revision: str, folder: Path) -> Path:
    """The files of a commit, below `folder`."""
    archive = folder / "revision.tar"
    done = subprocess.run(["git", "-C", ROOT, "archive", "-o", archive, revision], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"--against {revision}: {done.stderr.strip()}. Name a commit of this repository.")
    with tarfile.open(archive) as files:
        files.extractall(folder / "revision", filter="data")
    return folder / "revision"


def train(checkout: Path, seed: int, run_dir: Path, args) -> pd.DataFrame:
    """Train; seconds since the start of the command and validation correlation (epochs, 2)."""
    flags = f"--eval_every 1 --verbose 0 --seed {seed} --epochs {args.epochs}".split()
    folders = ["--data_dir", args.data_dir.resolve(), "--output_dir", run_dir]
    command = [sys.executable, "train.py", f"@{checkout / 'presets' / 'demo.txt'}", *flags, *folders]
    log, start, seconds = run_dir / "log.csv", time.monotonic(), []
    rows = 0
    process = subprocess.Popen(command, cwd=checkout, env=environment(checkout))
    while rows < args.epochs and process.poll() is None:
        time.sleep(0.1)
        rows = len(log.read_text().splitlines()) - 1 if log.exists() else 0
        seconds += [time.monotonic() - start] * (rows - len(seconds))
    process.terminate()  # what follows the last epoch is of no interest here
    process.wait()
    if rows < args.epochs:
        raise UserError(f"{checkout}: train.py ended with code {process.returncode} after {rows} epochs.")
    curve = pd.read_csv(log)
    return pd.DataFrame({"seconds": seconds, "correlation": curve["val_correlation"]})


def environment(checkout: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(checkout)}


def seconds_to(curve: pd.DataFrame, goal: float) -> float:
    """Seconds to the first validation at which the goal is reached; infinite if never."""
    reached = curve.loc[curve["correlation"] >= goal, "seconds"]
    return float(reached.iloc[0]) if len(reached) else float("inf")


def main(args) -> None:
    if not args.data_dir.is_dir():
        raise UserError(f"{args.data_dir}: no such folder. Run python data/simulate.py first, or give --data_dir.")
    rows, curves = [], {}
    with tempfile.TemporaryDirectory() as folder:
        checkouts = {"before": check_out(args.against, Path(folder)), "now": ROOT}
        for seed in args.seeds:
            for name, checkout in checkouts.items():
                curves[name, seed] = train(checkout, seed, Path(folder) / f"{name}{seed}", args)
                print(f"seed {seed} {name}: {curves[name, seed].round(4).to_dict('list')}", file=sys.stderr)
            before, now = (curves[name, seed] for name in checkouts)
            goal = args.share * before["correlation"].iloc[-1]
            times = seconds_to(before, goal), seconds_to(now, goal)
            rows.append((seed, goal, *times, times[0] / times[1], *(c["correlation"].iloc[-1] for c in (before, now))))
    print(table(rows, args))
    if args.output:
        points = [{"which": n, "seed": s, **point} for (n, s), c in curves.items() for point in c.to_dict("records")]
        io.write_table(args.output, pd.DataFrame(points))


def table(rows: list[tuple], args) -> str:
    lines = [
        f"| seed | {args.share:g} of {args.against}'s end | s, {args.against} | s, now | ratio "
        f"| end, {args.against} | end, now |",
        "|---" * 7 + "|",
    ]
    for seed, goal, before, now, ratio, *ends in rows:
        lines.append(
            f"| {seed} | {goal:.4f} | {before:.0f} | {now:.0f} | {ratio:.2f}x | {ends[0]:.4f} | {ends[1]:.4f} |"
        )
    mean = np.mean([row[1:] for row in rows], axis=0)
    lines.append(
        f"| mean | {mean[0]:.4f} | {mean[1]:.0f} | {mean[2]:.0f} | {mean[1] / mean[2]:.2f}x | {mean[4]:.4f} "
        f"| {mean[5]:.4f} |"
    )
    return "\n".join(lines)


def parser():
    parser = cli.Parser(__doc__)
    parser.add_argument("--against", default="49320ad", metavar="COMMIT", help="the other commit (default: 49320ad)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of training (default: 1 2 3)")
    parser.add_argument("--epochs", type=cli.number(int, 1), default=6, help="(default: 6, as in the preset)")
    parser.add_argument("--share", type=cli.number(float, 0, 1), default=0.9, help="of its end (default: 0.9)")
    parser.add_argument("--data_dir", type=Path, default=Path("data/simulated"), help="(default: data/simulated)")
    parser.add_argument("--output", type=Path, metavar="CSV", help="also write every validation to this file")
    return parser


if __name__ == "__main__":
    cli.run(main, parser())
