"""Predicting responses from movies, as the training loop sees it: batches, losses, scores.

The loop knows nothing of mice or movies. Anything with the methods of `ResponseTask` can be trained by it.
"""

import itertools
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from viv1t import distributed
from viv1t.constants import HEIGHT, SKIP, TRIAL_FRAMES, WIDTH
from viv1t.data.loader import Batch, MouseData, TrainingBatches, tier_trials
from viv1t.data.mouse import Mouse
from viv1t.data.transforms import Transforms
from viv1t.errors import UserError
from viv1t.estimators.accuracy import StreamingCorrelation, correlation, scored, summarize
from viv1t.model.build import Model
from viv1t.training.config import TrainConfig
from viv1t.training.losses import CRITERIONS, mouse_weights
from viv1t.training.team import Alone

RECALIBRATION_STEPS = 16  # of an epoch
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class TierScore:
    """One mouse, one tier: mean loss over trials, correlations averaged over neurons."""

    loss: float
    correlation: float  # all trials end to end, the competition's metric
    single_trial_correlation: float
    trials: int


class Tally:
    """What the trials of one mouse add up to; the tallies of parts of a tier merge."""

    def __init__(self, num_neurons: int):
        self.loss, self.trials = 0.0, 0
        self.single = np.zeros(num_neurons)  # correlations of single trials, added up
        self.stream = StreamingCorrelation(num_neurons)

    def update(self, loss: float, y: np.ndarray, y_pred: np.ndarray) -> None:
        """One trial, (N, T) twice."""
        self.loss, self.trials = self.loss + loss, self.trials + 1
        self.single += correlation(y, y_pred, axis=-1)
        self.stream.update(y, y_pred)

    def state(self) -> dict:
        """Numbers and tensors that `merge` takes."""
        arrays = {"single": self.single, "mean": self.stream.mean, "moments": self.stream.moments}
        numbers = {"loss": self.loss, "trials": self.trials, "frames": self.stream.count}
        return numbers | {name: torch.from_numpy(array) for name, array in arrays.items()}

    def merge(self, state: dict) -> None:
        self.loss, self.trials = self.loss + state["loss"], self.trials + state["trials"]
        self.single += state["single"].numpy()
        self.stream.merge(state["frames"], state["mean"].numpy(), state["moments"].numpy())

    def score(self) -> TierScore:
        return TierScore(
            loss=self.loss / self.trials,
            correlation=summarize(self.stream.value()).mean,
            single_trial_correlation=summarize(self.single / self.trials).mean,
            trials=self.trials,
        )


class ResponseTask:
    """One model, the recordings it learns from, and how its predictions are judged."""

    def __init__(
        self,
        model: Model,
        mice: dict[str, MouseData],
        config: TrainConfig,
        device: torch.device,
        team: Alone | None = None,
    ):
        self.model, self.device, self.team = model, device, team or Alone(model, list(mice))
        self.data = {mouse_id: mice[mouse_id] for mouse_id in self.team.shares}  # of the mice that we have trials of
        self.criterion = CRITERIONS[config.fit.criterion]
        self.loss_skip = config.fit.loss_skip
        self.verbose = config.log.verbose
        self.mice: dict[str, Mouse] = {mouse_id: data.mouse for mouse_id, data in mice.items()}
        sizes = {mouse_id: len(data.train_ids) for mouse_id, data in mice.items()}
        self.weights = mouse_weights(sizes) if config.fit.ds_scale else dict.fromkeys(mice, 1.0)
        self.transforms = {mouse_id: build_transforms(data.mouse, config) for mouse_id, data in mice.items()}
        self.training_batches = TrainingBatches(
            mice,
            batch_size=config.fit.batch_size,
            crop_frame=config.data.crop_frame,
            seed=config.fit.seed,
            num_workers=config.data.num_workers,
            rows={mouse_id: share.rows for mouse_id, share in self.team.shares.items()},
            cutmix=config.fit.cutmix,
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.training_batches.steps_per_epoch

    def batches(self, epoch: int, start_step: int) -> Iterable[dict[str, Batch]]:
        return self.training_batches.batches(epoch, start_step)

    def losses(self, batches: dict[str, Batch], micro_batch_size: int) -> Iterator[Tensor]:
        """The loss of one step in parts to be added, one per pass through the core.

        It is the mean over mice of each mouse's weighted loss per trial; of several processes, each has a part of it.
        Random numbers follow from the seed of the step and from the trials that are shown, those of a readout from
        its own mouse's alone. So they do not depend on the process that draws them, nor on what it drew before.
        """
        step = torch.initial_seed()
        sizes = {mouse_id: batch.whole or len(batch.video) for mouse_id, batch in batches.items()}
        for number, part in enumerate(split(batches, micro_batch_size)):
            inputs, targets, seeds = {}, {}, {}
            for mouse_id, rows in part.items():
                inputs[mouse_id], targets[mouse_id] = self._prepare(mouse_id, batches[mouse_id], rows)
                first = (self.team.shares[mouse_id].rows.start or 0) + rows.start
                seeds[mouse_id] = draw_seed(step, mouse_id, first)
            torch.manual_seed(draw_seed(next(iter(seeds.values())), "core"))
            loss = self._penalty() if number == 0 else torch.zeros((), device=self.device)
            for mouse_id, y_pred in self.model(inputs, seeds=seeds).items():
                y = _align(targets[mouse_id], y_pred, self.loss_skip)
                B = sizes[mouse_id]
                of_mouse = self.criterion(y, y_pred[..., -y.shape[-1] :], share=len(y) / B)
                loss = loss + self.weights[mouse_id] / (len(self.mice) * B) * of_mouse
            yield loss

    def _penalty(self) -> Tensor:
        """Regularisers of the weights; of several processes, one has those of the core and of each readout."""
        penalty = torch.zeros((), device=self.device)
        if distributed.is_main():
            penalty = penalty + self.model.core.penalty()
        for mouse_id, share in self.team.shares.items():
            if share.part == 0:
                penalty = penalty + self.model.readouts[mouse_id].penalty()
        return penalty

    @torch.no_grad()
    def recalibrate(self, epoch: int) -> None:
        """Statistics of batch normalisation as the present weights give them on some training clips of an epoch.

        Those gathered in training belong to the weights of many steps, and with averaged weights to none that are
        evaluated. Several processes take the mean of what they find.
        """
        norms = [m for m in self.model.core.modules() if isinstance(m, BATCH_NORMS)]
        if not norms:
            return
        self.model.eval()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean
            norm.train()
        for batches in itertools.islice(self.batches(epoch, 0), RECALIBRATION_STEPS):
            for mouse_id, batch in batches.items():
                for row in range(len(batch.video)):
                    inputs, _ = self._prepare(mouse_id, batch, slice(row, row + 1))
                    self.model.core(*inputs)
        found = distributed.gather([[norm.running_mean.cpu(), norm.running_var.cpu()] for norm in norms])
        for i, norm in enumerate(norms):
            norm.momentum = momenta[i]
            norm.running_mean.copy_(torch.stack([each[i][0] for each in found]).mean(dim=0))
            norm.running_var.copy_(torch.stack([each[i][1] for each in found]).mean(dim=0))

    def _trials(self, mouse_id: str, tier: str) -> Iterable[Batch]:
        """The trials of a tier that this process scores."""
        data, share = self.data[mouse_id], self.team.shares[mouse_id]
        part = slice(share.part, None, share.parts)
        return tqdm(
            tier_trials(data, tier, TRIAL_FRAMES, part),
            total=len(data.recording.trial_ids(tier)[part]),
            desc=f"{tier}, mouse {mouse_id}",
            unit="trial",
            leave=False,
            disable=None if self.verbose > 1 else True,
        )

    def _prepare(self, mouse_id: str, batch: Batch, rows: slice) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Raw trials -> the model's inputs and target on the device."""
        t = self.transforms[mouse_id]
        raw = (batch.video, batch.behavior, batch.pupil_center, batch.responses)
        video, behavior, pupil_center, responses = (x[rows].to(self.device, non_blocking=True) for x in raw)
        return (t.video(video), t.behavior(behavior), t.pupil_center(pupil_center)), t.responses(responses)

    def validate(self, interrupted: Callable[[], bool]) -> dict[str, float] | None:
        """Mean over mice of loss and correlation on the validation tier; None when interrupted."""
        scores = self.score("validation", interrupted)
        if scores is None:
            return None
        return {
            "loss": float(np.mean([score.loss for score in scores.values()])),
            "correlation": float(np.mean([score.correlation for score in scores.values()])),
        }

    def score(self, tier: str, interrupted: Callable[[], bool] = lambda: False) -> dict[str, TierScore] | None:
        """Scores of all mice with responses in a tier; None when interrupted. Every process scores what it holds."""
        found = {}
        for mouse_id, data in self.data.items():
            if has_responses(data, tier):
                found[mouse_id] = self._tally(mouse_id, tier, interrupted)
        everyone = distributed.gather(None if interrupted() else found)
        if None in everyone:
            return None
        tallies = {}
        for mouse_id, mouse in self.mice.items():
            parts = [part[mouse_id] for part in everyone if mouse_id in part]
            if parts:
                tallies[mouse_id] = Tally(mouse.num_neurons)
            for part in parts:
                tallies[mouse_id].merge(part)
        return {mouse_id: tally.score() for mouse_id, tally in tallies.items()}

    @torch.no_grad()
    def _tally(self, mouse_id: str, tier: str, interrupted: Callable[[], bool]) -> dict:
        """Whole trials of one tier in evaluation mode, without the first frames that no score uses."""
        self.model.eval()
        tally = Tally(self.mice[mouse_id].num_neurons)
        for batch in self._trials(mouse_id, tier):
            if interrupted():
                break
            if batch.responses is None:
                continue
            inputs, y = self._prepare(mouse_id, batch, slice(None))
            y_pred = self.model.predict(mouse_id, *inputs)
            y, y_pred = (scored(x, batch.video.shape[2]) for x in (y, y_pred))
            loss = self.weights[mouse_id] * float(self.criterion(y, y_pred))
            tally.update(loss, y[0].cpu().numpy(), y_pred[0].cpu().numpy())
        return tally.state()


def check_mice(mice: dict[str, MouseData]) -> None:
    """Every mouse needs trials to learn from and trials to be judged on, longer than the frames no score uses."""
    for mouse_id, data in mice.items():
        size = data.recording.frame_size
        if size != (HEIGHT, WIDTH):
            raise UserError(
                f"{data.recording.directory / 'data' / 'videos'}: frames are {size[0]} x {size[1]} pixels, the model "
                f"sees {HEIGHT} x {WIDTH}. Resize them."
            )
        tiers = data.recording.directory / "meta" / "trials" / "tiers.npy"
        for tier in ("train", "validation"):
            trials = data.recording.trial_ids(tier)
            if not len(trials):
                raise UserError(f"{tiers}: no trial of tier '{tier}'. Leave mouse {mouse_id} out with --mouse_ids.")
            frames = data.cache.frames[trials]
            if frames.min() < SKIP + 2:
                raise UserError(
                    f"{tiers}: {tier} trial {trials[frames.argmin()]} has {frames.min()} frames; the first {SKIP} "
                    f"count in no score. Set the tier of short trials to 'none'."
                )


def has_responses(data: MouseData, tier: str) -> bool:
    trials = data.recording.trial_ids(tier)
    return len(trials) > 0 and not data.cache.withheld[trials].all()


def build_transforms(mouse: Mouse, config: TrainConfig) -> Transforms:
    return Transforms(
        mouse.statistics,
        input=config.data.transform_input,
        output=config.data.transform_output,
        center_crop=config.data.center_crop,
    )


def draw_seed(seed: int, name: str, number: int = 0) -> int:
    """A seed for one of several things that draw random numbers in a step."""
    words = [seed, zlib.crc32(name.encode()), number]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def split(batches: dict[str, Batch], micro_batch_size: int) -> list[dict[str, slice]]:
    """Parts of at most `micro_batch_size` trials of one length, each trial in one part: mouse -> rows of its batch."""
    by_length = defaultdict(list)
    for mouse_id, batch in batches.items():
        by_length[batch.video.shape[2]].append(mouse_id)
    parts = []
    for mouse_ids in by_length.values():
        part, room = {}, micro_batch_size
        for mouse_id in mouse_ids:
            B, start = len(batches[mouse_id].video), 0
            while start < B:
                if room == 0:
                    parts.append(part)
                    part, room = {}, micro_batch_size
                stop = min(B, start + room)
                part[mouse_id] = slice(start, stop)
                room -= stop - start
                start = stop
        parts.append(part)
    return parts


def _align(y: Tensor, y_pred: Tensor, skip: int) -> Tensor:
    """The target frames that the loss sees: those predicted, without the first `skip` frames of the clip."""
    T = y.shape[-1]
    return y[..., T - min(y_pred.shape[-1], T - skip) :]
