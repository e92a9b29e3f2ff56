"""Draw size tuning for classical and inverse gratings: examples, the population, indices, and classes of neurons.

reads   RUN/feedbackRF/mouse<ID>.h5 (predict_gratings.py), RUN/size_tuning.csv (estimate_size_tuning.py)
writes  RUN/figures/size_curves_mouse<ID>.{pdf,png,csv}: examples; RUN/figures/size_tuning.{pdf,png,csv}: the
        population; RUN/statistics/size_tuning.csv: answers to the questions below
next    predict_onset.py, report.py

Dotted in the population's curves: layer 2/3 of awake mice (Keller et al. 2020).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.errors import UserError
from viv1t.estimators import groups
from viv1t.estimators.size_tuning import SizeCurves, fit_classical, fit_inverse, size_curves
from viv1t.measurements import Measurement
from viv1t.plotting import panels, sizes, style
from viv1t.results import read_table, require, write_answers
from viv1t.stats import Answer, ask, bootstrap, hierarchical_bootstrap

QUESTIONS = {  # question -> effect, column, statistic, of whom
    "Does the full field drive neurons less than their best disc?": (
        "mean (disc - full field) / larger of both", "suppression", np.mean, "responsive"),
    "Do inverse-tuned neurons prefer larger grey discs than discs?": (
        "median difference (deg)", "larger", np.median, "inverse_tuned"),
}  # fmt: skip
EXAMPLES = 3  # of each class
SEED = 1


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with size_tuning.csv")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all)")
    parser.add_argument("--neurons", type=cli.number(int, 0), nargs="+", metavar="N",
                        help="examples, rows in the recording (default: random ones of each class)")  # fmt: skip
    parser.add_argument(
        "--seed", type=cli.number(int, 0), default=1, metavar="N", help="of random examples (default: 1)"
    )
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    table = read_table(run_dir, "size_tuning", args.mouse_ids)
    if not table["responsive"].any():
        raise UserError(f"{run_dir}: no neuron responds. Nothing to draw; see estimate_size_tuning.py.")
    curves = {mouse_id: read_curves(run_dir, mouse_id) for mouse_id in table["mouse"].unique()}
    for mouse_id, own in table.groupby("mouse", sort=False):
        examples = choose(mouse_id, own, args)
        if len(examples):
            write_examples(run_dir, mouse_id, examples, own.set_index("neuron"), curves[mouse_id])
    write_answers(run_dir, "size_tuning", answers(table))
    write_population(run_dir, table, curves)


def read_curves(run_dir: Path, mouse_id: str) -> tuple[np.ndarray, SizeCurves]:
    """Neurons (rows in the recording) of a mouse, and their curves."""
    with Measurement(require(run_dir, "sizes", mouse_id)) as measurement:
        return measurement.neurons, size_curves(
            measurement.conditions, measurement.responses[:], measurement.spontaneous
        )


def answers(table: pd.DataFrame) -> list[Answer]:
    """One test for each question. Unlike the suppression index, what is tested can be negative."""
    disc, full = table["peak"], table["full_field"]
    table = table.assign(
        suppression=(disc - full) / np.maximum(disc, full),
        larger=table["inverse_size_deg"] - table["preferred_size_deg"],
    )
    return [
        ask(question, effect, table[table[whom]], column, np.random.default_rng(SEED), statistic=statistic)
        for question, (effect, column, statistic, whom) in QUESTIONS.items()
    ]


def choose(mouse_id: str, table: pd.DataFrame, args) -> np.ndarray:
    """Neurons to draw: those asked for, or random ones of each class."""
    if args.neurons:
        responsive = table.loc[table["responsive"], "neuron"]
        missing = sorted(set(args.neurons) - set(responsive))
        if missing:
            raise UserError(f"--neurons {missing[0]}: mouse {mouse_id} has no size tuning of it, see size_tuning.csv.")
        return np.array(args.neurons)
    rng, chosen = np.random.default_rng(args.seed), []
    for name in ("classical", "inverse-tuned"):
        pool = table.loc[table["class"] == name, "neuron"].to_numpy()
        chosen.append(np.sort(rng.choice(pool, min(EXAMPLES, len(pool)), replace=False)))
    return np.concatenate(chosen)


def write_examples(run_dir: Path, mouse_id: str, examples: np.ndarray, table: pd.DataFrame, read) -> None:
    neurons, curves = read
    rows = np.searchsorted(neurons, examples)
    shown, grid = curves.sizes, np.linspace(0, curves.sizes[-1], 200)
    classical, inverse, full = curves.classical[rows], curves.inverse[rows], curves.full[rows]
    fits = fit_classical(shown, classical, full).at(grid), fit_inverse(shown, inverse, full).at(grid)
    lines = -(-len(examples) // 3)
    fig, axes = style.figure(lines, 3, height=52 * lines + 8, below=8)
    numbers = []
    for k, (ax, neuron) in enumerate(zip(axes.flat, examples, strict=False)):
        sizes.size_curves(ax, shown, classical[k], inverse[k], full[k])
        sizes.fitted_curves(ax, grid, *(fit[k] for fit in fits))
        sizes.size_axis(ax)
        own = table.loc[neuron]
        ax.set_title(f"neuron {neuron}, SI {own['suppression_index']:.2f}, ITI {own['inverse_tuning_index']:.2f}",
                     loc="left")  # fmt: skip
        columns = {"size_deg": [*shown, np.inf], "classical": [*classical[k], full[k]]}
        numbers.append(pd.DataFrame({"neuron": neuron, **columns, "inverse": [*inverse[k], np.nan]}))
        fitted = {"size_deg": grid, "classical_fit": fits[0][k], "inverse_fit": fits[1][k]}
        numbers.append(pd.DataFrame({"neuron": neuron, **fitted}))
    for ax in axes.flat[len(examples) :]:
        ax.set_visible(False)
    fig.supylabel("response above grey (recorded units)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="lower left", ncols=2)
    caption = (
        f"Mouse {mouse_id}: responses of {len(examples)} neurons to gratings in a disc (classical) and around a grey "
        "disc (inverse); without a disc the inverse grating is the full field, which stands on the right, too. Lines: "
        "ratio of Gaussians, and a peak on a logarithmic axis beside the remains of the full-field response. SI: "
        "suppression index, ITI: inverse tuning index."
    )
    for path in style.save(
        fig, run_dir / "figures" / f"size_curves_mouse{mouse_id}", pd.concat(numbers).round(6), caption
    ):
        print(path)


def write_population(run_dir: Path, table: pd.DataFrame, curves: dict) -> None:
    fig, axes = style.figure(2, 3, height=138, below=9)
    responsive, tuned = table[table["responsive"]], table[table["inverse_tuned"]]
    numbers = [draw_curves(axes[0, 0], table, curves)]
    numbers += draw_distributions(axes, responsive, tuned)
    numbers += [draw_classes(axes[1, 1], table), draw_depth(axes[1, 2], responsive)]
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        style.letter(ax, text)
    fig.legend(*legend_of(axes[0, 0], axes[1, 1]), loc="lower left", ncols=5)
    unseen = (~table["class"].isin(sizes.CLASSES)).sum()
    caption = (
        f"Size tuning of {panels.told(responsive)}, all responsive to a classical grating; {len(tuned)} of them are "
        "inverse-tuned. a: classical curves of responsive neurons and inverse curves of inverse-tuned ones, each in "
        "shares of its own peak: mice (thin), their mean and 95 % interval (bootstrap over mice and neurons); dotted: "
        "in vivo (Keller et al. 2020). b: preferred diameter of the disc, of responsive neurons, and of the grey "
        "disc, of inverse-tuned ones. c: suppression index of responsive neurons. d: inverse tuning index (0 "
        "classical only, 1 inverse only). Triangles: medians; dotted lines: in vivo (b medians, d mean, f share). e: "
        f"classes of the neurons that were shown gratings on their field; {unseen} of {len(table)} were not. f: "
        "inverse-tuned neurons among responsive ones by imaging plane, 95 % intervals. Cell types are not known."
    )
    for path in style.save(fig, run_dir / "figures" / "size_tuning", pd.concat(numbers).round(6), caption):
        print(path)


def draw_curves(ax, table: pd.DataFrame, curves: dict) -> pd.DataFrame:
    """Population curves in shares of each neuron's peak."""
    numbers, found = [], {"classical": [], "inverse": []}
    for mouse_id, (neurons, own) in curves.items():
        flags = table[table["mouse"] == mouse_id].set_index("neuron").reindex(neurons)
        kinds = {
            "classical": (np.column_stack([own.classical, own.full]), flags["responsive"]),
            "inverse": (np.column_stack([own.full, own.inverse]), flags["inverse_tuned"]),
        }
        for name, (values, chosen) in kinds.items():
            values = values[chosen.fillna(False).to_numpy(bool)]
            found[name].append(values / values.max(axis=1, keepdims=True) if len(values) else values)
    shown = own.sizes
    axis = {"classical": np.append(shown, sizes.FULL), "inverse": np.append(0.0, shown)}
    sizes.in_vivo_curves(ax)
    for name, mice in found.items():
        mice = [own for own in mice if len(own)]
        if not mice:
            continue
        rng, S = np.random.default_rng(SEED), mice[0].shape[1]
        intervals = [hierarchical_bootstrap([own[:, s] for own in mice], rng) for s in range(S)]
        bands = np.array([(i.mean, i.low, i.high) for i in intervals]).T
        sizes.population_curve(ax, name, axis[name], np.array([own.mean(axis=0) for own in mice]), bands)
        columns = dict(zip(("mean", "low", "high"), bands, strict=True))
        numbers.append(pd.DataFrame({"panel": "a", "series": name, "x": axis[name], **columns, "n": intervals[0].n}))
    sizes.size_axis(ax)
    ax.set(ylabel="response / peak", ylim=(-0.05, 1.1))
    ax.set_title(panels.told(table[table["responsive"]]), loc="left")
    return pd.concat(numbers)


def legend_of(curves, classes) -> tuple[list, list]:
    """Curves, and the class that has no curve."""
    handles, labels = curves.get_legend_handles_labels()
    bars, names = classes.get_legend_handles_labels()
    return [*handles, bars[-1]], [*labels, names[-1]]


def draw_distributions(axes, responsive: pd.DataFrame, tuned: pd.DataFrame) -> list[pd.DataFrame]:
    """Preferred sizes, suppression and inverse tuning indices."""
    classical, index = responsive[~responsive["inverse_tuned"]], np.linspace(0, 1, 21)
    preferred = {"classical": (responsive, "preferred_size_deg"), "inverse": (tuned, "inverse_size_deg")}
    suppression = {"classical": (responsive, "suppression_index")}
    inverse = {"classical": (classical, "inverse_tuning_index"), "inverse": (tuned, "inverse_tuning_index")}
    in_vivo, mean = sizes.IN_VIVO_PREFERRED, {"inverse": sizes.IN_VIVO_INDEX}
    drawn = {
        "b": (axes[0, 1], preferred, np.arange(0, 85, 5), "preferred diameter (deg)", in_vivo),
        "c": (axes[0, 2], suppression, index, "suppression index", None),
        "d": (axes[1, 0], inverse, index, "inverse tuning index", mean),
    }
    numbers = []
    for panel, (ax, series, bins, label, reference) in drawn.items():
        known = {name: own.dropna(subset=[column]) for name, (own, column) in series.items()}
        values = {name: own[series[name][1]].to_numpy() for name, own in known.items()}
        sizes.distributions(ax, values, bins, reference)
        ax.set_xlabel(label)
        middles = " / ".join(f"{np.median(own):.3g}" if len(own) else "-" for own in values.values())
        ax.set_title(f"median {middles}\n{panels.told(*known.values())}", loc="left")
        numbers += [pd.DataFrame({"panel": panel, "series": name, "x": own}) for name, own in values.items()]
    return numbers


def draw_classes(ax, table: pd.DataFrame) -> pd.DataFrame:
    """Shares of the classes in each mouse."""
    table = table[table["class"].isin(sizes.CLASSES)]
    shares, rows = {}, []
    for mouse_id, own in table.groupby("mouse", sort=False):
        share = 100 * own["class"].value_counts(normalize=True)
        shares[f"{mouse_id}\nn = {len(own)}"] = share.to_dict()
        rows += [{"panel": "e", "series": mouse_id, "x": name, "mean": value, "n": len(own)}
                 for name, value in share.items()]  # fmt: skip
    sizes.class_shares(ax, shares)
    return pd.DataFrame(rows)


def draw_depth(ax, table: pd.DataFrame) -> pd.DataFrame:
    """Inverse-tuned neurons of each plane."""
    plane = table.groupby("mouse", sort=False)["z_um"].transform(groups.planes)
    rows = []
    for depth, own in table.groupby(plane):
        found = bootstrap(100.0 * own["inverse_tuned"].to_numpy(), np.random.default_rng(SEED))
        rows.append({"panel": "f", "series": "inverse-tuned", "x": depth, "mean": found.mean, "low": found.low,
                     "high": found.high, "n": found.n})  # fmt: skip
    numbers = pd.DataFrame(rows)
    mean, error = numbers["mean"], [numbers["mean"] - numbers["low"], numbers["high"] - numbers["mean"]]
    ax.errorbar(mean, numbers["x"], xerr=error, fmt="o-", color=sizes.COLORS["inverse"], markersize=3, elinewidth=1)
    ax.axvline(sizes.IN_VIVO_TUNED, color=sizes.COLORS["inverse"], linestyle=":", alpha=0.8)
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="inverse-tuned neurons (%)", ylabel="depth (µm)")
    ax.set_title(panels.told(table), loc="left")
    return numbers


if __name__ == "__main__":
    cli.run(main, get_parser())
