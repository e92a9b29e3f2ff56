"""What a twin promises: causal time, exact shortcuts, honest stochastic depth, readouts that read one place."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from viv1t.data.mouse import Mouse
from viv1t.errors import UserError
from viv1t.model import ModelConfig, build_model
from viv1t.model.cores import vivit as core_module
from viv1t.model.layers import Dropout
from viv1t.model.normalisation import DivisiveNormalisation
from viv1t.model.options import POSITIONS, ViViTConfig
from viv1t.model.positions import PublishedRotary
from viv1t.model.readouts.gaussian import corners, read
from viv1t.model.tokenizer import Tokenizer
from viv1t.model.transformer import Block

SMALL = {
    "core_emb_dim": 16,
    "core_head_dim": 8,
    "core_ff_dim": 24,
    "core_spatial_depth": 2,
    "core_temporal_depth": 2,
    "core_spatial_patch_size": 8,
    "core_spatial_patch_stride": 8,
    "core_temporal_patch_size": 5,
    "core_reg_tokens": 2,
    "core_use_causal_attention": True,
}


def small_model(mice=("A",), neurons=9, **flags):
    torch.manual_seed(0)
    coordinates = np.random.default_rng(0).uniform(0, 600, (neurons, 3))
    index = np.arange(neurons)
    cards = {m: Mouse(m, coordinates, unit_ids=index, neurons=index, statistics={}) for m in mice}
    return build_model(ModelConfig.from_flags(SMALL | flags), cards)


def clip(frames=40, batch=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, *s, generator=generator) for s in ((1, frames, 36, 64), (2, frames), (2, frames)))


@pytest.mark.parametrize("position", POSITIONS.words)
def test_nothing_before_a_change_hears_of_it(position):
    model = small_model(core_pos_encoding=position).eval()
    video, behavior, pupil = clip()
    changed = [x.clone() for x in (video, behavior, pupil)]
    at = 23
    for x in changed:
        x[:, :, at:] += 1.0
    with torch.no_grad():
        before, after = model.predict("A", video, behavior, pupil), model.predict("A", *changed)
        prefix = model.predict("A", video[:, :, :at], behavior[..., :at], pupil[..., :at])
    assert torch.equal(before[..., :at], after[..., :at])
    assert (before[..., at] != after[..., at]).all(), "a change must be heard on its own frame"
    assert torch.allclose(before[..., :at], prefix, atol=1e-5)


def test_without_the_causal_flag_the_past_hears_the_future():
    model = small_model(core_use_causal_attention=False).eval()
    video, behavior, pupil = clip()
    late = video.clone()
    late[:, :, 30:] += 1.0
    with torch.no_grad():
        assert not torch.allclose(
            model.predict("A", video, behavior, pupil), model.predict("A", late, behavior, pupil)
        )


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "dyt"])
@pytest.mark.parametrize("mode", ["none", "behavior", "behavior_pupil"])
@pytest.mark.parametrize("pad", [True, False])
def test_tokens_equal_the_unfolded_formulation(norm, mode, pad):
    """Gather patches, normalise, project: what the tokeniser promises to equal without unfolding."""
    torch.manual_seed(0)
    config = ViViTConfig(
        emb_dim=12, behavior_mode=mode, norm=norm, pad_frame=pad, spatial_patch_size=6, spatial_patch_stride=4,
        temporal_patch_size=5, pos_encoding="none", p_dropout=0.0,
    )  # fmt: skip
    tokenizer = Tokenizer(config, max_frame=20)
    embedding = tokenizer.tokenizer
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter, 0.3, 0.5)
    video, behavior, pupil = clip(frames=20, batch=2)
    traces = tokenizer.traces(behavior + 3, pupil)
    image = torch.cat([video, traces[..., None, None].expand(-1, -1, -1, 36, 64)], dim=1)
    image = F.pad(image, (*embedding.pad, tokenizer.front, 0))
    patches = image.unfold(2, 5, 1).unfold(3, 6, 4).unfold(4, 6, 4)  # (B, C, T', h, w, 5, 6, 6)
    patches = patches.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4)
    expected = tokenizer.norm(embedding.linear(embedding.norm(patches))).flatten(2, 3)
    ours = tokenizer(video, behavior + 3, pupil)
    assert ours.shape == expected.shape
    assert torch.allclose(ours, expected, atol=2e-4 * expected.abs().max().item())


def test_chunks_and_checkpointing_change_nothing(monkeypatch):
    flags = {"core_p_dropout": 0.0, "core_mha_dropout": 0.0, "core_ff_dropout": 0.0, "core_drop_path": 0.0}
    model = small_model(**flags).train()
    results = []
    for tokens, checkpointing in ((1 << 30, False), (100, False), (100, True)):
        monkeypatch.setattr(core_module, "CPU_CHUNK_TOKENS", tokens)
        model.core.grad_checkpointing = checkpointing
        model.zero_grad()
        torch.manual_seed(0)  # the readout samples positions
        y = model.predict("A", *clip())
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.allclose(a, b, atol=1e-5 * max(a.abs().max().item(), 1))


@pytest.mark.parametrize("mode", ["bernoulli", "fixed"])
def test_stochastic_depth_keeps_the_expectation(mode):
    torch.manual_seed(0)
    config = ViViTConfig(
        emb_dim=8, head_dim=4, ff_dim=8, drop_path=0.43, drop_path_mode=mode, mha_dropout=0, ff_dropout=0
    )
    block = Block(config, PublishedRotary(4, length=6), causal=False)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    x = torch.randn(7, 6, 8)
    with torch.no_grad():
        full = block.eval()(x) - x
        draws = torch.stack([block.train()(x) - x for _ in range(3000)])
    assert (draws[:, 0].abs().sum((1, 2)) == 0).any(), "some sequences must skip both branches"
    error = (draws.mean(0) - full).abs().max() / full.abs().max()
    assert error < 0.06


def test_dropout_drops_the_stated_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1000, 999)
    for p in (0.04, 0.21, 0.5):
        y = Dropout(p)(x)
        assert (y == 0).float().mean().item() == pytest.approx(p, abs=2e-3)
        assert y.mean().item() == pytest.approx(1, abs=4e-3)
        assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])


def test_reading_equals_grid_sample_and_has_its_gradients():
    torch.manual_seed(0)
    z = torch.randn(3, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    grid = (torch.rand(3, 6, 2, dtype=torch.float64) * 2.6 - 1.3).requires_grad_()
    features = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    sampled = F.grid_sample(z.permute(0, 3, 1, 2), grid[:, :, None], align_corners=True)[..., 0]
    expected = torch.einsum("rdn,nd->rn", sampled, features)
    assert torch.allclose(read(z, grid, features), expected)
    loss = torch.randn(3, 6, dtype=torch.float64)
    theirs = torch.autograd.grad((expected * loss).sum(), (z, grid, features))
    ours = torch.autograd.grad((read(z, grid, features) * loss).sum(), (z, grid, features))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b)


def test_a_neuron_reads_the_pixel_it_looks_at():
    index, weight = corners(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]), h=3, w=4)
    places = [index[n, weight[n].argmax()].item() for n in range(2)]
    assert places == [2 * 4 + 0, 0 * 4 + 3]  # x runs along the width, y down the height


@pytest.mark.parametrize("readout", ["free", "xy", "xyz"])
@pytest.mark.parametrize("covariance", ["full", "uncorrelated", "isotropic"])
@pytest.mark.parametrize("shifter", ["none", "pupil", "behavior_pupil"])
def test_every_readout_and_shifter_learns_and_evaluates_without_noise(readout, covariance, shifter):
    flags = {"readout_grid_mode": readout, "readout_covariance": covariance, "shifter_mode": shifter}
    model = small_model(mice=("A", "B"), **flags)
    y = model({m: clip(batch=2, seed=s) for s, m in enumerate("AB")})
    sum(v.square().sum() for v in y.values()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None and "reg_t" not in name]
    assert not silent
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.predict("A", *clip()), model.predict("A", *clip()))


@pytest.mark.parametrize("mode", ["identity", "elu", "exp", "softplus", "sigmoid"])
def test_output_activations(mode):
    model = small_model(output_mode=mode).eval()
    with torch.no_grad():
        y = model.predict("A", *clip())
    assert y.isfinite().all()
    assert mode == "identity" or (y > 0).all()
    assert mode != "sigmoid" or (y < 1).all()


def test_learned_softplus_has_finite_gradients_for_large_inputs():
    activation = small_model(output_mode="softplus").output_activation["A"]
    x = torch.tensor([-200.0, 0.0, 200.0], requires_grad=True)
    activation(x).sum().backward()
    assert x.grad.isfinite().all() and activation.log_beta.grad.isfinite()


def test_temporal_patches_without_padding_return_the_last_frames():
    model = small_model(core_pad_frame=0, core_spatial_patch_stride=4).eval()
    video, behavior, pupil = clip(frames=30)
    with torch.no_grad():
        y = model.predict("A", video, behavior, pupil)
        video[:, :, -1] += 1
        changed = model.predict("A", video, behavior, pupil)
    assert y.shape[-1] == 30 - 4
    assert torch.equal(y[..., :-1], changed[..., :-1]) and not torch.equal(y[..., -1], changed[..., -1])


def test_sizes_of_the_default_model():
    model = build_model(ModelConfig.from_flags({"core_use_causal_attention": True}), {})
    assert sum(p.numel() for p in model.core.parameters()) == 3_787_042
    assert 2.0e12 < model.core.flops(300) < 3.0e12


def test_words_codes_and_mistakes():
    by_word = ModelConfig.from_flags({"core_behavior_mode": "behavior", "output_mode": "exp", "shifter_mode": "none"})
    by_code = ModelConfig.from_flags({"core_behavior_mode": 1, "output_mode": "2", "shifter_mode": 0})
    assert by_word == by_code
    assert ModelConfig.from_flags(by_word.to_flags()) == by_word
    with pytest.raises(UserError, match="did you mean 'vivit'"):
        ModelConfig.from_flags({"core": "vivt"})
    with pytest.raises(UserError, match="did you mean 'gaussian'"):
        ModelConfig.from_flags({"readout": "gausian"})
    with pytest.raises(UserError, match="core_pos_encoding"):
        ModelConfig.from_flags({"core_pos_encoding": "rotry"})
    with pytest.raises(UserError, match="sigmoid"):
        ModelConfig.from_flags({"transform_output": "minmax", "output_mode": "elu"})


def test_energy_tokens_do_not_depend_on_the_sign_of_contrast():
    flags = {"core_patch_mode": "energy", "core_patch_init": "gabor", "core_emb_dim": 24, "core_pad_frame": 0}
    embedding = small_model(**flags).core.tokenizer.tokenizer
    video, traces = clip()[0], torch.zeros(1, 0, 40)
    with torch.no_grad():
        embedding.linear.bias.zero_()
        normal, inverted = embedding(video, traces, 0), embedding(-video, traces, 0)
    assert torch.allclose(normal[..., :8], inverted[..., :8], atol=1e-5)
    assert torch.allclose(normal[..., 8:], -inverted[..., 8:], atol=1e-5)


def test_divisive_tokens_are_suppressed_by_contrast_around_them_and_keep_what_is_in_the_patch():
    """On a grid with one active patch, and with all as active: the parts that no surround divides are equal."""
    division = DivisiveNormalisation(pairs=3, grid=(5, 6))
    filters = torch.zeros(1, 30, 6)
    filters[:, 14] = 20 * torch.tensor([1.0, 0.5, 0.2, 0.0, -0.4, 0.3])  # of a grating at full contrast
    full = filters[:, 14:15].expand(1, 30, 6)
    alone, amid = (division(x)[0, 14].unflatten(0, (7, 3)) for x in (filters, full))
    assert torch.allclose(alone[:4], amid[:4])
    assert (amid[4:6] < alone[4:6]).all() and (amid[5] < amid[4]).all()  # the stronger surround suppresses more
    assert (amid[4:6] < 0.9 * alone[4:6])[:, 0].all()  # above all the pair that fills it
    weak_alone, weak_amid = (division(0.05 * x)[0, 14].unflatten(0, (7, 3))[4:6] for x in (filters, full))
    assert (weak_amid / weak_alone > (amid / alone)[4:6])[:, 0].all()  # and less at low contrast
    around = division(full * (torch.arange(30) != 14)[:, None])[0, 14].unflatten(0, (7, 3))
    assert (around[6] > 2 * amid[6]).all() and not around[:6].abs().gt(0.011).any()  # answers to the surround alone
    strong, stronger = (division(x * filters)[..., :12] for x in (5, 10))
    assert torch.allclose(strong, stronger, rtol=1e-2, atol=1e-2)  # saturates


def test_widths_that_hold_no_quadrature_pairs_are_refused():
    for mode, copies in (("energy", 3), ("divisive", 7)):
        with pytest.raises(UserError, match=f"divisible by {copies}"):
            small_model(core_patch_mode=mode, core_emb_dim=16)


def test_additive_behaviour_reaches_every_neuron_on_its_frame_and_not_before():
    model = small_model(core_behavior_mode="additive", shifter_mode="none").eval()
    video, behavior, pupil = clip()
    running = behavior.clone()
    running[:, 1, 20:] += 2
    with torch.no_grad():
        still, moving = model.predict("A", video, behavior, pupil), model.predict("A", video, running, pupil)
    assert torch.equal(still[..., :20], moving[..., :20]) and (still[..., 20] != moving[..., 20]).all()


def test_a_shifter_may_start_at_zero_and_a_bias_at_the_mean_rate():
    flags = {"shifter_start": "zero", "readout_bias_mode": "rate"}
    _, behavior, pupil = clip()
    for mode, mean in (("elu", 0.3), ("exp", 0.3), ("softplus", 0.3), ("sigmoid", 0.3), ("identity", 0.3)):
        torch.manual_seed(0)
        index = np.arange(4)
        mouse = Mouse("A", np.random.default_rng(0).uniform(0, 600, (4, 3)), index, index, {})
        config = ModelConfig.from_flags(SMALL | flags | {"output_mode": mode})
        model = build_model(config, {"A": mouse}, {"A": np.full(4, mean)})
        assert model.shifters["A"](behavior, pupil).abs().max() == 0
        rate = model.output_activation["A"](model.readouts["A"].bias)
        assert torch.allclose(rate, torch.full((4,), mean), atol=1e-4), mode


@pytest.mark.parametrize("mode", ["free", "xy"])
def test_readouts_can_be_placed(mode):
    model = small_model(readout_grid_mode=mode)
    readout = model.readouts["A"]
    plane = readout.mu.new_tensor(np.random.default_rng(0).uniform(0, 600, (9, 3))[:, :2] / 600 - 0.5)
    readout.set_positions(plane.numpy())
    assert (readout.mu - plane).abs().max() < (1e-6 if mode == "free" else 0.1)


def test_a_patch_larger_than_the_frame_is_refused():
    with pytest.raises(UserError, match="larger than the frame"):
        small_model(core_spatial_patch_size=99)


def test_the_textbook_formulation_of_the_benchmark_computes_the_same():
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from textbook import TextbookModel

    flags = dict.fromkeys(("core_emb_dim", "core_head_dim", "core_ff_dim"), 16) | {"core_reg_tokens": 3}
    model = small_model(**flags).eval()
    with torch.no_grad():
        ours, theirs = model.predict("A", *clip()), TextbookModel(model, "A").eval()(*clip())
    assert torch.allclose(ours, theirs, atol=1e-5)
