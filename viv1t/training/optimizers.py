"""How gradients become steps: parameter groups, gradient clipping, schedule-free AdamW, learning-rate schedules."""

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
import schedulefree
import torch
from torch import Tensor, nn

from viv1t.constants import EPSILON


def parameter_groups(
    groups: dict[str, list[nn.Parameter]],
    lr: float,
    weight_decay: float,
    core_lr: float,
    core_weight_decay: float,
) -> list[dict]:
    """Optimiser groups in the order given: "core" with its own rate and decay, every other with the common ones.

    A core rate of 0 freezes the core: its parameters need no gradient.
    """
    result = []
    for name, parameters in groups.items():
        parameters = list(parameters)
        if not parameters:
            continue
        core = name == "core"
        if core:
            for parameter in parameters:
                parameter.requires_grad_(core_lr > 0)
        rates = (
            {"lr": core_lr, "weight_decay": core_weight_decay} if core else {"lr": lr, "weight_decay": weight_decay}
        )
        result.append({"params": parameters, "name": name, **rates})
    return result


class AdamW(torch.optim.AdamW):
    """AdamW with the `train()` and `eval()` of schedule-free optimisers, which do nothing here."""

    def train(self) -> None:
        """The weights that are trained are the weights that are evaluated."""

    eval = train


class AveragedAdamW(torch.optim.AdamW):
    """AdamW that keeps an exponential moving average of its weights; `eval()` puts it in their place, `train()` back.

    The decay of step t (from 0) is at most (1 + t) / (10 + t), so that the first weights are soon forgotten.
    """

    def __init__(self, groups, decay: float, **kwargs):
        super().__init__(groups, **kwargs)
        for group in self.param_groups:
            group |= {"decay": decay, "steps": 0, "averaged": False}

    @torch.no_grad()
    def step(self, closure=None) -> None:
        super().step(closure)
        for group in self.param_groups:
            decay = min(group["decay"], (1 + group["steps"]) / (10 + group["steps"]))
            group["steps"] += 1
            for parameter in group["params"]:
                if state := self.state.get(parameter):
                    state.setdefault("average", parameter.clone()).lerp_(parameter, 1 - decay)

    def eval(self) -> None:
        self._show(averaged=True)

    def train(self) -> None:
        self._show(averaged=False)

    @torch.no_grad()
    def _show(self, averaged: bool) -> None:
        for group in self.param_groups:
            if group["averaged"] == averaged:
                continue
            group["averaged"] = averaged
            for parameter in group["params"]:
                if "average" in self.state.get(parameter, {}):
                    other = self.state[parameter]["average"]
                    kept = parameter.clone()
                    parameter.copy_(other)
                    other.copy_(kept)


def build_optimizer(groups: list[dict], config) -> torch.optim.Optimizer:
    """Schedule-free AdamW (Defazio et al. 2024) or AdamW, from an OptimizerConfig."""
    common = {"betas": (config.adam_beta1, config.adam_beta2), "eps": config.adam_eps}
    if config.ema:
        return AveragedAdamW(groups, config.ema, fused=True, **common)
    if not config.schedule_free:
        return AdamW(groups, fused=True, **common)  # a fourth of the time of a step over many small tensors
    return schedulefree.AdamWScheduleFree(
        groups,
        warmup_steps=config.adam_warmup_steps,
        r=config.adam_r,
        weight_lr_power=config.adam_weight_lr_power,
        **common,
    )


def total_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Norm of all gradients as one vector."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


class GradientClip:
    """Rescale gradients whose norm over all parameters exceeds a limit, and judge whether the step can be taken.

    limit > 0: fixed; 0: no limit; -1: AutoClip (Seetharaman et al. 2020), the 10th percentile of the norms of all
    earlier steps; the first step is not clipped. Norms that are not finite are neither recorded nor to be stepped on.
    """

    def __init__(self, limit: float = -1, percentile: float = 10, capacity: int = 100_000):
        self.limit = limit
        self.percentile = percentile
        self.history = deque(maxlen=capacity)

    def __call__(self, parameters: Iterable[nn.Parameter], total_norm: Tensor) -> bool:
        """Clip gradients whose norm over all parameters is `total_norm`, in place; whether it exceeded the limit."""
        norm, limit = float(total_norm), self._limit()
        if not math.isfinite(norm):
            return False
        self.history.append(norm)
        if norm <= limit:
            return False
        nn.utils.clip_grads_with_norm_(parameters, limit, total_norm)
        return True

    def _limit(self) -> float:
        if self.limit > 0:
            return self.limit
        if self.limit == 0 or not self.history:
            return float("inf")
        return float(np.percentile(self.history, self.percentile))

    def state_dict(self) -> dict[str, Tensor]:
        return {"history": torch.tensor(self.history, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.history.clear()
        self.history.extend(state["history"].tolist())


class Schedule:
    """When rates change and training stops. `set_rates` is called before every step, `step` after every validation."""

    def set_rates(self, number: int) -> None:
        """Learning rates of optimiser step `number`, counted from the start of the run."""

    def step(self, improved: bool) -> str:
        """Verdict: "continue", "restore" (rates were cut: take back the best weights) or "stop"."""
        return "continue"

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to remember."""


class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to a hundredth of each rate at the last of `steps`."""

    def __init__(self, optimizer, steps: int, warmup: int):
        self.optimizer, self.steps = optimizer, steps
        self.warmup = min(warmup, steps // 10)
        self.rates = [group["lr"] for group in optimizer.param_groups]

    def set_rates(self, number: int) -> None:
        rise = min(1.0, (number + 1) / max(self.warmup, 1))
        fall = 0.01 + 0.99 * (1 + math.cos(math.pi * min(number / self.steps, 1.0))) / 2
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * rise * fall


class Plateau(Schedule):
    """Reduce the learning rates when the validation score stops improving; after enough reductions, stop.

    `patience` epochs in a row without a new best: every rate is multiplied by `factor` and the best weights are to be
    taken back. After `reductions` of them without a new best, `patience` more misses end the training.
    """

    def __init__(self, optimizer, patience: int = 5, factor: float = 0.3, reductions: int = 2):
        self.optimizer = optimizer
        self.patience, self.factor, self.reductions = patience, factor, reductions
        self.misses = 0
        self.reduced = 0

    def step(self, improved: bool) -> str:
        if improved:
            self.misses = self.reduced = 0
            return "continue"
        self.misses += 1
        if self.misses < self.patience:
            return "continue"
        if self.reduced >= self.reductions:
            return "stop"
        for group in self.optimizer.param_groups:
            group["lr"] = max(group["lr"] * self.factor, EPSILON) if group["lr"] > 0 else 0.0
        self.misses = 0
        self.reduced += 1
        return "restore"

    def state_dict(self) -> dict[str, int]:
        return {"misses": self.misses, "reduced": self.reduced}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.misses, self.reduced = state["misses"], state["reduced"]


class Patience(Schedule):
    """Stop after `patience` epochs without a new best score; 0 never stops. For schedules that need no reductions."""

    def __init__(self, patience: int = 10):
        self.patience = patience
        self.misses = 0

    def step(self, improved: bool) -> str:
        self.misses = 0 if improved else self.misses + 1
        return "stop" if self.patience and self.misses >= self.patience else "continue"

    def state_dict(self) -> dict[str, int]:
        return {"misses": self.misses}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.misses = state["misses"]
