"""A command killed with kill -9 at any moment, and given again, ends in the same bits as an undisturbed one."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("stage", ["simulate", "cache", "train", "predict"])
def test_the_result_is_the_same_after_kills(stage):
    command = [sys.executable, ROOT / "benchmarks" / "kill_anywhere.py", "--stages", stage, "--times", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical" in done.stdout
