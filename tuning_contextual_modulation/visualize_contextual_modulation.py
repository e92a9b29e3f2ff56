"""Draw how the surround changes responses at the lowest and the highest contrast, and examples.

reads   RUN/contextual_modulation.csv (estimate_contextual_modulation.py)
writes  RUN/figures/contextual_modulation.{pdf,png,csv}: the population;
        RUN/figures/contextual_examples_mouse<ID>.{pdf,png,csv}: responses of examples over the size of the disc
next    visualize_contrast_difference.py, visualize_responses.py, report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.errors import UserError
from viv1t.plotting import contexts, panels, style
from viv1t.results import read_table
from viv1t.stats import count, counts
from viv1t.stimulus.contexts import KINDS

SURROUNDS = ("iso", "cross", "shift")
EXAMPLES, MOST = 4, 6  # columns of the figure
SEED = 1


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with contextual_modulation.csv")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the run)")
    parser.add_argument("--neurons", type=cli.number(int, 0), nargs="+", metavar="N",
                        help="examples, rows in the recording (default: random responsive ones)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N", help="of the random neurons")
    return parser


def main(args) -> None:
    if len(args.neurons or ()) > MOST:
        raise UserError(f"--neurons: {MOST} fit into the figure, {len(args.neurons)} are named. Name fewer.")
    run_dir = Path(args.output_dir)
    table = read_table(run_dir, "contextual_modulation", args.mouse_ids)
    shown = table[table["responsive"] & table["centred"]]
    if not len(shown):
        raise UserError(
            f"{run_dir}: no centred neuron responds. Nothing to draw; see estimate_contextual_modulation.py."
        )
    examples = {mouse_id: choose(mouse_id, args, own) for mouse_id, own in table.groupby("mouse", sort=False)}
    write_population(run_dir, shown[shown["chosen"]])
    for mouse_id, neurons in examples.items():
        if len(neurons):
            write_examples(run_dir, mouse_id, table[table["mouse"] == mouse_id], neurons)


def write_population(run_dir: Path, table: pd.DataFrame) -> None:
    contrasts = sorted(set(table["contrast"].agg(["max", "min"])), reverse=True)
    fig, axes = style.figure(len(contrasts), 3, height=62 * len(contrasts) + 8, below=8)
    for row, contrast in zip(axes, contrasts, strict=True):
        draw_contrast(row, table[table["contrast"] == contrast], contrast, in_vivo=contrast == contrasts[0])
    for ax, text in zip(axes.flat, "abcdef", strict=False):
        style.letter(ax, text)
    fig.legend(*axes[0, 2].get_legend_handles_labels(), loc="lower right", ncols=2)
    told = counts(*count(table[table["contrast"] == contrasts[0]]))
    caption = (
        f"Responses to centre-surround gratings above the response to grey, {told} (responsive, centred on the "
        "field), each at the disc that fits it best. Left: (surround - centre) / (surround + centre), below 0 the "
        "surround suppresses; dots are neurons. Middle: cross against iso surround, recorded units; dashed: equal; "
        "the smallest lie on the edge. "
        "Right: CMI, (cross - iso) / (cross + iso); thin: mice, thick: their mean, triangle: mean of their medians. "
        "Grey: CMI in vivo (Keller et al. 2020, Neuron), which is not commensurable: there responses below grey count "
        "as negative, so that it leaves -1 to 1."
    )
    indices = ["cmi", *(f"mi_{kind}" for kind in SURROUNDS)]
    numbers = table[["mouse", "neuron", "contrast", "size_deg", "centre", *SURROUNDS, *indices]]
    for path in style.save(fig, run_dir / "figures" / "contextual_modulation", numbers.round(6), caption):
        print(path)


def draw_contrast(axes, table: pd.DataFrame, contrast: float, in_vivo: bool) -> None:
    shown = {kind: table[f"mi_{kind}"].to_numpy() for kind in SURROUNDS if table[kind].notna().any()}
    contexts.boxes(axes[0], shown, [contexts.KIND_COLORS[kind] for kind in shown], np.random.default_rng(SEED))
    axes[0].axhline(0, color=style.GREY, linewidth=0.6, linestyle="--", zorder=0)
    axes[0].set(ylim=(-1.05, 1.05), ylabel=f"contrast {contrast:g}\nindex against centre alone")
    axes[0].set_title(panels.told(table.dropna(subset=[f"mi_{kind}" for kind in shown], how="all")), loc="left")
    contexts.iso_cross(axes[1], table["iso"].to_numpy(), table["cross"].to_numpy())
    above = (table["cross"] > table["iso"]).mean()
    axes[1].set(xlabel="iso (recorded units)", ylabel="cross (recorded units)")
    axes[1].set_title(f"cross > iso: {100 * above:.0f} %\n{panels.told(table)}", loc="left")
    cmi = {mouse_id: own["cmi"].to_numpy() for mouse_id, own in table.groupby("mouse")}
    contexts.cmi_histogram(axes[2], cmi, in_vivo)
    axes[2].set_title(panels.told(table.dropna(subset="cmi")), loc="left")


def choose(mouse_id: str, args, table: pd.DataFrame) -> np.ndarray:
    known = table["neuron"].unique()
    if args.neurons:
        unknown = sorted(set(args.neurons) - set(known))
        if unknown:
            raise UserError(
                f"--neurons {unknown[0]}: mouse {mouse_id} was measured in {known.min()} to {known.max()}."
            )
        return np.array(args.neurons)
    pool = table.loc[table["responsive"] & table["centred"], "neuron"].unique()
    rng = np.random.default_rng(args.seed)
    return np.sort(rng.choice(pool, min(EXAMPLES, len(pool)), replace=False))


def write_examples(run_dir: Path, mouse_id: str, table: pd.DataFrame, examples: np.ndarray) -> None:
    contrasts = sorted(set(table["contrast"].agg(["max", "min"])), reverse=True)
    fig, axes = style.figure(len(contrasts), len(examples), height=46 * len(contrasts) + 14, below=8)
    kinds = [kind for kind in KINDS if table[kind].notna().any()]
    numbers = []
    for row, contrast in zip(axes, contrasts, strict=True):
        for ax, neuron in zip(row, examples, strict=True):
            own = table[(table["neuron"] == neuron) & (table["contrast"] == contrast)].sort_values("size_deg")
            contexts.size_curves(ax, own["size_deg"].to_numpy(), {kind: own[kind].to_numpy() for kind in kinds})
            numbers.append(own[["neuron", "contrast", "size_deg", *kinds]])
        row[0].set_ylabel(f"contrast {contrast:g}\nresponse (recorded units)")
    for ax, neuron in zip(axes[0], examples, strict=True):
        ax.set_title(f"neuron {neuron}", loc="left")
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower left", ncols=len(kinds))
    caption = (
        f"Mouse {mouse_id}: responses of {len(examples)} neurons above grey, by the diameter of the disc. centre: "
        "disc alone; iso, cross, shift: with a surround of the same, the orthogonal and the half-cycle shifted "
        "grating; inverse, inverse_cross: surround alone. iso has no border and is the same for every disc."
    )
    name = f"contextual_examples_mouse{mouse_id}"
    for path in style.save(fig, run_dir / "figures" / name, pd.concat(numbers).round(6), caption):
        print(path)


if __name__ == "__main__":
    cli.run(main, get_parser())
