"""Every readout: what it reads, that a subset and a stream read the same, and that it finds planted neurons."""

import numpy as np
import pytest
import torch
from tiny_models import clip, learns, shaken, tiny_model

from viv1t.errors import UserError
from viv1t.model import ModelConfig, load_strictly
from viv1t.model.options import READOUTS
from viv1t.model.readouts import READOUTS as MADE
from viv1t.model.readouts import readout as readout_module
from viv1t.training.initialise import start_readouts

CASES = [(name, {}) for name in READOUTS]
CASES += [("depth-gaussian", {"grid_mode": mode}) for mode in ("free", "xyz")]
CASES += [("depth-gaussian", {"covariance": shape}) for shape in ("uncorrelated", "isotropic")]
CASES += [("depth-gaussian", {"noise": "trial"})]
CASES += [("factorized", {"dropout": 0.2}), ("factorized", {"reg_l1": 0.1}), ("attention", {"emb_dim": 8})]
CASES += [("conv", {"groups": 2, "dropout": 0.2}), ("conv", {"groups": 4})]
CASES += [(name, {"bias_mode": mode}) for name in ("factorized", "attention", "conv", "linear")
          for mode in ("none", "zeros", "rate")]  # fmt: skip
IDS = [" ".join([name, *(f"{k}={v}" for k, v in flags.items())]) for name, flags in CASES]
N, DIM, GRID = 9, 12, (4, 7)


def make(name: str, neurons: int = N, mean=None, dim: int = DIM, **flags):
    """A readout of maps (4, 7, DIM), of neurons in three planes."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    depths = 200 + 25 * (np.arange(neurons) * 2 % 3)
    coordinates = np.column_stack([rng.uniform(0, 600, (neurons, 2)), depths])
    return MADE[name](READOUTS[name](**flags), dim, GRID, coordinates, mean)


def maps(frames: int = 6, batch: int = 2, seed: int = 0, dim: int = DIM) -> torch.Tensor:
    return torch.randn(batch, frames, *GRID, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "flags"), CASES, ids=IDS)
def test_a_subset_and_a_stream_read_the_same(name, flags):
    readout, z = shaken(make(name, **flags)).eval(), maps()
    chosen = torch.tensor([7, 0, 3, 8])
    with torch.no_grad():
        whole = readout(z)
        assert whole.shape == (2, N, 6)
        assert torch.equal(whole, readout(z)), "evaluation is repeatable"
        assert torch.allclose(readout(z, neurons=chosen), whole[:, chosen], atol=1e-5)
        reader = readout.reader(chosen, GRID)
        for _ in range(2):
            frames = torch.stack([reader(z[:, t]) for t in range(6)], dim=-1)
            assert torch.allclose(frames, whole[:, chosen], atol=1e-5)
            reader.reset()


@pytest.mark.parametrize(("name", "flags"), CASES, ids=IDS)
def test_every_choice_of_flags_learns_and_comes_back_from_its_weights(name, flags):
    flags = {"core_emb_dim": 12} | {f"readout_{key}": value for key, value in flags.items()}
    model = tiny_model("v1t", readout=name, **flags)
    losses = learns(model)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    reached = [n for n, p in model.readouts["A"].named_parameters() if p.grad is None]
    assert not reached
    again = tiny_model("v1t", readout=name, **flags)
    load_strictly(again, model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval().predict("A", *clip()), again.eval().predict("A", *clip()))


@pytest.mark.parametrize("name", ["depth-gaussian", "factorized", "attention"])
def test_chunks_change_nothing(name, monkeypatch):
    readout, z = shaken(make(name)).eval(), maps()
    results = []
    for elements in (1 << 30, 100):
        monkeypatch.setattr(readout_module, "CHUNK_ELEMENTS", elements)
        readout.zero_grad()
        y = readout(z)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in readout.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-5 * max(a.abs().max().item(), 1))


@pytest.mark.parametrize("mode", ["elu", "exp", "softplus", "sigmoid"])
@pytest.mark.parametrize("name", ["depth-gaussian", "factorized", "attention", "conv", "linear"])
def test_biases_start_at_the_mean_response(name, mode):
    mean = np.linspace(0.1, 0.9, N)
    for bias_mode in ("mean", "rate"):
        model = tiny_model(readout=name, means={"A": mean}, output_mode=mode, readout_bias_mode=bias_mode).eval()
        readout = model.readouts["A"]
        assert torch.allclose(readout(torch.zeros(1, 1, *readout.grid, readout.dim))[0, :, 0], readout.bias)
        given = readout.bias if bias_mode == "mean" else model.output_activation["A"](readout.bias)
        assert np.allclose(given.detach(), mean, atol=1e-5)


def planted(kind: str, z: torch.Tensor) -> torch.Tensor:
    """(B, N, T') responses of neurons that read one place, the mean or the maximum of the map."""
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(N, DIM, generator=generator)
    if kind == "place":
        places = torch.randint(0, GRID[0] * GRID[1], (N,), generator=generator)
        return torch.einsum("btnd,nd->bnt", z.flatten(2, 3)[:, :, places], weights)
    pooled = z.mean((2, 3)) * 5 if kind == "mean" else z.amax((2, 3)) - 2
    return (pooled @ weights.T).transpose(1, 2)


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [("factorized", "place", 250), ("conv", "mean", 200), ("linear", "maximum", 200), ("attention", "place", 300)],
)
def test_planted_neurons_are_found(name, kind, steps):
    """Attention tells a place by its code, which must not drown in what the maps hold: here, four channels of it."""
    silent = slice(0, 8 if name == "attention" else 0)
    readout = make(name, **({"emb_dim": 64} if name == "attention" else {}))
    optimizer = torch.optim.Adam(readout.parameters(), 0.03)
    for step in range(steps):
        z = maps(frames=40, seed=step + 1)
        z[..., silent] = 0
        loss = (readout.train()(z) - planted(kind, z)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = maps(frames=200, seed=0)
    z[..., silent] = 0
    with torch.no_grad():
        found, truth = (y.transpose(0, 1).flatten(1).numpy() for y in (readout.eval()(z), planted(kind, z)))
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(found, truth, strict=True)]
    assert np.mean(correlations) > 0.95


def test_depth_gaussian_maps_each_plane_by_itself():
    """A fit to positions that run against each other in two planes: one map cannot do it, one for each plane can."""
    rng = np.random.default_rng(0)
    coordinates = np.column_stack([rng.uniform(-1, 1, (60, 2)) * 300, np.repeat([200, 250], 30)])[rng.permutation(60)]
    sign = np.where(coordinates[:, 2] == 200, 1, -1)[:, None]
    wanted = 0.7 * sign * coordinates[:, :2] / 300
    errors = {}
    for name in ("gaussian", "depth-gaussian"):
        torch.manual_seed(0)
        readout = MADE[name](READOUTS[name](), DIM, GRID, coordinates, None)
        readout.set_positions(wanted)
        errors[name] = np.abs(readout.mu.detach().numpy() - wanted).mean()
    assert errors["depth-gaussian"] < 0.05 < 0.2 < errors["gaussian"]


def test_one_plane_is_a_gaussian_readout():
    coordinates = np.column_stack([np.random.default_rng(0).uniform(0, 600, (N, 2)), np.full(N, 200)])
    one, deep = (MADE[name](READOUTS[name](), DIM, GRID, coordinates, None) for name in ("gaussian", "depth-gaussian"))
    state = {key.replace("mu_transform", "mu_transform.networks.0"): value for key, value in one.state_dict().items()}
    deep.load_state_dict(state)
    z, shifts = maps(), torch.full((2, 2, 6), 0.2)
    with torch.no_grad():
        assert torch.equal(one.eval()(z, shifts), deep.eval()(z, shifts))


def test_attention_knows_row_from_column_on_any_grid():
    """A map whose places differ by their position alone is read differently by different queries."""
    for dim in (3, 5, 12, 155):
        readout = make("attention", dim=dim)
        assert readout.code.shape == (28, dim)
        assert dim < 4 or len(readout.code.unique(dim=0)) == 28


def test_an_attention_readout_sees_the_places_its_query_matches():
    readout = make("attention").eval()
    z = maps(frames=1, batch=1)
    keys, _ = readout.to_kv(z[0, 0].flatten(0, 1) + readout.code).chunk(2, dim=-1)
    readout.queries.data = 1e4 * (keys[11] - keys.mean(0)).expand(N, -1)
    winner = (keys @ readout.queries[0]).argmax().item()
    near, far = z.clone(), z.clone()
    near.flatten(2, 3)[:, :, winner] += 1e-3
    far.flatten(2, 3)[:, :, (winner + 1) % 28] += 1e-3
    with torch.no_grad():
        assert not torch.allclose(readout(z), readout(near), atol=1e-6)
        assert torch.allclose(readout(z), readout(far), atol=1e-6)


def test_groups_read_their_own_channels():
    """Nine neurons in two groups: five read the first half of the channels, four the rest."""
    readout, z = make("conv", groups=2), maps().requires_grad_()
    for neuron in range(N):
        (gradient,) = torch.autograd.grad(readout(z)[:, neuron].sum(), z)
        used = gradient.abs().sum((0, 1, 2, 3)).nonzero()[:, 0]
        assert used.tolist() == list(range(6) if neuron < 5 else range(6, 12))
    with pytest.raises(UserError, match="--readout_groups 5 does not divide the core's 12 channels"):
        make("conv", groups=5)


def test_conv_drops_a_channel_for_a_whole_clip():
    readout = make("conv", dropout=0.5).train()
    with torch.no_grad():
        readout.weight.zero_()
        readout.weight[0, :, :] = torch.eye(N, DIM)
        y = readout(torch.ones(3, 40, *GRID, DIM))
    assert ((y == 0).all(-1) | (y == 2).all(-1)).all() and (y == 0).any() and (y == 2).any()


def test_the_penalty_is_the_l1_norm_and_makes_masks_sparse():
    readout = make("factorized", reg_l1=0.5)
    total = readout.masks.abs().sum() + readout.features.abs().sum()
    assert readout.penalty().item() == pytest.approx(0.5 * total.item())
    assert make("factorized").penalty() == 0.0


def test_a_random_readout_tells_nothing_of_what_is_shown():
    readout = make("random").eval()
    with torch.no_grad():
        one, other = readout(maps(seed=1)), readout(maps(seed=2))
        assert torch.equal(one, other) and torch.equal(one[0], one[1])
        assert len(one[0].unique()) == one[0].numel()
        assert not torch.equal(readout.train()(maps()), readout(maps()))


def test_readouts_without_places_take_no_shifter_and_no_start_from_the_data():
    for name, config in READOUTS.items():
        if config.local:
            continue
        with pytest.raises(UserError, match="--shifter_mode none"):
            ModelConfig.from_flags({"readout": name, "shifter_mode": "pupil"})
        model = tiny_model(readout=name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        start_readouts(model, {}, {})
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
