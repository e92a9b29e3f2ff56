"""Run an experiment on a twin or an animal: conditions x audiences -> one file of responses.

An audience is a set of neurons that is shown the same frames, e.g. all whose field lies on one pixel. Finished parts
(one audience, some conditions) are kept beside the file, so that a run that is killed goes on where it was; several
processes share the parts. Memory holds one part, whatever the number of conditions.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from viv1t import distributed, io
from viv1t.errors import UserError
from viv1t.geometry import Monitor
from viv1t.measurements import Measurement, write_measurement
from viv1t.presentation import Timeline, Window
from viv1t.stimulus.levels import grey_levels
from viv1t.subjects import Subject

CONDITIONS_A_PART = 128


@dataclass(frozen=True)
class Audience:
    """Neurons (n,) that are shown the same frames, with stimuli centred on pixel (x, y).

    own: what else is theirs and stimuli are made from, e.g. the preferred direction.
    """

    neurons: np.ndarray
    centre: tuple[float, float]
    own: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """What is shown and what is kept of the responses.

    conditions: one row for each pattern; draw(monitor, condition, audience) -> contrast (pattern, H, W) in [-1, 1];
    window: what is averaged into one number, or None for whole traces; about: further settings, kept with the results.
    """

    conditions: pd.DataFrame
    draw: Callable[[Monitor, dict, Audience], np.ndarray]
    timeline: Timeline
    window: Window | None
    about: dict


def run(subject: Subject, experiment: Experiment, audiences: Sequence[Audience], path: Path, batch_size: int) -> None:
    """Write the responses of a subject to `path` (see `viv1t.measurements`); does nothing if they are there."""
    if not audiences:
        raise UserError(f"mouse {subject.id}: no neuron to show stimuli to.")
    for audience in audiences:
        require_on_screen(subject, audience)
    about = describe(subject, experiment, audiences)
    if _written(path) == about:
        print(f"mouse {subject.id}: nothing to show, {path} is complete.")
        return
    folder = path.with_name(f".{path.stem}.parts")
    distributed.main_does(io.open_parts, folder, about)
    rows = range(0, len(experiment.conditions), CONDITIONS_A_PART)
    parts = [(a, start) for a in range(len(audiences)) for start in rows]
    show_parts(subject, experiment, audiences, distributed.share(parts), folder, batch_size)
    distributed.barrier()
    distributed.main_does(assemble, subject, experiment, audiences, folder, path, about)
    shown = sum(len(audience.neurons) for audience in audiences)
    count = len(experiment.conditions)
    print(f"mouse {subject.id}: {count} conditions, {shown} of {subject.num_neurons} neurons, {path}")


def require_on_screen(subject: Subject, audience: Audience) -> None:
    (x, y), monitor = audience.centre, subject.monitor
    if not (-0.5 <= x <= monitor.width - 0.5 and -0.5 <= y <= monitor.height - 0.5):
        raise UserError(
            f"mouse {subject.id}: neuron {subject.neurons[audience.neurons[0]]} would be shown a stimulus centred on "
            f"({x:.1f}, {y:.1f}), off the screen of {monitor.width} x {monitor.height} pixels. Check aRF.csv."
        )


def describe(subject: Subject, experiment: Experiment, audiences: Sequence[Audience]) -> dict:
    """Everything that the responses depend on, as plain values; equal if and only if they need not be made again."""
    digest = hashlib.sha256(experiment.conditions.to_csv(index=False).encode())
    for audience in audiences:
        digest.update(json.dumps([audience.neurons.tolist(), audience.centre, audience.own], default=float).encode())
    window = asdict(experiment.window) if experiment.window else None
    about = subject.about() | experiment.about | {"timeline": asdict(experiment.timeline), "window": window}
    return json.loads(json.dumps(about | {"design": digest.hexdigest()[:16]}, default=float))


def show_parts(subject, experiment, audiences, parts, folder: Path, batch_size: int) -> None:
    """One .npy file (conditions, n[, frames]) for each part that has none yet."""
    table, listening = experiment.conditions.to_dict("records"), None
    sizes = {part: len(table[part[1] : part[1] + CONDITIONS_A_PART]) for part in parts}
    missing = [part for part in parts if not part_file(folder, part).is_file()]
    if not missing:
        return
    presenter = subject.presenter(experiment.timeline)
    done = sum(sizes.values()) - sum(sizes[part] for part in missing)
    with tqdm(
        total=sum(sizes.values()), initial=done, desc=f"mouse {subject.id}", unit="pattern", disable=None
    ) as bar:
        for part in missing:
            audience, rows = audiences[part[0]], table[part[1] : part[1] + CONDITIONS_A_PART]
            if listening != part[0]:
                presenter.listen(audience.neurons)
                listening = part[0]
            found = []
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                patterns = np.stack([grey_levels(experiment.draw(subject.monitor, row, audience)) for row in batch])
                first = part[1] + start
                responses = presenter.show(patterns, range(first, first + len(batch)))
                found.append(experiment.window.mean(responses, subject.fps) if experiment.window else responses)
                bar.update(len(batch))
            if part[1] == 0:
                io.write_array(part_file(folder, (part[0], "grey")), presenter.spontaneous())
            io.write_array(part_file(folder, part), np.concatenate(found).astype(np.float32))


def part_file(folder: Path, part: tuple) -> Path:
    return folder / f"{part[0]}_{part[1]}.npy"


def assemble(subject, experiment, audiences, folder: Path, path: Path, about: dict) -> None:
    """All parts into one file, and the parts away."""
    N, frames = (
        subject.num_neurons,
        () if experiment.window else (experiment.timeline.block - experiment.timeline.before,),
    )
    centre, spontaneous = np.full((N, 2), np.nan), np.full(N, np.nan, np.float32)
    for a, audience in enumerate(audiences):
        centre[audience.neurons] = audience.centre
        spontaneous[audience.neurons] = np.load(part_file(folder, (a, "grey")), allow_pickle=False)
    per_neuron = {
        "neurons": subject.neurons,
        "unit_ids": subject.unit_ids,
        "coordinates": subject.coordinates,
        "centre": centre,
        "spontaneous": spontaneous,
    }

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(experiment.conditions), CONDITIONS_A_PART):
            rows = min(CONDITIONS_A_PART, len(experiment.conditions) - start)
            block = np.full((rows, N, *frames), np.nan, np.float32)
            for a, audience in enumerate(audiences):
                block[:, audience.neurons] = np.load(part_file(folder, (a, start)), allow_pickle=False)
            yield block

    shape = (len(experiment.conditions), N, *frames)
    write_measurement(path, blocks(), shape, experiment.conditions, per_neuron, about)
    shutil.rmtree(folder)


def _written(path: Path) -> dict | None:
    if not path.is_file():
        return None
    with Measurement(path) as measurement:
        return measurement.about


def at_screen_centre(subject: Subject) -> list[Audience]:
    """One audience of all chosen neurons, stimuli at the centre of the screen."""
    return [Audience(subject.chosen, subject.monitor.centre)]


def at_fields(subject: Subject, fields: pd.DataFrame, step: float = 1.0, own: Sequence[str] = ()) -> list[Audience]:
    """Audiences of neurons whose field centres share a cell of `step` x `step` pixels, stimuli at the cell's centre.

    fields: rows (`neuron`, `x`, `y`, `bad_fit`); neurons without a field, or with a bad one, are shown nothing, and
    counted. own: columns in which all neurons of an audience must agree, kept in `Audience.own`.
    """
    table = fields.set_index("neuron").reindex(subject.neurons[subject.chosen])
    usable = (
        ~table["bad_fit"].fillna(True).astype(bool).to_numpy() & np.isfinite(table[["x", "y"]]).all(axis=1).to_numpy()
    )
    usable &= np.isfinite(table[list(own)].astype(float)).all(axis=1).to_numpy() if own else True
    print(f"mouse {subject.id}: {usable.sum()} of {len(table)} neurons have a field to centre stimuli on.")
    table, rows = table[usable], subject.chosen[usable]
    cells = np.rint(table[["x", "y"]].to_numpy() / step).astype(int)
    keys = pd.DataFrame(cells, columns=["column", "row"]).assign(**{name: table[name].to_numpy() for name in own})
    groups = keys.groupby(list(keys), sort=True).indices
    return [
        Audience(rows[members], (key[0] * step, key[1] * step), dict(zip(own, key[2:], strict=True)))
        for key, members in groups.items()
    ]
