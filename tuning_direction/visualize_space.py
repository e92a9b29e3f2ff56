"""Draw tuning for motion over the cortical sheet, and write a page that shows it in three dimensions.

reads   RUN/selectivity_<source>.csv (estimate_selectivity.py)
writes  RUN/figures/cortex_<source>_mouse<ID>.{pdf,png,csv}; the same as .html, which any browser
        opens, also without a network
next    report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.plotting import maps, space, style
from viv1t.results import read_selectivity

VALUES = {  # column -> label, period, flag of the neurons that are drawn
    "preferred_orientation_deg": ("preferred axis (deg)", 180.0, "orientation_selective"),
    "preferred_direction_deg": ("preferred direction (deg)", 360.0, "direction_selective"),
    "gosi": ("gOSI", None, "responsive"),
    "gdsi": ("gDSI", None, "responsive"),
}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with selectivity_<source>.csv")
    words = cli.Words("gratings", "recording", "twin", "animal")
    parser.add_argument("--source", type=words, default="gratings", metavar="WORD", help=f"{words} (default: 0)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of the source)")
    return parser


def main(args) -> None:
    folder = Path(args.output_dir) / "figures"
    for mouse_id, table in read_selectivity(args.output_dir, args.source, args.mouse_ids).groupby("mouse", sort=False):
        name = f"cortex_{args.source}_mouse{mouse_id}"
        values = {column: np.where(table[flag], table[column], np.nan) for column, (_, _, flag) in VALUES.items()}
        fig = draw(table, values)
        caption = (
            f"Mouse {mouse_id}, {args.source}: tuning of {len(table)} neurons over the cortical sheet, all depths. a: "
            "preferred axis of motion of orientation-selective neurons. b: preferred direction of direction-selective "
            "ones. c, d: global indices of responsive neurons. Small and grey: the others."
        )
        numbers = table[["neuron", "x_um", "y_um", "z_um"]].assign(**values).round(6)
        for path in style.save(fig, folder / name, numbers, caption):
            print(path)
        told = {label: values[column] for column, (label, _, _) in VALUES.items()}
        periods = {label: period for label, period, _ in VALUES.values() if period}
        page = space.cortex_scatter3d(f"Mouse {mouse_id}: tuning for motion ({args.source})",
                                      table[["x_um", "y_um", "z_um"]].to_numpy(), told, periods)  # fmt: skip
        io.write_text(folder / f"{name}.html", page)
        print(folder / f"{name}.html")


def draw(table: pd.DataFrame, values: dict):
    fig, axes = style.figure(2, 2, width=140, height=165)
    for ax, text, (column, (label, period, _)) in zip(axes.flat, "abcd", VALUES.items(), strict=True):
        maps.cortex_map(ax, table[["x_um", "y_um"]].to_numpy(), values[column], label, period)
        style.letter(ax, text)
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
