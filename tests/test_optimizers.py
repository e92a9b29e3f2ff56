"""Steps equal those of the public implementation; what its clipping and schedule got wrong is right here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from viv1t.training.config import OptimizerConfig
from viv1t.training.optimizers import GradientClip, Patience, Plateau, build_optimizer, parameter_groups, total_norm

PARITY = Path(__file__).parent / "data" / "parity"


def with_gradient(*values):
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values, dtype=torch.float32)
    return parameter


def clipped(clip, parameter) -> tuple[float, bool]:
    """Clip one parameter; the norm before, and whether it was too large."""
    norm = total_norm([parameter])
    return float(norm), clip([parameter], norm)


def test_adaptive_clipping_equals_the_published_one():
    expected = np.load(PARITY / "autoclip.npz", allow_pickle=False)
    clip = GradientClip(-1)
    for gradient, norm, after in zip(expected["grads"], expected["norms"], expected["norms_after_clip"], strict=True):
        parameter = with_gradient(*gradient.tolist())
        found, _ = clipped(clip, parameter)
        np.testing.assert_allclose(found, norm, rtol=1e-5)
        np.testing.assert_allclose(parameter.grad.norm(), after, rtol=1e-5)


def test_first_gradient_is_not_clipped():
    parameter = with_gradient(300.0, 400.0)
    assert clipped(GradientClip(-1), parameter) == (500.0, False)
    assert parameter.grad.norm() == 500


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_gradient_does_not_poison_later_ones(bad):
    clip = GradientClip(-1)
    clipped(clip, with_gradient(1.0))
    norm, too_large = clipped(clip, with_gradient(bad))
    assert not np.isfinite(norm) and not too_large and list(clip.history) == [1.0]
    parameter = with_gradient(2.0)
    clipped(clip, parameter)
    np.testing.assert_allclose(parameter.grad, 1.0, rtol=1e-5)


@pytest.mark.parametrize(("limit", "after"), [(0, 5.0), (2, 2.0), (7, 5.0)])
def test_fixed_limit_and_none(limit, after):
    parameter = with_gradient(3.0, 4.0)
    clipped(GradientClip(limit), parameter)
    np.testing.assert_allclose(parameter.grad.norm(), after, rtol=1e-5)


def test_clipping_continues_from_its_saved_history():
    first, second = GradientClip(-1), GradientClip(-1)
    for norm in (3.0, 1.0, 2.0):
        clipped(first, with_gradient(norm))
    second.load_state_dict(first.state_dict())
    a, b = with_gradient(9.0), with_gradient(9.0)
    clipped(first, a), clipped(second, b)
    assert torch.equal(a.grad, b.grad)


def test_schedule_free_steps_equal_the_published_ones():
    expected = np.load(PARITY / "schedulefree.npz", allow_pickle=False)
    weights = [nn.Parameter(torch.from_numpy(expected[f"init_{i}"].copy())) for i in range(2)]
    (core_lr, lr), (core_decay, decay) = expected["lr"].tolist(), expected["weight_decay"].tolist()
    groups = parameter_groups({"core": weights[:1], "readouts": weights[1:]}, lr, decay, core_lr, core_decay)
    optimizer = build_optimizer(groups, OptimizerConfig(schedule_free=True, adam_warmup_steps=8))
    for step in range(30):
        optimizer.train()
        for i, weight in enumerate(weights):
            weight.grad = torch.from_numpy(expected[f"grads_{i}"][step].copy())
        optimizer.step()
        for i, weight in enumerate(weights):
            np.testing.assert_allclose(weight.detach(), expected[f"train_{i}"][step], rtol=1e-5, atol=1e-6)
        optimizer.eval()
        for i, weight in enumerate(weights):
            np.testing.assert_allclose(weight.detach(), expected[f"eval_{i}"][step], rtol=1e-5, atol=1e-6)


def test_each_part_has_its_rate_and_empty_parts_are_left_out():
    parts = {name: [nn.Parameter(torch.zeros(1))] for name in ("core", "shifters", "readouts")} | {"activation": []}
    groups = parameter_groups(parts, lr=0.1, weight_decay=0.2, core_lr=0.3, core_weight_decay=0.4)
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("core", 0.3, 0.4),
        ("shifters", 0.1, 0.2),
        ("readouts", 0.1, 0.2),
    ]


@pytest.mark.parametrize("schedule_free", [False, True])
def test_core_rate_of_zero_freezes_the_core(schedule_free):
    core, readout = nn.Linear(3, 2), nn.Linear(2, 1)
    before = core.weight.clone()
    parts = {"core": list(core.parameters()), "readouts": list(readout.parameters())}
    groups = parameter_groups(parts, 0.1, 0.1, 0.0, 0.5)
    optimizer = build_optimizer(groups, OptimizerConfig(schedule_free=schedule_free))
    optimizer.train()
    readout(core(torch.ones(1, 3))).sum().backward()
    optimizer.step()
    assert torch.equal(core.weight, before)
    assert readout.weight.grad is not None


def misses_until(schedule, verdict: str, most: int = 50) -> int:
    return next(miss for miss in range(1, most) if schedule.step(False) == verdict)


def test_plateau_reduces_twice_then_stops():
    optimizer = torch.optim.AdamW(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.0}]
    )
    schedule = Plateau(optimizer)
    assert misses_until(schedule, "restore") == 5
    np.testing.assert_allclose(optimizer.param_groups[0]["lr"], 0.3)
    assert optimizer.param_groups[1]["lr"] == 0  # frozen stays frozen
    assert misses_until(schedule, "restore") == 5
    np.testing.assert_allclose(optimizer.param_groups[0]["lr"], 0.09)
    assert misses_until(schedule, "stop") == 5


def test_improvement_starts_the_count_anew():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Plateau(optimizer)
    for _ in range(4):
        assert schedule.step(False) == "continue"
    assert schedule.step(True) == "continue"
    assert misses_until(schedule, "restore") == 5


def test_patience_counts_epochs_since_the_best():
    schedule = Patience(3)
    assert [schedule.step(x) for x in (False, False, True, False, False, False)] == ["continue"] * 5 + ["stop"]
    assert all(Patience(0).step(False) == "continue" for _ in range(20))
