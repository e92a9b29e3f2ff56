"""One trial of a sweep: an ordinary run of train.py, in a process of its own and followed through its log.

Nothing but run folders is remembered. A trial that is begun again tells what its log holds before it goes on training,
so a sweep is continued by beginning all its trials again.
"""

import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from viv1t import io
from viv1t.errors import UserError

POLL = 0.5  # seconds between looks at the log
PATIENCE = 60  # seconds for a step to end and its state to be saved


@dataclass
class Trial:
    """A run that train.py makes in `run_dir`, and what was chosen for it (`params`, kept in RUN/trial.json).

    script: path of train.py; flags: all but the run folder; cwd: where relative paths begin. What train.py says goes
    to RUN/output.txt.
    """

    run_dir: Path
    params: dict
    script: Path
    flags: Sequence[str]
    epochs: int
    cwd: Path
    process: subprocess.Popen | None = field(default=None, init=False)

    def rows(self) -> Iterator[dict]:
        """Every validated epoch of log.csv once, as it comes, with the `best` correlation so far.

        The row of the last possible epoch comes when the run is complete. UserError if train.py fails.
        """
        told, best = 0, -math.inf
        while True:
            complete, ended = is_complete(self.run_dir), self.process is not None and self.process.poll() is not None
            for row in read_log(self.run_dir)[told:]:
                if row["epoch"] == self.epochs and not complete:
                    if self.process is None:  # it was stopped between its last epoch and its scores
                        self.start()
                    self.process.wait()
                told, best = told + 1, max(best, row["val_correlation"])
                yield row | {"best": best}
            if complete:
                return
            if ended:
                raise UserError(f"{self.run_dir}: {last_line(self.run_dir / 'output.txt')}")
            if self.process is None:
                self.start()
            time.sleep(POLL)

    def start(self) -> None:
        if not (self.run_dir / "trial.json").is_file():
            io.write_json(self.run_dir / "trial.json", self.params)
        command = [sys.executable, self.script, *self.flags, "--output_dir", self.run_dir]
        with open(self.run_dir / "output.txt", "a", encoding="utf-8") as output:
            self.process = subprocess.Popen(command, cwd=self.cwd, stdout=output, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """End train.py, which saves its state after the present step."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # a first, compiled step may take longer; the last saved state is whole
            self.process.kill()
            self.process.wait()


def trial_name(params: dict) -> str:
    """The same values belong to the same folder."""
    return f"trial_{hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]}"


def is_complete(run_dir: Path) -> bool:
    """Whether train.py came to its end, by epochs or for want of improvement."""
    return (run_dir / "evaluation.json").is_file()


def read_log(run_dir: Path) -> list[dict]:
    """The validated epochs of a run."""
    path = run_dir / "log.csv"
    return pd.read_csv(path).dropna(subset="val_correlation").to_dict("records") if path.is_file() else []


def last_line(path: Path) -> str:
    """What train.py said last."""
    return path.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


def begun(sweep_dir: Path) -> list[dict]:
    """The values of all trials below a folder, in the order in which they were begun."""
    files = sorted(sweep_dir.glob("trial_*/trial.json"), key=lambda path: path.stat().st_mtime_ns)
    return [io.read_json(path) for path in files]


def tabulate(sweep_dir: Path, failed: set[str]) -> pd.DataFrame:
    """One row for each trial, the best first: name, correlation, epochs, how it ended, values. failed: names."""
    rows = []
    for params in begun(sweep_dir):
        name = trial_name(params)
        log = pd.DataFrame(read_log(sweep_dir / name), columns=["epoch", "val_correlation"])
        best = log.loc[log["val_correlation"].idxmax()] if len(log) else {"val_correlation": math.nan, "epoch": 0}
        ended = "complete" if is_complete(sweep_dir / name) else "failed" if name in failed else "stopped"
        rows.append(
            {
                "trial": name,
                "correlation": best["val_correlation"],
                "best_epoch": int(best["epoch"]),
                "epochs": int(log["epoch"].max()) if len(log) else 0,
                "ended": ended,
                **params,
            }
        )
    return pd.DataFrame(rows).sort_values("correlation", ascending=False, ignore_index=True)
