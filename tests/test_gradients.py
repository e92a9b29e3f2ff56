"""Shortcuts of training have the gradients of what they replace."""

import pytest
import torch
from test_model import clip, small_model
from test_model_parity import inputs, run  # noqa: F401 (a fixture)

from viv1t.model import attention as attention_module
from viv1t.model import layers, transformer
from viv1t.model.attention import fused_attention, pairs_side_by_side, plain_attention, rotated_heads
from viv1t.model.readouts.gaussian import read

HEADS, WIDTH = 2, 4


def projections(R=3, n=5):
    torch.manual_seed(0)
    return torch.randn(R, n, 3 * HEADS * WIDTH, dtype=torch.float64, requires_grad=True)


def rotation(n=5):
    angle = torch.arange(n, dtype=torch.float64)[:, None, None] * torch.tensor([1.0, 0.1], dtype=torch.float64)
    return torch.polar(1 + angle / 10, angle)


def rotated_attention(qkv, table, causal):
    q, k, v = rotated_heads(qkv.clone(), table, HEADS)
    return plain_attention(q, k, v, causal).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("table", [None, rotation()], ids=["unrotated", "rotated"])
@pytest.mark.parametrize("tile", [1, 100, 10**6])
def test_fused_attention(monkeypatch, causal, table, tile):
    monkeypatch.setattr(attention_module, "TILE", tile)
    qkv = projections()
    assert torch.autograd.gradcheck(lambda x: fused_attention(x.clone(), table, HEADS, causal), qkv)
    ours, plain = fused_attention(qkv.clone(), table, HEADS, causal), rotated_attention(qkv, table, causal)
    assert torch.allclose(ours, plain)


def test_rotation():
    assert torch.autograd.gradcheck(lambda x: rotated_attention(x, rotation(), True), projections())


def test_a_rotation_turns_the_two_halves_of_a_head():
    """Side by side or halves apart: the logits are those of q cos + (-second, first) sin."""
    order = pairs_side_by_side(HEADS, WIDTH)
    qkv, table = projections(), rotation()
    cosine, sine = table.real.repeat(1, 1, 2), table.imag.repeat(1, 1, 2)
    q, k, v = (x.unflatten(-1, (HEADS, WIDTH)) for x in qkv.chunk(3, dim=-1))
    q, k = (x * cosine + torch.cat([-x[..., 2:], x[..., :2]], dim=-1) * sine for x in (q, k))
    ours = rotated_heads(qkv[..., order].clone(), table, HEADS)
    expected = torch.einsum("rnhd,rmhd->rhnm", q, k)
    assert torch.allclose(ours[0] @ ours[1].transpose(-1, -2), expected)
    assert torch.equal(ours[2], v.transpose(1, 2))


def test_reading_positions_features_and_maps():
    torch.manual_seed(0)
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    grid = torch.empty(2, 6, 2, dtype=torch.float64).uniform_(-1.2, 1.2).requires_grad_()
    features = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(read, (z, grid, features))


def test_dropout_passes_gradients_where_it_passes_values():
    x = torch.randn(50, 40, requires_grad=True)
    torch.manual_seed(1)
    y = layers.Dropout(0.3)(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, torch.where(y == 0, 0.0, torch.tensor(1 / 0.7)))


def gradients(model, work):
    model.zero_grad()
    torch.manual_seed(3)
    work().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours, plain, tolerance=1e-5):
    assert ours.keys() == plain.keys()
    largest = max(grad.abs().max() for grad in plain.values())
    for name, grad in plain.items():
        error = (ours[name] - grad).abs().max()
        assert error <= tolerance * max(grad.abs().max(), 1e-2 * largest), name


def test_computing_survivors_only_equals_masking_everything():
    """The same draws: stochastic depth that skips sequences has the responses and gradients of one that masks them."""
    flags = {"core_p_dropout": 0.0, "core_mha_dropout": 0.0, "core_ff_dropout": 0.0, "core_drop_path": 0.43}
    results = []
    for mode in ("bernoulli", "masked"):
        model = small_model(**flags, core_drop_path_mode=mode).train()
        results.append(gradients(model, lambda m=model: m.predict("A", *clip()).square().sum()))
    assert_same(*results)


@pytest.mark.parametrize("mouse", ["A", "B"])
def test_fused_paths_on_public_runs(run, mouse, monkeypatch):  # noqa: F811
    """What bfloat16 training on a CPU computes, here in float32, against the plain formulation."""
    model, io = run
    work = lambda: model.predict(mouse, *inputs(io, mouse)).square().sum()  # noqa: E731
    monkeypatch.setattr(transformer, "suits_fused_attention", lambda qkv: True)
    fused = gradients(model, work)
    monkeypatch.setattr(transformer, "suits_fused_attention", lambda qkv: False)
    monkeypatch.setattr(transformer, "attention", plain_attention)
    assert_same(fused, gradients(model, work))


@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_has_the_gradients_of_full_precision(causal):
    full = projections(n=40).detach().float().requires_grad_()
    half = full.detach().bfloat16().requires_grad_()
    table, upstream = torch.sgn(rotation(40)).to(torch.complex64), torch.randn(3, 40, HEADS * WIDTH)
    (expected,) = torch.autograd.grad(rotated_attention(full, table, causal), full, upstream)
    (ours,) = torch.autograd.grad(fused_attention(half * 1, table, HEADS, causal), half, upstream.bfloat16())
    assert (ours.float() - expected).norm() < 0.02 * expected.norm()
