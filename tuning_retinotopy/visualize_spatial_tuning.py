"""Draw the responses to flashed dots: ON and OFF maps, spatial selectivity, and fields beside artificial ones.

reads   RUN/spatial_tuning_<source>.csv and RUN/retinotopy/dots_<source>_mouse<ID>.npz (estimate_spatial_tuning.py),
        of --sources or of all that are there; RUN/aRF.csv (fit_aRFs.py) if it is there
writes  RUN/figures/spatial_tuning_mouse<ID>.{pdf,png,csv}
next    report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.errors import UserError
from viv1t.plotting import maps, style, tuning
from viv1t.results import locate, read_fields, read_table, require
from viv1t.shown import SOURCES

LABELS = {"recording": "recorded", "twin": "twin", "animal": "animal"}
SSI = (4.0, 12.0)  # limits of the axis


def get_parser() -> cli.Parser:
    parser, words = cli.Parser(__doc__), cli.Words(*SOURCES)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with spatial_tuning_*.csv")
    parser.add_argument("--sources", nargs="+", type=words, metavar="WORD",
                        help=f"whose responses: {words} (default: all that are there)")  # fmt: skip
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the first source)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    there = [source for source in SOURCES if locate(run_dir, f"spatial_tuning_{source}").is_file()]
    sources = list(dict.fromkeys(args.sources or there or SOURCES[:1]))
    first = read_table(run_dir, f"spatial_tuning_{sources[0]}", args.mouse_ids)
    for mouse_id in dict.fromkeys(first["mouse"]):
        tables = {source: read_table(run_dir, f"spatial_tuning_{source}", [mouse_id]) for source in sources}
        tables = {source: table.set_index("neuron") for source, table in tables.items()}
        table = merged(tables, run_dir, mouse_id)
        found = {source: read_maps(run_dir, source, mouse_id) for source in sources}
        fig = draw(table, tables, found)
        told = "; ".join(
            f"{LABELS[s]}: {t['tuned'].sum()} of {len(t)} tuned to place, {(~t['bad_fit']).sum()} with a field"
            for s, t in tables.items()
        )
        caption = (
            f"Mouse {mouse_id}, responses to single Gaussian dots. Above: mean responses (root) to bright (ON) and "
            f"dark dots (OFF) at every place, of a good and a median neuron ({LABELS[sources[0]]}), with the 1-sigma "
            "ellipse of the Gaussian fitted to their mean. Below: spatial selectivity of neurons tuned to place; the "
            "same neurons in two sources; index as published (dark dots, all pixels); distance of the fitted "
            f"centre from that of the artificial field, of neurons with both. {told}."
        )
        for path in style.save(fig, run_dir / "figures" / f"spatial_tuning_mouse{mouse_id}", table, caption):
            print(path)


def merged(tables: dict[str, pd.DataFrame], run_dir: Path, mouse_id: str) -> pd.DataFrame:
    """One row per neuron of the first source: its numbers in every source, and the centre of its artificial field."""
    names = ["x", "y", "tuned", "bad_fit", "ssi", "ssi_published", "latency_s", "prefers_on"]
    parts = [table[names].add_suffix(f"_{source}") for source, table in tables.items()]
    if locate(run_dir, "fields").is_file():
        fields = read_fields(run_dir)
        fields = fields[(fields["mouse"] == mouse_id) & ~fields["bad_fit"]].set_index("neuron")
        parts.append(fields[["x", "y"]].add_suffix("_aRF"))
    return pd.concat(parts, axis=1).reindex(next(iter(tables.values())).index).reset_index()


def read_maps(run_dir: Path, source: str, mouse_id: str) -> dict[str, np.ndarray]:
    path = require(run_dir, f"dots_{source}", mouse_id)
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError):
        raise UserError(f"{path}: damaged. Delete it and run estimate_spatial_tuning.py.") from None


def draw(table: pd.DataFrame, tables: dict[str, pd.DataFrame], found: dict[str, dict]):
    fig, axes = style.figure(2, 4, height=95)
    examples(axes[0], *next(iter(zip(tables.values(), found.values(), strict=True))))
    sources = list(tables)
    tuned = {LABELS[s]: table.loc[table[f"tuned_{s}"].eq(True), f"ssi_{s}"].to_numpy() for s in sources}
    tuning.index_histogram(axes[1, 0], tuned, "spatial selectivity", SSI)
    axes[1, 0].set_title(f"n = {' / '.join(str(np.isfinite(values).sum()) for values in tuned.values())}", loc="left")
    fig.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for ax, (name, label) in zip(axes[1, 1:3], (("ssi", "SSI"), ("ssi_published", "SSI, published")), strict=True):
        pair(ax, table, name, label, sources)
    distances(axes[1, 3], table, sources)
    return fig


def examples(axes, table: pd.DataFrame, found: dict) -> None:
    """ON and OFF maps of a good and of a median neuron."""
    good = table[~table["bad_fit"]].sort_values("r2")
    x, y = found["columns_px"], found["rows_px"]
    dx, dy = (np.diff(places).mean() / 2 for places in (x, y))
    extent = (x[0] - dx, x[-1] + dx, y[-1] + dy, y[0] - dy)
    if good.empty:
        for ax in axes:
            ax.remove()
        return
    for k, (kind, quantile) in enumerate((("good", 0.95), ("median", 0.5))):
        neuron = good.index[int(quantile * (len(good) - 1))]
        field, row = good.loc[neuron], table.index.get_loc(neuron)
        images = found["on"][row], found["off"][row]
        floor, outline = np.nanmedian(images), tuple(field[["x", "y", "sigma_major", "sigma_minor"]])
        for ax, image, polarity in zip(axes[2 * k : 2 * k + 2], images, ("ON", "OFF"), strict=True):
            maps.field_map(ax, image - floor, extent, (*outline, -field["theta_deg"]))
            ax.set_title(f"{kind}, {polarity}\nneuron {neuron}", loc="left")
            ax.set_ylabel("y (px)" if ax is axes[0] else "")


def pair(ax, table: pd.DataFrame, name: str, label: str, sources: list[str]) -> None:
    """One index in the first two sources; a histogram where there is but one."""
    if len(sources) == 1:
        values = table.loc[table[f"tuned_{sources[0]}"].eq(True), f"{name}_{sources[0]}"].to_numpy()
        tuning.index_histogram(ax, {LABELS[sources[0]]: values}, label, SSI)
        return
    both = table[table[[f"tuned_{source}" for source in sources[:2]]].eq(True).all(axis=1)]
    tuning.paired_scatter(ax, *(both[f"{name}_{source}"].to_numpy() for source in sources[:2]), label)
    ax.set(xlabel=f"{label}, {LABELS[sources[0]]}", ylabel=f"{label}, {LABELS[sources[1]]}")


def distances(ax, table: pd.DataFrame, sources: list[str]) -> None:
    """Cumulative distribution of the distance between the centres of dots' and artificial fields."""
    if "x_aRF" not in table:
        ax.remove()
        return
    medians, counts = [], []
    for source in sources:
        good = table[table[f"bad_fit_{source}"].eq(False)]
        distance = np.hypot(good[f"x_{source}"] - good["x_aRF"], good[f"y_{source}"] - good["y_aRF"]).dropna()
        if len(distance):
            ax.ecdf(distance, color=style.COLORS[LABELS[source]])
        medians.append(f"{distance.median():.1f}")
        counts.append(str(len(distance)))
    ax.set(xlim=(0, 8), xlabel="to artificial field (px)", ylabel="share of neurons")
    ax.set_title(f"median {' / '.join(medians)}\nn = {' / '.join(counts)}", loc="left")


if __name__ == "__main__":
    cli.run(main, get_parser())
