"""Show gratings in a disc and around it to a twin, and keep what its neurons' patches attend to while it answers.

Each neuron sees them on its own receptive field, drifting its own way. Spatial attention is that of the patches which
the neuron reads, to the disc and to its surround, in multiples of uniform attention; temporal attention is that at the
same places. Attention describes the twin and proves nothing: beside it is the gradient of the same responses.

reads   RUN/ckpt (trained twins only); RUN/aRF.csv; RUN/selectivity_gratings.csv unless --directions are given
writes  RUN/contextual_modulation/attention_mouse<ID>.npz: of every neuron in every condition, the shares of disc and
        surround, maps around its field, lags. Goes on where it was stopped. With --animate a movie of stimulus,
        attention and response of the first neuron
next    visualize_attention.py
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from viv1t import cli, distributed, io
from viv1t.attention import Attended, attend, attend_in_batches, require_maps, shares
from viv1t.constants import FPS
from viv1t.errors import UserError
from viv1t.estimators.attention import around, patch_shares
from viv1t.experiment import Audience, Experiment, describe
from viv1t.looks import Looks
from viv1t.model.attention_maps import as_images, patches_of
from viv1t.movies import WRITTEN, write_movie
from viv1t.plotting import maps
from viv1t.presentation import Timeline, TwinPresenter
from viv1t.results import locate, read_fields
from viv1t.stimulus.contexts import context
from viv1t.stimulus.levels import grey_levels
from viv1t.stimulus.windows import annulus, disc
from viv1t.subjects import Subject, add_subject_flags, open_subjects
from viv1t.targets import add_target_flags, audiences, read_targets

NEURONS = 24  # of each mouse, unless some are named
PARTS = ["disc", "surround", "elsewhere"]


@dataclass(frozen=True)
class Protocol:
    """Change the experiment here or with the flags; nothing below knows a number."""

    contrasts: tuple = (0.05, 1.0)  # Michelson
    kinds: tuple = ("centre", "iso", "cross", "shift", "inverse")
    directions: tuple | None = None  # None: each neuron's own
    size: float = 20.0  # degrees, diameter of the disc
    surround: float = 80.0  # degrees, diameter to which the surround counts as such; gratings fill the screen
    phases: int = 2  # equally spaced
    cpd: float = 0.04  # cycles per degree
    hertz: float = 2.0
    frames: int = 30  # one second
    times: tuple = (0.2, 0.5, 0.8)  # s after onset at which attention is looked at
    reach: int = 16  # px around the field that maps hold
    lags: int = 45  # frames of the past that are kept


def get_parser() -> cli.Parser:
    parser, protocol = cli.Parser(__doc__), Protocol()
    add_subject_flags(parser)
    add_target_flags(parser)
    group = parser.add_argument_group("what is shown")
    group.add_argument("--contrasts", type=cli.number(float, 0, 1), nargs="+", default=protocol.contrasts,
                       metavar="X", help="Michelson contrasts (default: 0.05 1)")  # fmt: skip
    group.add_argument("--size", type=cli.number(float, 5, 90), default=protocol.size, metavar="DEG",
                       help="diameter of the disc (default: 20)")  # fmt: skip
    group.add_argument("--phases", type=cli.number(int, 1), default=protocol.phases, metavar="N",
                       help="phases of every grating (default: 2)")  # fmt: skip
    group = parser.add_argument_group("what is looked at")
    group.add_argument("--surround", type=cli.number(float, 10, 179), default=protocol.surround, metavar="DEG",
                       help="diameter to which attention is paid to the surround (default: 80)")  # fmt: skip
    group.add_argument("--times", type=cli.number(float, 0, (protocol.frames - 1) / FPS), nargs="+",
                       default=protocol.times, metavar="S", help="s after onset (default: 0.2 0.5 0.8)")  # fmt: skip
    group.add_argument("--animate", type=Path, metavar="FILE",
                       help="also write a movie of the first neuron, .mp4 or .gif")  # fmt: skip
    return parser


@dataclass(frozen=True)
class Session:
    """A mouse, and what is shown to it."""

    subject: Subject
    experiment: Experiment
    protocol: Protocol
    batch_size: int

    def patterns(self, audience: Audience, conditions: pd.DataFrame) -> np.ndarray:
        """What an audience sees (K, frames, H, W), as grey levels."""
        rows = conditions.to_dict("records")
        return np.stack([grey_levels(self.experiment.draw(self.subject.monitor, row, audience)) for row in rows])


def main(args) -> None:
    protocol, first = take_protocol(args), None
    about = {"experiment": "attention", "centre": args.centre, "protocol": asdict(protocol)}
    experiment = Experiment(make_conditions(protocol), draw, Timeline(pattern=protocol.frames), None, about)
    with distributed.joined():
        for subject in open_subjects(args):
            shown = audiences(args, choose(args, subject), read_targets(args, subject.id))
            if shown:
                session = Session(subject, experiment, protocol, args.batch_size)
                measure(session, shown, locate(args.output_dir, "attention", subject.id))
                first = first or (session, shown[0])
        if first is None:
            raise UserError(
                f"{args.output_dir}: no neuron has a field and a direction to show gratings to. See aRF.csv."
            )
        if args.animate:
            distributed.main_does(animate, args.animate, *first)


def take_protocol(args) -> Protocol:
    if args.animal:
        raise UserError("--animal: simulated animals have no attention. Leave it out, and name the run of a twin.")
    if args.surround <= args.size:
        raise UserError(f"--surround {args.surround:g}: must exceed --size {args.size:g}, both are diameters in deg.")
    if args.animate and args.animate.suffix not in WRITTEN:
        raise UserError(f"--animate {args.animate}: movies are written as {' or '.join(WRITTEN)}.")
    directions = tuple(args.directions) if args.directions else None
    return Protocol(tuple(sorted(set(args.contrasts))), directions=directions, size=args.size, surround=args.surround,
                    phases=args.phases, times=tuple(sorted(set(args.times))))  # fmt: skip


def make_conditions(protocol: Protocol) -> pd.DataFrame:
    """One row for each pattern; NaN where the direction is the neuron's own."""
    phases = np.arange(protocol.phases) * 360 / protocol.phases
    rows = product(protocol.contrasts, protocol.kinds, protocol.directions or (np.nan,), phases)
    table = pd.DataFrame(rows, columns=["contrast", "kind", "direction_deg", "phase_deg"])
    return table.assign(size_deg=protocol.size, sf_cpd=protocol.cpd, tf_hz=protocol.hertz, frames=protocol.frames)


def draw(monitor, condition: dict, audience: Audience) -> np.ndarray:
    """One pattern (frames, H, W), as contrast; the direction is the audience's own if it has one."""
    shown = condition | audience.own
    return context(
        monitor, audience.centre, shown["kind"], shown["size_deg"], shown["direction_deg"], shown["sf_cpd"],
        shown["tf_hz"], shown["frames"], shown["phase_deg"], shown["contrast"],
    )  # fmt: skip


def choose(args, subject: Subject) -> Subject:
    """The neurons that are named, or those with the clearest fields among all that stimuli can be made for."""
    if args.neurons is not None:
        return subject
    clear = read_fields(args.output_dir, [subject.id])[["neuron", "snr"]]
    targets = read_targets(args, subject.id).merge(clear, on="neuron").dropna()
    clearest = targets[~targets["bad_fit"].astype(bool)].nlargest(NEURONS, "snr")["neuron"]
    return replace(subject, chosen=np.flatnonzero(np.isin(subject.neurons, clearest)))


def measure(session: Session, shown: list[Audience], path: Path) -> None:
    """Write what a mouse's neurons attend to, part by part, one for each audience; nothing if it is there."""
    subject, experiment = session.subject, session.experiment
    about = describe(subject, experiment, shown)
    if path.is_file() and Looks.read(path).about == about:
        print(f"mouse {subject.id}: nothing to show, {path} is complete.")
        return
    presenter = subject.presenter(experiment.timeline)
    require_maps(presenter)
    for audience in shown:
        parts_of_screen(session, presenter, audience)  # whatever is wrong is told before anything is written
    folder = path.with_name(f".{path.stem}.parts")
    files = [folder / f"{a}.npz" for a in range(len(shown))]
    distributed.main_does(io.open_parts, folder, about)
    own = distributed.share(range(len(shown)))
    missing = [a for a in own if not files[a].is_file()]
    with tqdm(total=len(own), initial=len(own) - len(missing), desc=f"mouse {subject.id}", unit="field",
              disable=None) as bar:  # fmt: skip
        for a in missing:
            look(session, presenter, shown[a]).write(files[a])
            bar.update()
    distributed.barrier()
    distributed.main_does(assemble, files, path, about)
    count, neurons = len(experiment.conditions), sum(len(audience.neurons) for audience in shown)
    print(f"mouse {subject.id}: {count} conditions, {neurons} of {subject.num_neurons} neurons, {path}")


def assemble(files: list[Path], path: Path, about: dict) -> None:
    """All parts into one file, and the parts away."""
    replace(Looks.joined([Looks.read(file) for file in files]), about=about).write(path)
    shutil.rmtree(files[0].parent)


def look(session: Session, presenter: TwinPresenter, audience: Audience) -> Looks:
    """What an audience's neurons attend to, and depend on, in every condition."""
    subject, protocol, core = session.subject, session.protocol, presenter.twin.model.core
    frames = np.rint(np.multiply(protocol.times, FPS)).astype(int)
    parts, found, stimuli = parts_of_screen(session, presenter, audience), [], []
    for _, conditions in session.experiment.conditions.groupby(["contrast", "kind"], sort=False):
        patterns = session.patterns(audience, conditions)
        seen = attend_in_batches(presenter, audience.neurons, patterns, frames, session.batch_size)
        found.append([average(one, core, audience.centre, parts, protocol) for one in seen])
        stimuli.append(patterns[0, 0])
    shape = len(audience.neurons), len(protocol.contrasts), len(protocol.kinds)
    looks = [one for neuron in zip(*found, strict=True) for one in neuron]
    arrays = {name: np.stack([one[name] for one in looks]) for name in looks[0] if name != "shares"}
    arrays["shares"] = np.stack([list(one["shares"].values()) for one in looks])
    return Looks(
        session.experiment.about, list(looks[0]["shares"]), PARTS, subject.neurons[audience.neurons],
        subject.coordinates[audience.neurons, 2].astype(float), stimuli=np.stack(stimuli[-len(protocol.kinds) :]),
        **{name: values.reshape(*shape, *values.shape[1:]) for name, values in arrays.items()},
    )  # fmt: skip


def average(seen: Attended, core, centre: tuple, parts: tuple[np.ndarray, np.ndarray], protocol: Protocol) -> dict:
    """One neuron in one condition, mean over patterns and times: its shares, its maps, its lags."""
    image = as_images(core, seen.rolled).mean(axis=(0, 1))
    gradient = (seen.gradient / seen.gradient.mean(axis=(1, 2), keepdims=True)).mean(axis=0)
    return {
        "shares": shares(seen, *parts),
        "attention": around(image, centre, protocol.reach),
        "gradient": around(gradient, centre, protocol.reach),
        "lags": np.zeros(0) if seen.lags is None else seen.lags[..., : protocol.lags].mean(axis=(0, 1)),
    }


def parts_of_screen(session: Session, presenter: TwinPresenter, audience: Audience) -> tuple[np.ndarray, np.ndarray]:
    """What of every patch (PARTS, P), and of every pixel (PARTS, H, W), lies in the disc, around it, further away."""
    monitor, protocol, patches = session.subject.monitor, session.protocol, patches_of(presenter.twin.model.core)
    inside = disc(monitor, audience.centre, protocol.size)
    ring = annulus(monitor, audience.centre, protocol.size, protocol.surround)
    windows = np.stack([inside, ring, 1 - inside - ring]).astype(np.float64)
    parts = patch_shares(windows, patches.size, patches.stride, patches.pad)
    parts[1] *= parts[0] == 0  # a patch that reaches into the disc is attended to for what is shown there
    if not parts[1].any():
        raise UserError(f"no patch of {patches.size} px lies around the disc but not in it. Raise --surround.")
    return parts, windows


def animate(file: Path, session: Session, audience: Audience) -> None:
    protocol = session.protocol
    frames, total = animation(session, audience), len(protocol.kinds) * protocol.frames
    write_movie(file, tqdm(frames, "animation", total, unit="frame", disable=None), FPS)
    print(file)


def animation(session: Session, audience: Audience) -> Iterator[np.ndarray]:
    """Every frame of every kind, beside itself under the first neuron's attention, above the response so far."""
    protocol, table = session.protocol, session.experiment.conditions
    table = table[table["contrast"] == protocol.contrasts[-1]]
    presenter, neuron = session.subject.presenter(session.experiment.timeline), audience.neurons[:1]
    shown = {kind: session.patterns(audience, own[:1]) for kind, own in table.groupby("kind", sort=False)}
    seen = {kind: attend(presenter, neuron, pattern, range(protocol.frames))[0] for kind, pattern in shown.items()}
    images = {kind: as_images(presenter.twin.model.core, one.rolled[0]) for kind, one in seen.items()}
    limits = (1.0, float(max(image.max() for image in images.values())))
    responses = {kind: one.responses[0] for kind, one in seen.items()}
    for kind, pattern in shown.items():
        yield from maps.film(pattern[0], images[kind], limits, responses, kind)


if __name__ == "__main__":
    cli.run(main, get_parser())
