"""What `meta/` says of a recording: tiers, neurons, monitor and ids, each checked as it is read."""

import dataclasses
from pathlib import Path

import numpy as np

from viv1t.cli import did_you_mean
from viv1t.constants import FPS, TIERS
from viv1t.data import npy
from viv1t.data.mice import known_monitor
from viv1t.errors import UserError
from viv1t.geometry import Monitor
from viv1t.io import read_json


def read_tiers(directory: Path) -> np.ndarray:
    """Canonical tier name per trial (n_trials,)."""
    path = directory / "meta" / "trials" / "tiers.npy"
    raw = npy.load(path)
    if raw.ndim != 1 or raw.dtype.kind not in "US":
        raise UserError(f"{path}: expected one tier name per trial, found {raw.dtype} {raw.shape}.")
    names = [str(name) for name in raw.astype(np.str_)]
    for name in sorted(set(names)):
        if name not in TIERS and name not in TIERS.values():
            raise UserError(
                f"{path}: tier '{name}' is unknown{did_you_mean(name, list(TIERS))}; one of {tier_names()}."
            )
    tiers = np.array([TIERS.get(name, name) for name in names], dtype=np.str_)
    if not np.any(tiers != "none"):
        raise UserError(f"{path}: no usable trial (every tier is 'none' or the file is empty).")
    return tiers


def read_neurons(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (N, 3) float32 um and unit ids (N,) int64, by default 0 to N - 1."""
    folder = directory / "meta" / "neurons"
    path = folder / "cell_motor_coordinates.npy"
    coordinates = npy.load(path)
    if coordinates.ndim != 2 or coordinates.shape[1] != 3 or not len(coordinates):
        raise UserError(f"{path}: expected coordinates (neurons, 3) in um, found shape {coordinates.shape}.")
    coordinates = coordinates.astype(np.float32)
    if not np.isfinite(coordinates).all():
        row = int(np.flatnonzero(~np.isfinite(coordinates).all(axis=1))[0])
        raise UserError(f"{path}: the coordinates of neuron {row} are not finite.")
    path = folder / "unit_ids.npy"
    unit_ids = npy.load(path) if path.is_file() else np.arange(len(coordinates))
    if unit_ids.shape != (len(coordinates),) or unit_ids.dtype.kind not in "iuf":
        raise UserError(
            f"{path}: expected {len(coordinates)} numbers (as many as coordinates), found {unit_ids.shape}."
        )
    unique, counts = np.unique(unit_ids, return_counts=True)
    if len(unique) < len(unit_ids):
        raise UserError(f"{path}: unit id {unique[counts.argmax()]} occurs {counts.max()} times. Keep one row of it.")
    return coordinates, unit_ids.astype(np.int64)


def read_monitor(directory: Path, lab: str) -> tuple[Monitor | None, float]:
    """Monitor (None if unknown) and frames per second: the recording's own, else its lab's."""
    path, fps = directory / "meta" / "monitor.json", float(FPS)
    if path.is_file():
        values = read_json(path)
        try:
            fps = float(values.pop("fps", FPS))
            monitor = Monitor(**values)
        except (TypeError, AttributeError, ValueError):
            known = ", ".join(field.name for field in dataclasses.fields(Monitor))
            raise UserError(f"{path}: expected numbers named {known} and fps.") from None
    else:
        monitor = known_monitor(lab)
        if monitor is None:
            print(f"{directory}: no meta/monitor.json, so showing stimuli in degrees to its twin will take --monitor.")
    return monitor, fps


def read_ids(directory: Path, name: str, tiers: np.ndarray) -> np.ndarray | None:
    """Ids (n_trials,) stored as meta/trials/<name>.npy, -1 for unusable trials; None if there is no such file."""
    path = directory / "meta" / "trials" / f"{name}.npy"
    if not path.is_file():
        return None
    ids = npy.load(path)
    if ids.shape != (len(tiers),) or ids.dtype.kind not in "iuf" or not np.isfinite(ids).all():
        raise UserError(f"{path}: expected {len(tiers)} whole numbers, found {ids.dtype} {ids.shape}. Delete it.")
    return np.where(tiers == "none", -1, ids.astype(np.int64))


def tier_names() -> str:
    return ", ".join(TIERS)
