"""Draw the gratings of this folder as they are shown on the monitor: every kind, at several contrasts.

reads   nothing
writes  RUN/figures/contextual_stimuli.{pdf,png,csv}
next    predict_gratings.py
"""

from pathlib import Path

import pandas as pd

from viv1t import cli
from viv1t.geometry import MONITORS
from viv1t.plotting import panels, style
from viv1t.stimulus.contexts import KINDS, context
from viv1t.stimulus.levels import grey_levels
from viv1t.stimulus.windows import disc
from viv1t.subjects import monitor_of


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder for figures/")
    parser.add_argument("--monitor", type=monitor_of, default=MONITORS["sensorium"], metavar="WORD",
                        help="sensorium, rochefort, or like 56.5x31.8@15 in cm (default: sensorium)")  # fmt: skip
    for name, default, nargs, help in (
        ("centre", None, 2, "pixel (x, y) (default: the screen's)"),
        ("contrasts", (0.05, 1.0), "+", "Michelson contrasts (default: 0.05 1)"),
        ("size", 30.0, None, "diameter of the disc, deg (default: 30)"),
        ("direction", 45.0, None, "of the drift, deg: 0 left, 90 down (default: 45)"),
        ("gap", 0.0, None, "grey between disc and surround, deg (default: 0)"),
        ("outer", None, None, "diameter at which surrounds end, deg (default: they fill the screen)"),
    ):
        parser.add_argument(
            f"--{name}", type=cli.number(float, 0), nargs=nargs, default=default, metavar="X", help=help
        )
    return parser


def main(args) -> None:
    centre = args.centre or args.monitor.centre
    fig, axes = style.figure(len(args.contrasts), len(KINDS), height=19 * len(args.contrasts) + 8)
    rows, edge = [], disc(args.monitor, centre, args.size)
    for row, contrast in zip(axes, args.contrasts, strict=True):
        for ax, kind in zip(row, KINDS, strict=True):
            pattern = context(
                args.monitor, centre, kind, args.size, args.direction, 0.04, 2.0, 1, contrast=contrast,
                outer_deg=args.outer, gap_deg=args.gap,
            )  # fmt: skip
            frame = grey_levels(pattern)[0]
            panels.picture(ax, frame)
            ax.contour(edge, levels=[0.5], colors=style.VERMILION, linewidths=0.6)
            levels = {"darkest": frame.min(), "mean": frame.mean(), "brightest": frame.max()}
            rows.append({"kind": kind, "contrast": contrast, "size_deg": args.size} | levels)
        row[0].set_ylabel(f"contrast {contrast:g}")
    for ax, kind in zip(axes[0], KINDS, strict=True):
        ax.set_title(kind.replace("_", " "))
    caption = (
        f"First frames of the gratings as the monitor shows them: a disc of {args.size:g} deg (red line) and its "
        "surround: none (centre), the same grating (iso), the orthogonal one (cross), the same half a cycle ahead "
        "(shift); and surrounds around a grey disc (inverse, inverse cross). Grey levels are whole numbers, 0 to 255."
    )
    table = pd.DataFrame(rows).round(6)
    for path in style.save(fig, Path(args.output_dir) / "figures" / "contextual_stimuli", table, caption):
        print(path)


if __name__ == "__main__":
    cli.run(main, get_parser())
