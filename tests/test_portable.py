"""A twin that is shared: two plain files, checked, that answer as the run they came from."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from viv1t.checkpoint import checkpoint_path
from viv1t.errors import UserError
from viv1t.inference import load_twin

ROOT = Path(__file__).parents[1]


def export(run_dir: Path, folder: Path) -> None:
    arguments = ["--output_dir", str(run_dir), "--to", str(folder), "--name", "tiny", "--data", "random numbers"]
    before, sys.argv = sys.argv, ["export_twin.py", *arguments]
    try:
        runpy.run_path(str(ROOT / "misc" / "export_twin.py"), run_name="__main__")
    finally:
        sys.argv = before


@pytest.fixture
def folder(causal_run, tmp_path) -> Path:
    export(causal_run, tmp_path / "twin")
    return tmp_path / "twin"


def test_it_answers_as_the_run(causal_run, folder):
    video = np.random.default_rng(0).integers(0, 256, (1, 1, 60, 36, 64)).astype(np.uint8)
    run, shared = load_twin(causal_run), load_twin(folder)
    assert list(shared.mice) == list(run.mice)
    for mouse_id, mouse in run.mice.items():
        np.testing.assert_allclose(shared.respond(mouse_id, video), run.respond(mouse_id, video), rtol=1e-6)
        assert all(map(torch.equal, shared.model.state_dict().values(), run.model.state_dict().values()))
        assert np.array_equal(shared.mice[mouse_id].unit_ids, mouse.unit_ids)
        assert shared.mice[mouse_id].monitor == mouse.monitor and shared.mice[mouse_id].fps == mouse.fps
    card = json.loads((folder / "twin.json").read_text())["card"]
    assert card["name"] == "tiny" and card["data"] == "random numbers"


def test_it_names_no_place_of_this_machine(causal_run, tmp_path):
    run_dir = shutil.copytree(causal_run, tmp_path / "run")
    content = torch.load(checkpoint_path(run_dir), weights_only=True)
    content["config"] |= {"data_dir": "/secret/recordings", "output_dir": "/secret/run"}
    torch.save(content, checkpoint_path(run_dir))
    export(run_dir, tmp_path / "twin")
    for name in ("twin.json", "config.json"):
        text = (tmp_path / "twin" / name).read_text()
        assert "secret" not in text and '"output_dir": "runs/twin"' in text


def test_its_arrays_are_plain(folder):
    with np.load(folder / "twin.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiub" for name in arrays.files)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "twin.npz").unlink(), r"twin\.npz: no such file"),
        (lambda folder: (folder / "twin.npz").write_bytes((folder / "twin.npz").read_bytes()[:-9]), "SHA-256 differs"),
        (lambda folder: (folder / "twin.json").write_text("{"), r"twin\.json: not valid JSON"),
    ],
    ids=["missing", "truncated", "not-json"],
)
def test_damage_is_named(folder, spoil, says):
    spoil(folder)
    with pytest.raises(UserError, match=says):
        load_twin(folder)


@pytest.mark.parametrize("name", ["simulated", "surround"])
def test_a_shipped_twin_opens(name):
    """A twin of the default simulated mice that comes with the project, at most 8 MB."""
    folder = ROOT / "twins" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8 * 2**20
    twin = load_twin(folder)
    assert list(twin.mice) == ["simA", "simB"] and all(mouse.monitor for mouse in twin.mice.values())
    card = json.loads((folder / "twin.json").read_text())["card"]
    assert "simulate.py" in card["data"] and "train.py" in card["command"] and card["scores"]
