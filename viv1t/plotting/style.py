"""One look for all figures: one font size, a palette for colour-blind readers, and the numbers beside every figure."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from viv1t import io

FONT = 8  # points, everywhere
WIDTH = 180  # mm, two columns of a journal

# Okabe & Ito 2008
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#8C8C8C"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)

# what is shown -> its colour, in every figure
COLORS = {
    "recorded": BLACK,
    "recorded mean": BLACK,
    "repeats": "#C8C8C8",
    "twin": BLUE,
    "animal": VERMILION,
    "truth": VERMILION,
    "true rate": VERMILION,
    "oracle": VERMILION,
    "linear-nonlinear": GREEN,
    "behaviour only": ORANGE,
    "mean response": GREY,
    "chance": GREY,
    "orientation": PURPLE,
    "direction": GREEN,
}

MARKERS = {"twin": "o", "linear-nonlinear": "s", "behaviour only": "^", "mean response": "v"}  # others: a diamond

RC = {
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.labelsize": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.fontsize": FONT,
    "figure.titlesize": FONT,
    "figure.labelsize": FONT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 200,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.06,
}


def figure(rows: int = 1, columns: int = 1, width: float = WIDTH, height: float = 60, below: float = 0, **kwargs):
    """A figure of `width` x `height` mm and its axes, an array (rows, columns). kwargs go to `Figure.subplots`.

    below: mm kept free at the bottom for legends.
    """
    matplotlib.rcParams.update(RC)
    fig = Figure(figsize=(width / 25.4, height / 25.4), layout="constrained")
    fig.get_layout_engine().set(rect=(0, below / height, 1, 1 - below / height))
    return fig, fig.subplots(rows, columns, squeeze=False, **kwargs)


def letter(ax: Axes, text: str) -> None:
    """A bold panel letter above the axis's upper left corner."""
    ax.annotate(
        text,
        xy=(0, 1),
        xycoords="axes fraction",
        xytext=(-28, 8),
        textcoords="offset points",
        weight="bold",
        ha="left",
        va="bottom",
    )


def legend_below(ax: Axes, **kwargs) -> None:
    """A legend under the axis, in the room that `figure(..., below=...)` keeps free."""
    legend = ax.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.24), borderaxespad=0, columnspacing=1.0, **kwargs)
    legend.set_in_layout(False)


def raster(fig: Figure) -> np.ndarray:
    """A figure as pixels (H, W, 3) uint8, for movies: of an even height and width."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    pixels = np.array(canvas.buffer_rgba())
    return pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2, :3]


def save(fig: Figure, path: Path | str, numbers: pd.DataFrame, caption: str = "") -> list[Path]:
    """Write <path>.pdf, <path>.png and <path>.csv with the numbers drawn. The PNG carries the caption for reports."""
    path = Path(path)
    metadata = {
        ".pdf": {"CreationDate": None, "Subject": caption},
        ".png": {"Software": None, "Description": caption},
    }
    paths = []
    for suffix, told in metadata.items():
        with io.replacing(path.with_name(path.name + suffix)) as temporary:
            fig.savefig(temporary, format=suffix[1:], metadata=told)
        paths.append(path.with_name(path.name + suffix))
    paths.append(path.with_name(path.name + ".csv"))
    io.write_table(paths[-1], numbers)
    return paths
