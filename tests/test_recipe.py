"""Options of the recipe do what they say: CutMix, averaged weights, depth of blocks, noise, batch statistics."""

import signal

import numpy as np
import pytest
import torch
from test_model import clip, small_model
from torch import nn

import train as script
from viv1t.checkpoint import checkpoint_path, load_checkpoint
from viv1t.data.cutmix import draw_boxes, mix
from viv1t.data.loader import TrainingBatches, load_mice
from viv1t.errors import UserError
from viv1t.model.activation import LearnedSoftplus, pre_activation
from viv1t.model.options import ViViTConfig
from viv1t.model.transformer import drop_rates
from viv1t.training import run
from viv1t.training.config import OptimizerConfig, TrainConfig, TrainParser
from viv1t.training.loop import Trainer
from viv1t.training.optimizers import build_optimizer, parameter_groups
from viv1t.training.task import ResponseTask

TINY = (
    "--core_use_causal_attention --core_emb_dim 8 --core_head_dim 4 --core_ff_dim 8 --core_spatial_depth 1 "
    "--core_temporal_depth 1 --core_reg_tokens 0 --core_spatial_patch_stride 8 --core_temporal_patch_size 5 "
    "--crop_frame 51 --adam_warmup_steps 1 --verbose 0 --device cpu --autocast disable --micro_batch_size 1 "
    "--lr_schedule cosine"
)


@pytest.fixture(scope="module")
def mice(tiny_recording_dir):
    return load_mice(tiny_recording_dir)


def test_boxes_have_uniform_areas_and_the_wanted_share_of_clips():
    boxes = draw_boxes(np.random.default_rng(0), 20_000, 0.5, 36, 64)
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (36 * 64)
    assert abs((area > 0).mean() - 0.5) < 0.02
    assert area.min() == 0 and 0.9 < area.max() <= 1
    assert 0.25 < area[area > 0].mean() < 0.45  # uniform up to 1 has 0.5; edges of the frame cut some off
    assert not draw_boxes(np.random.default_rng(0), 100, 0.0, 36, 64).any()


def test_a_mixed_clip_shows_both_and_its_target_is_mixed_by_area(mice):
    one, other = (mice["tinyA"].batch(mice["tinyA"].train_ids[i : i + 1], [0], 51) for i in (0, 1))
    mixed = mix(one, other, np.array([[0, 18, 0, 64]]))  # the upper half
    assert torch.equal(mixed.video[..., :18, :], other.video[..., :18, :])
    assert torch.equal(mixed.video[..., 18:, :], one.video[..., 18:, :])
    for name in ("responses", "behavior", "pupil_center"):
        torch.testing.assert_close(getattr(mixed, name), (getattr(one, name) + getattr(other, name)) / 2)
    whole = mix(one, other, np.array([[0, 36, 0, 64]]))
    assert torch.equal(whole.video, other.video) and torch.equal(whole.responses, other.responses)
    assert torch.equal(mix(one, other, np.zeros((1, 4), int)).responses, one.responses)


def test_mixed_batches_are_a_function_of_seed_and_step(mice):
    plain, mixed = (TrainingBatches(mice, batch_size=2, crop_frame=51, cutmix=p) for p in (0.0, 1.0))
    straight = list(mixed.batches(3))
    for step, batch in enumerate(mixed.batches(3, 2), start=2):
        for id in mice:
            assert torch.equal(batch[id].video, straight[step][id].video)
            assert torch.equal(batch[id].responses, straight[step][id].responses)
    changed = [
        not torch.equal(a[id].responses, b[id].responses)
        for a, b in zip(plain.batches(3), straight, strict=True)
        for id in mice
    ]
    assert all(changed)
    assert [p[0].tolist() for p in plain.plan(3, "tinyA")] == [p[0].tolist() for p in mixed.plan(3, "tinyA")]
    alone = TrainingBatches(mice, batch_size=2, crop_frame=51, cutmix=1.0, rows={"tinyA": slice(1, 2)})
    for part, batch in zip(alone.batches(3), straight, strict=True):
        assert torch.equal(part["tinyA"].video, batch["tinyA"].video[1:2])


def test_cutmix_of_whole_trials_is_refused(mice):
    with pytest.raises(UserError, match="--crop_frame"):
        TrainingBatches(mice, crop_frame=-1, cutmix=0.5)


def averaged(decay):
    parameter = nn.Parameter(torch.tensor([4.0]))
    groups = parameter_groups({"readouts": [parameter]}, 0.1, 0.0, 0.0, 0.0)
    return parameter, build_optimizer(groups, OptimizerConfig(ema=decay, lr_schedule="cosine"))


def test_the_average_of_weights_is_what_it_says_and_comes_and_goes():
    parameter, optimizer = averaged(0.5)
    expected = None
    for t in range(6):
        parameter.grad = 2 * parameter.detach()
        optimizer.step()
        decay = min(0.5, (1 + t) / (10 + t))
        now = parameter.item()
        expected = now if expected is None else decay * expected + (1 - decay) * now
    optimizer.eval()
    optimizer.eval()  # twice is once
    assert parameter.item() == pytest.approx(expected, rel=1e-6)
    optimizer.train()
    assert parameter.item() == now


def test_an_averaged_run_goes_on_with_the_same_bits(tiny_recording_dir, tmp_path, monkeypatch):
    def run(name):
        flags = f"--data_dir {tiny_recording_dir} --output_dir {tmp_path / name} {TINY} --ema 0.9 --cutmix 0.5"
        script.main(TrainParser().parse_args([*flags.split(), "--epochs", "3"]))

    def step_until_a_signal_comes(trainer, batch, step=Trainer.step):
        if trainer.number == 8:
            signal.raise_signal(signal.SIGTERM)
        return step(trainer, batch)

    run("straight")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step_until_a_signal_comes)
        with pytest.raises(SystemExit):
            run("cut")
    assert checkpoint_path(tmp_path / "cut", "step").exists(), "it was stopped within an epoch"
    run("cut")
    straight, cut = (load_checkpoint(tmp_path / name, "last") for name in ("straight", "cut"))
    assert all(group["averaged"] for group in straight.training["optimizer"]["param_groups"])
    for name, value in straight.model_state.items():
        assert torch.equal(value, cut.model_state[name]), name
    for i, state in straight.training["optimizer"]["state"].items():
        assert torch.equal(state["average"], cut.training["optimizer"]["state"][i]["average"])


def test_averaging_needs_a_schedule_that_takes_no_weights_back(tiny_recording_dir):
    for flags in ({"ema": 0.9}, {"ema": 0.9, "schedule_free": True, "lr_schedule": "cosine"}):
        with pytest.raises(UserError, match="--ema"):
            TrainConfig.from_flags({"output_dir": "run", **flags})


def test_stochastic_depth_rises_from_block_to_block():
    assert drop_rates(ViViTConfig(drop_path=0.4), 3) == [0.4, 0.4, 0.4]
    np.testing.assert_allclose(drop_rates(ViViTConfig(drop_path=0.4, drop_path_schedule="linear"), 3), [0, 0.2, 0.4])
    model = small_model(core_drop_path=0.4, core_drop_path_schedule="linear").train()
    assert [block.drop_path for block in model.core.vivit.temporal_transformer.blocks] == [0, 0.4]


def test_noise_of_positions_is_drawn_once_a_clip():
    model = small_model(readout_noise="trial").train()
    torch.manual_seed(0)
    positions = model.readouts["A"].positions(2, 10, None, None).unflatten(0, (2, 10))
    assert (positions == positions[:, :1]).all()
    assert (positions[0, 0] != positions[1, 0]).any()
    each = small_model().train().readouts["A"].positions(2, 10, None, None).unflatten(0, (2, 10))
    assert (each[:, 1:] != each[:, :1]).any()
    model.eval()
    assert torch.equal(model.predict("A", *clip()), small_model().eval().predict("A", *clip()))


@pytest.mark.parametrize("beta", [0.07, 1.0, 3.0])
def test_softplus_starts_where_it_is_told(beta):
    activation = LearnedSoftplus(beta)
    x = torch.tensor([-200.0, -1.0, 0.0, 2.0, 200.0])
    torch.testing.assert_close(activation(x), torch.logaddexp(beta * x, torch.zeros(())) / beta)
    rates = torch.tensor([0.01, 0.3, 2.0])
    torch.testing.assert_close(activation(pre_activation(rates, "softplus", beta)), rates, rtol=1e-3, atol=1e-4)
    model = small_model(output_mode="softplus", softplus_beta=beta)
    assert model.output_activation["A"].log_beta.exp().item() == pytest.approx(beta)


def test_batch_statistics_belong_to_the_weights_that_are_evaluated(mice):
    """Weights are changed after training; what is normalised has mean 0 and variance 1 all the same."""
    flags = {"core": "fcnn", "output_dir": "run", "crop_frame": 51, "core_num_layers": 1, "core_hidden_dim": 4,
             "core_spatial_input_kernel": 3, "core_temporal_input_kernel": 3, "device": "cpu"}  # fmt: skip
    config = TrainConfig.from_flags(flags)
    task = ResponseTask(run.build(config, mice, {}), mice, config, torch.device("cpu"))
    norm = next(m for m in task.model.core.modules() if isinstance(m, nn.BatchNorm2d))
    seen = []
    handle = norm.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].detach()))
    before = norm.momentum
    task.recalibrate(0)
    handle.remove()
    x = torch.cat([part.transpose(0, 1).flatten(1) for part in seen], dim=1)
    torch.testing.assert_close(norm.running_mean, x.mean(dim=1), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(norm.running_var, x.var(dim=1), atol=0, rtol=0.2)
    assert norm.momentum == before
    state = {k: v.clone() for k, v in task.model.state_dict().items()}
    task.recalibrate(0)
    assert all(torch.equal(v, state[k]) for k, v in task.model.state_dict().items() if "num_batches" not in k)
