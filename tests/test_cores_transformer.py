"""Transformer cores beside the ViViT, and cores without features: what they compute, depend on, and can learn."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import BUILDABLE, clip, core_flags, learns, shaken, tiny_model

from viv1t.attention import require_maps
from viv1t.constants import GREY
from viv1t.errors import UserError
from viv1t.inference import load_twin
from viv1t.model import ModelConfig, load_strictly
from viv1t.model.attention_maps import as_images, record_attention
from viv1t.model.cores import CORES
from viv1t.model.cores import vivit as vivit_module
from viv1t.model.options import CORES as OPTIONS
from viv1t.model.options import READOUTS
from viv1t.presentation import Timeline, TwinPresenter

ROOT = Path(__file__).parents[1]
V1T = [{"core_behavior_mode": mode} for mode in ("none", "behavior", "behavior_pupil", "behavior_pupil_mlp")]
V1T += [{}] + [{f"core_{name}": value} for name, value in {
    "disable_bias": True, "flash_attention": False, "drop_path": 0.3, "patch_size": 5,
}.items()]  # fmt: skip
BVIVIT = [{"core_behavior_mode": mode} for mode in ("none", "behavior", "behavior_pupil", "behavior_pupil_cross")]
BVIVIT += [{f"core_{name}": value} for name, value in {
    "patch_mode": "conv", "pad_frame": False, "pos_encoding": "rotary", "reg_tokens": 2, "ff_activation": "swiglu",
    "norm_qk": True, "use_causal_attention": True, "flash_attention": False, "spatial_depth": 0, "temporal_depth": 0,
}.items()]  # fmt: skip
CAUSAL = {"core_use_causal_attention": True}
CASES = [("v1t", flags) for flags in V1T] + [("bvivit", flags) for flags in ({}, *BVIVIT)]
CASES += [("bvivit", CAUSAL | {"core_pos_encoding": "rotary", "core_reg_tokens": 2})]
CASES += [("linear", {"core_behavior_mode": mode}) for mode in ("none", "behavior", "behavior_pupil")]
CASES += [("random", {})]
IDS = [" ".join([core, *(f"{k[5:]}={v}" for k, v in flags.items())]) for core, flags in CASES]


@pytest.mark.parametrize(("core", "flags"), CASES, ids=IDS)
def test_every_choice_of_flags_learns_and_comes_back_from_its_weights(core, flags):
    model = tiny_model(core, **flags)
    losses = learns(model)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    again = tiny_model(core, **flags)
    load_strictly(again, model.state_dict())
    with torch.no_grad():
        maps = model.eval().core(*clip())
        assert maps.shape == (1, model.core.output_frames(30), *model.core.grid, model.core.dim)
        assert torch.equal(maps, again.eval().core(*clip()))


@pytest.mark.parametrize(("core", "flags"), CASES, ids=IDS)
def test_every_weight_is_reached_by_the_gradient(core, flags):
    model = shaken(tiny_model(core, **flags)).train()
    torch.manual_seed(0)
    model.core(*clip(batch=2)).square().sum().backward()
    unused = {"cls_token"} if core == "v1t" and flags.get("core_drop_path") else set()
    if flags.get("core_use_causal_attention"):
        unused |= {"reg_t_tokens"}  # invisible in a causal sequence
    for depth, tokens in (("spatial", "reg_s_tokens"), ("temporal", "reg_t_tokens")):
        unused |= {tokens} if flags.get(f"core_{depth}_depth") == 0 else set()
    still = [n for n, p in model.core.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in still if name.split(".")[-1] not in unused]


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("core", BUILDABLE)
def test_every_core_feeds_every_readout(core, readout):
    model = tiny_model(core, readout=readout).eval()
    with torch.no_grad():
        y = model.predict("A", *clip())
    assert y.shape == (1, 9, model.core.output_frames(30)) and y.isfinite().all()
    cost = model.estimate(30, 1)
    assert all(np.isfinite(value) for value in cost.values()) and cost["activation_bytes"] > 0


def test_sizes_are_those_of_the_published_cores():
    core = CORES["v1t"](OPTIONS["v1t"](), 300)
    assert sum(p.numel() for p in core.parameters()) == 2_464_276
    assert (core.grid, core.dim) == ((29, 57), 155)
    assert sum(p.numel() for p in CORES["linear"](OPTIONS["linear"](), 300).parameters()) == 13_824
    random = CORES["random"](OPTIONS["random"](), 300)
    assert sum(p.numel() for p in random.parameters()) == 1 and (random.grid, random.dim) == ((28, 56), 32)


@pytest.mark.parametrize("stride", [1, 3, 4, 7])
def test_the_grid_of_v1t_is_that_of_its_patches(stride):
    """A bright patch changes the token at its own row and column most."""
    model = tiny_model("v1t", core_patch_stride=stride, core_num_blocks=1).eval()
    dark, bright = torch.zeros(1, 1, 1, 36, 64), torch.zeros(1, 1, 1, 36, 64)
    row, column = 2, 5
    bright[..., row * stride : row * stride + 8, column * stride : column * stride + 8] = 1
    traces = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1)
    with torch.no_grad():
        change = (model.core.first_maps(bright, *traces) - model.core.first_maps(dark, *traces))[0, 0].norm(dim=-1)
    assert model.core.grid == ((36 - 8) // stride + 1, (64 - 8) // stride + 1)
    weight = model.core.patches.weight.sum(dim=(1, 2, 3)).norm()
    assert change[row, column].item() == pytest.approx(weight.item(), rel=1e-4)
    assert change[0, -1] == 0


CAUSALS = [("v1t", {}), ("v1t", {"core_behavior_mode": "behavior_pupil"}), ("linear", {}), ("bvivit", CAUSAL)]
CAUSALS += [("bvivit", CAUSAL | {"core_pos_encoding": "rotary", "core_behavior_mode": "behavior_pupil_cross"})]


@pytest.mark.parametrize(("core", "flags"), CAUSALS)
def test_nothing_before_a_change_hears_of_it(core, flags):
    model = shaken(tiny_model(core, **flags)).eval()
    video, behavior, pupil = clip()
    for changed in range(2 + ("pupil" in flags.get("core_behavior_mode", ""))):
        inputs = [x.clone() for x in (video, behavior, pupil)]
        inputs[changed][:, :, 17:] += 1
        with torch.no_grad():
            before, after = model.core(video, behavior, pupil), model.core(*inputs)
        assert torch.equal(before[:, :17], after[:, :17])
        assert not torch.allclose(before[:, 17], after[:, 17]), "a change must be heard on its own frame"


def test_v1t_and_the_linear_core_have_no_memory():
    for core in ("v1t", "linear"):
        model = shaken(tiny_model(core)).eval()
        inputs = clip()
        with torch.no_grad():
            whole, alone = model.core(*inputs), model.core(*(x[:, :, 11:12] for x in inputs))
        assert torch.allclose(whole[:, 11:12], alone, atol=1e-5)


def test_cross_attention_reads_the_past_of_behaviour_and_not_only_the_present():
    """Without temporal blocks a frame knows its own traces; with them, those before, and without causality all."""

    def heard(**flags):
        model = shaken(tiny_model("bvivit", **flags)).eval()
        video, behavior, pupil = clip()
        other = behavior.clone()
        other[..., 14] += 1
        with torch.no_grad():
            change = (model.core(video, other, pupil) - model.core(video, behavior, pupil)).abs().amax((0, 2, 3, 4))
        return (change > 1e-6).nonzero()[:, 0].tolist()

    assert heard(core_temporal_depth=0) == [14]
    assert heard(**CAUSAL) == list(range(14, 30))
    assert heard() == list(range(30))
    blind = clip(seed=2)[2]
    model = shaken(tiny_model("bvivit")).eval()
    with torch.no_grad():
        assert torch.equal(model.core(*clip()), model.core(*clip()[:2], blind)), "behavior_cross sees no gaze"


@pytest.mark.parametrize("mode", ["none", "behavior", "behavior_pupil"])
def test_without_cross_attention_bvivit_is_a_vivit(mode):
    flags = {"core_behavior_mode": mode, "core_norm_qk": True, "core_ff_activation": "gelu"}
    ours = shaken(tiny_model("bvivit", **flags, **CAUSAL)).eval()
    vivit = tiny_model("vivit", core_pos_encoding="learned_factorised", **flags, **CAUSAL).eval()
    load_strictly(vivit, ours.state_dict())
    with torch.no_grad():
        assert torch.equal(ours.core(*clip()), vivit.core(*clip()))
    assert ours.core.memory(1).step(*(x[:, :, :1] for x in clip())).shape == (1, 1, *ours.core.grid, ours.core.dim)


@pytest.mark.parametrize("code", ["learned_factorised", "rotary"])
def test_long_trials_are_shown_in_windows(code):
    """What the first window answers does not depend on what follows it, and a late one on nothing before it."""
    model = shaken(tiny_model("bvivit", core_pos_encoding=code, max_frame=20)).eval()
    inputs = clip(frames=44)
    with torch.no_grad():
        long, first = model.core(*inputs), model.core(*(x[:, :, :20] for x in inputs))
        other = [x.clone() for x in inputs]
        for x in other:
            x[:, :, :5] += 1
        moved = model.core(*other)
    assert long.shape[1] == 44
    assert torch.allclose(long[:, :20], first, atol=1e-4)
    assert torch.equal(moved[:, 30:], long[:, 30:])
    with pytest.raises(ValueError, match="learns from 20"):
        model.train().core(*inputs)


@pytest.mark.parametrize("core", ["v1t", "bvivit"])
def test_chunks_and_checkpointing_change_nothing(core, monkeypatch):
    still = {f"core_{name}": 0.0 for name in ("p_dropout", "t_dropout", "mha_dropout", "ff_dropout", "drop_path")}
    known = {f"core_{name}" for name in OPTIONS[core].__dataclass_fields__}
    model = tiny_model(core, **{name: value for name, value in still.items() if name in known}).train()
    results = []
    for tokens, checkpointing in ((1 << 30, False), (100, False), (100, True)):
        monkeypatch.setattr(vivit_module, "CPU_CHUNK_TOKENS", tokens)
        model.core.grad_checkpointing = checkpointing
        model.zero_grad()
        y = model.core(*clip(batch=2))
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.core.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.allclose(a, b, atol=1e-5 * max(a.abs().max().item(), 1))


@pytest.mark.parametrize("core", ["v1t", "bvivit"])
def test_bfloat16_is_close_to_float32(core):
    model = tiny_model(core).eval()
    with torch.no_grad():
        exact = model.core(*clip())
        model.core.autocast_dtype = torch.bfloat16
        rounded = model.core(*clip())
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def fit(model, target, steps: int, rate: float = 0.01) -> float:
    """Share of the variance of `target(video, behavior, pupil)` (B, T') explained in new clips after training."""
    optimizer, means = torch.optim.Adam(model.parameters(), rate), []
    for step in range(steps):
        inputs = clip(frames=20, batch=4, seed=step)
        y = model.train().predict("A", *inputs, activate=False).mean(dim=1)
        loss = (y - target(*inputs)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        inputs = clip(frames=20, batch=16, seed=10_000)
        wanted = target(*inputs)
        means = model.eval().predict("A", *inputs, activate=False).mean(dim=1)
    return 1 - ((means - wanted).square().mean() / wanted.var()).item()


def test_v1t_learns_what_a_place_and_behaviour_tell():
    model = tiny_model("v1t", neurons=1, core_p_dropout=0, core_t_dropout=0, readout="factorized")
    explained = fit(model, lambda v, b, p: 4 * v[:, 0, :, 8:14, 30:36].mean((2, 3)) + b[:, 0], 150)
    assert explained > 0.8


def test_bvivit_learns_behaviour_of_the_past_through_cross_attention():
    """The mean of running over the frames so far is nowhere in the video, nor in any one frame."""
    quiet = {"core_p_dropout": 0.0, "core_mha_dropout": 0.0, "core_ff_dropout": 0.0, "core_drop_path": 0.0}
    model = tiny_model("bvivit", neurons=1, readout="conv", **CAUSAL, **quiet)

    def so_far(video, behavior, pupil):
        return 3 * behavior[:, 1].cumsum(-1) / torch.arange(1, behavior.shape[-1] + 1)

    assert fit(model, so_far, 120) > 0.8


def test_random_cores_tell_the_same_in_every_evaluation_and_nothing_in_training():
    model = tiny_model("random")
    with torch.no_grad():
        first, again, other = (model.eval().core(*clip(seed=seed)) for seed in (1, 1, 2))
        prefix = model.core(*(x[:, :, :12] for x in clip()))
        assert torch.equal(first, again) and torch.equal(first, other) and torch.equal(first[:, :12], prefix)
        assert not torch.equal(first[:, 0], first[:, 1])
        assert first.min() >= 0 and first.max() < 1 and abs(first.mean() - 0.5) < 1e-3
        model.train()
        torch.manual_seed(3)
        one = model.core(*clip())
        assert not torch.equal(one, model.core(*clip()))
        torch.manual_seed(3)
        assert torch.equal(one, model.core(*clip())), "torch's generator decides"


def test_the_memory_test_refuses_without_a_gpu():
    if torch.cuda.is_available():
        return
    with pytest.raises(UserError, match="--core random"):
        tiny_model("large_random")


def test_whole_clips_only_is_said_in_one_line():
    for core, flags in (("v1t", {}), ("linear", {}), ("bvivit", CAUSAL)):
        with pytest.raises(UserError, match="whole clips only"):
            tiny_model(core, **flags).core.memory(1)
        assert not tiny_model(core, **flags).core.shares(30)


def test_too_large_patches_are_refused():
    with pytest.raises(UserError, match="--core_patch_size 40"):
        tiny_model("v1t", core_patch_size=40)


@pytest.mark.parametrize(("core", "stack"), [("v1t", 2), ("bvivit", 1)])
def test_attention_is_recorded(core, stack):
    model = tiny_model(core, core_num_heads=2).eval()
    P = model.core.grid[0] * model.core.grid[1]
    with record_attention(model.core, frames=[3, 9], locations=[1]) as maps, torch.no_grad():
        model.core(*clip(batch=2))
    assert maps.space.shape == (2, 2, stack, 2, P, P)
    total = maps.space.sum(axis=-1)
    if core == "v1t":  # the class token has the rest
        assert maps.time is None and (total < 1).all() and (total > 0.5).all()
    else:
        assert maps.time.shape == (2, 1, 1, 2, 30, 30) and np.allclose(total, 1, atol=1e-5)
    assert as_images(model.core, maps.space[0, 0, 0, 0, 0]).shape == (36, 64)


def test_flags_survive_a_checkpoint():
    for core in BUILDABLE:
        config = ModelConfig.from_flags(core_flags(core) | {"readout": "depth-gaussian"})
        assert ModelConfig.from_flags(config.to_flags()) == config


def command(script: str, *flags) -> None:
    """A script as a user starts it, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, flags)])
        runpy.run_path(str(ROOT / script), run_name="__main__")


def refused(script: str, *flags, capsys) -> str:
    with pytest.raises(SystemExit) as left:
        command(script, *flags)
    assert left.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(Path(script).name)
    return said


RUNS = [
    ("v1t", "gaussian", ["--readout_positions=contrast", "--readout_features=ridge", "--readout_bias_mode=rate"]),
    ("bvivit", "depth-gaussian", ["--core_use_causal_attention", "--readout_positions=contrast"]),
    ("linear", "attention", ["--readout_emb_dim=8"]),
    ("random", "factorized", ["--readout_reg_l1=0.01"]),
    ("vivit", "conv", ["--core_use_causal_attention", "--readout_groups=2"]),
    ("v1t", "linear", []),
    ("linear", "random", []),
]


@pytest.mark.parametrize(("core", "readout", "flags"), RUNS, ids=[f"{core} {readout}" for core, readout, _ in RUNS])
def test_a_run_of_other_cores_and_readouts(core, readout, flags, tiny_recording_dir, tmp_path, capsys):
    """Trained, scored, predicted twice alike, shown patterns, and refused in one line where it cannot answer."""
    run_dir, data = tmp_path / "run", ("--data_dir", tiny_recording_dir)
    sizes = [f"--{name}={value}" for name, value in core_flags(core).items()]
    training = ("--epochs", 1, "--crop_frame", 51, "--verbose", 1, "--device", "cpu")
    command("train.py", *data, "--output_dir", run_dir, "--readout", readout, *sizes, *flags, *training)
    scores = json.loads((run_dir / "evaluation.json").read_text())
    assert scores["validation"]["correlation"].keys() == {"tinyA", "tinyB", "average"}
    predicted = []
    for _ in range(2):
        command("predict.py", *data, "--output_dir", run_dir, "--device", "cpu")
        predicted.append([path.read_bytes() for path in sorted((run_dir / "responses").glob("mouse*.h5"))])
        shutil.rmtree(run_dir / "responses")
    assert predicted[0] == predicted[1] and len(predicted[0]) == 2

    twin = load_twin(run_dir, "cpu")
    patterns = np.full((3, 10, 36, 64), GREY, np.uint8)
    patterns[1:, :, 10:20] = 255
    presenter = TwinPresenter(twin, "tinyA", Timeline(pattern=10), np.zeros(2), np.zeros(2))
    answers = presenter.show(patterns)
    assert answers.shape == (3, 8, 10) and np.allclose(answers[1], answers[2], atol=1e-5)
    assert ("random" in (core, readout)) == np.allclose(answers[0], answers[1])

    if (core, readout) in (("v1t", "gaussian"), ("bvivit", "depth-gaussian")):
        require_maps(presenter)
    else:
        with pytest.raises(UserError, match=f"--core {core}|--readout {readout}"):
            require_maps(presenter)
    capsys.readouterr()
    if core == "vivit":
        return
    movie = tmp_path / "movie.npy"
    np.save(movie, np.zeros((5, 36, 64), np.uint8))
    streamed = refused("stream.py", "--output_dir", run_dir, "--source", movie, "--device", "cpu", capsys=capsys)
    assert "whole clips only" in streamed
    drawn = "misc/visualize_attention.py", "misc/visualize_tokenizer.py"
    if core == "bvivit":
        return
    for script in drawn[core == "v1t" :]:
        assert f"this one has --core {core}" in refused(script, "--output_dir", run_dir, capsys=capsys)
