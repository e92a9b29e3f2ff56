"""A live twin: one frame in, the responses to that frame out."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from viv1t.errors import UserError
from viv1t.inference import Twin

Traces = tuple[torch.Tensor, torch.Tensor]  # transformed behaviour (1, 2, 1) and pupil centre (1, 2, 1) of a frame


class Stream:
    """A causal twin, one frame at a time.

    Every frame is answered as `twin.respond` answers it when it is shown the whole video, however long. Neither the
    cost of a frame nor the memory of the state (`nbytes`) grows with time. Runs where the twin is (`twin.device`).

    Each mouse of `mouse_ids` (default: all) sees the frames scaled with its own statistics. One pass through the core
    serves all, as a batch of the inputs that differ: one for each mouse if the core is told of behaviour, else one for
    each set of video statistics. With `inputs_of` all see and do what that mouse would, and the core computes one
    input: responses are then those of `model.predict(mouse, *inputs of that mouse)`, in each mouse's own units.

    neurons: mouse -> indices of the neurons to read out (default: all); no others are computed.
    If patches are not padded in time (`--core_pad_frame 0`), the first frames have no response and give NaN.
    A twin that is not causal, and mice and neurons that it does not know, raise UserError.
    """

    def __init__(
        self,
        twin: Twin,
        mouse_ids: Sequence[str] | None = None,
        neurons: Mapping[str, Sequence[int]] | None = None,
        inputs_of: str | None = None,
    ):
        self.mouse_ids = tuple(dict.fromkeys(twin.mice if mouse_ids is None else mouse_ids))
        if not self.mouse_ids:
            raise UserError(f"no mouse to stream; this run has {', '.join(twin.mice)}.")
        counts = {mouse_id: twin.mouse(mouse_id).num_neurons for mouse_id in self.mouse_ids}
        self.neurons = {mouse_id: np.arange(count) for mouse_id, count in counts.items()}
        for mouse_id, chosen in (neurons or {}).items():
            if mouse_id not in counts:
                raise UserError(f"neurons of mouse {mouse_id} were asked for, but the stream is of {list(counts)}.")
            self.neurons[mouse_id] = _indices(chosen, mouse_id, counts[mouse_id])
        self.unit_ids = {mouse_id: twin.mice[mouse_id].unit_ids[chosen] for mouse_id, chosen in self.neurons.items()}
        if inputs_of is not None:
            twin.mouse(inputs_of)
        core = twin.model.core
        self.device, self.frame_size = twin.device, core.frame_size
        self._sources = {mouse_id: mouse_id if inputs_of is None else inputs_of for mouse_id in self.mouse_ids}
        self._bodies = {mouse_id: _Body(twin, mouse_id) for mouse_id in dict.fromkeys(self._sources.values())}
        self._voices = {mouse_id: _Voice(twin, mouse_id, chosen) for mouse_id, chosen in self.neurons.items()}
        # rows of the batch: the inputs that differ, and a mouse that stands for all who share them
        kinds = {mouse_id: mouse_id if core.sees_behavior else body.scale for mouse_id, body in self._bodies.items()}
        rows = list(dict.fromkeys(kinds.values()))
        self._rows = {mouse_id: rows.index(kinds[source]) for mouse_id, source in self._sources.items()}
        self._shown = [next(mouse_id for mouse_id, kind in kinds.items() if kind == row) for row in rows]
        self._memory = core.memory(len(rows))
        self.frames = 0

    @property
    def nbytes(self) -> int:
        """Memory of the state: inputs of one patch, keys and values of the temporal blocks."""
        return self._memory.nbytes

    def reset(self) -> None:
        """Start a new session."""
        self._memory.reset()
        for voice in self._voices.values():
            voice.reader.reset()
        self.frames = 0

    def step(self, frame, behavior=None, pupil_center=None) -> dict[str, np.ndarray]:
        """Responses to the next frame: mouse -> rates (N,) float32 in recorded units.

        frame (H, W) grey levels 0..255, of any type; behavior (2,) pupil dilation and running speed, and pupil_center
        (2,), in recorded units, the same for all mice or as a dict mouse -> (2,); None, and a mouse that a dict leaves
        out: the mouse's mean. Raises ValueError for wrong shapes and values that are not finite; the state is then as
        before the call.
        """
        frame = _numbers(frame, self.frame_size, "frame")
        given = [self._of_bodies(behavior, "behavior"), self._of_bodies(pupil_center, "pupil_center")]
        with torch.inference_mode():
            frame = torch.from_numpy(frame).to(self.device)
            traces = {mouse_id: body.move(*(x[mouse_id] for x in given)) for mouse_id, body in self._bodies.items()}
            inputs = [(self._bodies[mouse_id].see(frame), *traces[mouse_id]) for mouse_id in self._shown]
            maps = self._memory.step(*(torch.cat(parts) for parts in zip(*inputs, strict=True)))
            self.frames += 1
            if maps is None:
                return {id: np.full(len(chosen), np.nan, np.float32) for id, chosen in self.neurons.items()}
            rates = [
                voice.rates(maps[self._rows[mouse_id]], traces[self._sources[mouse_id]])
                for mouse_id, voice in self._voices.items()
            ]
            rates = torch.cat(rates).cpu().numpy()
        ends = np.cumsum([len(chosen) for chosen in self.neurons.values()])
        return dict(zip(self.mouse_ids, np.split(rates, ends[:-1]), strict=True))

    def _of_bodies(self, values, name: str) -> dict[str, np.ndarray | None]:
        """What was given for each mouse whose inputs are computed; None for its mean."""
        if not isinstance(values, Mapping):
            values = None if values is None else _numbers(values, (2,), name)
            return dict.fromkeys(self._bodies, values)
        if unknown := values.keys() - self._bodies.keys() - set(self.mouse_ids):
            raise ValueError(f"{name} of mouse {min(unknown)}; the stream is of {', '.join(self.mouse_ids)}")
        checked = {mouse_id: None if x is None else _numbers(x, (2,), name) for mouse_id, x in values.items()}
        return {mouse_id: checked.get(mouse_id) for mouse_id in self._bodies}


class _Body:
    """What one mouse makes of frames, behaviour and gaze: the inputs of the model."""

    def __init__(self, twin: Twin, mouse_id: str):
        statistics = twin.mouse(mouse_id).statistics
        self.transforms, self.device = twin.transforms[mouse_id], twin.device
        self.mean = [np.array(statistics[name]["mean"], np.float32) for name in ("behavior", "pupil_center")]
        self.scale = tuple(float(value) for _, value in sorted(statistics["video"].items()))
        self.raw: list[np.ndarray] = []
        self.move(None, None)

    def see(self, frame: torch.Tensor) -> torch.Tensor:
        """(H, W) -> (1, 1, 1, H, W)."""
        return self.transforms.video(frame)[None, None, None]

    def move(self, behavior: np.ndarray | None, pupil_center: np.ndarray | None) -> Traces:
        """Recorded units -> transformed; the very same object as for the last frame if nothing has changed."""
        raw = [mean if x is None else x for x, mean in zip((behavior, pupil_center), self.mean, strict=True)]
        if not all(map(np.array_equal, raw, self.raw)) or not self.raw:
            on_device = (torch.from_numpy(x).to(self.device)[:, None] for x in raw)
            scales = (self.transforms.behavior, self.transforms.pupil_center)
            self.traces = tuple(scale(x)[None] for scale, x in zip(scales, on_device, strict=True))
            self.raw = raw
        return self.traces


class _Voice:
    """The neurons of one mouse that are read out, from feature maps to rates."""

    def __init__(self, twin: Twin, mouse_id: str, neurons: np.ndarray):
        model, index = twin.model, torch.from_numpy(neurons)
        self.shifter = dict(model.shifters).get(mouse_id)
        self.reader = model.readouts[mouse_id].reader(index.to(twin.device), model.core.grid)
        self.activation = model.output_activation[mouse_id]
        self.transforms = twin.transforms[mouse_id].select(index)
        self.traces: Traces | None = None  # that the reader looks along

    def rates(self, z: torch.Tensor, traces: Traces) -> torch.Tensor:
        """Feature map (1, h, w, D) of this frame -> (N,) in recorded units."""
        if self.shifter is not None and traces is not self.traces:
            self.reader.look(self.shifter(*traces)[0, :, 0])
            self.traces = traces
        y = self.activation(self.reader(z))[0]
        return self.transforms.inverse_responses(y[:, None])[:, 0]


def _numbers(values, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A float32 copy of finite numbers of that shape, else ValueError."""
    values = values.detach().float().cpu().numpy() if isinstance(values, torch.Tensor) else values
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers of shape {shape}") from None
    if array.shape != shape:
        raise ValueError(f"{name} must be {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def _indices(chosen: Sequence[int], mouse_id: str, count: int) -> np.ndarray:
    chosen = np.asarray(chosen)
    if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
        raise UserError(f"mouse {mouse_id}: neurons must be a list of indices.")
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < count:
        raise UserError(f"mouse {mouse_id}: neurons must be 0 to {count - 1}; {chosen.min()} to {chosen.max()} given.")
    return chosen.astype(np.int64)
