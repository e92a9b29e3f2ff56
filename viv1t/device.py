"""The machine underneath: which device, which precision, how much memory."""

import os
import platform
from pathlib import Path

import torch

from viv1t.errors import UserError

DEVICES = ("cuda", "mps", "cpu")  # best first


def choose_device(name: str = "") -> torch.device:
    """The named device, or the best one present for "" and "auto". Float32 products on CUDA may use TF32."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name in ("", "auto"):
        name = next(device for device in DEVICES if present[device])
    kind = name.split(":")[0]
    if not present.get(kind, False):
        found = ", ".join(device for device in DEVICES if present[device])
        raise UserError(f"--device {name}: this machine offers {found}. Leave --device out to take the best.")
    if kind == "cuda":
        if ":" in name and int(name.split(":")[1]) >= torch.cuda.device_count():
            raise UserError(
                f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0."
            )
        torch.set_float32_matmul_precision("high")
    return torch.device(name)


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
    """Bytes that can still be taken on the device, or from main memory (within the limit of a container)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free.append(int(fields["MemAvailable"].split()[0]) * 1024)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free.append(int(limit.read_text()) - int(used.read_text()))
    if not free:
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(free)


def make_deterministic() -> None:
    """Only algorithms that give the same bits every time; slower. Call before the first CUDA operation."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
