"""Direction tuning curves of one mouse, on disk between the script that measures them and those that use them."""

import io as memory
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from viv1t import io
from viv1t.errors import UserError


@dataclass(frozen=True)
class Curves:
    """Mean responses of N neurons to D directions of motion (degrees), in recorded units.

    label: who answered, "recorded", "twin" or "animal"; neurons (N,): rows of the recording; coordinates (N, 3) um;
    baseline (N,): what counts as no response; mean (N, D); sem (N, D) over repeats, NaN where there are none;
    halves (2, N, D): from two halves of the repeats, both the mean where nothing was repeated; reliability (N,): of
    the mean, 1 without noise.
    """

    label: str
    neurons: np.ndarray
    coordinates: np.ndarray
    angles: np.ndarray
    baseline: np.ndarray
    mean: np.ndarray
    sem: np.ndarray
    halves: np.ndarray
    reliability: np.ndarray

    def of(self, neurons: np.ndarray) -> "Curves":
        """The curves of some neurons, by their rows of the recording, which must all be there."""
        rows = np.searchsorted(self.neurons, neurons)
        parts = {name: values[rows] for name, values in self._arrays().items() if name not in ("angles", "halves")}
        return Curves(self.label, angles=self.angles, halves=self.halves[:, rows], **parts)

    def write(self, path: Path) -> None:
        content = memory.BytesIO()  # the same content gives the same bytes
        np.savez(content, label=np.array(self.label), **self._arrays())
        with io.replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    @classmethod
    def read(cls, path: Path) -> "Curves":
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(str(file["label"]), **{name: file[name] for name in file.files if name != "label"})
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a file of tuning curves ({error}). Delete it and make it again.") from None

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: values for name, values in asdict(self).items() if name != "label"}


def shared_neurons(*curves: Curves) -> np.ndarray:
    """Rows of the recording that all have, ascending."""
    shared = curves[0].neurons
    for other in curves[1:]:
        shared = np.intersect1d(shared, other.neurons)
    return shared
