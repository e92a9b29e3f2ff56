"""Leave in order when asked to.

SIGINT (Ctrl-C), SIGTERM, and SIGUSR1, by which schedulers announce that a job will be preempted.
"""

import signal
import threading
import time


class Interrupt:
    """Note a signal so that the loop can stop at the next step; Ctrl-C again stops at once.

    Launchers may pass one Ctrl-C on twice: what comes within a second is the same one.
    """

    def __init__(self):
        self.signal = 0
        self.since = 0.0

    def __bool__(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> "Interrupt":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame) -> None:
        if not self.signal:
            self.signal, self.since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.since > 1:
            raise KeyboardInterrupt

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
