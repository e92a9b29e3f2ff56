"""Simulate mice: recordings in the Sensorium 2023 layout whose neurons, gaze and noise are known.

reads   nothing, or a folder of movies (--movies: .npy of shape (frames, height, width), or .mp4)
writes  DATA_DIR/simulated/<mouse>/: data/ and meta/ as in real recordings, and truth/ (neurons.csv, rates/, ood/,
        animal.json). The same command continues where it was stopped, and does nothing when all is there.
next    python train.py --data_dir DATA_DIR
"""

import os
from pathlib import Path

from tqdm import tqdm

from viv1t import cli
from viv1t.geometry import MONITORS
from viv1t.simulate.design import Design, is_written

LAYOUTS = ("compact", "sensorium")
SECONDS = 0.13, 0.0002  # one core needs this for a trial, and for each neuron in it


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="recordings go to DATA_DIR/simulated")
    parser.add_argument("--mice", type=cli.number(int, 1), default=2, help="how many animals (default: 2)")
    design = parser.add_argument_group("what is recorded")
    for name, kind, help in (
        ("neurons", cli.number(int, 8), "neurons per animal"),
        ("trials", cli.number(int, 1), "training movies, each shown once"),
        ("clips", cli.number(int, 1), "videos per main test tier and per bonus stimulus"),
        ("repeats", cli.number(int, 1), "repeats of every main test movie"),
        ("bonus_repeats", cli.number(int, 0), "repeats of every bonus video; 0: none"),
        ("frames", cli.number(int, 60, 324), "frames per trial"),
        ("noise", cli.number(float, 0, 10), "scales the noise; 0 records the rate itself"),
        ("day", cli.number(int, 1), "later days: same animals, gains and gaze drifted, 20 % of the neurons lost"),
        ("monitor", cli.Words(*MONITORS), f"one of {cli.Words(*MONITORS)}"),
        ("height", cli.number(int, 8), "of a frame in pixels"),
        ("width", cli.number(int, 8), "of a frame in pixels"),
        ("layout", cli.Words(*LAYOUTS), "compact: uint8 and float32; sensorium: float64, NaN-padded to 324 frames"),
        ("apertures", cli.number(float, 0, 1), "share of the training movies that are shown behind apertures"),
        ("seed", cli.number(int, 0), "of everything"),
    ):
        default = Design.__dataclass_fields__[name].default
        help = f"{help} (default: {default})".replace("%", "%%")
        design.add_argument(f"--{name}", type=kind, default=default, help=help)
    design.add_argument("--movies", type=Path, help="folder of your own movies, instead of generated ones")
    parser.add_argument("--num_workers", type=cli.number(int, 1), default=os.cpu_count(), help="processes")
    parser.add_argument("--overwrite", action="store_true", help="replace simulated recordings of another design")
    return parser


def get_designs(args) -> list[Design]:
    flags = {name: value for name, value in vars(args).items() if name in Design.__dataclass_fields__}
    if args.movies:
        from viv1t.simulate.movies import find_movies

        flags["movies"] = f"{args.movies.resolve()}#{find_movies(args.movies)[1]}"
    return [Design(mouse=mouse, **flags) for mouse in range(args.mice)]


def main(args) -> None:
    designs, root = get_designs(args), args.data_dir / "simulated"
    missing = [design for design in designs if not is_written(root / design.name, design, args.overwrite)]
    if missing:
        from viv1t.simulate.recording import simulate  # loads PyTorch, which a finished data set need not wait for

        trials, workers = sum(design.num_trials for design in missing), min(args.num_workers, os.cpu_count())
        minutes = (10 + trials * (SECONDS[0] + SECONDS[1] * args.neurons) / workers) / 60
        gigabytes = sum(design.bytes for design in missing) / 1e9
        print(f"{len(missing)} mice, {trials} trials, {gigabytes:.2f} GB, about {minutes:.1f} min", flush=True)
        with tqdm(total=trials, unit="trial", disable=None) as bar:
            for done in simulate(root, missing, workers):
                bar.update(done)
    for design in designs:
        print(root / design.name)


if __name__ == "__main__":
    cli.run(main, get_parser())
