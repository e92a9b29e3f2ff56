"""Patterns on the timeline of a twin or an animal, and the responses to them.

A pattern is shown after a grey screen, and the response to it is cut out again. Each pattern stands alone (what was
shown before it does not change its response) unless a timeline packs several into a trial.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from viv1t.constants import FPS, GREY, SKIP
from viv1t.inference import Twin
from viv1t.simulate.animal import Animal
from viv1t.simulate.calcium import record


@dataclass(frozen=True)
class Timeline:
    """One trial, in frames: grey `lead_in`, then `per_trial` blocks of | `before` grey, pattern, `after` grey |.

    Responses are cut from the pattern's first frame to the end of its block. The published experiments are
    Timeline(60, 15, 30, 15, per_trial=4) (gratings) and Timeline(135, 0, 30, 135) (noise, most exciting stimuli).
    """

    lead_in: int = 60
    before: int = 0
    pattern: int = 30
    after: int = 0
    per_trial: int = 1

    def __post_init__(self):
        if min(self.before, self.after) < 0 or min(self.pattern, self.per_trial) < 1:
            raise ValueError(f"{self}: lengths must not be negative, and a trial shows a pattern")
        if self.lead_in + self.before < SKIP:
            raise ValueError(f"{self}: models need {SKIP} grey frames before the first pattern")

    @property
    def block(self) -> int:
        return self.before + self.pattern + self.after

    @property
    def trial(self) -> int:
        return self.lead_in + self.per_trial * self.block

    def present(self, patterns: np.ndarray) -> np.ndarray:
        """Patterns (K, pattern, H, W) -> trials (ceil(K / per_trial), trial, H, W), grey elsewhere."""
        K, F, H, W = patterns.shape
        if self.pattern != F:
            raise ValueError(f"patterns have {F} frames, the timeline shows {self.pattern}")
        trials = -(-K // self.per_trial)
        blocks = np.full((trials * self.per_trial, self.block, H, W), GREY, patterns.dtype)
        blocks[:K, self.before : self.before + F] = patterns
        lead_in = np.full((trials, self.lead_in, H, W), GREY, patterns.dtype)
        return np.concatenate([lead_in, blocks.reshape(trials, -1, H, W)], axis=1)

    def cut(self, responses: np.ndarray, patterns: int) -> np.ndarray:
        """Responses (trials, N, T') to `present` of so many patterns -> (patterns, N, pattern + after).

        Frames are counted from the end of the trial: models may drop early frames, never late ones.
        """
        trials, N, _ = responses.shape
        blocks = responses[:, :, -self.per_trial * self.block :].reshape(trials, N, self.per_trial, self.block)
        return blocks.swapaxes(1, 2).reshape(-1, N, self.block)[:patterns, :, self.before :]


@dataclass(frozen=True)
class Window:
    """Which part of a response counts: its mean from `start` to `stop`, in seconds after the onset of the pattern."""

    start: float = 0.0
    stop: float = 1.0

    def mean(self, responses: np.ndarray, fps: float = FPS) -> np.ndarray:
        """Responses (..., frames), the first at onset -> (...)."""
        first, last = round(self.start * fps), round(self.stop * fps)
        if not 0 <= first < last <= responses.shape[-1]:
            raise ValueError(f"{self} does not lie within the {responses.shape[-1]} frames that are cut out")
        return responses[..., first:last].mean(axis=-1)


class TwinPresenter:
    """Shows patterns to a twin's mouse whose behaviour and gaze (2,) are held still.

    Causal transformers see the grey screen once, every distinct stretch of frames once, and time is computed only
    where the chosen neurons read (`viv1t.model.prelude`). All other models, packed timelines and trials longer than
    the model's are shown as whole trials.
    """

    def __init__(self, twin: Twin, mouse_id: str, timeline: Timeline, behavior: np.ndarray, pupil_center: np.ndarray):
        self.twin, self.mouse_id, self.timeline = twin, mouse_id, timeline
        self.traces = [
            torch.as_tensor(np.asarray(x, dtype=np.float32))[None, :, None] for x in (behavior, pupil_center)
        ]
        local = twin.model.config.readout_config.local
        shares = timeline.per_trial == 1 and local and twin.model.core.shares(timeline.trial)
        self.prelude = self._prelude() if shares else None
        self.listen(np.arange(twin.mouse(mouse_id).num_neurons))

    def listen(self, neurons: np.ndarray) -> None:
        """Whose responses `show` returns, from now on: indices of the twin's neurons (n,)."""
        self.neurons = torch.as_tensor(np.asarray(neurons), dtype=torch.long, device=self.twin.device)
        if self.prelude is not None:
            self._voice = _Voice(self.twin, self.mouse_id, self.neurons, self.prelude, self._inputs(1)[1:])

    @torch.inference_mode()
    def show(self, patterns: np.ndarray, rows: range | None = None) -> np.ndarray:
        """Grey levels (K, pattern, H, W) uint8 -> responses (K, n, pattern + after) float32 in recorded units.

        rows: which of all patterns these are; nothing but the noise of an `AnimalPresenter` depends on it.
        """
        timeline, K = self.timeline, len(patterns)
        if self.prelude is None:
            return timeline.cut(self._respond(timeline.present(patterns)), K)
        frames = timeline.present(patterns)[:, timeline.lead_in + timeline.before :]
        video = self.twin.transforms[self.mouse_id].video(torch.as_tensor(frames, device=self.twin.device))
        return self._voice.answer(video).cpu().numpy()

    @torch.inference_mode()
    def spontaneous(self) -> np.ndarray:
        """Responses (n,) to the last frame before the first pattern."""
        if self.prelude is not None:
            return self._voice.spontaneous().cpu().numpy()
        return self._respond(self._grey())[0, :, -1]

    def _respond(self, trials: np.ndarray) -> np.ndarray:
        traces = (x.expand(len(trials), -1, trials.shape[1]) for x in self.traces)
        return self.twin.respond(self.mouse_id, trials[:, None], *traces, neurons=self.neurons).cpu().numpy()

    def _grey(self) -> np.ndarray:
        frames = self.timeline.lead_in + self.timeline.before
        return np.full((1, frames, *self.twin.model.core.frame_size), GREY, np.uint8)

    def _inputs(self, frames: int) -> list[torch.Tensor]:
        transforms, device = self.twin.transforms[self.mouse_id], self.twin.device
        behavior, pupil_center = (x.expand(-1, -1, frames).to(device) for x in self.traces)
        video = torch.as_tensor(self._grey()[:, None], device=device)
        return [transforms.video(video), transforms.behavior(behavior), transforms.pupil_center(pupil_center)]

    @torch.inference_mode()
    def _prelude(self):
        return self.twin.model.core.prelude(*self._inputs(self.timeline.lead_in + self.timeline.before))


class _Voice:
    """Some neurons of a twin, who listen to patterns after a prelude."""

    @torch.inference_mode()
    def __init__(self, twin: Twin, mouse_id: str, neurons: torch.Tensor, prelude, traces):
        model = twin.model
        reader = model.readouts[mouse_id].reader(neurons, model.core.grid)
        if mouse_id in model.shifters:
            reader.look(model.shifters[mouse_id](*traces)[0, :, 0])
        self.reader, self.prelude = reader.by_place(), prelude
        self.places = self.reader.places
        self.pasts = prelude.learn(self.places)
        self.activation = model.output_activation[mouse_id]
        self.transforms = twin.transforms[mouse_id].select(neurons.cpu())

    def answer(self, patterns: torch.Tensor) -> torch.Tensor:
        """Transformed patterns (K, F, H, W) -> (K, n, F) in recorded units."""
        maps = self.prelude.maps(patterns, self.places, self.pasts)  # (K, F, places, D)
        return self._rates(maps.flatten(0, 1)).unflatten(0, maps.shape[:2]).transpose(1, 2)

    def spontaneous(self) -> torch.Tensor:
        return self._rates(self.prelude.answer(self.places)[-1:])[0]

    def _rates(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (R, places, D) -> (R, n)."""
        return self.transforms.inverse_responses(self.activation(self.reader(maps)).T).T


class AnimalPresenter:
    """Shows patterns to a simulated mouse; arguments as for a twin.

    noise: 0 for its expected answers; 1 for what a recording of one presentation would hold, the same in every run.
    """

    LEAD_IN = 4  # frames: the animal's eye is adapted to grey from the start
    GREY_FRAMES = 600  # averaged into a noisy spontaneous response

    def __init__(
        self, animal: Animal, timeline: Timeline, behavior: np.ndarray, pupil_center: np.ndarray, noise: float = 0.0
    ):
        self.animal, self.noise = animal, noise
        self.timeline = replace(timeline, lead_in=SKIP) if timeline.per_trial == 1 else timeline
        self.traces = [
            torch.as_tensor(np.asarray(x, dtype=np.float32))[None, :, None] for x in (behavior, pupil_center)
        ]
        self.skip = SKIP - self.LEAD_IN if timeline.per_trial == 1 else 0
        self.listen(np.arange(animal.num_neurons))

    def listen(self, neurons: np.ndarray) -> None:
        self.neurons = np.asarray(neurons)

    def show(self, patterns: np.ndarray, rows: range | None = None) -> np.ndarray:
        trials = self.timeline.present(patterns)[:, self.skip :]
        rows = rows or range(len(patterns))
        return self.timeline.cut(self._respond(trials, rows[:: self.timeline.per_trial]), len(patterns))

    def spontaneous(self) -> np.ndarray:
        monitor, frames = self.animal.monitor, self.GREY_FRAMES if self.noise else self.LEAD_IN
        grey = np.full((1, frames, monitor.height, monitor.width), GREY, np.uint8)
        return self._respond(grey, [-1])[0, :, self.LEAD_IN - 1 :].mean(axis=-1)

    @torch.inference_mode()
    def _respond(self, trials: np.ndarray, rows) -> np.ndarray:
        traces = (x.expand(len(trials), -1, trials.shape[1]) for x in self.traces)
        if not self.noise:
            return self.animal.respond(trials[:, None], *traces, neurons=self.neurons).cpu().numpy()
        rates = self.animal.rate(trials[:, None], *traces, neurons=self.neurons).cpu().numpy()
        table, kernels = self.animal.neurons.iloc[self.neurons], self.animal.kernels[self.neurons]
        seeds = [[int(self.neurons[0]), row + 1] for row in rows]
        return np.stack([record(r, table, kernels, s, self.noise) for r, s in zip(rates, seeds, strict=True)])
