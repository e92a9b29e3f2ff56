"""The run folder of a training: may it be written, where does it start, what will it cost, what came out."""

import platform
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

import viv1t
from viv1t import io
from viv1t.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, load_core, load_weights, same_mouse
from viv1t.constants import SKIP, TEST_TIERS, TRIAL_FRAMES
from viv1t.data.loader import MouseData
from viv1t.data.mouse import Mouse
from viv1t.device import available_memory
from viv1t.errors import UserError
from viv1t.model.build import Model, build_model
from viv1t.training.config import TrainConfig, differences
from viv1t.training.log import duration
from viv1t.training.task import ResponseTask

PROBE_FRAMES = 32  # enough to measure the pace of a CPU
MEMORY_SHARE = 0.6  # of what is free, for the activations of one pass through the core


def is_finished(run_dir: Path, config: TrainConfig) -> bool:
    """Whether the run folder holds this very run, completed. UserError if it holds another run."""
    if config.run.clear_output_dir:
        return False
    if (run_dir / "args.yaml").exists():
        raise UserError(f"{run_dir} holds a run of the public implementation. Give another --output_dir.")
    started = (run_dir / "config.json").exists()
    if config.run.resume and not (started and checkpoint_path(run_dir, "last").exists()):
        raise UserError(f"--resume: {run_dir} holds no run to continue. Leave --resume out to start one.")
    if not started:
        return False
    stored = io.read_json(run_dir / "config.json")
    changed = differences(stored, config.to_flags())
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{run_dir} holds a run with other settings: {', '.join(changed[:3])}{more}. "
            "Give another --output_dir, or --clear_output_dir to delete that run."
        )
    return (run_dir / "evaluation.json").exists() and config.fit.epochs <= stored["epochs"]


def open_run(run_dir: Path, config: TrainConfig, mice: dict[str, Mouse]) -> None:
    """Make the folder ready: empty it if asked, remove leftovers, write config.json."""
    if config.run.clear_output_dir:
        clear(run_dir)
    check_same_mice(run_dir, mice)
    io.remove_leftovers(run_dir)
    io.remove_leftovers(run_dir / "ckpt")
    (run_dir / "evaluation.json").unlink(missing_ok=True)
    io.write_json(run_dir / "config.json", {**config.to_flags(), "versions": versions()})


def clear(run_dir: Path) -> None:
    """Delete what a run folder holds; a folder that is no run is left alone."""
    entries = [entry for entry in run_dir.iterdir() if entry.name != ".lock"]
    known = any((run_dir / name).exists() for name in ("config.json", "args.yaml"))
    if entries and not known:
        raise UserError(f"--clear_output_dir: {run_dir} holds files but no run; delete them yourself if they can go.")
    # config.json goes last: a clearing that was cut short can be repeated
    for entry in sorted(entries, key=lambda entry: entry.name in ("config.json", "args.yaml")):
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def versions() -> dict[str, str]:
    """What produced a run: packages and, in a git checkout, the commit."""
    found = {
        "viv1t": viv1t.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    root = Path(viv1t.__file__).parent.parent
    git = shutil.which("git")
    if git and (root / ".git").exists():
        commit = subprocess.run([git, "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
        if commit.returncode == 0:
            found["git"] = commit.stdout.strip()
    return found


def build(config: TrainConfig, mice: dict[str, MouseData], means: dict[str, np.ndarray]) -> Model:
    """A new model, with the weights that --restore or --pretrained_core ask for."""
    torch.manual_seed(config.fit.seed)
    model = build_model(config.model, {mouse_id: data.mouse for mouse_id, data in mice.items()}, means)
    check_frames(model)
    if continues(config):
        return model
    if config.run.restore:
        source = load_checkpoint(config.run.restore)
        restore(model, source)
        print(f"Restored all {len(source.model_state)} weights from {source.path}.")
    if config.run.pretrained_core:
        source = load_checkpoint(config.run.pretrained_core)
        loaded, kept = load_core(model, source.model_state, source.path)
        others = sum(not key.startswith("core.") for key in source.model_state)
        print(f"Loaded {len(loaded)} core weights from {source.path}; left there: {others} of readouts and shifters.")
        if kept:
            print(f"Not in that run, freshly initialised: {', '.join(kept)}.")
    return model


def check_frames(model: Model) -> None:
    """Scores use all frames but the first ones, so the model must answer them."""
    answered = model.core.output_frames(TRIAL_FRAMES)
    if answered < TRIAL_FRAMES - SKIP:
        raise UserError(
            f"this core answers {answered} of {TRIAL_FRAMES} frames, but all from frame {SKIP} on are scored: use "
            "--core_pad_frame 1 or a shorter --core_temporal_patch_size, and --core_temporal_patch_stride 1."
        )


def continues(config: TrainConfig) -> bool:
    """Whether the weights will come from the run folder itself."""
    return not config.run.clear_output_dir and checkpoint_path(config.run.output_dir, "last").exists()


def restore(model: Model, source: Checkpoint) -> None:
    """All weights of a checkpoint, of ours or of the public implementation; strictly."""
    if source.path.name != "model.pt":
        load_weights(model, source.model_state, source.path)
        return
    try:
        model.load_reference_state(source.model_state)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from None


def check_same_mice(run_dir: Path, mice: dict[str, Mouse]) -> None:
    """A run continues only with the recordings it was started with."""
    path = checkpoint_path(run_dir, "last")
    if not path.exists():
        return
    stored = load_checkpoint(run_dir, "last").mice
    changed = [
        m
        for m in mice.keys() | stored.keys()
        if m not in mice or m not in stored or not same_mouse(mice[m], stored[m])
    ]
    if changed:
        raise UserError(
            f"{path}: was trained on other data for mouse {', '.join(sorted(changed))}. "
            "Give the same recordings, or --clear_output_dir to start anew."
        )


def plan_micro_batch(task: ResponseTask, config: TrainConfig) -> int:
    """Trials per pass through the core: as asked, else as many of a step as fit into memory."""
    round_size = config.fit.batch_size * len(task.mice)
    if config.fit.micro_batch_size:
        return min(config.fit.micro_batch_size, round_size)
    if task.device.type == "cuda":
        return round_size  # halved by the loop until it fits
    if task.device.type == "mps":
        return config.fit.batch_size
    frames = clip_frames(config)
    per_trial = task.model.estimate(frames, 1)["activation_bytes"]
    return int(np.clip(MEMORY_SHARE * available_memory(task.device) / per_trial, 1, round_size))


def clip_frames(config: TrainConfig) -> int:
    return config.data.crop_frame if config.data.crop_frame > 0 else TRIAL_FRAMES


def print_estimate(task: ResponseTask, config: TrainConfig, micro_batch_size: int) -> None:
    """What the run will take, before its first step; extrapolated from training on a part of one trial."""
    frames, trials = clip_frames(config), config.fit.batch_size * len(task.mice)
    whole, part = task.model.estimate(frames, trials), task.model.estimate(frames, micro_batch_size)
    step = whole["flops"] * seconds_per_flop(task, frames, config.fit.loss_skip)
    epoch = task.steps_per_epoch * step
    neurons = sum(mouse.num_neurons for mouse in task.mice.values())
    precision = "bfloat16" if task.model.core.autocast_dtype else "float32"
    print(
        f"{len(task.mice)} mice, {neurons} neurons; {whole['parameters'] / 1e6:.2f} M parameters, core in "
        f"{precision}.\n{task.steps_per_epoch} steps an epoch, {trials} clips of {frames} frames a step, "
        f"{micro_batch_size} at once: {whole['flops'] / 1e12:.3g} TFLOP a step, "
        f"about {part['activation_bytes'] / 2**30:.1f} GB of activations.\n"
        f"Expect {duration(step)} a step, {duration(epoch)} an epoch, "
        f"at most {duration(epoch * config.fit.epochs)} for {config.fit.epochs} epochs."
    )


def seconds_per_flop(task: ResponseTask, frames: int, skip: int) -> float:
    """Pace of training, measured on one trial (on a CPU: on its first frames); leaves no trace in the model."""
    if task.device.type == "cpu":
        unanswered = frames - task.model.core.output_frames(frames)
        frames = min(frames, skip + unanswered + PROBE_FRAMES)
    mouse_id, data = next(iter(task.data.items()))
    batch = data.batch(data.train_ids[:1], frames=frames)
    task.model.train()
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        for loss in task.losses({mouse_id: batch}, 1):
            loss.backward()
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        elapsed = time.perf_counter() - start
    task.model.zero_grad(set_to_none=True)
    return elapsed / task.model.estimate(batch.video.shape[2], 1)["flops"]


def evaluate(run_dir: Path, task: ResponseTask) -> dict:
    """Score the best weights on the validation tier and every test tier with responses -> RUN/evaluation.json.

    {tier: {metric: {mouse: value, ..., "average": mean over mice}}}; correlation is the competition's metric.
    """
    best = load_checkpoint(run_dir, "best")
    load_weights(task.model, best.model_state, best.path)
    result = {}
    for tier in ("validation", *TEST_TIERS):
        scores = {m: task.score(m, tier) for m, data in task.data.items() if has_responses(data, tier)}
        if not scores:
            continue
        result[tier] = {}
        for metric in ("correlation", "single_trial_correlation"):
            values = {mouse_id: getattr(score, metric) for mouse_id, score in scores.items()}
            result[tier][metric] = {**values, "average": float(np.mean(list(values.values())))}
    io.write_json(run_dir / "evaluation.json", result)
    return result


def has_responses(data: MouseData, tier: str) -> bool:
    trials = data.recording.trial_ids(tier)
    return len(trials) > 0 and not data.cache.withheld[trials].all()


def print_evaluation(result: dict) -> None:
    for tier, metrics in result.items():
        values = "  ".join(f"{mouse_id}: {value:.4f}" for mouse_id, value in metrics["correlation"].items())
        print(f"{tier:<12} correlation  {values}")
