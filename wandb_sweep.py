"""Be one agent of a Weights & Biases sweep: ask for values, train with them, report every epoch, ask again.

  python wandb_sweep.py --space presets/sweep.yaml --num_trials 20 --output_dir runs/sweep \\
      -- @presets/demo.txt --data_dir data/simulated             begins a sweep and prints its id
  python wandb_sweep.py --sweep_id ID --output_dir runs/sweep -- @presets/demo.txt ...    joins it

reads   the space (presets/sweep.yaml) or the sweep at W&B, the flags after '--' (what all trials share), recordings
writes  SWEEP/trial_*/: an ordinary run folder for each trial, with trial.json (its own values) and output.txt (what it
        said); SWEEP/wandb/
next    predict.py --output_dir SWEEP/trial_...

Start as many as there are GPUs, each with its own CUDA_VISIBLE_DEVICES. The sweep maximises best_correlation, the
highest validation correlation so far, by Bayesian search, and stops trials early (hyperband). Without network,
WANDB_MODE=offline trains one trial with values drawn at random. Needs pip install wandb.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from viv1t import cli
from viv1t.errors import UserError
from viv1t.sweep.space import Dimension, check_params, check_space, epochs_of, read_space, to_flags
from viv1t.sweep.trial import Trial, trial_name

TRAIN = Path(__file__).resolve().parent / "train.py"
METRIC = "best_correlation"


def get_parser() -> cli.Parser:
    usage = "%(prog)s (--space FILE | --sweep_id ID) --output_dir SWEEP [flags] -- [@preset] [train.py flags]"
    parser = cli.Parser(__doc__, usage=usage)
    at_least_1 = cli.number(int, 1)
    parser.add_argument("--output_dir", required=True, metavar="SWEEP", help="folder of the run folders")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--space", metavar="FILE", help="begin a sweep of these flags and values (YAML)")
    what.add_argument("--sweep_id", metavar="ID", help="join this sweep")
    parser.add_argument("--project", default="viv1t", help="W&B project (default: viv1t)")
    parser.add_argument("--num_trials", type=at_least_1, help="trials of this agent (default: until the sweep ends)")
    parser.add_argument("--epochs", type=at_least_1, help="most epochs of a trial (default: as the flags say)")
    parser.add_argument(
        "--grace_period", type=at_least_1, default=50, help="epochs before a trial may be stopped (default: 50)"
    )
    parser.add_argument(
        "--reduction_factor", type=cli.number(int, 2), default=2, help="of so many trials one goes on (default: 2)"
    )
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="of the offline trial (default: 0)")
    parser.add_argument("flags", nargs="*", metavar="-- flags", help="of train.py, for all trials")
    return parser


def main(args) -> None:
    space = read_space(args.space) if args.space else []
    if space:
        check_space(args.space, space, args.flags)
    wandb = import_wandb()
    if os.environ.get("WANDB_MODE") == "offline":
        if not space:
            raise UserError("--sweep_id: a sweep cannot be joined with WANDB_MODE=offline. Give --space.")
        train(wandb, args, draw(space, args.seed))
        return
    try:
        sweep_id = args.sweep_id or wandb.sweep(sweep_settings(space, args), project=args.project)
        wandb.agent(sweep_id, lambda: train(wandb, args), project=args.project, count=args.num_trials)
    except wandb.errors.Error as error:
        raise UserError(f"Weights & Biases: {error} Log in with 'wandb login', or set WANDB_MODE=offline.") from None


def import_wandb():
    try:
        import wandb
    except ImportError:
        raise UserError("wandb is not installed: pip install wandb") from None
    return wandb


def draw(space: Sequence[Dimension], seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {dimension.name: dimension.draw(rng) for dimension in space}


def sweep_settings(space: Sequence[Dimension], args) -> dict:
    """A sweep in the words of W&B."""
    return {
        "method": "bayes",
        "metric": {"name": METRIC, "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": args.grace_period, "eta": args.reduction_factor},
        "parameters": {dimension.name: parameter(dimension) for dimension in space},
    }


def parameter(dimension: Dimension) -> dict:
    if dimension.kind == "choice":
        return {"values": list(dimension.values)}
    low, high = dimension.values
    names = {"int": "int_uniform", "uniform": "uniform", "log_uniform": "log_uniform_values"}
    return {"distribution": names[dimension.kind], "min": low, "max": high}


def train(wandb, args, params: dict | None = None) -> None:
    """One trial: the values given, or those that the sweep proposes."""
    folder = Path(args.output_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(project=args.project, dir=folder, config=params) as run:
        params = dict(run.config)
        check_params(f"sweep {args.sweep_id or args.space}", params, args.flags)
        run.name = trial_name(params)
        epochs = args.epochs or epochs_of(args.flags)
        flags = [*args.flags, *to_flags(params), f"--epochs={epochs}"]
        trial = Trial(folder / run.name, params, TRAIN, flags, epochs, Path.cwd())
        try:
            for row in trial.rows():
                told = {"train_loss": row["train_loss"], "val_loss": row["val_loss"], METRIC: row["best"]}
                run.log(told | {"val_correlation": row["val_correlation"]}, step=int(row["epoch"]))
        finally:
            trial.stop()
    print(f"{trial.run_dir}: best validation correlation {row['best']:.4f}")


if __name__ == "__main__":
    cli.run(main, get_parser())
