"""A command killed with kill -9 at any moment, and given again, ends in the same bits as an undisturbed one."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kill_anywhere.py"
STAGES = ("simulate", "cache", "train", "predict", "probe")


def test_results_are_the_same_after_kills():
    command = [sys.executable, SCRIPT, "--times", "2", "--stages", *STAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("identical") == len(STAGES)
