"""Draw artificial receptive fields: maps of a few neurons, where all centres lie, and how good the fits are.

reads   RUN/aRF.csv, RUN/retinotopy/ (predict_noise.py, fit_aRFs.py)
writes  RUN/figures/aRFs_mouse<ID>.{pdf,png,csv}
next    visualize_retinotopy.py, report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.estimators.receptive_field import LEAST_R2, LEAST_SNR
from viv1t.geometry import Monitor
from viv1t.measurements import Measurement
from viv1t.plotting import maps, panels, style
from viv1t.results import read_fields, require

QUANTILES = {"good": (0.95, 0.9), "median": (0.5,), "rejected": (0.9, 0.5)}  # of R2 among accepted, or rejected, fits
PANELS = {  # column -> label, bins, threshold
    "r2": ("R² of the fit", np.linspace(0, 1, 26), LEAST_R2),
    "snr": ("signal to noise", np.linspace(0, 60, 31), LEAST_SNR),
    "half_distance": ("halves apart (px)", np.linspace(0, 4, 33), None),
    "fwhm_major_deg": ("width (deg)", np.linspace(0, 60, 31), None),
}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with aRF.csv")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    for mouse_id, fields in read_fields(run_dir, args.mouse_ids).groupby("mouse", sort=False):
        fields = fields.reset_index(drop=True)
        images = np.load(require(run_dir, "maps", mouse_id), mmap_mode="r", allow_pickle=False)
        with Measurement(require(run_dir, "retinotopy", mouse_id)) as measurement:
            monitor, source = measurement.monitor, measurement.about["source"]
        fig = draw(fields, choose(fields), images, monitor)
        bad = fields["bad_fit"]
        caption = (
            f"Mouse {mouse_id}, {source}: artificial receptive fields of {len(fields)} neurons. {(~bad).sum()} are "
            f"accepted, {bad.sum()} rejected: R² below {LEAST_R2}, signal to noise below {LEAST_SNR:.0f}, centre off "
            f"the screen, or constant responses ({fields['r2'].isna().sum()}). Above: maps of local contrast (red: "
            "the neuron responds more) with the 1-sigma ellipse of the fitted Gaussian. Below: all fits over R² and "
            "signal to noise, with the thresholds (dashed); accepted ones over the distance between centres from two "
            "halves of the patterns, and over the full width at half maximum along the longer axis (lines: medians); "
            "where their centres lie."
        )
        for path in style.save(fig, run_dir / "figures" / f"aRFs_mouse{mouse_id}", fields, caption):
            print(path)


def choose(fields: pd.DataFrame) -> list[tuple[str, int]]:
    """(kind, row) of the neurons to draw; kinds that no neuron is of are left out."""
    chosen = []
    for kind, quantiles in QUANTILES.items():
        ranked = fields[fields["bad_fit"] == (kind == "rejected")].dropna(subset=["r2"]).sort_values("r2")
        if len(ranked):
            chosen += [(kind, ranked.index[int(q * (len(ranked) - 1))]) for q in quantiles]
    return list(dict.fromkeys(chosen))


def ellipse(field: pd.Series) -> np.ndarray:
    """The 1-sigma ellipse (K, 2) of a fit, in pixels."""
    turn, theta = np.linspace(0, 2 * np.pi, 61), np.radians(field["theta_deg"])
    u, v = field["sigma_major"] * np.cos(turn), field["sigma_minor"] * np.sin(turn)
    x, y = u * np.cos(theta) - v * np.sin(theta), u * np.sin(theta) + v * np.cos(theta)
    return np.stack([field["x"] + x, field["y"] - y], axis=-1)  # theta is counter-clockwise, y goes down


def draw(fields: pd.DataFrame, chosen: list[tuple[str, int]], images: np.ndarray, monitor: Monitor):
    fig, axes = style.figure(2, 5, height=85)
    for ax in axes[0, len(chosen) :]:
        ax.remove()
    for ax, (kind, row) in zip(axes[0], chosen, strict=False):
        field = fields.loc[row]
        maps.field_in_degrees(ax, images[row], monitor, ellipse(field))
        ax.set_title(f"{kind}, R² {field['r2']:.2f}\nneuron {field['neuron']}", loc="left")
        ax.set_ylabel("elevation (deg)" if ax is axes[0, 0] else "")
    good = fields[~fields["bad_fit"]]
    edges = monitor.to_degrees([[-0.5, monitor.centre[1]], [monitor.width - 0.5, monitor.centre[1]],
                                [monitor.centre[0], monitor.height - 0.5], [monitor.centre[0], -0.5]])  # fmt: skip
    extent = (*edges[:2, 0], *edges[2:, 1])
    maps.field_density(axes[1, -1], good[["azimuth_deg", "elevation_deg"]].to_numpy(), extent, "deg")
    axes[1, -1].set_title(f"n = {len(good)}", loc="left")
    for ax, (name, (label, bins, threshold)) in zip(axes[1, :-1], PANELS.items(), strict=True):
        shown = (fields if threshold else good)[name].dropna().clip(bins[0], bins[-1])
        if shown.empty:
            ax.remove()
            continue
        panels.shares(ax, shown, bins, label)
        ax.set_ylabel("neurons (%)" if ax is axes[1, 0] else "")
        ax.set_title("")
        ax.set_title(f"median {shown.median():.3g}\nn = {len(shown)}", loc="left")
        if threshold:
            ax.axvline(threshold, color=style.BLACK, linestyle="--", linewidth=1)
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
