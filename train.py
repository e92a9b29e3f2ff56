"""Train a digital twin: responses of one or more mice, predicted from movies and behaviour.

  python data/simulate.py && python train.py --output_dir runs/first --data_dir data/simulated @presets/demo.txt
  python train.py --output_dir runs/001_viv1t --data_dir data/sensorium @presets/paper.txt

  torchrun --nproc_per_node 4 train.py ...      one process for each of 4 GPUs, see docs/distributed.md

An unfinished run of the same settings is continued where it was, and a finished one is reported and left as it is.
Writes RUN/config.json, RUN/log.csv, RUN/ckpt/{best,last}.pt and RUN/evaluation.json.
"""

from pathlib import Path

from viv1t import cli, distributed, io
from viv1t.checkpoint import RunLock, checkpoint_path, load_checkpoint
from viv1t.data.loader import load_mice
from viv1t.device import autocast_dtype, choose_device, describe, make_deterministic
from viv1t.training import run
from viv1t.training.config import TrainConfig, TrainParser
from viv1t.training.estimate import plan_micro_batch, print_estimate
from viv1t.training.initialise import start_readouts
from viv1t.training.log import RunLog, start_wandb
from viv1t.training.loop import Trainer
from viv1t.training.optimizers import (
    Cosine,
    GradientClip,
    Patience,
    Plateau,
    Schedule,
    build_optimizer,
    parameter_groups,
)
from viv1t.training.task import ResponseTask, build_transforms, check_mice
from viv1t.training.team import form_team
from viv1t.training.watch import Watch


def main(args) -> None:
    with distributed.joined():
        config = TrainConfig.from_flags(vars(args))
        run_dir = Path(config.run.output_dir)
        if config.run.dry_run:
            task = build_task(config)
            print_estimate(task, config, plan_micro_batch(task, config))
            return
        with distributed.main_only(RunLock(run_dir)):
            if distributed.main_does(run.is_finished, run_dir, config):
                print(f"{run_dir}: this run is complete. Give --clear_output_dir to train it again.")
                run.print_evaluation(io.read_json(run_dir / "evaluation.json"))
                return
            task = build_task(config)
            distributed.main_does(run.open_run, run_dir, config, task.mice)
            train(task, config, run_dir)


def build_task(config: TrainConfig) -> ResponseTask:
    """Recordings, a model for them, and how it is trained, on the device."""
    device = choose_device(config.compute.device)
    precision = autocast_dtype(config.compute.autocast, device)
    if config.compute.deterministic:
        make_deterministic()
    for source in filter(None, (config.run.restore, config.run.pretrained_core)):
        load_checkpoint(source)  # a wrong path shows before the recordings are read
    mice = load_mice(
        config.data.data_dir,
        mouse_ids=config.data.mouse_ids,
        limit_neurons=config.data.limit_neurons,
        limit_data=config.data.limit_data,
        seed=config.fit.seed,
        cache_dir=config.data.cache_dir,
        start=distributed.rank() / distributed.size(),
    )
    check_mice(mice)
    means = {mouse_id: data.mean_response(build_transforms(data.mouse, config)) for mouse_id, data in mice.items()}
    model = run.build(config, mice, means)
    team = form_team(model, list(mice), config.fit.batch_size)
    model.to(device)
    model.core.autocast_dtype = precision
    model.core.grad_checkpointing = config.compute.grad_checkpointing
    if config.log.verbose > 2:
        print(model)
    print(f"Training on {describe(device)}.")
    return ResponseTask(model, mice, config, device, team)


def train(task: ResponseTask, config: TrainConfig, run_dir: Path) -> None:
    """Fit, then score the best weights."""
    if not config.run.restore and not checkpoint_path(run_dir, "last").exists():
        start_readouts(task.model, task.data, task.transforms, trained_core=bool(config.run.pretrained_core))
    rates = config.optimizer
    groups = parameter_groups(
        task.model.parameter_groups(), rates.lr, rates.weight_decay, rates.core_lr, rates.core_weight_decay
    )
    optimizer = build_optimizer(groups, rates)
    schedule = build_schedule(optimizer, config, task.steps_per_epoch)
    micro_batch_size = plan_micro_batch(task, config)
    watch = Watch(print_estimate(task, config, micro_batch_size), task.device)
    if config.compute.compile:
        task.model.compile()
    flags = config.to_flags()
    logger = start_wandb(config.log.wandb, config.log.wandb_id, run_dir, flags) if distributed.is_main() else None
    log = RunLog(run_dir, config.fit.epochs, config.log.verbose, logger)
    clip = GradientClip(rates.clip_grad)
    trainer = Trainer(
        task, optimizer, schedule, clip, log, run_dir, flags, micro_batch_size, team=task.team, watch=watch
    )
    progress = trainer.fit()
    print(f"Finished ({progress.finished}): best correlation {progress.best:.4f} in epoch {progress.best_epoch}.")
    result = run.evaluate(run_dir, task)
    run.print_evaluation(result)
    log.close({f"{tier}_{metric}": v["average"] for tier, metrics in result.items() for metric, v in metrics.items()})


def build_schedule(optimizer, config: TrainConfig, steps_per_epoch: int) -> Schedule:
    if config.optimizer.schedule_free:
        return Patience(config.fit.patience)
    if config.optimizer.lr_schedule == "cosine":
        return Cosine(optimizer, config.fit.epochs * steps_per_epoch, config.optimizer.adam_warmup_steps)
    return Plateau(optimizer)


if __name__ == "__main__":
    cli.run(main, TrainParser(__doc__))
