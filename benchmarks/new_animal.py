"""How much of a new animal must be recorded: its readout on a core trained on other animals, against training anew.

For each number of minutes (and of neurons), with each seed: readout, shifter and activation of the new animal are
trained on the frozen core (`--pretrained_core CORE --core_lr 0`), and a whole model of the same preset from scratch,
for the same number of steps. The seed also draws which trials and neurons are used. Scored on test movies;
the best epoch is chosen on the validation trials, which come on top of the minutes.

    python data/simulate.py --data_dir data/study --mice 3 --clips 4 --repeats 4 --bonus_repeats 0
    python benchmarks/new_animal.py --data_dir data/study         # an hour on two cores; goes on where it was stopped

writes  WORK/<arm>_<minutes>_<neurons>_<seed>/ (run folders), WORK/new_animal.{csv,png,pdf}
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.constants import FPS, TRIAL_FRAMES
from viv1t.errors import UserError
from viv1t.plotting import style
from viv1t.study import Run, call, mean_interval, train_all

PRESET = "@presets/demo.txt"
ARMS = {"frozen core": "--pretrained_core {core} --core_lr 0", "from scratch": ""}
COLOURS = dict(zip(ARMS, (style.BLUE, style.ORANGE), strict=True))
UNITS = {"minutes": "min", "neurons": "neurons"}
TIER = "live_main"


def main(args) -> None:
    core = trained_core(args)
    runs = {key: run_of(args, core, *key) for key in plan(args)}
    train_all(list(runs.values()), args.at_once)
    table = pd.DataFrame(
        {"arm": arm, "minutes": minutes, "neurons": neurons, "seed": seed, "correlation": run.score(TIER)} | run.cost()
        for (arm, minutes, neurons, seed), run in runs.items()
    )
    ceiling = ceiling_of(args, runs)
    table["ceiling"] = ceiling
    fig = draw(table, args, ceiling)
    caption = (
        f"Correlation with test movies of {args.mouse_id}, which the core has never seen: mean over neurons; dots are "
        "seeds, bars 95 % intervals over seeds (Student's t); grey: the true rate."
    )
    for path in style.save(fig, args.work / "new_animal", table.round(6), caption):
        print(path)
    print(compare(table).to_string(index=False))


def trained_core(args) -> Path:
    """The run whose core is used: the one that is named, or one trained here on the other mice."""
    if args.pretrained_core:
        return args.pretrained_core.resolve()
    run = Run(
        args.work / "core",
        (PRESET, "--data_dir", str(args.data_dir), "--mouse_ids", *args.core_mice, *common(args)),
    )
    train_all([run], 1)
    return run.folder.resolve()


def common(args) -> tuple[str, ...]:
    return ("--device", args.device, "--verbose", "0", "--num_workers", "1")


def plan(args) -> list[tuple[str, float, int, int]]:
    """(arm, minutes, neurons, seed) of every training: one axis at a time, the other at its fixed value."""
    points = [(minutes, args.of_neurons) for minutes in args.minutes]
    points += [(args.of_minutes, neurons) for neurons in args.neurons]
    return [(arm, *point, seed) for seed in args.seeds for point in dict.fromkeys(points) for arm in ARMS]


def run_of(args, core: Path, arm: str, minutes: float, neurons: int, seed: int) -> Run:
    trials = round(minutes * 60 * FPS / TRIAL_FRAMES)
    if trials < 1:
        raise UserError(f"--minutes {minutes:g} is less than one trial of {TRIAL_FRAMES / FPS:g} s.")
    epochs = -(-args.steps // trials)
    flags = (
        f"{PRESET} {ARMS[arm].format(core=core)} --data_dir {args.data_dir} --mouse_ids {args.mouse_id} --limit_data "
        f"{trials} --limit_neurons {neurons} --epochs {epochs} --eval_every {-(-epochs // args.validations)} "
        f"--crop_frame {args.crop_frame} --seed {seed}"
    )
    folder = f"{arm.replace(' ', '_')}_{minutes:g}_{neurons}_{seed}"
    return Run(args.work / folder, (*flags.split(), *common(args)))


def ceiling_of(args, runs: dict) -> float:
    """Correlation of the true rate with the recordings, or of the other repeats; mean over neurons."""
    folder = runs["frozen core", args.minutes[-1], args.of_neurons, args.seeds[0]].folder
    where = ("--data_dir", str(args.data_dir), "--output_dir", str(folder))
    call("predict.py", *where, "--ds_tier", TIER)
    call("evaluate.py", *where, "--ds_tier", TIER, "--baselines", "0")
    scores = io.read_json(folder / "evaluation_tiers.json")["mice"][args.mouse_id][TIER]
    return scores[scores["ceiling"]]["mean"]


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """One row per number of minutes and neurons: both arms and the difference, mean and 95 % interval over seeds."""
    rows = []
    for (minutes, neurons), part in table.groupby(["minutes", "neurons"]):
        values = part.pivot(index="seed", columns="arm", values="correlation")
        row = {"minutes": minutes, "neurons": neurons, "seeds": len(values)}
        columns = {arm: values[arm] for arm in ARMS} | {"gained": values["frozen core"] - values["from scratch"]}
        for name, column in columns.items():
            row[name] = "{:.3f} [{:.3f}, {:.3f}]".format(*mean_interval(column))
        rows.append(row)
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, args, ceiling: float):
    fig, axes = style.figure(1, 2, width=160, height=70, sharey=True)
    axis_of = {"minutes": ("neurons", args.of_neurons), "neurons": ("minutes", args.of_minutes)}
    labels = {"minutes": "recording of the new animal (minutes)", "neurons": "neurons of the new animal"}
    for ax, (name, (fixed, value)) in zip(axes.flat, axis_of.items(), strict=True):
        points = table[table[fixed] == value]
        for shift, (arm, colour) in zip((0.97, 1.03), COLOURS.items(), strict=True):  # side by side
            of_arm = points[points["arm"] == arm].assign(**{name: lambda x, name=name, shift=shift: x[name] * shift})
            ax.plot(of_arm[name], of_arm["correlation"], ".", color=colour, alpha=0.4, markersize=3)
            groups = {x: mean_interval(part) for x, part in of_arm.groupby(name)["correlation"]}
            means, low, high = np.array(list(groups.values())).T
            ax.errorbar(list(groups), means, [means - low, high - means], color=colour, marker="o", markersize=3.5,
                        capsize=2, label=arm)  # fmt: skip
        ax.axhline(ceiling, color=style.GREY, linestyle="--", linewidth=0.8)
        ax.set_xscale("log")
        ax.set_xticks(sorted(points[name].unique()), [f"{x:g}" for x in sorted(points[name].unique())])
        ax.minorticks_off()
        ax.set_xlabel(labels[name])
        ax.set_title(f"{value:g} {UNITS[fixed]}, {len(args.seeds)} seeds", loc="left")
    axes.flat[0].set_ylabel("correlation, test movies")
    axes.flat[0].legend(frameon=False)
    axes.flat[1].annotate("true rate", (1, ceiling), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    return fig


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the simulated mice")
    parser.add_argument("--work", type=Path, default=Path("runs/new_animal"), help="(default: runs/new_animal)")
    parser.add_argument("--mouse_id", default="simC", help="the new animal (default: simC)")
    parser.add_argument("--core_mice", nargs="+", default=["simA", "simB"], help="others (default: simA simB)")
    parser.add_argument(
        "--pretrained_core", type=Path, metavar="RUN", help="a run of the demo's preset to take it from"
    )
    parser.add_argument(
        "--minutes", type=cli.number(float, 0), nargs="+", default=[1, 4, 20], help="(default: 1 4 20)"
    )
    parser.add_argument("--of_neurons", type=cli.number(int, 1), default=300, help="along it (default: 300)")
    parser.add_argument("--neurons", type=cli.number(int, 1), nargs="+", default=[30, 300], help="(default: 30 300)")
    parser.add_argument("--of_minutes", type=cli.number(float, 0), default=4, help="along it (default: 4)")
    parser.add_argument("--steps", type=cli.number(int, 1), default=160, help="of every training (default: 160)")
    parser.add_argument("--validations", type=cli.number(int, 1), default=5, help="during each (default: 5)")
    parser.add_argument("--crop_frame", type=cli.number(int, 51), default=100, help="of a clip (default: 100)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: 1 2 3)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
    parser.add_argument("--at_once", type=cli.number(int, 1), default=2, help="trainings side by side (default: 2)")
    return parser


if __name__ == "__main__":
    cli.run(main, get_parser())
