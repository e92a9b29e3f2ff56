"""Measure how receptive fields move on the screen when the eye turns: fields at one gaze beside those at others.

reads   RUN/aRF.csv and RUN/retinotopy/ (predict_noise.py, fit_aRFs.py), and the same below every folder of --others,
        which predict_noise.py made with another --gaze and --results_dir
writes  RUN/gaze.csv, one row per mouse and folder; RUN/figures/gaze.{pdf,png,csv}
next    compare_truth.py, report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.errors import UserError
from viv1t.measurements import Measurement
from viv1t.plotting import style
from viv1t.results import locate, read_fields, require

RESAMPLES = 1000


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with aRF.csv at one gaze")
    parser.add_argument(
        "--others", nargs="+", required=True, metavar="DIR", help="folders with aRF.csv at other gazes"
    )
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N",
                        help="of the resamples behind intervals (default: 1234)")  # fmt: skip
    return parser


def main(args) -> None:
    run_dir, rng = Path(args.output_dir), np.random.default_rng(args.seed)
    fields, rows, moved = read_fields(run_dir, args.mouse_ids), [], []
    for other in map(Path, args.others):
        for mouse_id, table in fields.groupby("mouse", sort=False):
            turn = pupil_center(other, mouse_id) - pupil_center(run_dir, mouse_id)
            if not turn.any():
                raise UserError(f"--others {other}: mouse {mouse_id} looks where it does in {run_dir}.")
            shift = displacements(table, read_fields(other, [mouse_id]))
            rows.append({"mouse": mouse_id, "folder": other.name} | describe(turn, shift, len(table), rng))
            moved.append(shift.assign(mouse=mouse_id, pupil=f"{turn[0]:+.3g}, {turn[1]:+.3g}"))
            report(rows[-1])
    io.write_table(locate(run_dir, "gaze"), pd.DataFrame(rows))
    moved = pd.concat(moved, ignore_index=True)
    caption = (
        "Displacement of every neuron's receptive field on the screen (dots) and its median (crosses), when the pupil "
        "is held elsewhere. Colours: how far the pupil moved in the camera's picture, px (x, y). Neurons with a bad "
        "fit at either gaze are left out: "
        + ", ".join(f"{r['mouse']}: {r['neurons'] - r['n']} of {r['neurons']}" for r in rows)
    )
    for path in [locate(run_dir, "gaze"), *style.save(draw(moved), run_dir / "figures" / "gaze", moved, caption)]:
        print(path)


def pupil_center(folder: Path, mouse_id: str) -> np.ndarray:
    """Where the pupil was held (2,), in camera pixels."""
    with Measurement(require(folder, "retinotopy", mouse_id)) as measurement:
        return np.array(measurement.about["pupil_center"])


def displacements(here: pd.DataFrame, there: pd.DataFrame) -> pd.DataFrame:
    """neuron, dx and dy (pixels, to the right and down) of all neurons with a field at both gazes."""
    both = here[~here["bad_fit"]].merge(there[~there["bad_fit"]], on="neuron", suffixes=("", "_there"))
    return pd.DataFrame(
        {"neuron": both["neuron"], "dx": both["x_there"] - both["x"], "dy": both["y_there"] - both["y"]}
    )


def describe(turn: np.ndarray, shift: pd.DataFrame, neurons: int, rng: np.random.Generator) -> dict:
    """Median displacement with its 95 % interval over neurons; of the pupil in camera pixels."""
    found = {"pupil_dx": turn[0], "pupil_dy": turn[1], "neurons": neurons, "n": len(shift)}
    for name in ("dx", "dy"):
        values = shift[name].to_numpy()
        draws = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        found |= {f"field_{name}": np.median(values), f"field_{name}_low": low, f"field_{name}_high": high}
    return found


def report(row: dict) -> None:
    print(
        f"mouse {row['mouse']}: pupil {row['pupil_dx']:+.1f}, {row['pupil_dy']:+.1f} camera px; fields "
        f"{row['field_dx']:+.2f} [{row['field_dx_low']:+.2f}, {row['field_dx_high']:+.2f}] px to the right, "
        f"{row['field_dy']:+.2f} [{row['field_dy_low']:+.2f}, {row['field_dy_high']:+.2f}] px down "
        f"(median of {row['n']} of {row['neurons']} neurons)"
    )


def draw(moved: pd.DataFrame):
    mice = list(dict.fromkeys(moved["mouse"]))
    fig, axes = style.figure(1, len(mice), width=max(70 * len(mice), 90), height=70, sharex=True, sharey=True)
    reach = 1.2 * np.abs(moved.groupby(["mouse", "pupil"])[["dx", "dy"]].median()).max(axis=None) + 1
    for ax, mouse in zip(axes[0], mice, strict=True):
        own = moved[moved["mouse"] == mouse]
        for color, (pupil, part) in zip(style.CYCLE, own.groupby("pupil", sort=False), strict=False):
            ax.scatter(part["dx"], part["dy"], s=3, color=color, alpha=0.4, linewidths=0)
            middle = part[["dx", "dy"]].median()
            ax.plot(*middle, "+", color=color, markersize=12, markeredgewidth=1.5, label=f"pupil {pupil} px")
        ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
        ax.axvline(0, color=style.GREY, linewidth=0.6, zorder=0)
        ax.set(xlim=(-reach, reach), ylim=(reach, -reach), xlabel="displacement to the right (px)")
        ax.set_title(f"{mouse}, n = {own['neuron'].nunique()}", loc="left")
        ax.set_aspect("equal")
    axes[0, 0].set_ylabel("displacement down (px)")
    axes[0, 0].legend(loc="upper left")
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
