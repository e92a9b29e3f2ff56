"""The model computes what the public implementation computes, from its own run folders."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from viv1t.constants import EPSILON
from viv1t.data.mouse import Mouse
from viv1t.model import ModelConfig, build_model

PARITY = Path(__file__).parent / "data" / "parity"
RUNS = ("vivit_default_small", "vivit_learned_pos_small", "vivit_qknorm_swiglu_small")


def identity_card(mouse: str, coordinates: np.ndarray) -> Mouse:
    neurons = np.arange(len(coordinates))
    return Mouse(mouse, coordinates, unit_ids=neurons, neurons=neurons, statistics={})


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float = 1e-4):
    theirs = torch.from_numpy(theirs)
    assert ours.shape == theirs.shape
    assert (ours.detach() - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    folder = PARITY / request.param
    io = np.load(folder / "io.npz", allow_pickle=False)
    flags = yaml.safe_load((folder / "args.yaml").read_text())
    mice = {m: identity_card(m, io[f"neuron_coordinates_{m}"]) for m in io["mouse_ids"].tolist()}
    model = build_model(ModelConfig.from_flags(flags), mice)
    model.load_reference_state(torch.load(folder / "ckpt" / "model.pt", weights_only=True))
    return model.eval(), io


def inputs(io, mouse: str):
    return tuple(torch.from_numpy(io[f"{name}_{mouse}"]).float() for name in ("video", "behavior", "pupil_center"))


@pytest.mark.parametrize("mouse", ["A", "B"])
def test_responses(run, mouse):
    model, io = run
    with torch.no_grad():
        close(model.predict(mouse, *inputs(io, mouse)), io[f"responses_{mouse}"])
        before = model.predict(mouse, *inputs(io, mouse), activate=False)
    close(before, io[f"responses_pre_activation_{mouse}"])


def test_core_tokens_positions_and_shifts(run):
    model, io = run
    with torch.no_grad():
        core = model.core(*inputs(io, "A")).permute(0, 4, 1, 2, 3)  # (B, D, T', h, w)
        assert core.shape == tuple(io["core_shape_A"])
        close(core[:1, :, io["frames_A"]], io["core_A"])
        tokens = model.core.tokenizer(*inputs(io, "A"))
        frames = io["frames_A"][: io["tokens_A"].shape[1]]
        close(tokens[:1, frames], io["tokens_A"])
        close(model.readouts["A"].mu[None, :, None], io["mu_A"])
        if "A" in model.shifters:
            _, behavior, pupil_center = inputs(io, "A")
            close(model.shifters["A"](behavior, pupil_center)[..., -core.shape[2] :], io["shifts_A"])


@pytest.mark.parametrize("mouse", ["A", "B"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients(run, mouse, checkpointing):
    model, io = run
    model.core.grad_checkpointing = checkpointing
    model.zero_grad()
    y, target = model.predict(mouse, *inputs(io, mouse)), torch.from_numpy(io[f"target_{mouse}"])
    if str(io["loss_kind"]) == "poisson":
        loss = ((y + EPSILON) - (target + EPSILON) * torch.log(y + EPSILON)).sum()
    else:
        loss = (y - target).square().mean()
    assert loss.item() == pytest.approx(float(io[f"loss_{mouse}"]), rel=1e-3)
    loss.backward()
    theirs = dict(zip(io[f"grad_names_{mouse}"].tolist(), io[f"grad_norms_{mouse}"].tolist(), strict=True))
    ours = {name: float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None}
    largest = max(theirs.values())
    compared = {name: norm for name, norm in theirs.items() if norm > 1e-5 * largest}
    assert len(compared) > 0.7 * len(theirs)
    for name, norm in compared.items():
        assert ours[name] == pytest.approx(norm, rel=1e-3), name


def test_several_mice_share_one_pass_and_a_subset_of_neurons_is_the_same(run):
    model, io = run
    with torch.no_grad():
        together = model({m: inputs(io, m) for m in ("A", "B")})
        for mouse in ("A", "B"):
            close(together[mouse], io[f"responses_{mouse}"])
        neurons = torch.tensor([7, 2, 19])
        close(model.predict("A", *inputs(io, "A"), neurons=neurons), io["responses_A"][:, neurons.numpy()])
