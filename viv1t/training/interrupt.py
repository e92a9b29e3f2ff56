"""Leave in order when asked to."""

import signal
import threading


class Interrupt:
    """Note SIGINT and SIGTERM so that the loop can stop at the next step; a second SIGINT stops at once."""

    def __init__(self):
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> "Interrupt":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
