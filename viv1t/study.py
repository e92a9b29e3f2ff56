"""A study: many trainings of `train.py`, each an ordinary run folder, and how well they did at which cost.

Trainings run side by side, each in a process of its own with one thread, so that what one costs does not depend on the
others: cost is processor time, not time on the clock. A study that was interrupted goes on; complete runs are kept.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from viv1t import io
from viv1t.errors import UserError

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """One training: the folder it writes, and the flags of train.py but for the folder."""

    folder: Path
    flags: tuple[str, ...]

    def cost(self) -> dict[str, float]:
        """Processor seconds of all attempts, and the highest peak of memory in bytes."""
        path = self.folder / "cost.json"
        return io.read_json(path) if path.is_file() else {"seconds": 0.0, "peak_bytes": 0.0}

    def score(self, tier: str, metric: str = "correlation") -> float:
        """Mean over mice of one score of RUN/evaluation.json."""
        return io.read_json(self.folder / "evaluation.json")[tier][metric]["average"]


def train_all(runs: Sequence[Run], at_once: int) -> None:
    """Bring all runs to their end, `at_once` at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        done = [pool.submit(train, run) for run in runs]
        try:
            for future in tqdm(done, desc="trainings", unit="run", disable=None):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def train(run: Run) -> None:
    """Train, unless the run is complete, and add what that cost to RUN/cost.json."""
    if not (run.folder / "evaluation.json").exists():
        call("train.py", *run.flags, "--output_dir", str(run.folder), cost_of=run)


def call(script: str, *flags: str, cost_of: Run | None = None) -> None:
    """Run a script of this project with one thread; UserError with its last words if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / script), *flags]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)  # what this one process has used
    except BaseException:
        process.terminate()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if cost_of is not None and cost_of.folder.is_dir():
        before = cost_of.cost()
        peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        seconds = before["seconds"] + used.ru_utime + used.ru_stime
        cost = {"seconds": seconds, "peak_bytes": max(before["peak_bytes"], peak)}
        io.write_json(cost_of.folder / "cost.json", cost)
    if process.returncode:
        last = said.strip().splitlines()[-1] if said.strip() else f"exit code {process.returncode}"
        raise UserError(f"{script} {' '.join(flags)}: {last}")


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of a few seeds with its 95 % interval by Student's t; NaN limits for one value."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), np.nan, np.nan
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
