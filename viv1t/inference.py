"""Twins: trained models that answer to videos in recorded units, with or without their recordings at hand."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from viv1t import distributed
from viv1t.checkpoint import load_checkpoint, load_weights
from viv1t.cli import did_you_mean
from viv1t.data.mouse import Mouse
from viv1t.data.recording import Trial
from viv1t.data.transforms import Transforms
from viv1t.device import choose_device
from viv1t.errors import UserError
from viv1t.model.build import Model, build_model

PRECISIONS = ("32", "tf32", "bf16")


@dataclass(frozen=True)
class Twin:
    """A trained model with everything it remembers of its mice. Made by `load_twin`."""

    model: Model
    mice: dict[str, Mouse]
    transforms: dict[str, Transforms]
    device: torch.device
    hash: str  # of the checkpoint file

    def respond(self, mouse_id: str, video, behavior=None, pupil_center=None, neurons=None) -> torch.Tensor:
        """Expected responses (B, N, T') float32 in recorded units, for the last T' of T frames (all if padded).

        video (B, 1, T, H, W) grey levels 0..255; behavior (B, 2, T) and pupil_center (B, 2, T) in recorded units, or
        None for the mouse's mean. neurons: indices into the twin's neurons of this mouse; only those are computed.
        Trials may have any length: what a frame's response depends on, see `ViViTCore`. Memory grows with the number
        of frames; `viv1t.streaming` answers a causal twin's endless videos. Gradients flow only if the video asks.
        """
        mouse, transforms = self.mouse(mouse_id), self.transforms[mouse_id]
        video = torch.as_tensor(video, device=self.device)
        if video.ndim != 5 or video.shape[1] != 1:
            raise ValueError(f"video must be (B, 1, T, H, W), got {tuple(video.shape)}")
        if neurons is not None:
            neurons = torch.as_tensor(neurons, dtype=torch.long, device=self.device)
        inputs = (
            transforms.video(video),
            transforms.behavior(self._traces(behavior, mouse, "behavior", video)),
            transforms.pupil_center(self._traces(pupil_center, mouse, "pupil_center", video)),
        )
        responses = self.model.predict(mouse_id, *inputs, neurons=neurons)
        return (transforms if neurons is None else transforms.select(neurons.cpu())).inverse_responses(responses)

    def mouse(self, mouse_id: str) -> Mouse:
        if mouse_id not in self.mice:
            raise UserError(
                f"mouse {mouse_id} is not part of this run, whose mice are {', '.join(self.mice)}"
                f"{did_you_mean(mouse_id, list(self.mice)) or '.'}"
            )
        return self.mice[mouse_id]

    def _traces(self, traces, mouse: Mouse, name: str, video: torch.Tensor) -> torch.Tensor:
        """(B, 2, T) on the device; the mouse's mean where none are given."""
        shape = (len(video), 2, video.shape[2])
        if traces is None:
            mean = torch.as_tensor(mouse.statistics[name]["mean"], dtype=torch.float32, device=self.device)
            return mean[:, None].expand(shape)
        traces = torch.as_tensor(traces, dtype=torch.float32, device=self.device)
        if traces.shape != shape:
            raise ValueError(f"{name} must be {shape}, got {tuple(traces.shape)}")
        return traces


def load_twin(
    run_dir: Path | str,
    device: str = "auto",
    precision: str = "32",
    data_dir: Path | str | None = None,
    compile: bool = False,
) -> Twin:
    """Open a run of train.py, or of the public implementation.

    The latter keeps no statistics: they are taken from its recordings below `data_dir`. precision: 32, tf32 (faster
    products on recent GPUs) or bf16.
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision} is unknown; one of {', '.join(PRECISIONS)}.")
    checkpoint = load_checkpoint(run_dir, data_dir=data_dir)
    if checkpoint.mice is None:
        raise UserError(
            f"{run_dir}: a run of the public implementation keeps no statistics of its recordings. "
            "Name the folder that holds them with --data_dir."
        )
    config = checkpoint.model_config
    if getattr(config.core_config, "temporal_patch_stride", 1) != 1:
        raise UserError(f"{run_dir}: --core_temporal_patch_stride above 1 leaves frames without response.")
    device = choose_device(device)
    torch.set_float32_matmul_precision("highest" if precision == "32" else "high")
    model = build_model(config, checkpoint.mice)
    if checkpoint.path.name == "model.pt":  # of the public implementation
        model.load_reference_state(checkpoint.model_state)
    else:
        load_weights(model, checkpoint.model_state, checkpoint.path)
    model.to(device).eval().requires_grad_(False)
    model.core.autocast_dtype = torch.bfloat16 if precision == "bf16" else None
    if compile:
        model.compile()
    words = {key: checkpoint.config[key] for key in ("center_crop",) if key in checkpoint.config}
    for key in ("input", "output"):
        words[key] = checkpoint.config.get(f"transform_{key}", "standardise")
    transforms = {id: Transforms(mouse.statistics, **words) for id, mouse in checkpoint.mice.items()}
    return Twin(model, checkpoint.mice, transforms, device, file_hash(checkpoint.path))


def file_hash(path: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def equal_batches(lengths: dict[int, int], batch_size: int) -> list[list[int]]:
    """Trials in ascending order, in batches of one length; the same plan for the same trials."""
    by_length: dict[int, list[int]] = {}
    for trial in sorted(lengths):
        by_length.setdefault(lengths[trial], []).append(trial)
    return [ids[i : i + batch_size] for ids in by_length.values() for i in range(0, len(ids), batch_size)]


def predict_trials(twin: Twin, mouse_id: str, trials: Sequence[Trial], neurons=None) -> torch.Tensor:
    """Responses (B, N, T') float32 in recorded units, on the CPU, of trials of one length shown as one batch."""
    stacked = [np.stack([getattr(trial, name) for trial in trials]) for name in ("video", "behavior", "pupil_center")]
    try:
        return twin.respond(mouse_id, stacked[0][:, None], *stacked[1:], neurons=neurons).cpu()
    except torch.OutOfMemoryError:
        cure = f"--batch_size {len(trials) // 2}" if len(trials) > 1 else "--device cpu"
        raise UserError(
            f"{len(trials)} trials of {trials[0].frames} frames exceed the memory of {twin.device}. Use {cure}."
        ) from None


def respond_sharded(
    twin: Twin,
    mouse_id: str,
    videos: Sequence,
    behavior: Sequence | None = None,
    pupil_center: Sequence | None = None,
    neurons=None,
    everywhere: bool = True,
) -> list[np.ndarray]:
    """Responses (N, T') to each of many videos, as `Twin.respond` gives them, shared out over several processes.

    videos: (T, H, W) each, of any lengths; behavior and pupil_center: (2, T) each, or None for the mouse's mean. The
    processes call this alike inside `viv1t.distributed.joined()`, and each computes every n-th video. All get the
    whole list, or with `everywhere=False` the main process does and the others get an empty one.
    """

    def respond(i: int) -> torch.Tensor:
        traces = (None if values is None else np.asarray(values[i])[None] for values in (behavior, pupil_center))
        return twin.respond(mouse_id, np.asarray(videos[i])[None, None], *traces, neurons=neurons)[0].cpu()

    found = {i: respond(i) for i in distributed.share(range(len(videos)))}
    parts = distributed.gather(found) if everywhere else distributed.collect(found)
    whole = {i: responses for part in parts for i, responses in part.items()}
    return [whole[i].numpy() for i in sorted(whole)]


def read_ahead(read: Callable, items: Iterable, workers: int) -> Iterator:
    """`read(item)` of every item in order, computed in threads up to `workers` items before they are asked for."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
