"""Every core on the same simulated mice: size, cost, and how much of what can be predicted it predicts.

Each core is trained at a size that a laboratory can afford on two cores of a CPU, with the same readout, movies and
number of epochs; beside them stand what needs no core: the linear-nonlinear model fitted by regression, behaviour
alone, and the mean response. Costs are processor seconds of one thread and the peak of memory of the training.

    python data/simulate.py --data_dir data/study --mice 3 --clips 4 --repeats 4 --bonus_repeats 0
    python benchmarks/cores.py --data_dir data/study       # an hour on two cores; goes on where it was stopped

writes  WORK/<core>_<seed>/ (run folders), WORK/cores.csv, WORK/cores.md (the table)
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io, stats
from viv1t.inference import load_twin
from viv1t.results import read_scores
from viv1t.study import Run, call, markdown, train_all

TRAINING = (  # of all but vivit, whose preset says the same
    "--readout gaussian --readout_grid_mode free --readout_positions contrast --readout_features ridge "
    "--readout_bias_mode rate --readout_init_sigma 0.04 --shifter_start zero --output_mode softplus "
    "--softplus_beta 0.07 --schedule_free --lr 0.0005 --core_lr 0.002 --weight_decay 0.05 --core_weight_decay 0.05 "
    "--adam_warmup_steps 10 --adam_beta2 0.99"
)
SMALL_FCNN = "--core fcnn --core_num_layers 3 --core_hidden_dim 8"
SMALL_DWISE = "--core_expansion 2 --core_cortex_layers 1 --core_drop_path 0"
CORES = {
    "vivit": "@presets/demo.txt",
    "dwise, energy stem": f"--core dwise --core_stem energy --core_widths 96,96 --core_strides 1,1 {SMALL_DWISE} "
    "--core_cortex_dim 128",
    "dwise": "--core dwise --core_widths 16,32,32 --core_strides 2,1,2 --core_spatial_kernel 5 "
    f"--core_temporal_kernel 7 {SMALL_DWISE} --core_cortex_dim 64",
    "fcnn": SMALL_FCNN,
    "linear-nonlinear (fcnn --core_linear)": f"{SMALL_FCNN} --core_linear",
    "gru_baseline": "--core gru_baseline --core_cnn_layers 2 --core_cnn_filters 3 --core_rnn_size 16 "
    "--core_rnn_input_kernel 5 --core_rnn_kernel 3",
    "stacked2d": "--core stacked2d --core_num_layers 3 --core_hidden_dim 24",
    "v1t": "--core v1t --core_behavior_mode behavior_pupil_mlp --core_patch_stride 4 --core_num_blocks 2 "
    "--core_emb_dim 64 --core_mlp_dim 128 --core_p_dropout 0 --core_t_dropout 0",
    "bvivit": "--core bvivit --core_behavior_mode behavior_pupil_cross --core_patch_mode conv "
    "--core_use_causal_attention --core_spatial_patch_size 10 --core_spatial_patch_stride 4 "
    "--core_temporal_patch_size 18 --core_spatial_depth 1 --core_temporal_depth 1 --core_emb_dim 64 "
    "--core_num_heads 2 --core_head_dim 32 --core_ff_dim 128 --core_p_dropout 0 --core_mha_dropout 0 "
    "--core_ff_dropout 0 --core_drop_path 0",
    "linear": "--core linear --core_behavior_mode behavior_pupil",
    "random": "--core random",
}
BASELINES = {
    "baseline_linear_nonlinear": "(linear-nonlinear by regression)",
    "baseline_behavior": "(behaviour only)",
    "baseline_mean": "(mean response)",
}
TIER = "live_main"


def main(args) -> None:
    runs = {(name, seed): run_of(args, name, seed) for seed in args.seeds for name in args.cores or CORES}
    train_all(list(runs.values()), args.at_once)
    for i, run in enumerate(runs.values()):
        where = ("--data_dir", str(args.data_dir), "--output_dir", str(run.folder), "--ds_tier", TIER)
        call("predict.py", *where)
        call("evaluate.py", *where, "--baselines", str(int(i == 0)))
    table = pd.DataFrame([describe(name, seed, run) for (name, seed), run in runs.items()])
    first = next(iter(runs.values()))
    table = pd.concat([table, pd.DataFrame([baseline(first, *names) for names in BASELINES.items()])])
    io.write_table(args.work / "cores.csv", table)
    text = markdown(as_text(table))
    io.write_text(args.work / "cores.md", text + "\n")
    print(text)


def run_of(args, name: str, seed: int) -> Run:
    flags = CORES[name] if CORES[name].startswith("@") else f"{CORES[name]} {TRAINING}"
    common = (
        f"--data_dir {args.data_dir} --mouse_ids {' '.join(args.mouse_ids)} --limit_neurons {args.limit_neurons} "
        f"--limit_data {args.limit_data} --crop_frame {args.crop_frame} --epochs {args.epochs} --eval_every 1 "
        f"--seed {seed} --device cpu --verbose 0 --num_workers 1"
    )
    folder = "".join(c if c.isalnum() else "_" for c in name)
    return Run(args.work / f"{folder}_{seed}", tuple(f"{flags} {common}".split()))


def describe(name: str, seed: int, run: Run) -> dict:
    """What one run is, costs and reaches."""
    model = load_twin(run.folder, "cpu").model
    frames = model.config.max_frame
    cost = run.cost()
    return {
        "core": name, "seed": seed, "parameters": sum(p.numel() for p in model.core.parameters()),
        "gflops": model.core.flops(frames) / 1e9, "seconds": cost["seconds"], "peak_bytes": cost["peak_bytes"],
    } | scores(run, "challenge_correlation")  # fmt: skip


def baseline(run: Run, column: str, name: str) -> dict:
    return {"core": name} | scores(run, column)


def scores(run: Run, column: str) -> dict:
    """Correlation, its ratio to the true rate and (of twins) the normalised correlation: mean over mice, intervals."""
    table = read_scores(run.folder)
    mice = [part for _, part in table[table["tier"] == TIER].groupby("mouse", sort=False)]
    found = {
        "correlation": stats.hierarchical_bootstrap([mouse[column].to_numpy() for mouse in mice], rng()),
        "fraction": stats.hierarchical_ratio(
            [mouse[column].to_numpy() for mouse in mice], [mouse["true_rate"].to_numpy() for mouse in mice], rng()
        ),
    }
    if column == "challenge_correlation":
        values = [mouse["pooled_normalized_correlation"].to_numpy() for mouse in mice]
        found["normalised"] = stats.hierarchical_bootstrap(values, rng())
    return {f"{name}_{key}": getattr(x, key) for name, x in found.items() for key in ("mean", "low", "high", "n")}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """One row per core: means over seeds; intervals of the first seed, over neurons and mice."""
    rows = []
    for name, part in table.groupby("core", sort=False):
        first = part.iloc[0]
        row = {"core": name}
        for column, scale, pattern in (("parameters", 1e3, "{:,.0f} k"), ("gflops", 1, "{:.1f}"),
                                       ("seconds", 1, "{:.0f}"), ("peak_bytes", 2**30, "{:.2f} GiB")):  # fmt: skip
            mean = part[column].mean() / scale
            row[column.replace("_bytes", " memory").replace("gflops", "GFLOP a trial")] = (
                "" if np.isnan(mean) else pattern.format(mean)
            )
        for score, title in (("correlation", "correlation"), ("normalised", "normalised"), ("fraction", "of ceiling")):
            values = first.get(f"{score}_mean", np.nan), first.get(f"{score}_low"), first.get(f"{score}_high")
            row[title] = "" if np.isnan(values[0]) else "{:.3f} [{:.3f}, {:.3f}]".format(*values)
        if part["seed"].notna().sum() > 1:
            row["seeds"] = ", ".join(f"{value:.3f}" for value in part["correlation_mean"])
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the simulated mice")
    parser.add_argument("--work", type=Path, default=Path("runs/cores"), help="(default: runs/cores)")
    parser.add_argument("--cores", nargs="+", choices=CORES, metavar="CORE", help=f"some of: {', '.join(CORES)}")
    parser.add_argument("--mouse_ids", nargs="+", default=["simA", "simB"], help="(default: simA simB)")
    parser.add_argument("--limit_neurons", type=cli.number(int, 1), default=150, help="of each mouse (default: 150)")
    parser.add_argument("--limit_data", type=cli.number(int, 1), default=60, help="training movies (default: 60)")
    parser.add_argument("--crop_frame", type=cli.number(int, 51), default=100, help="of a clip (default: 100)")
    parser.add_argument("--epochs", type=cli.number(int, 1), default=3, help="of every run (default: 3)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="(default: 1)")
    parser.add_argument("--at_once", type=cli.number(int, 1), default=2, help="trainings side by side (default: 2)")
    return parser


if __name__ == "__main__":
    cli.run(main, get_parser())
