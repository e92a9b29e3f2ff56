"""The machine underneath: which device, which precision, how much memory.

python -m viv1t.device prints all of it.
"""

import contextlib
import ctypes
import gc
import os
import platform
import resource
import sys
from pathlib import Path

import torch

from viv1t import cli, distributed
from viv1t.errors import UserError

DEVICES = ("cuda", "mps", "cpu")  # best first


def choose_device(name: str = "") -> torch.device:
    """The named device, or the best one present for "" and "auto"; of several processes, each has a GPU of its own.

    Float32 products on CUDA may use TF32.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name in ("", "auto"):
        name = next(device for device in DEVICES if present[device])
    kind = name.split(":")[0]
    if not present.get(kind, False):
        found = ", ".join(device for device in DEVICES if present[device])
        raise UserError(f"--device {name}: this machine offers {found}. Leave --device out to take the best.")
    if kind == "mps" and distributed.size() > 1:
        raise UserError("--device mps: several processes share CPUs or CUDA GPUs. Use --device cpu, or start one.")
    if kind == "cuda":
        if ":" in name and int(name.split(":")[1]) >= torch.cuda.device_count():
            raise UserError(
                f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0."
            )
        name = distributed.gpu(name)
        torch.set_float32_matmul_precision("high")
    if kind == "cpu":
        keep_freed_memory()
    return torch.device(name)


def keep_freed_memory() -> None:
    """Let the C library keep up to 1 GB that tensors gave back; asking for it anew costs about 5 % of a step.

    Where it is not glibc, nothing happens.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 32 << 20)
        library.mallopt(trim_threshold, 1 << 30)


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({available_memory(device) / 2**30:.0f} GB free)"
    if device.type == "mps":
        return "Apple GPU"
    return f"{torch.get_num_threads()} CPU threads ({available_memory(device) / 2**30:.0f} GB free)"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware: CUDA capability 8 or newer, or a CPU with AMX or AVX512-bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and platform.machine().lower() in {"x86_64", "amd64"}:
        return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def autocast_dtype(mode: str, device: torch.device) -> torch.dtype | None:
    """Dtype of the core's matrix products: bfloat16, or None for float32. `mode` is auto, enable or disable."""
    if mode == "disable":
        return None
    fast = has_fast_bfloat16(device)
    if mode == "enable" and not fast:
        raise UserError(
            f"--autocast enable: {describe(device)} has no bfloat16 arithmetic. Use --autocast auto or disable."
        )
    return torch.bfloat16 if fast else None


def available_memory(device: torch.device) -> int:
    """Bytes that can still be taken on the device, or by each process of this machine from its main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    _, free = main_memory()
    return min([free, *(limit - used for _, limit, used in memory_limits())]) // distributed.neighbours()


def main_memory() -> tuple[int, int]:
    """Bytes of main memory, and how many of them are free."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total, _from_proc("meminfo", "MemAvailable") or total // 2


def memory_limits() -> list[tuple[str, int, int]]:
    """(whose, limit, used) bytes, of every limit below the main memory: of a container, of a batch job, of ulimit."""
    found = [("ulimit -v", resource.getrlimit(resource.RLIMIT_AS)[0], _from_proc("self/status", "VmSize"))]
    found += group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    total, _ = main_memory()
    return [entry for entry in found if 0 <= entry[1] < total]


def group_limits(membership: Path, root: Path) -> list[tuple[str, int, int]]:
    """(folder, limit, used) bytes of the control groups around a process, versions 1 and 2."""
    found = []
    with contextlib.suppress(OSError):  # no Linux
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                top, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            elif not controllers:
                top, limit, used = root, "memory.max", "memory.current"
            else:
                continue
            inner = top / path.lstrip("/")
            for folder in (inner, *inner.parents):
                with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                    taken = int((folder / used).read_text()) - _read_files(folder / "memory.stat")
                    found.append((str(folder), int((folder / limit).read_text()), taken))
    return found


def _read_files(statistics: Path) -> int:
    """Bytes of files that a control group keeps in memory but would drop if it needed the space."""
    fields = dict(line.split() for line in statistics.read_text().splitlines()) if statistics.exists() else {}
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


def _from_proc(file: str, name: str) -> int:
    """A number of bytes in a table below /proc; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in (Path("/proc") / file).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak_memory(device: torch.device) -> int:
    """Forget the peak so far; returns the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _from_proc("self/status", "VmRSS") or peak_memory(device)


def peak_memory(device: torch.device) -> int:
    """Most bytes that were in use at once, by tensors on a GPU or by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return _from_proc("self/status", "VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, where libraries below PyTorch tell it in words only."""
    words = ("can't allocate memory", "out of memory", "bad_alloc", "could not create a", "could not execute a")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in words)


def does_not_fit(error: BaseException) -> UserError:
    """What to say when memory runs out at the smallest part of a step."""
    reason = str(error).strip().split("\n")[0][:80] or type(error).__name__
    return UserError(
        f"one trial does not fit into memory ({reason}). Add --grad_checkpointing 1, or choose a shorter --crop_frame."
    )


def free_unused() -> None:
    """Give back the memory that no tensor uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # of the C library, if it can
        ctypes.CDLL(None).malloc_trim(0)


def make_deterministic() -> None:
    """Only algorithms that give the same bits every time; slower. Call before the first CUDA operation."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def report() -> str:
    """Every device of this machine, and what limits it, one line each."""
    lines = [f"torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}"]
    if torch.version.cuda:
        lines.append(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
        with contextlib.suppress(OSError):
            lines.append(Path("/proc/driver/nvidia/version").read_text().splitlines()[0])
    return "\n".join([*lines, *map(_cuda_line, range(torch.cuda.device_count())), *_mps_lines(), *_cpu_lines()])


def _cuda_line(index: int) -> str:
    free, total = torch.cuda.mem_get_info(index)
    major, minor = torch.cuda.get_device_capability(index)
    recent = "yes" if major >= 8 else "no"
    return (
        f"cuda:{index}  {torch.cuda.get_device_name(index)}, capability {major}.{minor}, {gigabytes(free)} of "
        f"{gigabytes(total)} free, bfloat16 {recent}, TF32 {recent}"
    )


def _mps_lines() -> list[str]:
    return ["mps     Apple GPU, in main memory"] if torch.backends.mps.is_available() else []


def _cpu_lines() -> list[str]:
    total, free = main_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fast = "yes (AMX or AVX512-bf16)" if has_fast_bfloat16(torch.device("cpu")) else "no"
    return [
        f"cpu     {platform.machine()}, {cores} cores, {torch.get_num_threads()} threads, {gigabytes(free)} of "
        f"{gigabytes(total)} free, vectors {torch.backends.cpu.get_cpu_capability()}, bfloat16 {fast}",
        *(f"        limit {gigabytes(limit)}, {gigabytes(used)} used: {of}" for of, limit, used in memory_limits()),
    ]


def gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"


def main(args) -> None:
    print(report())


if __name__ == "__main__":
    cli.run(main, cli.Parser(__doc__))
