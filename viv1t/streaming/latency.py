"""How long frames waited for their responses, in bounded memory however long a session is."""

import math

import numpy as np

LOW, HIGH, STEP = 1e-6, 1e4, 1.005  # seconds; a bin is half a percent wide
PERCENTILES = (50, 95, 99)


class Latency:
    """A histogram of logarithmic bins: percentiles to half a percent, the largest value exactly."""

    def __init__(self):
        self.counts = np.zeros(math.ceil(math.log(HIGH / LOW, STEP)) + 1, np.int64)
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        at = math.log(min(max(seconds, LOW), HIGH) / LOW, STEP)
        self.counts[round(at)] += 1
        self.largest = max(self.largest, seconds)

    def merge(self, other: "Latency") -> None:
        self.counts += other.counts
        self.largest = max(self.largest, other.largest)

    @property
    def frames(self) -> int:
        return int(self.counts.sum())

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of the frames needed at most; NaN before the first frame."""
        if not self.frames:
            return math.nan
        rank = max(math.ceil(percent / 100 * self.frames), 1)
        at = int(np.searchsorted(self.counts.cumsum(), rank))
        return min(LOW * STEP**at, self.largest)

    def milliseconds(self) -> dict[str, float | None]:
        """p50, p95, p99 and max in ms; None before the first frame."""
        told = {f"p{percent}": self.percentile(percent) for percent in PERCENTILES} | {"max": self.largest}
        return {name: round(1000 * value, 3) if self.frames else None for name, value in told.items()}


def in_words(milliseconds: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in milliseconds.items() if value is not None) + " ms"
