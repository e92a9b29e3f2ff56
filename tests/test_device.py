"""What the machine offers is found and told, limits of containers and of the shell included."""

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from viv1t import device
from viv1t.errors import UserError

CPU = torch.device("cpu")


def test_report_names_the_cpu_its_memory_and_a_limit_of_the_shell():
    command = f"ulimit -v 60000000; exec {sys.executable} -m viv1t.device"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"torch {torch.__version__}")
    assert any(line.startswith("cpu ") and "threads" in line and "bfloat16" in line for line in lines)
    total, _ = device.main_memory()
    assert ("ulimit -v" in done.stdout) == (total > 60000000 * 1024)


@pytest.mark.parametrize(
    ("membership", "top", "names"),
    [
        ("3:cpu:/x\n4:memory:/job/step\n", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
        ("0::/job/step\n", "", ("memory.max", "memory.current")),
    ],
)
def test_limits_of_the_groups_around_a_process_are_found(membership, top, names, tmp_path):
    """A step of a batch job: the limit is the job's."""
    (tmp_path / "membership").write_text(membership)
    for folder, values in {"job": ("4000000", "1000000"), "job/step": ("max", "7")}.items():
        folder = tmp_path / top / folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, values, strict=True):
            (folder / name).write_text(f"{value}\n")
    (tmp_path / top / "job" / "memory.stat").write_text("cache 900000\ninactive_file 600000\n")
    found = device.group_limits(tmp_path / "membership", tmp_path)
    assert found == [(str(tmp_path / top / "job"), 4000000, 400000)]
    assert device.group_limits(tmp_path / "nothing", tmp_path) == []


def test_peak_of_memory_grows_with_what_is_taken():
    before = device.reset_peak_memory(CPU)
    taken = np.frombuffer(mmap.mmap(-1, 1 << 26), np.uint8)  # 64 MiB from the system; a heap may have them left over
    taken[:] = 1
    assert device.peak_memory(CPU) - before > taken.nbytes / 2


def test_a_device_that_is_not_there_names_those_that_are():
    with pytest.raises(UserError, match="this machine offers .*cpu"):
        device.choose_device("tpu")
