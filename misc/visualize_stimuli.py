"""Draw every pattern of the stimulus library as a monitor shows it, in degrees of visual angle.

writes  OUTPUT_DIR/stimuli.{pdf,png,csv}
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.geometry import MONITORS, Monitor
from viv1t.plotting import style
from viv1t.simulate.scenes import natural_image
from viv1t.stimulus import dots, natural, noise
from viv1t.stimulus.gratings import gabor, grating
from viv1t.stimulus.levels import grey_levels
from viv1t.stimulus.windows import annulus, centre_surround, classical, disc, inverse

COLUMNS = 4
DIRECTION, CPD, HERTZ, SPEED = 225, 0.04, 2, 30  # deg (right and up), cycles/deg, Hz, deg/s
AZIMUTHS, ELEVATIONS = (-50, -25, 0, 25, 50), (-30, 0, 30)  # ticks, deg


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the figure")
    parser.add_argument("--monitor", choices=MONITORS, default="sensorium", help="the screen (default: sensorium)")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="seed of the noise (default: 0)")
    return parser


def main(args) -> None:
    monitor = MONITORS[args.monitor]
    images = {name: grey_levels(image) for name, image in show_all(monitor, np.random.default_rng(args.seed)).items()}
    caption = (
        f"One frame of every pattern on the {args.monitor} monitor, grey levels 0 to 255. Gratings: {CPD} cycles/deg; "
        "angles are counted from the screen centre, or from the cross. Ticks are those of the middle row and column."
    )
    for path in style.save(draw(monitor, images), args.output_dir / "stimuli", tabulate(monitor, images), caption):
        print(path)


def show_all(monitor: Monitor, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Name of each pattern -> one frame of it, contrast (H, W)."""
    field = field_centre(monitor)
    g, cross = (grating(monitor, DIRECTION + turn, CPD, HERTZ, 1, centre=field) for turn in (0, 90))
    window, ring = disc(monitor, field, 25), annulus(monitor, field, 35, 70)
    patterns = {
        "grating, spherical": grating(monitor, DIRECTION, CPD, HERTZ, 1),
        "grating, flat": grating(monitor, DIRECTION, CPD, HERTZ, 1, geometry="flat"),
        "grating around +": g,
        "gabor around +": gabor(monitor, DIRECTION, CPD, HERTZ, 1, 12, centre=field),
        "classical": classical(g, window),
        "inverse": inverse(g, window),
        "centre, cross surround": centre_surround(g, cross, window),
        "centre, shifted surround": centre_surround(g, -g, window),
        "cross, gap and end": centre_surround(g, cross, window, ring),
        "white_noise": noise.white_noise(monitor, 1, rng),
        "mask_noise": noise.mask_noise(monitor, 1, rng)[0],
        "pink_noise": noise.pink_noise(monitor, 1, rng),
        "directional_noise": noise.directional_noise(monitor, DIRECTION, SPEED, 1, rng),
        "gaussian_dot at +": dots.gaussian_dot(monitor, field, 8, 1, 1),
        "random_dots": dots.random_dots(monitor, DIRECTION, 0.5, 1, rng),
        "flash": natural.flash(monitor, natural_image(rng, monitor), 1),
    }
    return {name: pattern[0] for name, pattern in patterns.items()}


def field_centre(monitor: Monitor) -> np.ndarray:
    """Pixel (x, y) of a receptive field to the right of the screen centre and above it."""
    return monitor.to_pixels((25.0, 10.0))


def draw(monitor: Monitor, images: dict[str, np.ndarray]):
    rows = len(images) // COLUMNS
    fig, axes = style.figure(rows, COLUMNS, height=33 * rows, sharex=True, sharey=True)
    for ax, (name, image) in zip(axes.flat, images.items(), strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        ax.set_title(name)
        if "+" in name:
            ax.plot(*field_centre(monitor), "+", color=style.VERMILION, markersize=6)
    horizontal, vertical = (np.array(ticks, float) for ticks in (AZIMUTHS, ELEVATIONS))
    x = monitor.to_pixels(np.stack([horizontal, 0 * horizontal], axis=-1))[:, 0]
    y = monitor.to_pixels(np.stack([0 * vertical, vertical], axis=-1))[:, 1]
    axes[0, 0].set_xticks(x, AZIMUTHS)
    axes[0, 0].set_yticks(y, ELEVATIONS)
    fig.supxlabel("azimuth (deg)")
    fig.supylabel("elevation (deg)")
    return fig


def tabulate(monitor: Monitor, images: dict[str, np.ndarray]) -> pd.DataFrame:
    """One row per pattern and pixel."""
    y, x = np.indices((monitor.height, monitor.width)).reshape(2, -1)
    azimuth, elevation = monitor.to_degrees(np.stack([x, y], axis=-1)).round(3).T
    place = pd.DataFrame({"x": x, "y": y, "azimuth_deg": azimuth, "elevation_deg": elevation})
    return pd.concat([place.assign(pattern=name, grey_level=image.ravel()) for name, image in images.items()])


if __name__ == "__main__":
    cli.run(main, get_parser())
