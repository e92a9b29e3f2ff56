"""Losses equal those of the public implementation, and do not depend on how a batch is split."""

from pathlib import Path

import numpy as np
import pytest
import torch

from viv1t.training.losses import CRITERIONS, mouse_weights, neuron_correlation

PARITY = np.load(Path(__file__).parent / "data" / "parity" / "criterions.npz", allow_pickle=False)
NAMES = PARITY["criterions"].tolist()


def tensors():
    return torch.from_numpy(PARITY["y_true"]), torch.from_numpy(PARITY["y_pred"]).requires_grad_()


def test_every_published_loss_is_there():
    assert set(NAMES) == set(CRITERIONS)


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_equal_the_published_ones(name):
    y, y_pred = tensors()
    loss = CRITERIONS[name](y, y_pred)
    loss.backward()
    np.testing.assert_allclose(loss.item(), PARITY[f"{name}__ds_scale0__A"], rtol=1e-5)
    expected = PARITY[f"{name}__grad"]
    np.testing.assert_allclose(y_pred.grad, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_weight_of_a_mouse_equals_the_published_one(name):
    y, y_pred = tensors()
    ids = PARITY["mouse_ids"].tolist()
    weights = mouse_weights(dict(zip(ids, PARITY["train_sizes"].tolist(), strict=True)))
    for mouse_id in ids:
        weighted = weights[mouse_id] * CRITERIONS[name](y, y_pred).item()
        np.testing.assert_allclose(weighted, PARITY[f"{name}__ds_scale1__{mouse_id}"], rtol=1e-5)


@pytest.mark.parametrize("name", ["poisson", "gamma", "mse", "logMSE"])
def test_parts_of_a_batch_add_up(name):
    y, y_pred = tensors()
    whole = CRITERIONS[name](y, y_pred)
    parts = sum(CRITERIONS[name](y[i : i + 1], y_pred[i : i + 1], share=0.5) for i in range(2))
    torch.testing.assert_close(parts, whole)


def test_silent_neuron_gives_correlation_zero_and_a_finite_gradient():
    y = torch.rand(1, 3, 20)
    y[:, 0] = 0
    y_pred = torch.rand(1, 3, 20)
    y_pred[:, 1] = 0.5
    y_pred.requires_grad_()
    rho = neuron_correlation(y, y_pred)
    rho.sum().backward()
    assert rho[0] == 0 and rho[1] == 0
    assert torch.isfinite(y_pred.grad).all()


def test_target_of_another_length_is_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        CRITERIONS["poisson"](torch.ones(1, 2, 5), torch.ones(1, 2, 4))
