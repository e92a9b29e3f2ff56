"""Draw what a twin attends to in the disc and around it, by kind and contrast, and ask whether the surround matters.

Shares are in multiples of uniform attention. Attention describes the twin and proves nothing: beside it is the
gradient of the same responses.

reads   RUN/contextual_modulation/attention_mouse<ID>.npz (predict_attention.py)
writes  RUN/figures/attention_context.{pdf,png,csv}; RUN/statistics/attention_context.csv: the answer to the question
        below
next    report.py
"""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.constants import FPS
from viv1t.errors import UserError
from viv1t.looks import Looks
from viv1t.plotting import maps, panels, style
from viv1t.results import find_mice, require, write_answers
from viv1t.stats import Answer, ask, count, counts, hierarchical_bootstrap

QUESTION = "Does attention to the surround depend on whether anything is shown there?"
FILLED, EMPTY = ("iso", "cross", "shift"), "centre"  # kinds that show a grating around the disc, or grey
EFFECT = "mean of iso, cross and shift minus centre alone, rolled out, multiples of uniform attention"
SHOWN = tuple(product(("attention", "gradient"), ("disc", "surround")))
ALIKE = ("hash", "centre", "protocol")  # what mice in one figure have in common: the twin, and what it was shown


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with contextual_modulation/")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of predict_attention.py)")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, metavar="N", help="of resamples (default: 0)")
    return parser


def main(args) -> None:
    run_dir, looks = Path(args.output_dir), read_looks(args)
    table = tabulate_shares(looks)
    answer = compare(table, np.random.default_rng(args.seed))
    write_answers(run_dir, "attention_context", [answer])
    summary = summarise(table, np.random.default_rng(args.seed))
    fig, numbers = draw(looks, table, summary), tabulate(looks, table, summary)
    for path in style.save(fig, run_dir / "figures" / "attention_context", numbers, caption(looks[0], answer)):
        print(path)


def read_looks(args) -> list[Looks]:
    """One of each mouse; UserError unless all were shown the same by the same twin."""
    paths = [
        require(args.output_dir, "attention", id) for id in find_mice(args.output_dir, "attention", args.mouse_ids)
    ]
    looks = [Looks.read(path) for path in paths]
    for path, other in zip(paths, looks, strict=True):
        if any(other.about.get(name) != looks[0].about.get(name) for name in ALIKE):
            raise UserError(
                f"{path}: of another twin, or shown something else, than mouse {looks[0].mouse}. Run "
                "predict_attention.py with the same flags for both, or draw one (--mouse_ids)."
            )
    return looks


def tabulate_shares(looks: list[Looks]) -> pd.DataFrame:
    """One row for each neuron, condition, source and part of the screen."""
    tables = []
    for own in looks:
        rows = product(zip(own.neurons, own.z_um, strict=True), own.contrasts, own.kinds, own.sources, own.parts)
        table = pd.DataFrame(
            [(own.mouse, *neuron, *rest) for neuron, *rest in rows],
            columns=["mouse", "neuron", "z_um", "contrast", "kind", "source", "part"],
        )
        tables.append(table.assign(share=own.shares.ravel()))
    return pd.concat(tables, ignore_index=True)


def compare(table: pd.DataFrame, rng: np.random.Generator) -> Answer:
    """Surround filled minus surround grey, paired within neurons, at the highest contrast."""
    chosen = (table["source"] == "attention") & (table["part"] == "surround")
    chosen &= table["contrast"] == table["contrast"].max()
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


def averaged(looks: list[Looks], name: str, contrast: int) -> dict[str, np.ndarray]:
    """kind -> mean over neurons of their maps or lags at one contrast, by its number; NaN where none has a value."""
    values = np.concatenate([getattr(own, name)[:, contrast] for own in looks])
    mean = np.ma.masked_invalid(values).mean(axis=0).filled(np.nan)
    return dict(zip(looks[0].kinds, mean, strict=True))


def draw(looks: list[Looks], table: pd.DataFrame, summary: pd.DataFrame):
    kinds, timed = looks[0].kinds, looks[0].timed
    fig, axes = style.figure(5, len(kinds), height=220, height_ratios=(0.9, 1.3, 1.3, 1.7, 1.6))
    draw_stimuli(axes[0], looks[0])
    draw_maps(axes[1], looks, "attention")
    draw_maps(axes[2], looks, "gradient")
    axes[2, len(kinds) // 2].set_xlabel("from field (px)")
    four = across(fig, axes[3], 4)
    for ax, (source, part) in zip(four, SHOWN, strict=True):
        draw_shares(ax, summary[(summary["source"] == source) & (summary["part"] == part)], looks[0])
        ax.set(title=part, ylabel=f"{source}\n(x uniform)" if part == "disc" else "")
    four[0].legend(title="contrast", loc="lower left", title_fontsize=style.FONT)
    two = across(fig, axes[4], 1 + timed)
    draw_heads(two[0], summary, kinds)
    if timed:
        draw_lags(two[1], averaged(looks, "lags", -1))
    fig.suptitle(counts(*count(table[["mouse", "neuron", "z_um"]].drop_duplicates())), fontsize=style.FONT)
    for ax, text in zip((*axes[:3, 0], four[0], four[2], *two), "abcdefg", strict=False):
        style.letter(ax, text)
    return fig


def across(fig, row: np.ndarray, columns: int) -> np.ndarray:
    """Other axes in place of a row of axes, side by side over its whole width."""
    place = row[0].get_subplotspec()
    for ax in row:
        ax.remove()
    return fig.add_subfigure(place.get_gridspec()[place.rowspan.start, :]).subplots(1, columns, squeeze=False)[0]


def draw_stimuli(row, looks: Looks) -> None:
    """The first frame of every kind, at the highest contrast, as the first neuron sees it."""
    for ax, kind, frame in zip(row, looks.kinds, looks.stimuli, strict=True):
        panels.picture(ax, frame)
        ax.set_title(kind)


def draw_maps(row, looks: list[Looks], name: str) -> None:
    """Means around the field at the highest contrast, by kind, with circles for disc and surround."""
    images, protocol = averaged(looks, name, -1), looks[0].about["protocol"]
    radii = [looks[0].monitor.radius_px(protocol[size]) for size in ("size", "surround")]
    limits = (0.1, max(1.0, float(np.nanmax(np.stack(list(images.values()))))))
    for ax, image in zip(row, images.values(), strict=True):
        mappable = maps.around_field(ax, image, limits, radii)
        ax.tick_params(labelleft=ax is row[0], labelbottom=name == "gradient")
    row[0].set_ylabel("from field (px)")
    row[0].figure.colorbar(mappable, ax=row, label=f"{name}\n(x uniform)", aspect=10, pad=0.01)


def draw_shares(ax, summary: pd.DataFrame, looks: Looks) -> None:
    """What one part of the screen gets, by kind and contrast; 1 is uniform."""
    step = 0.5 / len(looks.contrasts)
    for i, contrast in enumerate(looks.contrasts):
        rows = summary[summary["contrast"] == contrast].set_index("kind").loc[looks.kinds]
        x, error = np.arange(len(rows)) + step * (i - (len(looks.contrasts) - 1) / 2), rows["mean"]
        error = [error - rows["low"], rows["high"] - error]
        ax.errorbar(x, rows["mean"], error, fmt="o", markersize=3, elinewidth=1, color=style.CYCLE[i],
                    label=f"{contrast:g}")  # fmt: skip
    ax.axhline(1, color=style.GREY, linewidth=0.6, zorder=0)
    name_kinds(ax, looks.kinds)
    ax.set_xlim(-0.6, len(looks.kinds) - 0.4)
    ax.set_ylim(bottom=0)


def draw_heads(ax, summary: pd.DataFrame, kinds: list[str]) -> None:
    """What the surround gets from every head, at the highest contrast."""
    chosen = (summary["part"] == "surround") & (summary["contrast"] == summary["contrast"].max())
    heads = summary[chosen & summary["source"].str.startswith("block")]
    table = heads.pivot(index="source", columns="kind", values="mean").loc[heads["source"].unique(), kinds]
    image = ax.imshow(table, cmap=maps.LINEAR, aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="attention to surround\n(x uniform)")
    name_kinds(ax, kinds)
    ax.set_yticks(range(len(table)), table.index)
    ax.tick_params(length=0)


def name_kinds(ax, kinds: list[str]) -> None:
    ax.set_xticks(range(len(kinds)), kinds, rotation=60, ha="right", rotation_mode="anchor")


def draw_lags(ax, lags: dict[str, np.ndarray]) -> None:
    for (kind, values), color in zip(lags.items(), style.CYCLE, strict=False):
        ax.plot(1000 * np.arange(len(values)) / FPS, values, color=color, label=kind)
    ax.set(xlabel="lag (ms)", ylabel="share of attention\nin time", yscale="log")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def caption(looks: Looks, answer: Answer) -> str:
    protocol = looks.about["protocol"]
    times = ", ".join(f"{time:g}" for time in protocol["times"])
    return (
        f"A twin's attention to gratings in a disc of {protocol['size']:g} deg on each neuron's field and around it. "
        f"a: stimuli of one neuron, contrast {looks.contrasts[-1]:g}. b: spatial attention of the patches that a "
        "neuron reads, rolled out through all blocks, around its field, mean over neurons; circles: disc and surround "
        f"({protocol['surround']:g} deg), as at the screen's centre. c: gradient of the same responses, root mean "
        "square over frames. d: attention to the disc, patches weighted by their area in it, and to the surround, by "
        "patches that see nothing of the disc; 1 is uniform; mean over animals and neurons, 95 % bootstrap interval. "
        "e: the same of the gradient, pixel by pixel. f: attention to the surround of every head, not rolled out. g: "
        f"attention in time at the places that neurons read. All at {times} s after onset, mean over "
        f"{protocol['phases']} phases; b, c, f, g at the highest contrast. {answer}"
    )


def tabulate(looks: list[Looks], table: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Long table of all that is drawn: `drawn` says what, x, y are px from the field, or x the lag in frames."""
    parts = [table.assign(drawn="neuron"), summary.rename(columns={"mean": "share"}).assign(drawn="mean")]
    for c, contrast in enumerate(looks[0].contrasts):
        for name in ("attention", "gradient"):
            for kind, image in averaged(looks, name, c).items():
                y, x = np.indices(image.shape).reshape(2, -1) - len(image) // 2
                parts.append(pd.DataFrame({"drawn": "map", "source": name, "contrast": contrast, "kind": kind, "x": x,
                                           "y": y, "share": image.ravel()}).dropna())  # fmt: skip
        for kind, lags in averaged(looks, "lags", c).items() if looks[0].timed else ():
            parts.append(pd.DataFrame({"drawn": "lags", "source": "attention in time", "contrast": contrast,
                                       "kind": kind, "x": np.arange(len(lags)), "share": lags}))  # fmt: skip
    whole = {"neuron": "Int64", "x": "Int64", "y": "Int64"}
    return pd.concat(parts, ignore_index=True).astype(whole).round(6)


if __name__ == "__main__":
    cli.run(main, get_parser())
