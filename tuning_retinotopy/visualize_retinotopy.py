"""Draw the map from cortex to visual field: azimuth and elevation of receptive fields over the cortical sheet.

reads   RUN/aRF.csv (fit_aRFs.py), RUN/retinotopy.csv (estimate_retinotopy.py), RUN/retinotopy/ (predict_noise.py)
writes  RUN/figures/retinotopy_mouse<ID>.{pdf,png,csv}
next    report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.estimators.receptive_field import gaussian2d
from viv1t.geometry import Monitor
from viv1t.measurements import Measurement
from viv1t.plotting import maps, style
from viv1t.results import read_fields, read_table, require

CENTRE = ("azimuth", "elevation")
SHARES = (0.1, 0.5)  # of the peak of the population's field


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with aRF.csv and retinotopy.csv")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    found = read_table(run_dir, "cortical_map", args.mouse_ids).set_index("mouse")
    fields = read_fields(run_dir, list(found.index))
    for mouse_id, cortex in found.iterrows():
        own = fields[fields["mouse"] == mouse_id]
        good = with_residuals(own[~own["bad_fit"]], cortex)
        with Measurement(require(run_dir, "retinotopy", mouse_id)) as measurement:
            monitor, source = measurement.monitor, measurement.about["source"]
        caption = (
            f"Mouse {mouse_id}, {source}: azimuth and elevation of the receptive fields of {len(good)} of {len(own)} "
            "neurons (others have a bad fit), at their places in cortex. Arrows: gradient of the fitted plane. "
            "Third panel: distance of every field from the plane, with ellipses of "
            "1 and 2 sd. Last: where the mean of all fitted fields reaches 10 and 50 % of its peak."
        )
        for path in style.save(
            draw(good, cortex, monitor), run_dir / "figures" / f"retinotopy_mouse{mouse_id}", good, caption
        ):
            print(path)


def with_residuals(fields: pd.DataFrame, cortex: pd.Series) -> pd.DataFrame:
    """Distance of every centre from the plane, in the columns azimuth_residual and elevation_residual (deg)."""
    x, y = fields["x_um"] / 1000, fields["y_um"] / 1000
    planes = {
        name: cortex[f"{name}_at_0"] + cortex[f"{name}_per_x"] * x + cortex[f"{name}_per_y"] * y for name in CENTRE
    }
    return fields.assign(**{f"{name}_residual": fields[f"{name}_deg"] - planes[name] for name in CENTRE})


def population_field(fields: pd.DataFrame, monitor: Monitor) -> np.ndarray:
    """Mean (H, W) over neurons of the fitted fields, each with a peak of 1."""
    names = ["x", "y", "sigma_major", "sigma_minor"]
    parameters = np.column_stack(
        [np.ones(len(fields)), fields[names], np.radians(fields["theta_deg"]), np.zeros(len(fields))]
    )
    y, x = np.mgrid[: monitor.height, : monitor.width]
    return np.mean([gaussian2d(x, y, row[None])[0] for row in parameters], axis=0)


def draw(fields: pd.DataFrame, cortex: pd.Series, monitor: Monitor):
    fig, axes = style.figure(1, 4, height=62)
    xy = fields[["x_um", "y_um"]].to_numpy()
    for ax, name in zip(axes[0], CENTRE, strict=False):
        maps.cortex_map(ax, xy, fields[f"{name}_deg"].to_numpy(), f"{name} (deg)")
        gradient = cortex[[f"{name}_per_x", f"{name}_per_y"]].to_numpy(float)
        maps.gradient_arrow(ax, gradient, f"{np.linalg.norm(gradient):.0f} deg/mm, R² {cortex[f'r2_{name}']:.2f}")
    axes[0, 1].set_ylabel("")
    residuals(axes[0, 2], fields, cortex)
    if len(fields):
        maps.contours(axes[0, 3], population_field(fields, monitor), monitor, SHARES, style.BLUE)
        axes[0, 3].set_title(f"n = {len(fields)}", loc="left")
    return fig


def residuals(ax, fields: pd.DataFrame, cortex: pd.Series) -> None:
    x, y = (fields[f"{name}_residual"] for name in CENTRE)
    sd = [cortex[f"scatter_{name}_deg"] for name in CENTRE]
    ax.scatter(x, y, s=4, color=style.BLUE, alpha=0.5, linewidths=0)
    turn = np.linspace(0, 2 * np.pi, 61)
    for size in (1, 2):
        ax.plot(size * sd[0] * np.cos(turn), size * sd[1] * np.sin(turn), color=style.BLACK, linewidth=0.8)
    reach = 4 * np.nanmax([*sd, 1e-9])
    beyond = int(((x.abs() > reach) | (y.abs() > reach)).sum())
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.set(xlabel="azimuth, residual (deg)", ylabel="elevation, residual (deg)")
    ax.set_title(f"sd {sd[0]:.1f}, {sd[1]:.1f} deg\nn = {len(x)}, beyond {beyond}", loc="left")


if __name__ == "__main__":
    cli.run(main, get_parser())
