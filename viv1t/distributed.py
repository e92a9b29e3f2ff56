"""Several processes that train or predict together; the one module that knows torch.distributed.

torchrun, or a scheduler, starts one process for each GPU (or group of CPU cores) and numbers them in the environment:
RANK of WORLD_SIZE, LOCAL_RANK on this machine, MASTER_ADDR and MASTER_PORT to meet at. Inside `joined()` they can
talk; without these variables there is one process, and every function here does what it does for one.

GPU tensors travel by NCCL, everything else by gloo, which notices at once when a process is gone.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from viv1t import cli
from viv1t.errors import UserError

MEETING = timedelta(minutes=10)  # that a process waits for the others to start
SILENCE = timedelta(minutes=30)  # after which one that does not answer counts as lost
PARTING = 30.0  # s that a process waits for the next to leave
BUCKET = 1 << 24  # gradients that travel at once: 64 MiB


class Lost(UserError):
    """Another process is gone."""

    def __init__(self, reason: BaseException):
        reason = str(reason).strip().split("\n")[0][-80:]
        super().__init__(f"another process ended or fell silent ({reason}). Run the same command again to go on.")


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the processes that were started together, for the time of a block.

    Only the main one writes to the standard output. Whatever ends one of them ends all: the first that fails raises
    what ended it, for the others that is SystemExit(2).
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or _are_joined():
        yield
        return
    store = _meet()
    cli.at_end(_end)
    try:
        with contextlib.nullcontext() if is_main() else _quiet():
            yield
    except SystemExit:  # agreed by all
        _leave(store)
        raise
    except BaseException:
        if not _is_first_to_fail(store):
            raise SystemExit(2) from None
        raise
    _leave(store)


def _leave(store) -> None:
    """Close the connections, one process after another, the host of the store last."""
    number, end = rank(), time.monotonic() + PARTING
    with contextlib.suppress(RuntimeError), _hushed():  # the next is gone already
        while number + 1 < size() and not store.check([f"left {number + 1}"]) and time.monotonic() < end:
            time.sleep(0.01)
    dist.destroy_process_group()
    with contextlib.suppress(RuntimeError), _hushed():
        store.set(f"left {number}", "1")


def _end(code: int) -> None:
    """End this process now. Where Python takes itself down below PyTorch's threads, they were seen to abort it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _are_joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _meet():
    """Wait for the other processes; returns the store that all can reach."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(f"WORLD_SIZE is set but {missing[0]} is not: start several processes with torchrun.")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, number, size = next(dist.rendezvous("env://", timeout=MEETING))
        dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=SILENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(f"cannot meet the other processes at {where}: {str(error).splitlines()[0]}") from None
    return store


def _is_first_to_fail(store) -> bool:
    try:
        with _hushed():
            return store.add("failed", 1) == 1
    except RuntimeError:  # its host is gone, and has said why
        return False


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Without what PyTorch's own code writes to the standard error, page-long where a connection ends."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No output and no progress bars; errors are still shown."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(_ErrorsOnly(sys.stderr)),
    ):
        yield


class _ErrorsOnly(io.TextIOBase):
    """A standard error that is no terminal, so that bars do not show on it."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> int:
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _are_joined() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _are_joined() else 1


def is_main() -> bool:
    """Whether this process reports, and writes what is written once."""
    return rank() == 0


def neighbours() -> int:
    """Processes on this machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if _are_joined() else 1


def main_only(context):
    """A context that the main process enters alone."""
    return context if is_main() else contextlib.nullcontext()


def main_does(do: Callable, *args, **kwargs) -> bool:
    """Let the main process do something while the others wait; whether it returned something true, on all of them."""
    done = do(*args, **kwargs) if is_main() else None
    return bool(gather_numbers([bool(done)])[0, 0])


def share(items: Sequence) -> Sequence:
    """The items of this process, when they are dealt out one by one."""
    return items[rank() :: size()]


def gpu(name: str) -> str:
    """The CUDA device of this process when `--device name` means a GPU; one of its own for each."""
    if size() == 1:
        return name
    local, found = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if ":" in name:
        raise UserError(f"--device {name}: {size()} processes need a GPU each. Leave --device out, or start one.")
    if local >= found:
        raise UserError(f"{neighbours()} processes on a machine of {found} GPUs: start one for each GPU.")
    torch.cuda.set_device(local)
    return f"cuda:{local}"


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Lost(error) from None


def barrier() -> None:
    """Wait until every process is here."""
    gather_numbers([0])


def gather_numbers(numbers: Sequence[float]) -> np.ndarray:
    """As many numbers of each process, on every process: (processes, numbers) float64."""
    mine = torch.tensor(numbers, dtype=torch.float64)
    if size() == 1:
        return mine.numpy()[None]
    everyone = [torch.empty_like(mine) for _ in range(size())]
    with _talking():
        dist.all_gather(everyone, mine)
    return torch.stack(everyone).numpy()


def gather(value) -> list:
    """A value of each process, on every process: tensors and plain values, also nested."""
    if size() == 1:
        return [value]
    mine = _pack(value)
    sizes, values = gather_numbers([len(mine)])[:, 0], []
    for source in range(size()):
        content = mine if source == rank() else torch.empty(int(sizes[source]), dtype=torch.uint8)
        with _talking():
            dist.broadcast(content, src=source)
        values.append(value if source == rank() else _unpack(content))
    return values


def collect(value) -> list:
    """A value of each process, on the main one alone, which holds one in transit at a time; elsewhere []."""
    if size() == 1:
        return [value]
    mine = _pack(None if is_main() else value)
    sizes, values = gather_numbers([len(mine)])[:, 0], []
    with _talking():
        if not is_main():
            dist.send(mine, dst=0)
            return []
        for source in range(1, size()):
            content = torch.empty(int(sizes[source]), dtype=torch.uint8)
            dist.recv(content, src=source)
            values.append(_unpack(content))
    return [value, *values]


def _pack(value) -> Tensor:
    """A value as bytes (n,) uint8."""
    content = io.BytesIO()
    torch.save(value, content)
    return torch.frombuffer(content.getbuffer(), dtype=torch.uint8)


def _unpack(content: Tensor):
    return torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True)


def group(ranks: Sequence[int]):
    """Some of the processes, to add up among themselves; every process must call this, in the same order."""
    return dist.new_group(list(ranks)) if 1 < len(ranks) < size() else None


def add_gradients(parameters: Sequence[torch.nn.Parameter], among=None) -> None:
    """Sum the gradients over all processes, or `among` a group; one that nobody has stays None.

    They travel in buckets of about 64 MiB, flattened, behind a flag for each parameter that has a gradient.
    """
    for part in _buckets(parameters):
        like = part[0]
        flags = torch.tensor([p.grad is not None for p in part], dtype=like.dtype, device=like.device)
        values = [torch.zeros_like(p) if p.grad is None else p.grad for p in part]
        flat = torch.cat([flags, *(value.reshape(-1) for value in values)])
        with _talking():
            dist.all_reduce(flat, group=among)
        sums = flat[len(part) :].split([p.numel() for p in part])
        for parameter, total, present in zip(part, sums, flat[: len(part)].tolist(), strict=True):
            parameter.grad = total.view_as(parameter) if present else None


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    part, filled = [], 0
    for parameter in parameters:
        if part and filled + parameter.numel() > BUCKET:
            yield part
            part, filled = [], 0
        part.append(parameter)
        filled += parameter.numel()
    if part:
        yield part
