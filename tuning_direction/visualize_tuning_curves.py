"""Draw tuning curves: of example neurons, and of the population, every neuron turned to its preferred direction.

reads   RUN/selectivity_<source>.csv, RUN/direction/curves_<source>_mouse<ID>.npz (estimate_selectivity.py): gratings;
        or, with --stimulus gabors, those of recording, twin and animal that are there
writes  RUN/figures/tuning_curves_<stimulus>_mouse<ID>.{pdf,png,csv}: examples; tuning_width_<stimulus>: the population
next    compare_recorded.py, report.py

Noise makes a peak wherever a curve is turned to its own largest value. So the preferred direction comes from one half
of the repeats, of the recording if it is there, and the curve of that source from the other half.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.curves import Curves, shared_neurons
from viv1t.errors import UserError
from viv1t.estimators.selectivity import circular_tuning
from viv1t.plotting import style, tuning
from viv1t.results import locate, read_selectivity, require
from viv1t.stats import hierarchical_bootstrap

SOURCES = {"gratings": ("gratings",), "gabors": ("recording", "twin", "animal")}
EXAMPLES = 6
SEED = 1


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with selectivity_<source>.csv")
    words = cli.Words(*SOURCES)
    parser.add_argument("--stimulus", type=words, default="gratings", metavar="WORD", help=f"{words} (default: 0)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    parser.add_argument("--neurons", type=cli.number(int, 0), nargs="+", metavar="N",
                        help="examples, rows in the recording (default: random direction-selective ones)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N", help="of the random neurons")
    return parser


def main(args) -> None:
    run_dir, sources = Path(args.output_dir), SOURCES[args.stimulus]
    present = [name for name in sources if locate(run_dir, f"selectivity_{name}").is_file()] or sources[:1]
    selectivity = read_selectivity(run_dir, present[0], args.mouse_ids)
    if not selectivity["responsive"].any():
        raise UserError(f"{run_dir}: no neuron responds ({present[0]}). Nothing to draw; see estimate_selectivity.py.")
    turned = {}
    for mouse_id, table in selectivity.groupby("mouse", sort=False):
        curves = read_all(run_dir, present, mouse_id)
        known = table[table["neuron"].isin(curves[0].neurons)]
        selective = known.loc[known["direction_selective"], "neuron"].to_numpy()
        examples = choose(mouse_id, args, curves[0].neurons, selective)
        write_examples(run_dir, args.stimulus, mouse_id, [each.of(examples) for each in curves])
        turned[mouse_id] = {each.label: each for each in turn([each.of(selective) for each in curves])}
    write_population(run_dir, args.stimulus, turned, selectivity)


def read_all(run_dir: Path, sources, mouse_id: str) -> list[Curves]:
    """Curves of all sources that have this mouse, for the neurons that all have."""
    found = [locate(run_dir, f"curves_{name}", mouse_id) for name in sources]
    curves = [Curves.read(path) for path in found if path.is_file()]
    if not curves:
        require(run_dir, f"curves_{sources[0]}", mouse_id)
    neurons = shared_neurons(*curves)
    return [each.of(neurons) for each in curves]


def choose(mouse_id: str, args, neurons: np.ndarray, selective: np.ndarray) -> np.ndarray:
    if args.neurons:
        unknown = sorted(set(args.neurons) - set(neurons.tolist()))
        if unknown:
            raise UserError(
                f"--neurons {unknown[0]}: mouse {mouse_id} has neurons {neurons.min()} to {neurons.max()}."
            )
        return np.array(args.neurons)
    pool = selective if len(selective) else neurons
    rng = np.random.default_rng(args.seed)
    return np.sort(rng.choice(pool, min(EXAMPLES, len(pool)), replace=False))


def write_examples(run_dir: Path, stimulus: str, mouse_id: str, curves: list[Curves]) -> None:
    examples = curves[0].neurons
    rows = -(-len(examples) // 3)
    fig, axes = style.figure(rows, 3, height=48 * rows + 10, below=8)
    numbers = []
    for k, (ax, neuron) in enumerate(zip(axes.flat, examples, strict=False)):
        shown = {}
        for each in curves:
            mean, sem = each.mean[k], np.nan_to_num(each.sem[k])
            shown[each.label] = mean, mean - sem, mean + sem
            columns = {"direction_deg": each.angles, "mean": mean, "sem": each.sem[k]}
            numbers.append(pd.DataFrame({"neuron": neuron, "answered": each.label, **columns}))
        tuning.tuning_curve(ax, curves[0].angles, shown)
        ax.axhline(curves[0].baseline[k], color=style.GREY, linewidth=0.6, linestyle="--", zorder=0)
        ax.set_title(f"neuron {neuron}", loc="left")
    for ax in axes.flat[len(examples) :]:
        ax.set_visible(False)
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    fig.supylabel("response (recorded units)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="lower left", ncols=3)
    caption = (
        f"Mouse {mouse_id}: tuning for the direction of motion of {len(examples)} neurons ({stimulus}), mean ± sem "
        "over repeats where there are any. 0 moves left, 90 down, 180 right, 270 up. Dashed: response that counts "
        "as none."
    )
    name = f"tuning_curves_{stimulus}_mouse{mouse_id}"
    for path in style.save(fig, run_dir / "figures" / name, pd.concat(numbers).round(6), caption):
        print(path)


def turn(curves: list[Curves]) -> list[Curves]:
    """Curves in shares of their mean, with the preferred direction of the first source's first half in the middle."""
    reference = circular_tuning(curves[0].halves[0], curves[0].angles, curves[0].baseline)["best_deg"].to_numpy()
    turned = []
    for k, each in enumerate(curves):
        D = len(each.angles)
        mean = np.maximum((each.halves[1] if k == 0 else each.mean) - each.baseline[:, None], 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = mean / mean.mean(axis=1, keepdims=True)
        first = np.rint((np.nan_to_num(reference) - each.angles[0]) * D / 360).astype(int) - D // 2
        mean = np.take_along_axis(mean, (np.arange(D) + first[:, None]) % D, axis=1)
        mean[np.isnan(reference)] = np.nan
        turned.append(replace(each, angles=(np.arange(D) - D // 2) * 360 / D, mean=mean))
    return turned


def write_population(run_dir: Path, stimulus: str, turned: dict, selectivity: pd.DataFrame) -> None:
    labels = list(dict.fromkeys(label for mouse in turned.values() for label in mouse))
    fig, axes = style.figure(1, 3, height=66, below=8)
    numbers = []
    for ax, name, period in ((axes[0, 0], "direction", 360.0), (axes[0, 1], "orientation", 180.0)):
        shown = {}
        for label in labels:
            mice = [mouse[label] for mouse in turned.values() if label in mouse]
            mice = mice if name == "direction" else [fold(each) for each in mice]
            rng, angles = np.random.default_rng(SEED), mice[0].angles
            found = [hierarchical_bootstrap([each.mean[:, d] for each in mice], rng) for d in range(len(angles))]
            mean, low, high = shown[label] = np.array([(i.mean, i.low, i.high) for i in found]).T
            columns = {"from_preferred_deg": angles, "mean": mean, "low": low, "high": high, "n": found[0].n}
            numbers.append(pd.DataFrame({"tuning": name, "answered": label, **columns}))
        tuning.tuning_curve(ax, angles, shown, period)
    for ax, name in zip(axes[0], ("direction", "axis"), strict=False):
        ax.axhline(1, color=style.COLORS["chance"], linestyle="--", linewidth=0.8)
        ax.set(xlabel=f"{name}, from preferred (deg)", ylabel="response / mean response", ylim=(0, None))
    widths = selectivity.loc[selectivity["responsive"], "half_width_deg"]
    tuning.index_histogram(axes[0, 2], {labels[0]: widths.to_numpy()}, "half width at half maximum (deg)", (0, 90))
    axes[0, 2].set_title(f"median {widths.median():.0f} deg, n = {widths.notna().sum()}", loc="left")
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="lower left", ncols=3)
    for ax, text in zip(axes[0], "abc", strict=True):
        style.letter(ax, text)
    n = sum(len(next(iter(mouse.values())).neurons) for mouse in turned.values())
    caption = (
        f"Tuning of {n} direction-selective neurons of {len(turned)} {'mouse' if len(turned) == 1 else 'mice'} "
        f"({stimulus}), each in shares of its mean and turned to the direction that half of the {labels[0]} repeats "
        "prefer; the other half is drawn (gratings are shown once and without noise). Mean of mice with 95 % "
        "interval, bootstrap over mice and neurons. c: width of von Mises fits with R2 > 0.7 of responsive neurons; "
        f"for {int(widths.isna().sum())} of {len(widths)} there is none."
    )
    shown = pd.concat(numbers, ignore_index=True).round(6)
    for path in style.save(fig, run_dir / "figures" / f"tuning_width_{stimulus}", shown, caption):
        print(path)


def fold(curves: Curves) -> Curves:
    """Curves over the axis of motion, -90 to 90 deg: means of opposite directions."""
    half = len(curves.angles) // 2
    mean = 0.5 * (
        curves.mean[:, :half] + curves.mean[:, half:]
    )  # the first is half a turn from the preferred, on its axis
    return replace(curves, angles=(np.arange(half) - half // 2) * 180 / half, mean=np.roll(mean, half // 2, axis=1))


if __name__ == "__main__":
    cli.run(main, get_parser())
