"""What a frame may see: positions that are truly relative, sliding attention, and windows over long trials."""

import numpy as np
import pytest
import torch

from viv1t.errors import UserError
from viv1t.model import ModelConfig, build_model
from viv1t.model.attention import attention, plain_attention, sliding_attention
from viv1t.model.cores import vivit as core_module
from viv1t.model.options import POSITIONS
from viv1t.model.positions import PublishedRotary, RelativeRotary, open_windows, windows

L, PATCH, DEPTH = 8, 3, 2  # window in tokens, frames of a patch, temporal blocks


def small_core(code: str, **flags):
    torch.manual_seed(0)
    flags = {
        "core_pos_encoding": code, "core_emb_dim": 8, "core_head_dim": 4, "core_ff_dim": 8, "core_reg_tokens": 2,
        "core_spatial_depth": 1, "core_temporal_depth": DEPTH, "core_spatial_patch_size": 12,
        "core_spatial_patch_stride": 12, "core_temporal_patch_size": PATCH, "core_use_causal_attention": True,
        "max_frame": L,
    } | flags  # fmt: skip
    core = build_model(ModelConfig.from_flags(flags), {}).core.eval()
    for parameter in core.vivit.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)
    return core


def clip(frames: int, batch: int = 1):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(batch, *s, generator=generator) for s in ((1, frames, 36, 64), (2, frames), (2, frames)))


def heard(core, frames: int, at: int) -> list[int]:
    """The frames on which the output at frame `at` depends."""
    inputs = clip(frames)
    inputs[0].requires_grad_()
    (core(*inputs)[:, at] * torch.randn(core.dim)).sum().backward()
    return inputs[0].grad.abs().sum(dim=(0, 1, 3, 4)).nonzero()[:, 0].tolist()


def turned(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * table[:, 0]).flatten(-2)


def logits(rotary, start: int, length: int = 6, dim: int = 8) -> torch.Tensor:
    """Products of one query and one key, the same at every position from `start` on."""
    q, k = torch.randn(2, dim, generator=torch.Generator().manual_seed(0))
    table = rotary.table(start, length, torch.device("cpu"))
    return turned(q.expand(length, -1), table) @ turned(k.expand(length, -1), table).T


@pytest.mark.parametrize("start", [1, 299, 10**6, 3 * 10**9])
def test_relative_logits_are_those_of_any_other_time(start):
    """3e9 frames are three years of video; the published code is told apart after one frame."""
    rotary = RelativeRotary(8)
    torch.testing.assert_close(logits(rotary, start), logits(rotary, 0), atol=2e-6, rtol=0)
    published = PublishedRotary(8, 300)
    assert (logits(published, 1) - logits(published, 0)).abs().max() > 1e-3


@pytest.mark.parametrize("pairs", [2, 3, 4])
def test_relative_logits_in_space_depend_on_rows_and_columns_apart(pairs):
    height, width = 5, 7
    rotary = RelativeRotary(2 * pairs, width=width)
    table = logits(rotary, 0, height * width, 2 * pairs).view(height, width, height, width)
    torch.testing.assert_close(table[1:, 2:, 1:, 2:], table[:-1, :-2, :-1, :-2], atol=2e-6, rtol=0)
    assert (table[0, 0, 1, 0] - table[0, 0, 0, 0]).abs() > 1e-2 and (
        table[0, 0, 0, 1] - table[0, 0, 0, 0]
    ).abs() > 1e-2
    assert (table[0, width - 1, 1, 0] - table[0, 0, 0, 1]).abs() > 1e-2, "the end of a row is not next to the next one"


def test_registers_are_not_turned():
    for rotary in (RelativeRotary(8, extra=3), RelativeRotary(8, extra=3, width=2), PublishedRotary(8, 6, extra=3)):
        table = rotary.table(0, 6, torch.device("cpu"))
        assert table.shape == (9, 1, 4) and (table[6:] == 1).all() and (table[1:6] != 1).any(dim=-1).all()


@pytest.mark.parametrize("length", [1, 4, 5, 9, 10, 17])
@pytest.mark.parametrize("attend", [attention, plain_attention])
def test_sliding_attention_is_attention_under_a_band(length, attend):
    torch.manual_seed(0)
    window = 5
    q, k, v = torch.randn(3, 2, 2, length, 4, dtype=torch.float64)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    expected = plain_attention(q, k, v, False, (distance >= 0) & (distance < window))
    keys = []

    def spy(q, k, v, *causal):
        keys.append(k.shape[2])
        return attend(q, k, v, *causal)

    torch.testing.assert_close(sliding_attention(q, k, v, window, spy), expected)
    assert len(keys) == -(-length // window) and max(keys) < 2 * window, "linear in length"


@pytest.mark.parametrize("code", ["none", "learned_relative", "relative"])
def test_codes_without_absolute_time_slide(code):
    """Every temporal block hears a window; the first patch reaches back a little more. Nothing else is ever heard."""
    core, frames = small_core(code), 40
    reach = DEPTH * (L - 1) + PATCH - 1
    for at in (3, L, 39):
        assert heard(core, frames, at) == list(range(max(at - reach, 0), at + 1))
    with torch.no_grad():
        whole, clipped = (core(*(x[:, :, start:] for x in clip(frames)))[:, -4:] for start in (0, frames - 4 - reach))
    torch.testing.assert_close(whole, clipped, atol=1e-5, rtol=0)


@pytest.mark.parametrize("code", ["learned_relative", "relative"])
def test_clips_no_longer_than_the_window_see_all_of_it(code):
    core = small_core(code)
    for block in core.vivit.temporal_transformer.blocks:
        assert block.window == L
    with torch.no_grad():
        short = core(*clip(L))
        for block in core.vivit.temporal_transformer.blocks:
            block.window = None
        assert torch.equal(short, core(*clip(L)))


@pytest.mark.parametrize("code", [code for code in POSITIONS.words if "relative" not in code and code != "none"])
def test_codes_of_absolute_time_show_long_trials_in_windows(code):
    """Frame 17 is answered in the window of tokens 12 to 19; all others start and stop as told, too."""
    core = small_core(code)
    assert heard(core, 22, 7) == list(range(8))
    assert heard(core, 22, 8) == list(range(4 - PATCH + 1, 9))
    assert heard(core, 22, 17) == list(range(12 - PATCH + 1, 18))
    with torch.no_grad():
        torch.testing.assert_close(core(*clip(22))[:, :L], core(*(x[:, :, :L] for x in clip(22))))


@pytest.mark.parametrize("code", ["none", "rotary", "learned", "relative"])
def test_without_causal_attention_long_trials_are_shown_in_windows(code):
    core = small_core(code, core_use_causal_attention=False)
    assert heard(core, 22, 2) == list(range(8))
    assert heard(core, 22, 9) == list(range(4 - PATCH + 1, 12))


@pytest.mark.parametrize("code", ["learned", "rotary", "relative"])
def test_chunks_change_nothing_in_long_trials(code, monkeypatch):
    core = small_core(code)
    with torch.no_grad():
        whole = core(*clip(30, batch=2))
        monkeypatch.setattr(core_module, "CPU_CHUNK_TOKENS", 50)
        torch.testing.assert_close(core(*clip(30, batch=2)), whole)


def test_training_clips_must_fit_unless_positions_are_relative():
    with pytest.raises(ValueError, match="clips of 9 frames: this core learns from 8 at most"):
        small_core("rotary").train()(*clip(9))
    core = small_core("relative", core_drop_path=0.0).train()
    core(*clip(21)).sum().backward()
    assert all(p.grad.isfinite().all() for p in core.parameters() if p.grad is not None)


@pytest.mark.parametrize("longest", [1, 2, 5, 8])
def test_windows_cover_every_token_once_with_half_a_window_before(longest):
    for length in range(1, 4 * longest + 2):
        answered = []
        for number, (start, stop) in enumerate(windows(length, longest)):
            new = range(len(answered), stop)
            assert stop - start <= longest and (start == 0 or new[0] - start >= longest // 2)
            for token in new:
                assert open_windows(token, longest)[0] == number
            answered += new
        assert answered == list(range(length))
    spans = list(windows(10 * longest, longest))
    for token in range(9 * longest):
        opened = [i for i, (start, stop) in enumerate(spans) if start <= token < stop]
        assert open_windows(token, longest) == opened and len(opened) <= 2


def test_relative_words_have_codes_of_their_own_and_need_room_for_two_axes():
    assert [POSITIONS(code) for code in range(8, 10)] == ["learned_relative", "relative"]
    assert POSITIONS.words.index("rotary") == 5
    with pytest.raises(UserError, match="--core_head_dim 2"):
        small_core("relative", core_head_dim=2)


def test_relative_models_keep_nothing_that_checkpoints_would_need():
    state = small_core("relative").state_dict()
    assert not [name for name in state if "rotary" in name]
    assert np.all([x.isfinite().all() for x in state.values()])
