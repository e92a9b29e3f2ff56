"""Tasks in several processes whose results do not depend on how many there are."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import connection, get_context, parent_process

import torch


class Workers:
    """Context that runs tasks here (one worker) or in processes; each uses one thread, so that sums have one order."""

    def __init__(self, count: int):
        self.count, self.executor = count, None

    def __enter__(self) -> "Workers":
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)
        if self.count > 1:
            self.executor = ProcessPoolExecutor(self.count, get_context("spawn"), _start)
        return self

    def __exit__(self, *error) -> None:
        if self.executor:
            self.executor.shutdown(cancel_futures=True)
        torch.set_num_threads(self.threads)

    def run(self, function: Callable, tasks: list[tuple]) -> Iterator:
        """Results of function(*task) as they come, in any order."""
        if self.executor is None:
            yield from (function(*task) for task in tasks)
            return
        for future in as_completed([self.executor.submit(function, *task) for task in tasks]):
            yield future.result()


def _start() -> None:
    """A worker leaves interrupts to its parent, and does not outlive it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)
