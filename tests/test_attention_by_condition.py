"""Attention to a disc and its surround: what is uniform, what is not, and what it does not prove."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import untrained_run
from tiny_twins import tiny_twin

from viv1t.attention import attend, read_places
from viv1t.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from viv1t.data.mice import find_recordings
from viv1t.errors import UserError
from viv1t.estimators.attention import around, fold, patch_shares, share
from viv1t.looks import Looks
from viv1t.model import ModelConfig, build_model
from viv1t.model.attention_maps import as_images, places_read
from viv1t.movies import frame_size
from viv1t.presentation import Timeline, TwinPresenter
from viv1t.results import locate
from viv1t.truth import read_truth

ROOT = Path(__file__).parents[1]
FOLDER = "tuning_contextual_modulation"
GEOMETRY = (5, 3, (3, 2, 1, 4))  # size, stride, padding of patches
FRAME = (20, 26)


class Stopped(Exception):
    pass


def run(script: str, *flags, folder: str = FOLDER) -> None:
    names = runpy.run_path(str(ROOT / folder / f"{script}.py"))
    names["main"](names["get_parser"]().parse_args([str(flag) for flag in flags]))


def predict(*flags, stop_at: int | None = None) -> int:
    """Run predict_attention.py, until it draws pattern `stop_at`; returns how many it has drawn."""
    names, drawn = runpy.run_path(str(ROOT / FOLDER / "predict_attention.py")), []

    def draw(*shown):
        drawn.append(shown)
        if len(drawn) == stop_at:
            raise Stopped
        return names["draw"](*shown)

    names["main"].__globals__["draw"] = draw
    names["main"](names["get_parser"]().parse_args([str(flag) for flag in flags]))
    return len(drawn)


def read_drawn(run_dir: Path) -> pd.DataFrame:
    return pd.read_csv(run_dir / "figures" / "attention_context.csv", low_memory=False)


def test_uniform_attention_gives_every_part_its_share():
    rng = np.random.default_rng(0)
    weights = rng.random((3, 40))
    assert np.allclose([share(np.full((2, 40), 0.1), part) for part in weights], 1)
    attention = rng.random((6, 40))
    shares = np.stack([share(attention, part) for part in weights])
    np.testing.assert_allclose(shares, [share(5 * attention, part) for part in weights])  # what registers get is cut
    parts = rng.dirichlet(np.ones(3), 40).T  # parts that make up every patch
    np.testing.assert_allclose(sum(share(attention, part) * part.mean() for part in parts), 1)


def test_all_attention_on_a_part_is_one_over_its_area():
    centre = np.zeros(40)
    centre[:5] = 1
    attention = np.zeros((2, 40))
    attention[0, 2], attention[1, 7] = 0.3, 0.3
    np.testing.assert_allclose(share(attention, centre), [40 / 5, 0])
    assert np.isnan(share(attention, np.zeros(40))).all() and np.isnan(share(np.zeros(40), centre))


def test_patches_lie_in_windows_by_their_area():
    size, stride, pad = GEOMETRY
    window = np.random.default_rng(0).random(FRAME)
    shares = patch_shares(np.stack([window, np.ones(FRAME)]), *GEOMETRY)
    padded = np.pad(window, (pad[2:], pad[:2]))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (size, size))[::stride, ::stride]
    np.testing.assert_allclose(shares[0], patches.mean(axis=(-2, -1)).ravel())
    assert (shares[1] <= 1 + 1e-12).all() and shares[1].min() < 1  # patches that reach off the frame
    grid = patches.shape[:2]
    lit = np.zeros(grid)
    lit[2, 3] = 1
    covered = fold(lit, *GEOMETRY, FRAME) > 0  # the pixels of one patch
    assert patch_shares(covered.astype(float), *GEOMETRY).reshape(grid)[2, 3] == pytest.approx(1)


def test_maps_are_cut_out_around_fields():
    image = np.arange(48.0).reshape(6, 8)
    cut = around(image[None], (2.2, 4.9), 2)[0]
    assert cut[2, 2] == image[5, 2] and cut[1, 3] == image[4, 3]
    assert np.isnan(cut[3:]).all() and np.isfinite(cut[:3]).all()
    assert np.isnan(around(image, (40, 3), 2)).all()


def test_neurons_read_the_places_that_are_told():
    """Features elsewhere change nothing; features there change the answer by the weights."""
    twin = tiny_twin()
    behavior, pupil = torch.randn(1, 2, 1), torch.randn(1, 2, 1)
    neurons = torch.tensor([4, 1])
    places, weights = places_read(twin.model, "A", neurons, behavior, pupil)
    readout, (h, w) = twin.model.readouts["A"], twin.model.core.grid
    z = torch.randn(1, 1, h, w, twin.model.core.dim)
    shift = twin.model.shifters["A"](behavior, pupil)
    answer = readout(z, shift, neurons)[0, :, 0].numpy()
    features, bias = (x.numpy() for x in readout.weights(neurons))
    sampled = np.einsum("nkd,nk->nd", z[0, 0].flatten(0, 1).numpy()[places], weights)
    np.testing.assert_allclose(answer, (sampled * features).sum(axis=1) + bias, rtol=1e-4)
    assert (weights.sum(axis=1) <= 1 + 1e-6).all() and (weights >= 0).all()


def shown(twin, pattern: int = 4):
    timeline = Timeline(50, 0, pattern)
    behavior, pupil = (twin.mice["A"].statistics[name]["mean"] for name in ("behavior", "pupil_center"))
    patterns = np.random.default_rng(0).integers(0, 256, (3, pattern, 36, 64), dtype=np.uint8)
    return TwinPresenter(twin, "A", timeline, behavior, pupil), patterns


def test_what_neurons_attend_to_is_told_of_the_responses_of_experiments():
    twin = tiny_twin(max_frame=60, core_spatial_depth=2, core_reg_tokens=2)
    presenter, patterns = shown(twin)
    neurons = np.array([5, 2])
    presenter.listen(neurons)
    answers = presenter.show(patterns)
    one, other = attend(presenter, neurons, patterns, [1, 3])
    np.testing.assert_allclose(np.stack([one.responses, other.responses], axis=1), answers, rtol=1e-4, atol=1e-4)
    P = np.prod(twin.model.core.grid)
    assert one.heads.shape == (3, 2, 2, 2, P) and one.rolled.shape == (3, 2, P) and one.lags.shape == (3, 2, 54)
    assert (one.heads.sum(axis=-1) < 1).all()  # registers take the rest
    np.testing.assert_allclose(one.rolled.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.nansum(one.lags, axis=-1), 1, rtol=1e-5)
    assert not np.allclose(one.rolled, other.rolled) and not np.allclose(one.gradient, other.gradient)
    (alone,) = attend(presenter, neurons[1:], patterns[2:], [1, 3])
    for name in ("heads", "rolled", "lags", "gradient"):
        np.testing.assert_allclose(getattr(alone, name)[0], getattr(other, name)[2], rtol=1e-3, atol=1e-6)


def test_the_gradient_is_how_responses_change_with_a_pixel():
    presenter, patterns = shown(tiny_twin(max_frame=60, core_temporal_patch_size=1), pattern=1)
    neuron = np.array([3])
    (seen,) = attend(presenter, neuron, patterns[:1], [0])
    T, step = presenter.timeline.trial, 1e-1  # a pixel of the only frame that counts for the gradient
    y, x = np.unravel_index(seen.gradient[0].argmax(), (36, 64))
    trials = presenter.timeline.present(patterns[:1]).astype(np.float64).repeat(2, axis=0)
    trials[:, -1, y, x] += [-step, step]
    traces = [trace.expand(2, -1, T) for trace in presenter.traces]
    low, high = presenter.twin.respond("A", trials[:, None].astype(np.float32), *traces, neurons=neuron)[:, 0, -1]
    only_frame = seen.gradient[0, y, x] * np.sqrt(T)  # earlier frames reach it through temporal attention as well
    assert 0.5 * only_frame < abs(float(high - low)) / (2 * step) < 1.05 * only_frame


def test_attention_proves_nothing():
    """What is attended to but never passed on does not count for responses: only their gradient knows."""
    twin = tiny_twin(max_frame=60)
    presenter, patterns = shown(twin)
    (before,) = attend(presenter, np.array([1]), patterns, [2])
    for block in twin.model.core.vivit.spatial_transformer.blocks:
        block.attn_out.weight.zero_()
    presenter, _ = shown(twin)
    (after,) = attend(presenter, np.array([1]), patterns, [2])
    np.testing.assert_allclose(after.heads, before.heads, atol=1e-6)
    core = twin.model.core
    places, weights = read_places(presenter, torch.tensor([1]))
    read = np.zeros(np.prod(core.grid))
    read[places[0]] = weights[0]
    patches = core.tokenizer.tokenizer
    under = fold(read.reshape(core.grid), patches.size, patches.stride, patches.pad, patches.frame_size) > 0
    assert before.gradient[:, ~under].any() and not after.gradient[:, ~under].any() and after.gradient[:, under].any()
    assert as_images(core, after.heads[:, 0, 0, 0])[:, ~under].min() > 0


@pytest.fixture(scope="module")
def fields_run(lab, tmp_path_factory) -> Path:
    """An untrained twin of simA and simB whose fields and directions are those of the truth."""
    run_dir = untrained_run(lab, tmp_path_factory.mktemp("attention") / "run")
    truth = {mouse: read_truth(lab, mouse, np.arange(60)) for mouse in find_recordings(lab)}
    table = pd.concat([part.assign(mouse=mouse) for mouse, part in truth.items()])
    fields = table[["mouse", "neuron"]].assign(x=table["x_px"], y=table["y_px"], snr=np.arange(len(table)))
    fields.assign(bad_fit=table["kind"] == "undriven").to_csv(run_dir / "aRF.csv", index=False)
    table[["mouse", "neuron", "preferred_direction_deg"]].to_csv(run_dir / "selectivity_gratings.csv", index=False)
    return run_dir


def changed(run_dir: Path, to: Path, alter=None, **flags) -> Path:
    """A copy of a run with other flags, or weights that `alter(model)` changed."""
    shutil.copytree(run_dir, to)
    made = load_checkpoint(run_dir)
    config = ModelConfig.from_flags(made.model_config.to_flags() | flags)
    model = build_model(config, made.mice).requires_grad_(False)
    if not flags:
        model.load_state_dict(made.model_state)
    if alter:
        alter(model)
    save_checkpoint(checkpoint_path(to), config.to_flags(), made.mice, model.state_dict(), made.info)
    return to


def test_attention_that_sees_nothing_is_uniform_whatever_is_shown(fields_run, lab, tmp_path):
    def blind(model):
        for block in model.core.vivit.spatial_transformer.blocks:
            block.fused_linear.weight[: 2 * block.inner] = 0  # queries and keys

    run_dir = changed(fields_run, tmp_path / "run", blind)
    predict("--output_dir", run_dir, "--data_dir", lab, "--neurons", 3, 8, 11, "--phases", 1, "--times", 0.5)
    run("visualize_attention", "--output_dir", run_dir)
    drawn = read_drawn(run_dir)
    heads = drawn[drawn["source"].str.startswith("block")]
    assert len(heads) and np.allclose(heads["share"], 1, atol=1e-4)
    rolled = drawn[(drawn["drawn"] == "neuron") & (drawn["source"] == "attention")]
    spread = rolled.groupby(["mouse", "neuron", "part"])["share"].agg(np.ptp)
    assert len(spread) and spread.max() < 1e-4  # half itself, half uniform, in every condition
    assert abs(rolled["share"] - 1).max() > 0.05
    answer = pd.read_csv(run_dir / "statistics" / "attention_context.csv").iloc[0]
    assert abs(answer["value"]) < 1e-4 and answer["n"] == len(rolled[["mouse", "neuron"]].drop_duplicates())
    assert answer["animals"] == 2


def test_figure_statistics_and_movie_are_written(fields_run, lab, tmp_path, capsys):
    run_dir = shutil.copytree(fields_run, tmp_path / "run")
    flags = ("--mouse_ids", "simA", "--neurons", 3, 8, "--times", 0.5, "--batch_size", 1, "--contrasts", 1)
    shown = ("--phases", 1, "--directions", 90, 270, "--centre", "population")
    flags = ("--output_dir", run_dir, "--data_dir", lab, *flags, *shown)
    assert predict(*flags) == 2 * 5  # once for both neurons
    (run_dir / "aRF.csv").rename(tmp_path / "aRF.csv")
    (run_dir / "ckpt").rename(tmp_path / "ckpt")
    run("visualize_attention", "--output_dir", run_dir)  # from the saved numbers alone
    for suffix in ("pdf", "png", "csv"):
        assert (run_dir / "figures" / f"attention_context.{suffix}").stat().st_size > 1000
    drawn = read_drawn(run_dir)
    assert set(drawn["kind"]) == {"centre", "iso", "cross", "shift", "inverse"} and set(drawn["contrast"]) == {1}
    assert set(drawn["source"]) == {"attention", "gradient", "attention in time", "block 1, head 1", "block 1, head 2"}
    lags = drawn[drawn["drawn"] == "lags"].groupby("kind")["share"].sum()
    assert (lags <= 1 + 1e-4).all() and (lags > 0.3).all()
    assert "depend on whether anything is shown there?" in capsys.readouterr().out
    for name in ("aRF.csv", "ckpt"):
        (tmp_path / name).rename(run_dir / name)
    assert predict(*flags, "--animate", tmp_path / "context.gif") == 5  # what the movie shows, nothing else
    height, width = frame_size(tmp_path / "context.gif")
    assert height % 2 == width % 2 == 0


def test_a_twin_without_memory_shows_what_it_has(fields_run, lab, tmp_path):
    run_dir = changed(fields_run, tmp_path / "run", core_temporal_depth=0)
    predict("--output_dir", run_dir, "--data_dir", lab, "--mouse_ids", "simA", "--neurons", 3, "--phases", 1,
            "--times", 0.5)  # fmt: skip
    run("visualize_attention", "--output_dir", run_dir)
    drawn = read_drawn(run_dir)
    assert "lags" not in set(drawn["drawn"]) and "gradient" in set(drawn["source"])


QUICK = ("--phases", 1, "--times", 0.5, "--contrasts", 1)
FEW = ("--mouse_ids", "simA", "--neurons", 3, 5, 8, *QUICK)
PATTERNS = 5  # for each of the three fields


def test_stopped_anywhere_it_goes_on_and_ends_the_same(fields_run, lab, tmp_path):
    run_dir, path = shutil.copytree(fields_run, tmp_path / "run"), locate(tmp_path / "run", "attention", "simA")
    flags = ("--output_dir", run_dir, "--data_dir", lab, *FEW)
    assert predict(*flags) == 3 * PATTERNS
    whole = Looks.read(path)
    path.unlink()
    with pytest.raises(Stopped):
        predict(*flags, stop_at=PATTERNS + 3)  # in the second field
    with pytest.raises(Stopped):
        predict(*flags, stop_at=PATTERNS + 3)  # in the third
    assert not path.exists()
    assert predict(*flags) == PATTERNS
    resumed = Looks.read(path)
    assert resumed.about == whole.about and resumed.sources == whole.sources
    for name in ("neurons", "z_um", "shares", "attention", "gradient", "lags", "stimuli"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(whole, name), rtol=1e-4, atol=1e-7)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_finished_is_not_repeated_unless_something_else_is_asked(fields_run, lab, tmp_path, capsys):
    run_dir, path = shutil.copytree(fields_run, tmp_path / "run"), locate(tmp_path / "run", "attention", "simA")
    flags = ("--output_dir", run_dir, "--data_dir", lab, *FEW)
    predict(*flags)
    before = path.stat().st_mtime_ns
    assert predict(*flags) == 0 and path.stat().st_mtime_ns == before
    assert "nothing to show" in capsys.readouterr().out
    with pytest.raises(Stopped):
        predict(*flags, "--size", 25, stop_at=PATTERNS + 1)
    assert path.stat().st_mtime_ns == before  # until the new one is complete
    assert predict(*flags, "--size", 30) == 3 * PATTERNS
    assert Looks.read(path).about["protocol"]["size"] == 30
    fields = pd.read_csv(run_dir / "aRF.csv")
    fields.loc[(fields["mouse"] == "simA") & (fields["neuron"] == 3), "x"] += 2
    fields.to_csv(run_dir / "aRF.csv", index=False)
    assert predict(*flags, "--size", 30) == 3 * PATTERNS


BAD = [
    (["--animal"], "--animal: simulated animals have no attention"),
    (["--surround", 15], "must exceed --size 20"),
    (["--surround", 21], "Raise --surround"),
    (["--animate", "movie.txt"], ".mp4 or .gif"),
    (["--neurons", 999], "--neurons 999"),
    (["--mouse_ids", "simX"], "simX"),
]


@pytest.mark.parametrize("flags, told", BAD)
def test_what_a_user_can_cure_is_told_and_nothing_is_written(flags, told, fields_run, lab):
    before = set(fields_run.rglob("*"))
    with pytest.raises(UserError, match=told):
        predict("--output_dir", fields_run, "--data_dir", lab, "--phases", 1, *flags)
    assert set(fields_run.rglob("*")) == before


def test_what_is_missing_is_named(fields_run, lab, tmp_path):
    blind = changed(fields_run, tmp_path / "run", core_spatial_depth=0)
    with pytest.raises(UserError, match="no blocks in space"):
        predict("--output_dir", blind, "--data_dir", lab)
    fieldless = changed(fields_run, tmp_path / "fieldless")
    (fieldless / "aRF.csv").unlink()
    with pytest.raises(UserError, match="fit_aRFs.py"):
        predict("--output_dir", fieldless, "--data_dir", lab)


@pytest.fixture(scope="module")
def looked(fields_run, lab, tmp_path_factory) -> Path:
    """What one neuron of either mouse attends to. Read only."""
    run_dir = shutil.copytree(fields_run, tmp_path_factory.mktemp("looked") / "run")
    predict("--output_dir", run_dir, "--data_dir", lab, "--neurons", 3, *QUICK)
    return run_dir


def told_by_visualize(monkeypatch, capsys, *flags) -> str:
    """The one line with which the command ends."""
    monkeypatch.setattr(sys, "argv", ["visualize_attention.py", *map(str, flags)])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / FOLDER / "visualize_attention.py"), run_name="__main__")
    said = capsys.readouterr()
    assert left.value.code == 2 and said.err.count("\n") == 1 and not said.out
    return said.err


def test_without_its_files_the_figure_names_the_command_that_makes_them(fields_run, looked, monkeypatch, capsys):
    before = set(looked.rglob("*")) | set(fields_run.rglob("*"))
    told = told_by_visualize(monkeypatch, capsys, "--output_dir", fields_run)
    assert f"python {FOLDER}/predict_attention.py --output_dir {fields_run}" in told
    told = told_by_visualize(monkeypatch, capsys, "--output_dir", looked, "--mouse_ids", "simA", "simX")
    assert "attention_mousesimX.npz" in told and "predict_attention.py" in told
    assert set(looked.rglob("*")) | set(fields_run.rglob("*")) == before


def without(path: Path, name: str) -> None:
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files if key != name}
    np.savez(path, **arrays)


def of_fewer_kinds(path: Path) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    told = json.loads(str(arrays["told"]))
    told["about"]["protocol"]["kinds"].pop()
    np.savez(path, **arrays | {"told": json.dumps(told)})


SPOILT = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:2000]),
    "text": lambda path: path.write_text("shares"),
    "one array missing": lambda path: without(path, "gradient"),
    "nothing told": lambda path: without(path, "told"),
    "arrays of something else": of_fewer_kinds,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_malformed_file_is_named(spoil, looked, tmp_path, monkeypatch, capsys):
    run_dir = shutil.copytree(looked, tmp_path / "run")
    spoil(locate(run_dir, "attention", "simB"))
    told = told_by_visualize(monkeypatch, capsys, "--output_dir", run_dir)
    assert "attention_mousesimB.npz: not a file of attention" in told and "Delete it" in told
    assert not (run_dir / "figures").exists() and not (run_dir / "statistics").exists()


def test_mice_that_were_shown_something_else_are_not_drawn_together(looked, lab, tmp_path):
    run_dir = shutil.copytree(looked, tmp_path / "run")
    predict("--output_dir", run_dir, "--data_dir", lab, "--mouse_ids", "simA", "--neurons", 3, *QUICK, "--size", 30)
    with pytest.raises(UserError, match=r"attention_mousesimB.npz: .*than mouse simA.*--mouse_ids"):
        run("visualize_attention", "--output_dir", run_dir)
    run("visualize_attention", "--output_dir", run_dir, "--mouse_ids", "simB")
    assert set(read_drawn(run_dir)["mouse"].dropna()) == {"simB"}


@pytest.mark.parametrize("missing", ["neither", "spatial", "temporal", "both"])
def test_attention_to_a_movie_is_drawn_head_by_head_for_the_blocks_there_are(missing, causal_run, tmp_path, capsys):
    flags = {"core_spatial_depth": 2} | {
        f"core_{stack}_depth": 0 for stack in ("spatial", "temporal") if missing in (stack, "both")
    }
    run_dir = changed(causal_run, tmp_path / "run", **flags)
    np.save(tmp_path / "movie.npy", np.random.default_rng(0).integers(0, 256, (50, 36, 64), dtype=np.uint8))
    shown = ("--output_dir", run_dir, "--video", tmp_path / "movie.npy", "--times", 2, "--locations", 3)
    if missing == "both":
        with pytest.raises(UserError, match="attends to nothing"):
            run("visualize_attention", *shown, folder="misc")
        return
    if missing == "spatial":
        with pytest.raises(UserError, match="--animate"):
            run("visualize_attention", *shown, "--animate", tmp_path / "movie.gif", folder="misc")
    run("visualize_attention", *shown, folder="misc")
    drawn, heads = (pd.read_csv(run_dir / "figures" / f"attention_{name}mousetinyA.csv") for name in ("", "heads_"))
    there = {"spatial": "attention", "temporal": "attention by lag"}
    assert {there[stack] for stack in there if stack != missing} == set(there.values()) & set(drawn["kind"])
    assert "gradient" in set(drawn["kind"])
    if missing != "spatial":
        images = heads[heads["kind"] == "space"].groupby(["block", "head"])["value"]
        assert images.size().tolist() == [36 * 64] * 4
        np.testing.assert_allclose(images.mean(), 1, atol=0.2)
    if missing != "temporal":
        profiles = heads[heads["kind"] == "time by lag"].groupby(["block", "head"])
        assert len(profiles) == 2 and (heads["low"] <= heads["high"]).sum() == (heads["kind"] == "time by lag").sum()
