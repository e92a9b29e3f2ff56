"""What each option of the training recipe changes, on simulated mice: same movies, same epochs, several seeds.

One option at a time is changed. The base is the demo's preset with the published output activation, ELU + 1. The last
row has the published settings at the same size.

    python data/simulate.py --data_dir data/study --mice 3 --clips 4 --repeats 4 --bonus_repeats 0
    python benchmarks/recipes.py --data_dir data/study       # hours on two cores; goes on where it was stopped

writes  WORK/<recipe>_<seed>/ (run folders), WORK/recipes.csv (every run), WORK/recipes.md (the table)
"""

from pathlib import Path

import pandas as pd

from viv1t import cli, io
from viv1t.study import Run, markdown, mean_interval, train_all

BASE = "@presets/demo.txt --output_mode elu --eval_every 1"
TWO = "--core_spatial_depth 2 --core_temporal_depth 2"
# published settings, but for sizes: those of the demo's preset
PAPER = (
    "--core_use_causal_attention --schedule_free --core_spatial_depth 1 --core_temporal_depth 1 --core_emb_dim 96 "
    "--core_num_heads 2 --core_head_dim 32 --core_ff_dim 192 --core_spatial_patch_size 10 "
    "--core_spatial_patch_stride 4 --core_temporal_patch_size 18"
)
RECIPES = {  # flags that are added to BASE
    "base": "",
    "softplus, beta from 0.07": "--output_mode softplus --softplus_beta 0.07",
    "loss from frame 20": "--loss_skip 20",
    "CutMix, half of the clips": "--cutmix 0.5",
    "cosine": "--no-schedule_free --lr_schedule cosine",
    "cosine, averaged weights": "--no-schedule_free --lr_schedule cosine --ema 0.99",
    "behaviour as channels": "--core_behavior_mode behavior_pupil",
    "published noise": "--readout_init_sigma 1",
    "published noise, once a clip": "--readout_init_sigma 1 --readout_noise trial",
    "two blocks each": TWO,
    "two blocks, depth 0.2": f"{TWO} --core_drop_path 0.2",
    "two blocks, depth 0 to 0.4": f"{TWO} --core_drop_path 0.4 --core_drop_path_schedule linear",
}
REFERENCE = {  # what a recipe is compared with, if not the base
    "two blocks, depth 0.2": "two blocks each",
    "two blocks, depth 0 to 0.4": "two blocks each",
    "published noise, once a clip": "published noise",
}


def main(args) -> None:
    runs = plan(args)
    train_all(list(runs.values()), args.at_once)
    table = scores(runs, args.tier)
    io.write_table(args.work / "recipes.csv", table)
    text = markdown(summarize(table))
    io.write_text(args.work / "recipes.md", text + "\n")
    print(text)


def plan(args) -> dict[tuple[str, int], Run]:
    """(recipe, seed) -> its training."""
    recipes = {name: f"{BASE} {flags}" for name, flags in RECIPES.items()} | {"published settings": PAPER}
    wanted = {name: flags for name, flags in recipes.items() if not args.only or name in args.only}
    common = (
        f"--data_dir {args.data_dir} --mouse_ids {' '.join(args.mouse_ids)} --limit_neurons {args.limit_neurons} "
        f"--limit_data {args.limit_data} --crop_frame {args.crop_frame} --epochs {args.epochs} "
        "--device cpu --verbose 0 --num_workers 1"
    )
    return {
        (name, seed): run_of(args, name, seed, f"{flags} {common} --seed {seed}")
        for seed in args.seeds  # all recipes with the first seed come first
        for name, flags in wanted.items()
    }


def run_of(args, name: str, seed: int, flags: str) -> Run:
    folder = "".join(c if c.isalnum() else "_" for c in name)
    return Run(args.work / f"{folder}_{seed}", tuple(flags.split()))


def scores(runs: dict[tuple[str, int], Run], tier: str) -> pd.DataFrame:
    """One row per run: recipe, seed, correlation on a tier (and on validation), processor seconds, bytes."""
    return pd.DataFrame(
        {"recipe": name, "seed": seed, "correlation": run.score(tier), "validation": run.score("validation")}
        | run.cost()
        for (name, seed), run in runs.items()
    )


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds and 95 % intervals; changes are relative, seed by seed."""
    values = table.pivot(index="seed", columns="recipe", values="correlation")
    seconds = table.groupby("recipe")["seconds"].mean()
    rows = []
    for name in dict.fromkeys(table["recipe"]):
        reference, change = REFERENCE.get(name, "base"), ""
        if name != reference and reference in values:
            change = f"{interval((100 * (values[name] / values[reference] - 1)).dropna(), 1)} of {reference}"
        score = interval(values[name].dropna(), 4)
        row = {"recipe": name, "seeds": values[name].count(), "correlation": score, "change, %": change}
        rows.append(row | {"processor seconds": f"{seconds[name]:.0f}"})
    return pd.DataFrame(rows)


def interval(values, digits: int) -> str:
    mean, low, high = mean_interval(values)
    sign = "+" if digits == 1 else ""
    return f"{mean:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the simulated mice")
    parser.add_argument("--work", type=Path, default=Path("runs/recipes"), help="(default: runs/recipes)")
    parser.add_argument("--mouse_ids", nargs="+", default=["simA", "simB"], help="(default: simA simB)")
    parser.add_argument("--limit_neurons", type=cli.number(int, 1), default=150, help="of each mouse (default: 150)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: 1 2 3)")
    parser.add_argument("--limit_data", type=cli.number(int, 1), default=60, help="training movies (default: 60)")
    parser.add_argument("--crop_frame", type=cli.number(int, 51), default=100, help="of a clip (default: 100)")
    parser.add_argument("--epochs", type=cli.number(int, 1), default=3, help="of every run (default: 3)")
    parser.add_argument("--tier", default="live_main", help="that is compared (default: live_main)")
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help=f"some of: {'; '.join(RECIPES)}")
    parser.add_argument("--at_once", type=cli.number(int, 1), default=2, help="trainings side by side (default: 2)")
    return parser


if __name__ == "__main__":
    cli.run(main, get_parser())
