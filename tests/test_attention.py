"""Recorded attention is the attention the model used; rollout and its views know what they must."""

from pathlib import Path

import numpy as np
import pytest
import torch

from viv1t.data.mouse import Mouse
from viv1t.estimators import attention as estimators
from viv1t.model import ModelConfig, build_model
from viv1t.model.attention import rotated_heads
from viv1t.model.attention_maps import block_attention, record_attention
from viv1t.model.options import POSITIONS

PARITY = Path(__file__).parent / "data" / "parity" / "attention_rollout.npz"
SMALL = {
    "core_emb_dim": 8, "core_ff_dim": 8, "core_head_dim": 4, "core_num_heads": 2, "core_spatial_depth": 2,
    "core_temporal_depth": 3, "core_spatial_patch_stride": 8, "core_reg_tokens": 0, "max_frame": 40,
}  # fmt: skip
KINDS = {
    "causal rotary": {"core_use_causal_attention": True},
    "registers": {"core_reg_tokens": 3},
    "normalised queries": {"core_norm_qk": True, "core_pos_encoding": "learned"},
    "relative": {"core_pos_encoding": "relative", "core_use_causal_attention": True, "core_reg_tokens": 2},
    "overlapping patches": {"core_spatial_patch_size": 12, "core_temporal_patch_size": 3},
}
KINDS |= {f"code {code}": {"core_pos_encoding": code, "core_reg_tokens": 1} for code in POSITIONS.words}


@pytest.fixture(scope="module")
def parity():
    with np.load(PARITY) as file:
        return dict(file)


def make_core(**flags):
    torch.manual_seed(0)
    mouse = Mouse("m", np.zeros((2, 3)), np.arange(2), np.arange(2), {})
    return build_model(ModelConfig.from_flags(SMALL | flags), {"m": mouse}).requires_grad_(False).eval().core


def inputs(T: int = 30, B: int = 2):
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(B, *shape, generator=rng) for shape in ((1, T, 36, 64), (2, T), (2, T))]


def test_rollout_as_published(parity):
    rolled = estimators.rollout(parity["spatial_attention"])
    np.testing.assert_allclose(rolled[0], parity["rollout_single"], atol=1e-6)
    values = estimators.importance(rolled)
    np.testing.assert_allclose(values, parity["spatial_values"], atol=1e-7)
    temporal = estimators.importance(estimators.rollout(parity["temporal_attention"])).mean(axis=0)
    temporal = (temporal - temporal.min()) / np.ptp(temporal)  # the published profile is scaled over the trial
    np.testing.assert_allclose(temporal, parity["temporal_values"], atol=1e-5)


def test_patches_folded_as_published(parity):
    values, pad = parity["spatial_values"].reshape(-1, *parity["grid"]), parity["padding"][:4]
    folded = estimators.fold(
        values, int(parity["patch_size"]), int(parity["stride"]), pad, tuple(parity["frame_size"])
    )
    folded /= folded.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(folded, parity["folded"], atol=1e-6)


@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (3, 2, 1, 4)])
def test_folding_keeps_a_constant_and_finds_a_patch(pad):
    H, W, size, stride = 20, 26, 5, 3
    grid = ((H + pad[2] + pad[3] - size) // stride + 1, (W + pad[0] + pad[1] - size) // stride + 1)
    folded = estimators.fold(np.full(grid, 7.0), size, stride, pad, (H, W))
    np.testing.assert_allclose(folded[np.isfinite(folded)], 7)
    values = np.zeros(grid)
    values[2, 3] = 1
    lit = np.argwhere(estimators.fold(values, size, stride, pad, (H, W)) > 0)
    first = np.array([2 * stride - pad[2], 3 * stride - pad[0]])
    assert (lit.min(axis=0) == first).all() and (lit.max(axis=0) == first + size - 1).all()


def test_pixels_under_no_patch_have_no_value():
    folded = estimators.fold(np.ones((2, 2)), 3, 4, (0, 0, 0, 0), (8, 8))
    assert np.isnan(folded[3]).all() and np.isnan(folded[:, 7]).all() and np.isfinite(folded[:3, :3]).all()


def test_columns_become_lags():
    n = 6
    causal = np.tril(np.ones((n, n))) * np.arange(1, n + 1)[:, None]  # output i gives i + 1 to every input it sees
    lags = estimators.by_lag(causal)
    assert np.isnan(lags[0, 1:]).all() and (lags[3, :4] == 4).all()
    moved = np.eye(n, k=-2)  # everything comes from two frames before
    assert (np.nanmax(estimators.by_lag(moved)[2:], axis=0)[:4] == [0, 0, 1, 0]).all()


def test_salience_finds_the_frame_and_not_its_place_in_the_trial():
    lag = np.subtract.outer(np.arange(30), np.arange(30))
    local = np.where(lag >= 0, 0.7 ** np.maximum(lag, 0), 0.0)  # depends on lag only
    np.testing.assert_allclose(estimators.salience(np.stack([local, 2 * local])), 1, rtol=1e-12)
    marked = local.copy()
    marked[12:, 12] *= 3
    found = estimators.salience(marked)
    assert found.argmax() == 12 and found[12] > 2.5 and abs(np.delete(found, 12) - 1).max() < 0.15


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_recorded_attention_is_the_one_that_was_used(flags):
    core = make_core(**flags)
    for stack in (core.vivit.spatial_transformer, core.vivit.temporal_transformer):
        block = stack.blocks[0]
        n = (core.grid[0] * core.grid[1] if stack is core.vivit.spatial_transformer else 20) + stack.registers
        x = torch.randn(3, n, 8)
        u = block.norm(x)
        _, _, v = rotated_heads(block.projections(u), block.turns(u, 0), block.heads)
        y = block.attn_out((block_attention(block, x) @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(y, block.attention(u), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_maps_have_every_block_and_head_and_leave_the_pass_alone(flags, monkeypatch):
    monkeypatch.setattr("viv1t.model.cores.vivit.CPU_CHUNK_TOKENS", 100)  # several chunks
    core, clips = make_core(**flags), inputs()
    P = core.grid[0] * core.grid[1]
    before = core(*clips)
    with record_attention(core, frames=[0, 7, 29], locations=[P - 1, 4]) as maps:
        assert torch.equal(core(*clips), before)
        assert maps.space.shape == (2, 3, 2, 2, P, P) and maps.time.shape == (2, 2, 3, 2, 30, 30)
        first = maps.space
        core(*(x[1:] for x in clips))
        np.testing.assert_allclose(maps.space[0], first[1], atol=1e-6)  # a clip alone, as in its batch
    rows = maps.time.sum(axis=-1)
    assert (rows <= 1 + 1e-5).all() and np.allclose(rows, 1, atol=1e-5) == (
        core.vivit.temporal_transformer.registers == 0
    )
    if core.config.use_causal_attention:
        assert not np.triu(maps.time, 1).any()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in core.modules())
    torch.testing.assert_close(core(*clips), before, rtol=0, atol=0)


@pytest.mark.parametrize("missing", ["spatial", "temporal"])
def test_cores_of_space_or_time_alone_have_one_kind_of_map(missing):
    core, clips = make_core(**{f"core_{missing}_depth": 0, "core_reg_tokens": 2}), inputs()
    before, P = core(*clips), core.grid[0] * core.grid[1]
    for rollout in (None, "max"):
        with record_attention(core, [0, 29], [4], rollout) as maps:
            assert torch.equal(core(*clips), before)
        absent, there = (maps.space, maps.time) if missing == "spatial" else (maps.time, maps.space)
        assert absent is None
        assert (there.shape[:2], there.shape[-1]) == (((2, 1), 30) if missing == "spatial" else ((2, 2), P))
        assert not np.isnan(there).any() and (there.sum(axis=-1) <= 1 + 1e-5).all()


def test_attention_is_the_same_whether_or_not_gradients_are_asked_for():
    core, (video, *traces) = make_core(), inputs()
    with record_attention(core, [3], [1]) as plain:
        core(video, *traces)
    for core.grad_checkpointing in (False, True):
        asked = video.clone().requires_grad_()
        with record_attention(core, [3], [1]) as recorded:
            core(asked, *traces).sum().backward()
        np.testing.assert_allclose(recorded.space, plain.space, atol=1e-6)
        np.testing.assert_allclose(recorded.time, plain.time, atol=1e-6)
        assert asked.grad.abs().sum() > 0


def test_rollout_while_recording_is_rollout_of_the_record():
    core, clips = make_core(), inputs(T=20)
    for heads in ("max", "mean"):
        with record_attention(core, [3, 9], [1]) as whole, torch.inference_mode():
            core(*clips)
        with record_attention(core, [3, 9], [1], rollout=heads) as rolled:
            core(*clips)
        np.testing.assert_allclose(rolled.space, estimators.rollout(whole.space, heads), atol=1e-6)
        np.testing.assert_allclose(rolled.time, estimators.rollout(whole.time, heads), atol=1e-6)


def test_frames_and_places_that_do_not_exist_are_told():
    core = make_core()
    for wanted, told in (({"frames": [30]}, "frame 30"), ({"locations": [999]}, "location 999")):
        with pytest.raises(ValueError, match=told), record_attention(core, **wanted):
            core(*inputs())
    with pytest.raises(ValueError, match="at most 40"), record_attention(core, frames=[0]):
        core(*inputs(T=41, B=1))
    assert not core._forward_hooks
