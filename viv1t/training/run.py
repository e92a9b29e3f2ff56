"""The run folder of a training: may it be written, where does it start, what came out."""

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

import viv1t
from viv1t import distributed, io
from viv1t.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, load_core, load_weights, same_mouse
from viv1t.constants import SKIP, TEST_TIERS, TRIAL_FRAMES
from viv1t.data.loader import MouseData
from viv1t.data.mouse import Mouse
from viv1t.errors import UserError
from viv1t.model.build import Model, build_model
from viv1t.training.config import TrainConfig, differences
from viv1t.training.task import ResponseTask


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


def evaluate(run_dir: Path, task: ResponseTask) -> dict:
    """Score the best weights on the validation tier and every test tier with responses -> RUN/evaluation.json.

    {tier: {metric: {mouse: value, ..., "average": mean over mice}}}; correlation is the competition's metric.
    """
    best = load_checkpoint(run_dir, "best")
    load_weights(task.model, task.team.own_weights(best.model_state), best.path)
    result = {}
    for tier in ("validation", *TEST_TIERS):
        scores = task.score(tier)
        if not scores:
            continue
        result[tier] = {}
        for metric in ("correlation", "single_trial_correlation"):
            values = {mouse_id: getattr(score, metric) for mouse_id, score in scores.items()}
            result[tier][metric] = {**values, "average": float(np.mean(list(values.values())))}
    if distributed.is_main():
        io.write_json(run_dir / "evaluation.json", result)
    return result


def print_evaluation(result: dict) -> None:
    for tier, metrics in result.items():
        values = "  ".join(f"{mouse_id}: {value:.4f}" for mouse_id, value in metrics["correlation"].items())
        print(f"{tier:<12} correlation  {values}")
