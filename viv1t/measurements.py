"""Responses of a twin, an animal or a recording to the conditions of an experiment, on disk in one schema.

One HDF5 file for each mouse: `responses` (conditions, N) or (conditions, N, frames) float32, NaN where a neuron was
not shown a condition; `spontaneous` (N,), the response to grey; `centre` (N, 2), pixel (x, y) on which stimuli were
centred, NaN for neurons that were shown nothing; `neurons`, `unit_ids`, `coordinates` (um); a dataset for each column
of the table of conditions. The attribute `about` is a JSON object: mouse, source, monitor, timeline, window, ...
"""

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from viv1t.errors import UserError
from viv1t.geometry import Monitor
from viv1t.io import replacing

PER_NEURON = ("neurons", "unit_ids", "coordinates", "centre", "spontaneous")


def write_measurement(
    path: Path | str,
    blocks: Iterable[np.ndarray],
    shape: tuple[int, ...],
    conditions: pd.DataFrame,
    per_neuron: dict[str, np.ndarray],
    about: dict,
) -> None:
    """Write one file, atomically, from blocks (some conditions, N[, frames]) that follow each other."""
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        file.attrs["about"] = json.dumps(about, sort_keys=True)
        responses = file.create_dataset("responses", shape, np.float32, track_times=False)
        done = 0
        for block in blocks:
            responses[done : done + len(block)] = block
            done += len(block)
        if done != shape[0]:
            raise ValueError(f"{done} conditions were written, {shape[0]} were expected")
        for name in PER_NEURON:
            file.create_dataset(name, data=per_neuron[name], track_times=False)
        columns = file.create_group("conditions", track_order=True)
        for name, column in conditions.items():
            text = column.dtype == object or pd.api.types.is_string_dtype(column)
            data = column.astype(object).to_numpy() if text else column.to_numpy()
            columns.create_dataset(name, data=data, dtype=h5py.string_dtype() if text else None, track_times=False)


class Measurement(AbstractContextManager):
    """A file of `write_measurement`, opened for reading.

    conditions: DataFrame; about: dict; neurons, unit_ids (N,), coordinates (N, 3), centre (N, 2), spontaneous (N,);
    responses: an HDF5 dataset (conditions, N[, frames]), of which slices are read.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            self.file = h5py.File(self.path, "r")
            self.about = json.loads(self.file.attrs["about"])
            self.responses = self.file["responses"]
            self.neurons, self.unit_ids, self.coordinates, self.centre, self.spontaneous = (
                self.file[name][:] for name in PER_NEURON
            )
            columns = self.file["conditions"]
            self.conditions = pd.DataFrame({name: _column(columns[name]) for name in columns})
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file.") from None
        except (OSError, KeyError, ValueError) as error:
            raise UserError(
                f"{self.path}: damaged, or not a file of responses to an experiment ({str(error).splitlines()[0]}). "
                "Delete it and make it again."
            ) from None

    @property
    def monitor(self) -> Monitor:
        return Monitor(**self.about["monitor"])

    @property
    def shown(self) -> np.ndarray:
        """(N,) bool: neurons that were shown the stimuli."""
        return np.isfinite(self.centre).all(axis=1)

    def __exit__(self, *_) -> None:
        self.file.close()


def _column(data: h5py.Dataset) -> np.ndarray:
    return data.asstr()[:] if h5py.check_string_dtype(data.dtype) else data[:]
