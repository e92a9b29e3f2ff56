"""Search flags of train.py on all CPUs or GPUs: Optuna proposes, unpromising trials are stopped early (ASHA).

  python ray_sweep.py --space presets/sweep.yaml --num_trials 20 --output_dir runs/sweep \\
      -- @presets/demo.txt --data_dir data/simulated

reads   the space (what may vary, see presets/sweep.yaml), the flags after '--' (what all trials share), recordings
writes  SWEEP/sweep.json: the settings; SWEEP/trial_*/: an ordinary run folder for each trial, with trial.json (its own
        values) and output.txt (what it said); SWEEP/sweep.csv: all trials, the best first; SWEEP/best.txt: the flags
        of the best, a preset
next    train.py @SWEEP/best.txt, or predict.py --output_dir SWEEP/trial_...

The highest validation correlation wins. After --grace_period epochs, and then --reduction_factor times as many, and so
on, only the best of --reduction_factor trials goes on (asynchronous successive halving, Li et al. 2020). The same
command continues a sweep that was stopped, its trials where they were; more --num_trials search on. Needs
pip install "ray[tune]" optuna. With RAY_ADDRESS the trials go to the machines of that Ray cluster, which must share
the folders.
"""

import logging
import os
import tempfile
from pathlib import Path

import numpy as np

from viv1t import cli, io
from viv1t.checkpoint import RunLock
from viv1t.errors import UserError
from viv1t.sweep.space import Dimension, check_space, epochs_of, read_space, to_flags
from viv1t.sweep.trial import Trial, begun, tabulate, trial_name

TRAIN = Path(__file__).resolve().parent / "train.py"
MEMORY = 2**27  # bytes that Ray sets aside for objects; trials exchange nothing but rows of numbers
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
METRIC = "best_correlation"


def get_parser() -> cli.Parser:
    parser = cli.Parser(
        __doc__, usage="%(prog)s --space FILE --output_dir SWEEP [flags] -- [@preset] [train.py flags]"
    )
    at_least_1 = cli.number(int, 1)
    parser.add_argument("--output_dir", required=True, metavar="SWEEP", help="folder of the run folders")
    parser.add_argument("--space", required=True, metavar="FILE", help="YAML file of flags and their values")
    parser.add_argument("--num_trials", type=at_least_1, default=20, help="trials in all (default: 20)")
    parser.add_argument("--epochs", type=at_least_1, help="most epochs of a trial (default: as the flags say)")
    parser.add_argument(
        "--grace_period", type=at_least_1, default=50, help="epochs before a trial may be stopped (default: 50)"
    )
    parser.add_argument(
        "--reduction_factor", type=cli.number(int, 2), default=2, help="of so many trials one goes on (default: 2)"
    )
    parser.add_argument("--cpus_per_trial", type=at_least_1, default=1, help="CPU cores of a trial (default: 1)")
    parser.add_argument(
        "--gpus_per_trial", type=cli.number(float, 0, 1), help="0.5: two trials share a GPU (default: 1 if any)"
    )
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="of what is proposed (default: 0)")
    parser.add_argument("--resume", action="store_true", help="insist on a sweep to continue")
    parser.add_argument("flags", nargs="*", metavar="-- flags", help="of train.py, for all trials")
    return parser


def main(args) -> None:
    sweep_dir = Path(args.output_dir).resolve()
    require_packages()
    space = read_space(args.space)
    check_space(args.space, space, args.flags)
    epochs = args.epochs or epochs_of(args.flags)
    settings = {
        "space": {dimension.name: {dimension.kind: list(dimension.values)} for dimension in space},
        "flags": args.flags,
        "epochs": epochs,
        "grace_period": min(args.grace_period, epochs),
        "reduction_factor": args.reduction_factor,
    }
    check_same_sweep(sweep_dir, settings, args)
    with RunLock(sweep_dir):
        io.write_json(sweep_dir / "sweep.json", settings)
        failures = search(sweep_dir, space, settings, args)
        if not begun(sweep_dir):
            raise UserError(f"{sweep_dir}: stopped before the first trial began.")
        table = tabulate(sweep_dir, set(failures))
        io.write_table(sweep_dir / "sweep.csv", table)
        print(table.to_string(index=False, float_format="{:.4g}".format))
        for name, reason in failures.items():
            print(f"{name} failed: {reason}")
        write_best(sweep_dir, table.iloc[0], settings)
    print(f"{sweep_dir / 'sweep.csv'}\n{sweep_dir / 'best.txt'}")


def require_packages() -> None:
    try:
        import optuna  # noqa: F401
        import ray.tune  # noqa: F401
    except ImportError as error:
        raise UserError(f'{error.name} is not installed: pip install "ray[tune]" optuna') from None


def check_same_sweep(sweep_dir: Path, settings: dict, args) -> None:
    """A sweep is continued with the settings it was begun with."""
    path = sweep_dir / "sweep.json"
    if not path.is_file():
        if args.resume:
            raise UserError(f"--resume: {sweep_dir} holds no sweep to continue. Leave --resume out to start one.")
        return
    stored = io.read_json(path)
    changed = [name for name in settings if stored.get(name) != settings[name]]
    if changed:
        raise UserError(f"{path}: begun with other settings ({', '.join(changed)}). Give another --output_dir.")


def search(sweep_dir: Path, space: list[Dimension], settings: dict, args) -> dict[str, str]:
    """Run all trials; the names of those that failed, and why. Trials of an earlier search are the first to run."""
    os.environ |= QUIET
    import optuna
    import ray
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told when the search is over
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    earlier = begun(sweep_dir)
    seed = int(
        np.random.SeedSequence([args.seed, len(earlier)]).generate_state(1)[0]
    )  # proposes new ones, not the same
    local = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False, "object_store_memory": MEMORY}
    ray.init(log_to_driver=False, logging_level="error", **local)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tuner = tune.Tuner(
                tune.with_resources(follower(sweep_dir, settings), resources(ray.cluster_resources(), args)),
                param_space={dimension.name: domain(dimension) for dimension in space},
                tune_config=tune.TuneConfig(
                    metric=METRIC,
                    mode="max",
                    num_samples=max(args.num_trials, len(earlier)),
                    search_alg=OptunaSearch(points_to_evaluate=earlier or None, seed=seed),
                    scheduler=AsyncHyperBandScheduler(
                        time_attr="epoch",
                        max_t=settings["epochs"],
                        grace_period=settings["grace_period"],
                        reduction_factor=settings["reduction_factor"],
                    ),
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[reporter()],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            )
            results = tuner.fit()
            return {trial_name(result.config): reason(result.error) for result in results if result.error}
    finally:
        ray.shutdown()


def reason(error: Exception) -> str:
    """The last line of what Ray tells of a trial's error."""
    return str(error).strip().rpartition("\n")[2].removeprefix("viv1t.errors.UserError: ")


def resources(there: dict, args) -> dict:
    """What a trial takes of what there is."""
    cpus, gpus = int(there.get("CPU", 0)), there.get("GPU", 0)
    taken = {"cpu": args.cpus_per_trial, "gpu": min(1, gpus) if args.gpus_per_trial is None else args.gpus_per_trial}
    if taken["cpu"] > cpus or taken["gpu"] > gpus:
        raise UserError(
            f"--cpus_per_trial {taken['cpu']} --gpus_per_trial {taken['gpu']:g}: there are {cpus} CPU cores and "
            f"{gpus:g} GPUs. Ask for less."
        )
    return taken


def domain(dimension: Dimension):
    """A dimension in the words of Ray."""
    from ray import tune

    if dimension.kind == "choice":
        return tune.choice(list(dimension.values))
    low, high = dimension.values
    if dimension.kind == "int":
        return tune.randint(low, high + 1)
    return {"log_uniform": tune.loguniform, "uniform": tune.uniform}[dimension.kind](low, high)


def follower(sweep_dir: Path, settings: dict) -> type:
    """What Ray runs in a process of each trial: it follows train.py, and ends it when the trial is stopped."""
    from ray import tune

    epochs, cwd = settings["epochs"], Path.cwd()

    class Follower(tune.Trainable):
        def setup(self, config: dict) -> None:
            flags = [*settings["flags"], *to_flags(config), f"--epochs={epochs}"]
            self.trial = Trial(sweep_dir / trial_name(config), config, TRAIN, flags, epochs, cwd)
            self.rows, self.reported = self.trial.rows(), {}

        def step(self) -> dict:
            row = next(self.rows, None)
            if row is None:
                return self.reported | {"done": True}
            self.reported = {"epoch": int(row["epoch"]), METRIC: row["best"]}
            return self.reported

        def cleanup(self) -> None:
            self.trial.stop()

    return Follower


def reporter():
    """One line for each trial that is over."""
    from ray import tune

    class Reporter(tune.Callback):
        def on_trial_complete(self, iteration, trials, trial, **info) -> None:
            told = trial.last_result
            print(f"{trial_name(trial.config)}: {told[METRIC]:.4f} after {told['epoch']} epochs", flush=True)

        def on_trial_error(self, iteration, trials, trial, **info) -> None:
            print(f"{trial_name(trial.config)}: failed", flush=True)

    return Reporter()


def write_best(sweep_dir: Path, best, settings: dict) -> None:
    """SWEEP/best.txt: the flags of the best trial, those of all trials included."""
    if not np.isfinite(best["correlation"]):
        raise UserError(f"{sweep_dir}: no trial was validated; see output.txt in the folders of the trials.")
    params = io.read_json(sweep_dir / best["trial"] / "trial.json")
    title = f"# {best['trial']}: validation correlation {best['correlation']:.4f} in epoch {best['best_epoch']}"
    flags = [*settings["flags"], *to_flags(params), f"--epochs={settings['epochs']}"]
    lines = " ".join([title, *flags]).replace(" --", "\n--")
    io.write_text(sweep_dir / "best.txt", lines + "\n")


if __name__ == "__main__":
    cli.run(main, get_parser())
