"""Frames that wait for a twin that is late."""

import dataclasses
from collections import deque

from viv1t.streaming.protocol import Frame

LATE = ("queue", "drop")  # the source waits, or the oldest waiting frame is given up


class Waiting:
    """At most `limit` frames, each with the moment it arrived (seconds). dropped: how many were given up."""

    def __init__(self, limit: int, when_late: str):
        self.limit, self.drop = limit, when_late == "drop"
        self.frames: deque[tuple[float, Frame]] = deque()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self.frames)

    def offer(self, arrived: float, frame: Frame) -> bool:
        """Whether there was room, or room was made; the start of a session outlives the frame that announced it."""
        if len(self.frames) == self.limit and not self.drop:
            return False
        self.frames.append((arrived, frame))
        if len(self.frames) > self.limit:
            _, lost = self.frames.popleft()
            self.dropped += 1
            if lost.first:
                self.frames[0] = self.frames[0][0], dataclasses.replace(self.frames[0][1], first=True)
        return True

    def take(self) -> tuple[float, Frame]:
        return self.frames.popleft()
