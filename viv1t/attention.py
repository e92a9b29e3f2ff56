"""What the patches that a neuron reads attend to while patterns are shown to a twin, and what its answer depends on.

The first describes the twin and proves nothing, hence the second beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from viv1t.errors import UserError
from viv1t.estimators.attention import by_lag, rollout, share
from viv1t.model.attention_maps import places_read, record_attention, require_transformer, stacks
from viv1t.presentation import TwinPresenter


@dataclass(frozen=True)
class Attended:
    """Of one neuron, K patterns, and F frames of its response. Attention is weighted as the neuron reads its patches.

    heads (K, F, blocks, heads, P): spatial attention to each patch, rows without register tokens; rolled (K, F, P):
    the same rolled out through all blocks; lags (K, F, T'): temporal attention at the places that it reads, rolled
    out, to so many frames before (NaN before the trial), or None without temporal blocks; gradient (K, H, W): of the
    mean response at the F frames by grey levels, root mean square over the frames of the trial; responses (K, frames)
    to the pattern and what follows it, in recorded units.
    """

    heads: np.ndarray
    rolled: np.ndarray
    lags: np.ndarray | None
    gradient: np.ndarray
    responses: np.ndarray


def require_maps(presenter: TwinPresenter) -> None:
    """UserError for twins whose attention has no place on the frames that are shown."""
    model, core = presenter.twin.model, presenter.twin.model.core
    require_transformer(model)
    if not model.config.readout_config.local:
        raise UserError(
            f"the neurons of this twin read no place whose attention could be followed (--readout "
            f"{model.config.readout}). Name another run (--output_dir)."
        )
    if not stacks(core)[0]:
        raise UserError(
            "this twin has no blocks in space, so it attends to no place. Name another run (--output_dir)."
        )
    if presenter.twin.transforms[presenter.mouse_id].center_crop < 1:
        raise UserError("this twin sees a crop of the frame, which has no map here. Name another run (--output_dir).")
    if core.max_frame < presenter.timeline.trial:
        raise UserError(
            f"attention is recorded in trials of at most {core.max_frame} frames with this twin, whose --max_frame "
            f"that was; {presenter.timeline.trial} are shown. Name another run (--output_dir)."
        )


def attend(
    presenter: TwinPresenter, neurons: np.ndarray, patterns: np.ndarray, frames: Sequence[int]
) -> list[Attended]:
    """One `Attended` for each neuron (n,), shown patterns (K, pattern, H, W) uint8, each alone in a trial.

    frames: of the response, counted from the onset of the pattern.
    """
    twin, core, timeline = presenter.twin, presenter.twin.model.core, presenter.timeline
    neurons = torch.as_tensor(np.asarray(neurons), dtype=torch.long, device=twin.device)
    places, weights = read_places(presenter, neurons)
    located = np.unique(places)
    trials = timeline.present(patterns)
    frames = np.asarray(frames) - (timeline.pattern + timeline.after)  # from the end of the trial
    video = torch.tensor(trials[:, None], dtype=torch.float32, device=twin.device, requires_grad=True)
    traces = (trace.expand(len(trials), -1, trials.shape[1]) for trace in presenter.traces)
    wanted = (core.output_frames(trials.shape[1]) + frames).tolist()
    with record_attention(core, wanted, located.tolist()) as attention:
        responses = twin.respond(presenter.mouse_id, video, *traces, neurons=neurons)  # (K, n, T')
    rolled, lags = rollout(attention.space), None
    if attention.time is not None:
        lags = by_lag(rollout(attention.time))[:, :, wanted]  # (K, located, F, T')
    found = []
    for n, (place, weight) in enumerate(zip(places, weights, strict=True)):
        (gradient,) = torch.autograd.grad(
            responses[:, n, frames].mean(dim=1).sum(), video, retain_graph=n < len(neurons) - 1
        )
        found.append(
            Attended(
                np.einsum("kfbhqp,q->kfbhp", attention.space[..., place, :], weight),
                np.einsum("kfqp,q->kfp", rolled[..., place, :], weight),
                None if lags is None else np.einsum("kqft,q->kft", lags[:, np.searchsorted(located, place)], weight),
                gradient[:, 0].square().mean(dim=1).sqrt().double().cpu().numpy(),
                timeline.cut(responses[:, n : n + 1].detach().cpu().numpy(), len(patterns))[:, 0],
            )
        )
    return found


def attend_in_batches(
    presenter: TwinPresenter, neurons: np.ndarray, patterns: np.ndarray, frames: Sequence[int], batch_size: int
) -> list[Attended]:
    """The same, with no more than `batch_size` patterns at once."""
    starts = range(0, len(patterns), batch_size)
    batches = [attend(presenter, neurons, patterns[start : start + batch_size], frames) for start in starts]
    return [_joined(parts) for parts in zip(*batches, strict=True)]


def _joined(parts: Sequence[Attended]) -> Attended:
    """All patterns of one neuron."""
    values = [[getattr(part, name) for part in parts] for name in Attended.__dataclass_fields__]
    return Attended(*(None if part[0] is None else np.concatenate(part) for part in values))


def shares(seen: Attended, patches: np.ndarray, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What each of n parts of the screen gets (n,), in multiples of uniform, mean over patterns and frames, by source.

    patches (n, P), pixels (n, H, W): how much of each lies in a part. Sources are attention rolled out, the gradient
    pixel by pixel, and single heads.
    """
    gradient = seen.gradient.reshape(len(seen.gradient), -1)
    found = {
        "attention": np.stack([share(seen.rolled, part).mean() for part in patches]),
        "gradient": np.stack([share(gradient, part.ravel()).mean() for part in pixels]),
    }
    heads = np.stack([share(seen.heads, part).mean(axis=(0, 1)) for part in patches], axis=-1)  # (blocks, heads, n)
    return found | {f"block {b + 1}, head {h + 1}": heads[b, h] for b, h in np.ndindex(heads.shape[:2])}


def read_places(presenter: TwinPresenter, neurons: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 4) of the grid that neurons read at the presenter's gaze, and weights (n, 4) that add up to 1."""
    twin, mouse_id = presenter.twin, presenter.mouse_id
    behavior, pupil_center = (trace.to(twin.device) for trace in presenter.traces)
    transforms = twin.transforms[mouse_id]
    held = transforms.behavior(behavior), transforms.pupil_center(pupil_center)
    places, weights = places_read(twin.model, mouse_id, neurons, *held)
    total = weights.sum(axis=1, keepdims=True)  # NaN for neurons that read nothing, off the frame
    return places, np.divide(weights, total, out=np.full_like(weights, np.nan), where=total > 0)
