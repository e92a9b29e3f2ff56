"""Show gratings in a disc and around it to a twin, and draw what its neurons' patches attend to while it answers.

Each neuron sees them on its own receptive field, drifting its own way. Spatial attention is that of the patches which
the neuron reads, to the disc and to its surround, in multiples of uniform attention; temporal attention is that at the
same places. Attention describes the twin and proves nothing: beside it is the gradient of the same responses.

reads   RUN/ckpt (trained twins only); RUN/aRF.csv; RUN/selectivity_gratings.csv unless --directions are given
writes  RUN/figures/attention_context.{pdf,png,csv}; RUN/statistics/attention_context.csv; with --animate a movie of
        stimulus, attention and response of the first neuron
next    report.py
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from viv1t import cli
from viv1t.attention import Attended, attend, require_maps
from viv1t.constants import FPS
from viv1t.errors import UserError
from viv1t.estimators.attention import around, patch_shares, share
from viv1t.experiment import Audience
from viv1t.model.attention_maps import as_images, patches_of
from viv1t.movies import WRITTEN, write_movie
from viv1t.plotting import maps, panels, style
from viv1t.presentation import Timeline, TwinPresenter
from viv1t.results import read_fields, write_answers
from viv1t.stats import Answer, ask, count, counts, hierarchical_bootstrap
from viv1t.stimulus.contexts import context
from viv1t.stimulus.levels import grey_levels
from viv1t.stimulus.windows import annulus, disc
from viv1t.subjects import Subject, add_subject_flags, open_subjects
from viv1t.targets import add_target_flags, audiences, read_targets

NEURONS = 24  # of each mouse, unless some are named
REACH = 16  # px around the field that maps show
LAGS = 45  # frames shown of the past
PARTS = ("disc", "surround", "elsewhere")
QUESTION = "Does attention to the surround depend on whether anything is shown there?"
FILLED, EMPTY = ("iso", "cross", "shift"), "centre"  # kinds that show a grating around the disc, or grey
EFFECT = "mean of iso, cross and shift minus centre alone, rolled out, multiples of uniform attention"


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


@dataclass(frozen=True)
class Look:
    """One neuron in one condition, mean over phases and times.

    shares: name (attention rolled out, gradient, or a head) -> (PARTS,) in multiples of uniform; attention, gradient:
    maps (2 REACH + 1, 2 REACH + 1) around the field; lags: (LAGS,) or None.
    """

    mouse: str
    neuron: int
    z_um: float
    contrast: float
    kind: str
    shares: dict[str, np.ndarray]
    attention: np.ndarray
    gradient: np.ndarray
    lags: np.ndarray | None


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
    group.add_argument("--seed", type=cli.number(int, 0), default=0, help="of the resampling (default: 0)")
    group.add_argument("--animate", type=Path, metavar="FILE",
                       help="also write a movie of the first neuron, .mp4 or .gif")  # fmt: skip
    return parser


def main(args) -> None:
    protocol, looks, example = take_protocol(args), [], None
    for subject in open_subjects(args):
        presenter = subject.presenter(Timeline(pattern=protocol.frames))
        require_maps(presenter)
        shown = audiences(args, choose(args, subject), read_targets(args, subject.id))
        if shown and example is None:
            example = presenter, subject, shown[0]
        for audience in tqdm(shown, f"mouse {subject.id}", unit="field", disable=None):
            for contrast, kind in product(protocol.contrasts, protocol.kinds):
                looks += look(presenter, subject, audience, contrast, kind, protocol, args.batch_size)
    if not looks:
        raise UserError(f"{args.output_dir}: no neuron has a field and a direction to show gratings to. See aRF.csv.")
    table = tabulate_shares(looks)
    answer = compare(table, protocol, np.random.default_rng(args.seed))
    write_answers(args.output_dir, "attention_context", [answer])
    summary = summarise(table, np.random.default_rng(args.seed))
    fig = draw(example, protocol, looks, summary)
    stem, numbers = Path(args.output_dir) / "figures" / "attention_context", tabulate(looks, table, summary)
    for path in style.save(fig, stem, numbers, caption(protocol, looks, answer)):
        print(path)
    if args.animate:
        frames = animation(*example, protocol)
        total = len(protocol.kinds) * protocol.frames
        write_movie(args.animate, tqdm(frames, "animation", total, unit="frame", disable=None), FPS)
        print(args.animate)


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


def choose(args, subject: Subject) -> Subject:
    """The neurons that are named, or those with the clearest fields among all that stimuli can be made for."""
    if args.neurons is not None:
        return subject
    clear = read_fields(args.output_dir, [subject.id])[["neuron", "snr"]]
    targets = read_targets(args, subject.id).merge(clear, on="neuron").dropna()
    clearest = targets[~targets["bad_fit"].astype(bool)].nlargest(NEURONS, "snr")["neuron"]
    return replace(subject, chosen=np.flatnonzero(np.isin(subject.neurons, clearest)))


def patterns(subject: Subject, audience: Audience, contrast: float, kind: str, protocol: Protocol) -> np.ndarray:
    """All directions and phases of one condition (K, frames, H, W), as grey levels."""
    directions = protocol.directions or (audience.own["direction_deg"],)
    phases = np.arange(protocol.phases) * 360 / protocol.phases
    return np.stack([
        grey_levels(context(subject.monitor, audience.centre, kind, protocol.size, direction, protocol.cpd,
                            protocol.hertz, protocol.frames, phase, contrast))
        for direction, phase in product(directions, phases)
    ])  # fmt: skip


def look(
    presenter: TwinPresenter, subject: Subject, audience: Audience, contrast: float, kind: str, protocol: Protocol,
    batch_size: int,
) -> list[Look]:  # fmt: skip
    """What an audience's neurons attend to, and depend on, in one condition."""
    shown, frames = patterns(subject, audience, contrast, kind, protocol), np.rint(np.multiply(protocol.times, FPS))
    batches = [
        attend(presenter, audience.neurons, shown[start : start + batch_size], frames.astype(int))
        for start in range(0, len(shown), batch_size)
    ]
    core, windows = presenter.twin.model.core, screen_parts(subject, audience, protocol)
    looks = []
    for n, per_batch in zip(audience.neurons, zip(*batches, strict=True), strict=True):
        seen = joined(per_batch)
        image = as_images(core, seen.rolled).mean(axis=(0, 1))
        gradient = (seen.gradient / seen.gradient.mean(axis=(1, 2), keepdims=True)).mean(axis=0)
        looks.append(
            Look(
                subject.id, int(subject.neurons[n]), float(subject.coordinates[n, 2]), contrast, kind,
                shares(core, seen, windows), around(image, audience.centre, REACH),
                around(gradient, audience.centre, REACH),
                None if seen.lags is None else seen.lags[..., :LAGS].mean(axis=(0, 1)),
            )
        )  # fmt: skip
    return looks


def joined(parts: tuple[Attended, ...]) -> Attended:
    values = [[getattr(part, name) for part in parts] for name in Attended.__dataclass_fields__]
    return Attended(*(None if part[0] is None else np.concatenate(part) for part in values))


def screen_parts(subject: Subject, audience: Audience, protocol: Protocol) -> np.ndarray:
    """Disc, surround and what is further away: (PARTS, H, W), each the share of a pixel."""
    inside = disc(subject.monitor, audience.centre, protocol.size)
    ring = annulus(subject.monitor, audience.centre, protocol.size, protocol.surround)
    return np.stack([inside, ring, 1 - inside - ring]).astype(np.float64)


def shares(core, seen: Attended, windows: np.ndarray) -> dict[str, np.ndarray]:
    """What every part of the screen (PARTS, H, W) gets, in multiples of uniform, mean over patterns and times."""
    patches = patches_of(core)
    parts = patch_shares(windows, patches.size, patches.stride, patches.pad)
    parts[1] *= parts[0] == 0  # a patch that reaches into the disc is attended to for what is shown there
    if not parts[1].any():
        raise UserError(f"no patch of {patches.size} px lies around the disc but not in it. Raise --surround.")
    pixels = seen.gradient.reshape(len(seen.gradient), -1)
    found = {
        "attention": np.stack([share(seen.rolled, part).mean() for part in parts]),
        "gradient": np.stack([share(pixels, part.ravel()).mean() for part in windows]),
    }
    heads = np.stack([share(seen.heads, part).mean(axis=(0, 1)) for part in parts], axis=-1)  # (blocks, heads, PARTS)
    return found | {f"block {b + 1}, head {h + 1}": heads[b, h] for b, h in np.ndindex(heads.shape[:2])}


def tabulate_shares(looks: list[Look]) -> pd.DataFrame:
    """One row for each neuron, condition, source and part of the screen."""
    return pd.DataFrame(
        {"mouse": one.mouse, "neuron": one.neuron, "z_um": one.z_um, "contrast": one.contrast, "kind": one.kind,
         "source": source, "part": part, "share": value}
        for one in looks for source, values in one.shares.items() for part, value in zip(PARTS, values, strict=True)
    )  # fmt: skip


def compare(table: pd.DataFrame, protocol: Protocol, rng: np.random.Generator) -> Answer:
    """Surround filled minus surround grey, paired within neurons, at the highest contrast."""
    chosen = (table["source"] == "attention") & (table["part"] == "surround")
    chosen &= table["contrast"] == protocol.contrasts[-1]
    wide = table[chosen].pivot(index=["mouse", "neuron", "z_um"], columns="kind", values="share").reset_index()
    difference = wide[list(FILLED)].mean(axis=1) - wide[EMPTY]
    return ask(QUESTION, EFFECT, wide.assign(difference=difference), "difference", rng)


def summarise(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Mean over animals of their mean over neurons, with its interval, by source, part, contrast and kind."""
    rows = []
    for key, group in table.groupby(["source", "part", "contrast", "kind"], sort=False):
        interval = hierarchical_bootstrap([own["share"].to_numpy() for _, own in group.groupby("mouse")], rng)
        rows.append((*key, interval.mean, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["source", "part", "contrast", "kind", "mean", "low", "high"])


def mean_maps(looks: list[Look], name: str, contrast: float) -> dict[str, np.ndarray]:
    """kind -> mean over neurons of their maps or lags at one contrast; NaN where no neuron has a value."""
    kinds = dict.fromkeys(one.kind for one in looks)
    chosen = {k: [getattr(one, name) for one in looks if (one.kind, one.contrast) == (k, contrast)] for k in kinds}
    return {kind: np.ma.masked_invalid(values).mean(axis=0).filled(np.nan) for kind, values in chosen.items()}


def draw(example: tuple, protocol: Protocol, looks: list[Look], summary: pd.DataFrame):
    kinds, contrast, timed = protocol.kinds, protocol.contrasts[-1], looks[0].lags is not None
    fig, axes = style.figure(5, len(kinds), height=220, height_ratios=(0.9, 1.3, 1.3, 1.7, 1.6))
    draw_stimuli(axes[0], *example, protocol)
    radii = [example[1].monitor.radius_px(size) for size in (protocol.size, protocol.surround)]
    for row, name in ((axes[1], "attention"), (axes[2], "gradient")):
        images = mean_maps(looks, name, contrast)
        limits = (0.1, max(1.0, float(np.nanmax(np.stack(list(images.values()))))))
        for ax, image in zip(row, images.values(), strict=True):
            mappable = maps.around_field(ax, image, limits, radii)
            ax.tick_params(labelleft=ax is row[0], labelbottom=name == "gradient")
        row[0].set_ylabel("from field (px)")
        fig.colorbar(mappable, ax=row, label=f"{name}\n(x uniform)", aspect=10, pad=0.01)
    axes[2, len(kinds) // 2].set_xlabel("from field (px)")
    below = []
    for row in axes[3:]:
        for ax in row:
            ax.remove()
        below.append(fig.add_subfigure(row[0].get_gridspec()[3 + len(below), :]))
    four = below[0].subplots(1, 4)
    for ax, (source, part) in zip(four, product(("attention", "gradient"), PARTS[:2]), strict=True):
        chosen = (summary["source"] == source) & (summary["part"] == part)
        draw_shares(ax, summary[chosen], protocol)
        ax.set(title=part, ylabel=f"{source}\n(x uniform)" if part == PARTS[0] else "")
    neurons = pd.DataFrame([{"mouse": one.mouse, "neuron": one.neuron, "z_um": one.z_um} for one in looks])
    four[0].legend(title="contrast", loc="lower left", title_fontsize=style.FONT)
    two = np.atleast_1d(below[1].subplots(1, 1 + timed))
    draw_heads(two[0], summary, protocol)
    if timed:
        draw_lags(two[1], mean_maps(looks, "lags", contrast))
    fig.suptitle(counts(*count(neurons.drop_duplicates())), fontsize=style.FONT)
    for ax, text in zip((*axes[:3, 0], four[0], four[2], *two), "abcdefg", strict=False):
        style.letter(ax, text)
    return fig


def draw_stimuli(row, presenter, subject: Subject, audience: Audience, protocol: Protocol) -> None:
    """The first frame of every kind, at the highest contrast, as the example's neurons see it."""
    for ax, kind in zip(row, protocol.kinds, strict=True):
        panels.picture(ax, patterns(subject, audience, protocol.contrasts[-1], kind, protocol)[0, 0])
        ax.set_title(kind)


def draw_shares(ax, summary: pd.DataFrame, protocol: Protocol) -> None:
    """What one part of the screen gets, by kind and contrast; 1 is uniform."""
    step = 0.5 / len(protocol.contrasts)
    for i, contrast in enumerate(protocol.contrasts):
        rows = summary[summary["contrast"] == contrast].set_index("kind").loc[list(protocol.kinds)]
        x, error = np.arange(len(rows)) + step * (i - (len(protocol.contrasts) - 1) / 2), rows["mean"]
        error = [error - rows["low"], rows["high"] - error]
        ax.errorbar(x, rows["mean"], error, fmt="o", markersize=3, elinewidth=1, color=style.CYCLE[i],
                    label=f"{contrast:g}")  # fmt: skip
    ax.axhline(1, color=style.GREY, linewidth=0.6, zorder=0)
    ax.set_xticks(range(len(protocol.kinds)), protocol.kinds, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.6, len(protocol.kinds) - 0.4)
    ax.set_ylim(bottom=0)


def draw_heads(ax, summary: pd.DataFrame, protocol: Protocol) -> None:
    """What the surround gets from every head, at the highest contrast."""
    chosen = (summary["part"] == "surround") & (summary["contrast"] == protocol.contrasts[-1])
    heads = summary[chosen & summary["source"].str.startswith("block")]
    table = heads.pivot(index="source", columns="kind", values="mean").loc[heads["source"].unique(), protocol.kinds]
    image = ax.imshow(table, cmap=maps.LINEAR, aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="attention to surround\n(x uniform)")
    ax.set_xticks(range(len(protocol.kinds)), protocol.kinds, rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(table)), table.index)
    ax.tick_params(length=0)


def draw_lags(ax, lags: dict[str, np.ndarray]) -> None:
    for (kind, values), color in zip(lags.items(), style.CYCLE, strict=False):
        ax.plot(1000 * np.arange(len(values)) / FPS, values, color=color, label=kind)
    ax.set(xlabel="lag (ms)", ylabel="share of attention\nin time", yscale="log")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def caption(protocol: Protocol, looks: list[Look], answer: Answer) -> str:
    times = ", ".join(f"{time:g}" for time in protocol.times)
    return (
        f"A twin's attention to gratings in a disc of {protocol.size:g} deg on each neuron's field and around it. a: "
        f"stimuli of one neuron, contrast {protocol.contrasts[-1]:g}. b: spatial attention of the patches that a "
        "neuron reads, rolled out through all blocks, around its field, mean over neurons; circles: disc and surround "
        f"({protocol.surround:g} deg), as at the screen's centre. c: gradient of the same responses, root mean square "
        "over frames. d: attention to the disc, patches weighted by their area in it, and to the surround, by patches "
        "that see nothing of the disc; 1 is uniform; mean over animals and neurons, 95 % bootstrap interval. e: the "
        "same of the gradient, pixel by pixel. f: attention to the surround of every head, not rolled out. g: "
        f"attention in time at the places that neurons read. All at {times} s after onset, mean over "
        f"{protocol.phases} phases; b, c, f, g at the highest contrast. {answer}"
    )


def tabulate(looks: list[Look], table: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Long table of all that is drawn: `drawn` says what, x, y are px from the field, or x the lag in frames."""
    parts = [table.assign(drawn="neuron"), summary.rename(columns={"mean": "share"}).assign(drawn="mean")]
    for contrast in dict.fromkeys(one.contrast for one in looks):
        for name in ("attention", "gradient"):
            for kind, image in mean_maps(looks, name, contrast).items():
                y, x = np.indices(image.shape).reshape(2, -1) - REACH
                parts.append(pd.DataFrame({"drawn": "map", "source": name, "contrast": contrast, "kind": kind, "x": x,
                                           "y": y, "share": image.ravel()}).dropna())  # fmt: skip
        for kind, lags in mean_maps(looks, "lags", contrast).items() if looks[0].lags is not None else ():
            parts.append(pd.DataFrame({"drawn": "lags", "source": "attention in time", "contrast": contrast,
                                       "kind": kind, "x": np.arange(len(lags)), "share": lags}))  # fmt: skip
    whole = {"neuron": "Int64", "x": "Int64", "y": "Int64"}
    return pd.concat(parts, ignore_index=True).astype(whole).round(6)


def animation(presenter, subject: Subject, audience: Audience, protocol: Protocol) -> Iterator[np.ndarray]:
    """Every frame of every kind, beside itself under the first neuron's attention, above the response so far."""
    core, contrast, frames = presenter.twin.model.core, protocol.contrasts[-1], range(protocol.frames)
    shown = {kind: patterns(subject, audience, contrast, kind, protocol)[:1] for kind in protocol.kinds}
    seen = {kind: attend(presenter, audience.neurons[:1], pattern, frames)[0] for kind, pattern in shown.items()}
    images = {kind: as_images(core, one.rolled[0]) for kind, one in seen.items()}
    limits = (1.0, float(max(image.max() for image in images.values())))
    seconds, top = np.arange(protocol.frames) / FPS, max(float(one.responses.max()) for one in seen.values())
    for kind, pattern in shown.items():
        fig, axes = style.figure(1, 3, height=40, width_ratios=(1, 1, 0.9))
        video, under, trace = axes[0]
        frame = panels.picture(video, pattern[0, 0])
        covered = panels.picture(under, maps.blended(pattern[0, 0], images[kind][0], limits))
        for other in seen.values():
            trace.plot(seconds, other.responses[0], color=style.COLORS["repeats"], linewidth=0.8)
        (line,) = trace.plot([], [], color=style.COLORS["twin"], linewidth=1.5)
        trace.set(xlabel="time (s)", ylabel="response", xlim=(0, seconds[-1]), ylim=(0, 1.05 * top))
        video.set_title(kind)
        under.set_title("attention")
        for t in frames:
            frame.set_data(pattern[0, t])
            covered.set_data(maps.blended(pattern[0, t], images[kind][t], limits))
            line.set_data(seconds[: t + 1], seen[kind].responses[0, : t + 1])
            yield style.raster(fig)


if __name__ == "__main__":
    cli.run(main, get_parser())
