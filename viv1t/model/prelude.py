"""Many short patterns after the same prelude: what they have in common is computed once.

A causal core's answer to a pattern depends on the pattern and on what came before. Patterns shown after one grey
screen share its tokens, keys and values. Within and between patterns, equal stretches of frames (one temporal patch)
give equal tokens, and each is encoded once. Time is then computed only at the places that are read.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from viv1t.model.memory import Past
from viv1t.model.positions import TIME_TABLES
from viv1t.model.transformer import autocast


class Prelude:
    """A causal ViViTCore that has seen frames which all patterns follow, each pattern as if it were the only one.

    `maps` gives what the core gives for the last frames of [prelude, pattern]. Made by `ViViTCore.prelude`.
    """

    def __init__(self, core, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor):
        """(1, 1, L, H, W), (1, 2, L), (1, 2, L), transformed; behaviour and gaze stay as in the last frame."""
        self.core, self.chunk = core, core.chunk_tokens(video.device)
        patches = core.tokenizer.tokenizer
        self.kernels, self.patch = patches.kernels(), core.config.temporal_patch_size
        self.device = video.device
        with self._precision():
            x = core.tokenizer.embed(video, behavior, pupil_center, core.tokenizer.front, self.kernels)
            x = core.vivit.space(core.tokenizer.add_positions(x), self.chunk, False)
        self.tokens = x[0].transpose(0, 1)  # (P, n, D)
        self.last = video[0, 0, video.shape[2] - self.patch + 1 :]  # what the first patches of a pattern begin with
        self.traces = behavior[:, :, -1:], pupil_center[:, :, -1:]
        self.before = video[0, 0, -1]
        still = video[:, :, -1:].expand(-1, -1, self.patch, -1, -1)
        unmoved = bool((self.last == self.before).all())
        with self._precision():
            self.elsewhere = patches.unchanged(still, self.kernels) if unmoved else None

    def learn(self, places: torch.Tensor) -> list[Past]:
        """What the temporal blocks remember of the prelude at some places of the feature map (flat indices)."""
        with self._precision():
            parts = [self.core.vivit.temporal_transformer.learn(x) for x in self._sequences(places)]
        return [Past(*(torch.cat(kind) for kind in zip(*block, strict=True))) for block in zip(*parts, strict=True)]

    def answer(self, places: torch.Tensor) -> torch.Tensor:
        """Core output (n, places, D) float32 for the prelude itself."""
        with self._precision():
            parts = [self.core.vivit.temporal_stack(x, None) for x in self._sequences(places)]
        return self.core.activation(torch.cat(parts)).float().transpose(0, 1)

    def maps(self, patterns: torch.Tensor, places: torch.Tensor, pasts: Sequence[Past]) -> torch.Tensor:
        """Core output (K, F, places, D) float32 for patterns (K, F, H, W), transformed; pasts: `learn(places)`."""
        with self._precision():
            tokens, which = self.encode(patterns, places)
        (K, F), step = which.shape, max(self.chunk // which.numel(), 1)
        out = tokens.new_empty(K, F, len(places), tokens.shape[-1])
        for start in range(0, len(places), step):
            part = slice(start, start + step)
            x = tokens[:, part][which].permute(2, 0, 1, 3).flatten(0, 1)  # (places K, F, D)
            with self._precision():
                x = self.core.vivit.temporal_transformer.after(x, [Past(k[part], v[part]) for k, v in pasts])
            out[:, :, part] = x.unflatten(0, (-1, K)).permute(1, 2, 0, 3)
        return self.core.activation(out).float()

    def encode(self, patterns: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distinct tokens (V, places, D), and which of them (K, F) belongs to each frame of each pattern."""
        core, (K, F) = self.core, patterns.shape[:2]
        frames, index = distinct(torch.cat([patterns.flatten(0, 1), self.last]))
        seen = torch.cat([index[K * F :].expand(K, -1), index[: K * F].view(K, F)], dim=1)
        windows = seen.unfold(1, self.patch, 1).flatten(0, 1)  # (K F, patch)
        start = torch.zeros(K * F, 1, dtype=windows.dtype, device=windows.device)
        if core.config.pos_encoding in TIME_TABLES:  # then a token also depends on when it is shown
            start = (self.tokens.shape[1] + torch.arange(F, device=start.device)).repeat(K)[:, None]
        windows, which = torch.unique(torch.cat([start, windows], dim=1), dim=0, return_inverse=True)
        region = None
        if self.elsewhere is not None:
            region = core.tokenizer.tokenizer.region((frames != self.before).any(0), self.elsewhere)
        projected = core.tokenizer.project(frames, len(windows), self.kernels, region)
        traces, parts = [trace.expand(-1, -1, self.patch) for trace in self.traces], []
        for rows in windows.split(max(self.chunk // len(self.tokens), 1)):
            x = core.tokenizer.embed_windows(frames, projected, rows[:, 1:], traces, self.kernels, region)
            x = torch.cat([core.tokenizer.add_positions(part, int(t)) for t, part in _runs(rows[:, 0], x)])
            parts.append(core.vivit.space_at(x[:, 0], places))
        return torch.cat(parts), which.view(K, F)

    def _precision(self) -> AbstractContextManager:
        return autocast(self.device, self.core.autocast_dtype)

    def _sequences(self, places: torch.Tensor) -> Sequence[torch.Tensor]:
        return self.tokens[places].split(max(self.chunk // self.tokens.shape[1], 1))


def distinct(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The distinct among frames (n, H, W) float32, in any order, and which of them (n,) each is.

    Compared by a checksum first: `torch.unique` sorts whole frames, which takes as long as encoding them.
    """
    bits = frames.flatten(1).view(torch.int32).long()
    weights = torch.randint(2**62, bits.shape[1:], generator=torch.Generator().manual_seed(0)).to(frames.device)
    sums, which = torch.unique((bits * weights).sum(1), return_inverse=True)
    first = torch.full(sums.shape, len(frames), device=frames.device)
    first = first.scatter_reduce(0, which, torch.arange(len(frames), device=frames.device), "amin")
    found = frames[first]
    if torch.equal(found[which], frames):
        return found, which
    return torch.unique(frames, dim=0, return_inverse=True)  # two frames have the same checksum, or one is not finite


def _runs(keys: torch.Tensor, values: torch.Tensor):
    """(key, values with that key) for every run of equal keys, which are sorted."""
    distinct, counts = torch.unique_consecutive(keys, return_counts=True)
    return zip(distinct.tolist(), values.split(counts.tolist()), strict=True)
