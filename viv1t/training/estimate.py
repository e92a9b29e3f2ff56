"""What a run will cost in time and memory, told before its first step."""

import time

import numpy as np
import torch

from viv1t import distributed
from viv1t.constants import TRIAL_FRAMES
from viv1t.device import available_memory, does_not_fit, is_out_of_memory
from viv1t.training.config import TrainConfig
from viv1t.training.task import ResponseTask
from viv1t.training.watch import Estimate

PROBE_FRAMES = 32  # enough to measure the pace of a CPU
MEMORY_SHARE = 0.6  # of what is free, for the activations of one pass through the core
TRAINED_BYTES = 12  # per parameter: its gradient and two moments, float32


def plan_micro_batch(task: ResponseTask, config: TrainConfig) -> int:
    """Trials per pass through the core: as asked, else as many of a step as fit into memory."""
    most = int(distributed.gather_numbers([trials_here(task, config)]).max())
    if config.fit.micro_batch_size:
        return min(config.fit.micro_batch_size, most)
    if task.device.type == "cuda":
        return most  # halved by the loop until it fits
    if task.device.type == "mps":
        return config.fit.batch_size
    per_trial = task.model.estimate(clip_frames(config), 1)["activation_bytes"]
    return int(np.clip(MEMORY_SHARE * available_memory(task.device) / per_trial, 1, most))


def trials_here(task: ResponseTask, config: TrainConfig) -> int:
    """Trials of a step that this process sees."""
    return sum(len(range(config.fit.batch_size)[share.rows]) for share in task.team.shares.values())


def clip_frames(config: TrainConfig) -> int:
    return config.data.crop_frame if config.data.crop_frame > 0 else TRIAL_FRAMES


def print_estimate(task: ResponseTask, config: TrainConfig, micro_batch_size: int) -> Estimate:
    """What the run will take, before its first step; extrapolated from training on a part of one trial."""
    frames, trials, here = clip_frames(config), config.fit.batch_size * len(task.mice), trials_here(task, config)
    flops = task.model.estimate(frames, trials)["flops"]
    activations = task.model.estimate(frames, min(micro_batch_size, here))["activation_bytes"]
    try:
        step = flops * here / trials * seconds_per_flop(task, frames, config.fit.loss_skip)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise does_not_fit(error) from None
    memory = activations + TRAINED_BYTES * sum(p.numel() for p in task.model.parameters())
    step, activations, memory = distributed.gather_numbers([step, activations, memory]).max(axis=0)  # of the slowest
    estimate = Estimate(step, task.steps_per_epoch, config.fit.epochs, memory)
    neurons = sum(mouse.num_neurons for mouse in task.mice.values())
    precision = "bfloat16" if task.model.core.autocast_dtype else "float32"
    several = f" on {distributed.size()} processes" if distributed.size() > 1 else ""
    print(
        f"{len(task.mice)} mice, {neurons} neurons; {task.team.num_parameters / 1e6:.2f} M parameters, core in "
        f"{precision}.\n{task.steps_per_epoch} steps an epoch, {trials} clips of {frames} frames a step{several}, "
        f"{micro_batch_size} at once: {flops / 1e12:.3g} TFLOP a step, "
        f"about {activations / 2**30:.1f} GB of activations.\nExpect {estimate}."
    )
    return estimate


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
