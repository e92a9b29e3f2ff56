"""Bad input costs a user one line: what is wrong, where, and what to do; exit code 2, and nothing on disk is touched.

Every command below is typed in a folder that holds a good recording (data/lab/mouse) and a good run (run); `spoil`
breaks one thing before it.
"""

import hashlib
import os
import resource
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_recording

from viv1t import io
from viv1t.checkpoint import RunLock, checkpoint_path, save_checkpoint
from viv1t.data.cache import open_cache
from viv1t.data.recording import Recording
from viv1t.model.build import build_model
from viv1t.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
MOUSE = Path("data/lab/mouse")
SMALL = {
    "core_emb_dim": 8, "core_ff_dim": 8, "core_head_dim": 4, "core_num_heads": 1, "core_spatial_depth": 1,
    "core_temporal_depth": 1, "core_spatial_patch_stride": 8, "core_reg_tokens": 1, "crop_frame": 60, "epochs": 1,
}  # fmt: skip
FLAGS = " ".join(f"--{name} {value}" for name, value in SMALL.items())
TRAIN = f"train.py --data_dir data --device cpu {FLAGS}"
SIMULATE = "data/simulate.py --mice 1 --neurons 8 --trials 1 --clips 1 --repeats 1 --frames 60 --num_workers 1"


@dataclass(frozen=True)
class Case:
    name: str
    command: str
    says: tuple[str, ...]  # the file or flag, and the cure
    spoil: Callable[[], object] = lambda: None


def replace(name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite one array of the recording."""
    path = MOUSE / name
    np.save(path, change(np.load(path)), allow_pickle=True)


def truncate(path: Path, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)


def with_nan(video: np.ndarray) -> np.ndarray:
    video = video.astype(np.float32)
    video[3, 5, 20] = np.nan
    return video


def archive(*entries: str) -> None:
    with zipfile.ZipFile("data/dynamic29156-11-10-Video-8744edeac3b4d1ce16b680916b5267ce.zip", "w") as file:
        for entry in entries:
            file.writestr(entry, "content")


VIDEO, RESPONSES, TIERS = "data/videos/2.npy", "data/responses/2.npy", "meta/trials/tiers.npy"
DATA = [
    Case("missing data folder", "train.py --data_dir nowhere --output_dir new", ("nowhere", "data/simulate.py")),
    Case(
        "no responses", f"{TRAIN} --output_dir new", ("mouse/data/responses", "download the recording again"),
        lambda: shutil.rmtree(MOUSE / "data" / "responses"),
    ),
    Case(
        "a trial is missing", f"{TRAIN} --output_dir new", ("behavior/2.npy", "download the recording again"),
        lambda: (MOUSE / "data" / "behavior" / "2.npy").unlink(),
    ),
    Case(
        "another number of neurons", f"{TRAIN} --output_dir new", (RESPONSES, "expected (8, frames)"),
        lambda: replace(RESPONSES, lambda x: x[1:]),
    ),
    Case(
        "NaN inside a trial", f"{TRAIN} --output_dir new", (VIDEO, "frame 20", "mark trial 2 as 'none'"),
        lambda: replace(VIDEO, with_nan),
    ),
    Case(
        "truncated array", f"{TRAIN} --output_dir new", (VIDEO, "truncated", "download it again"),
        lambda: truncate(MOUSE / VIDEO, 5000),
    ),
    Case(
        "truncated header", f"{TRAIN} --output_dir new", (VIDEO, "cut off", "download it again"),
        lambda: truncate(MOUSE / VIDEO, 50),
    ),
    Case(
        "array of objects", f"{TRAIN} --output_dir new", (RESPONSES, "objects", "float32"),
        lambda: replace(RESPONSES, lambda x: x.astype(object)),
    ),
    Case(
        "tiers too short", f"{TRAIN} --output_dir new", (TIERS, "from the same recording"),
        lambda: replace(TIERS, lambda x: x[:-1]),
    ),
    Case(
        "tiers too long", f"{TRAIN} --output_dir new", ("no such file", "download the recording again"),
        lambda: replace(TIERS, lambda x: np.append(x, "train")),
    ),
    Case(
        "unknown tier", f"{TRAIN} --output_dir new", (TIERS, "did you mean 'train'"),
        lambda: replace(TIERS, lambda x: np.where(x == "train", "trian", x)),
    ),
    Case(
        "no training trials", f"{TRAIN} --output_dir new", ("mouse", "train", "--mouse_ids"),
        lambda: replace(TIERS, lambda x: np.where(x == "train", "none", x)),
    ),
    Case(
        "no validation trials", f"{TRAIN} --output_dir new", (TIERS, "validation", "--mouse_ids"),
        lambda: replace(TIERS, lambda x: np.where(x == "oracle", "none", x)),
    ),
    Case(
        "frames of another size", f"{TRAIN} --output_dir new", ("data/videos: frames are 36 x 32 pixels", "Resize"),
        lambda: [np.save(path, np.load(path)[:, ::2]) for path in (MOUSE / "data" / "videos").iterdir()],
    ),
    Case(
        "duplicated neuron", f"{TRAIN} --output_dir new", ("unit_ids.npy", "Keep one"),
        lambda: replace("meta/neurons/unit_ids.npy", lambda x: np.where(x == x[3], x[0], x)),
    ),
    Case(
        "archive that points outside", "data/download.py --data_dir data --mouse_ids A",
        (".zip", "../outside.txt", "Do not trust it"), lambda: archive("meta/trials/tiers.npy", "../outside.txt"),
    ),
    Case(
        "archive without recording", "data/download.py --data_dir data --mouse_ids A",
        (".zip", "no recording", "Delete it and run again"), lambda: archive("readme.txt"),
    ),
]  # fmt: skip
FLAG = [
    Case("unknown mouse", f"{TRAIN} --output_dir new --mouse_ids mose", ("mose", "did you mean 'mouse'")),
    Case("mouse not downloaded", f"{TRAIN} --output_dir new --mouse_ids A", ("data/download.py --mouse_ids A",)),
    Case("unknown core", "train.py --output_dir new --core vivitt", ("--core vivitt", "did you mean 'vivit'")),
    Case("unknown readout", "train.py --output_dir new --readout gauss", ("--readout gauss", "'gaussian'")),
    Case("misspelt flag", f"{TRAIN} --output_dir new --bach_size 2", ("--bach_size", "did you mean '--batch_size'")),
    Case("unknown word", f"{TRAIN} --output_dir new --core_behavior_mode pupil", ("--core_behavior_mode", "one of")),
    Case("unknown criterion", f"{TRAIN} --output_dir new --criterion poison", ("--criterion", "'poisson'")),
    Case("not a number", f"{TRAIN} --output_dir new --epochs many", ("--epochs", "'many' is not a valid int")),
    Case("no run folder named", "train.py --data_dir data", ("--output_dir is missing",)),
    Case("crop longer than trials", f"{TRAIN} --output_dir new --crop_frame 200", ("--crop_frame 200", "Use --crop_")),
    Case(
        "patches longer than what no score uses", f"{TRAIN} --output_dir new --core_pad_frame 0 "
        "--core_temporal_patch_size 55", ("answers 246 of 300 frames", "--core_temporal_patch_size"),
    ),
    Case("a stride in time", f"{TRAIN} --output_dir new --core_temporal_patch_stride 2", ("_patch_stride 1",)),
    Case("a file in place of a folder", f"{TRAIN} --output_dir run/config.json", ("config.json: ", "another folder")),
    Case("crop shorter than scored", f"{TRAIN} --output_dir new --crop_frame 40", ("--crop_frame is 40", "above 50")),
    Case("missing preset", "train.py @none.txt --output_dir new", ("none.txt",)),
    Case("missing config", f"{TRAIN} --output_dir new --config none.json", ("none.json: no such file",)),
    Case(
        "broken config", f"{TRAIN} --output_dir new --config run/config.json", ("run/config.json: not valid JSON",),
        lambda: truncate(Path("run/config.json"), 40),
    ),
    Case("no such GPU", "predict.py --output_dir run --device cuda:99", ("--device cuda:99: this machine",)),
    Case("unknown device", "predict.py --output_dir run --device gpu", ("--device gpu: this machine offers",)),
]  # fmt: skip
RUN = [
    Case(
        "other settings", f"{TRAIN} --output_dir run --batch_size 3",
        ("run holds a run with other settings", "--batch_size 1 (now 3)", "--clear_output_dir"),
    ),
    Case("nothing to resume", f"{TRAIN} --output_dir new --resume", ("--resume", "Leave --resume out")),
    Case(
        "clearing a folder that is no run", f"{TRAIN} --output_dir data --clear_output_dir",
        ("--clear_output_dir: data holds files but no run",),
    ),
    Case(
        "restore of another shape", f"{TRAIN} --output_dir new --restore run --core_emb_dim 16",
        ("run/ckpt/best.pt", "the model expects", "Check core"),
    ),
    Case(
        "pretrained core of another shape", f"{TRAIN} --output_dir new --pretrained_core run --core_emb_dim 16",
        ("run/ckpt/best.pt", "this model needs", "--core_*"),
    ),
    Case("restore of nothing", f"{TRAIN} --output_dir new --restore none", ("none: no such run folder", "train.py")),
    Case(
        "truncated checkpoint", "predict.py --output_dir run --data_dir data", ("run/ckpt/best.pt: damaged", "again"),
        lambda: truncate(Path("run/ckpt/best.pt"), 3000),
    ),
    Case(
        "checkpoint of something else", "predict.py --output_dir run --data_dir data",
        ("run/ckpt/best.pt: not a checkpoint of viv1t", "train.py"),
        lambda: torch.save({"weights": torch.zeros(3)}, "run/ckpt/best.pt"),
    ),
    Case("not a run", "predict.py --output_dir data --data_dir data", ("data/ckpt/best.pt", "train.py")),
    Case("no such run", "predict.py --output_dir none --data_dir data", ("none: no such run folder", "train.py")),
    Case("unknown test tier", "predict.py --output_dir run --ds_tier live", ("--ds_tier live", "live_main")),
    Case(
        "mouse outside the run", "predict.py --output_dir run --data_dir data --mouse_ids mose",
        ("mouse mose is not part of this run", "did you mean 'mouse'"),
    ),
    Case(
        "recording of other neurons", "predict.py --output_dir run --data_dir data", ("unit ids", "--data_dir"),
        lambda: replace("meta/neurons/unit_ids.npy", lambda x: x + 1),
    ),
    Case(
        "a live twin that looks ahead", "stream.py --output_dir run --device cpu --source movie.npy",
        ("frame by frame", "--core_use_causal_attention"),
        lambda: np.save("movie.npy", np.zeros((3, 36, 64), np.uint8)),
    ),
    Case(
        "nothing to score", "evaluate.py --output_dir run --data_dir data",
        ("run/responses: nothing predicted yet", "python predict.py --output_dir run"),
    ),
    Case("no run to score", "evaluate.py --output_dir none --data_dir data", ("none: no such run folder", "train.py")),
    Case(
        "garbage in place of predictions", "evaluate.py --output_dir run --data_dir data",
        ("responses/mousemouse.h5", "predict.py"), lambda: io.write_text("run/responses/mousemouse.h5", "garbage"),
    ),
    Case(
        "no scores to draw", "misc/visualize_performance.py --output_dir run",
        ("run/evaluation_tiers.json", "python evaluate.py --output_dir run"),
    ),
    Case("no scores to report", "report.py --output_dir run", ("run/evaluation_tiers.json", "python evaluate.py")),
    Case("no log to draw", "misc/visualize_training.py --output_dir run", ("run/log.csv", "python train.py")),
    Case(
        "a run of the public implementation", f"{TRAIN} --output_dir run", ("run holds a run of the public", "Give"),
        lambda: [Path("run", a).rename(Path("run", b)) for a, b in (("config.json", "args.yaml"), ("ckpt", "c"))],
    ),
    Case(
        "no scores to choose neurons by", "misc/visualize_traces.py --output_dir run --data_dir data",
        ("run/evaluation_neurons.csv", "python evaluate.py --output_dir run"),
    ),
]  # fmt: skip
SIMULATION = [
    Case("a file in place of data", SIMULATE.replace("--", "--data_dir run/config.json --", 1), ("another folder",)),
    Case(
        "drawing a real mouse as a simulated one", "misc/visualize_animal.py --data_dir data --output_dir new",
        ("mouse: no truth/animal.json", "--mouse_ids"),
    ),
    Case("too few neurons", "data/simulate.py --neurons 2", ("--neurons", "2 is outside")),
    Case("no movies", f"{SIMULATE} --data_dir new --movies run", ("run: no .npy or .mp4 movies", "--movies")),
    Case(
        "too few movies", f"{SIMULATE} --data_dir new --movies run", ("clips of", "Add movies to --movies"),
        lambda: np.save("run/movie.npy", np.zeros((60, 36, 64), np.uint8)),
    ),
    Case(
        "a movie of Python objects", f"{SIMULATE} --data_dir new --movies run", ("run/movie.npy", "not a readable"),
        lambda: np.save("run/movie.npy", np.array([None]), allow_pickle=True),
    ),
    Case("unknown monitor", "data/simulate.py --monitor rochfort", ("--monitor", "'rochefort'")),
    Case(
        "another recording in the way", SIMULATE,
        ("data/simulated/simA", "no simulated recording", "another --data_dir"),
        lambda: shutil.copytree(MOUSE, "data/simulated/simA"),
    ),
    Case(
        "another simulation in the way", SIMULATE,
        ("data/simulated/simA", "another", "--overwrite"),
        lambda: io.write_json("data/simulated/simA/truth/animal.json", {"design": {}}),
    ),
]  # fmt: skip

NOISE = "tuning_retinotopy/predict_noise.py --device cpu"
GRATINGS = "tuning_direction/predict_gratings.py --device cpu --monitor sensorium"
FIELDS = "mouse,neuron,x,y,bad_fit\nmouse,0,{},{},False\n"
PROBES = [
    Case("no run to show noise to", f"{NOISE} --output_dir nowhere", ("nowhere", "train.py")),
    Case("no monitor", f"{NOISE} --output_dir run", ("mouse mouse", "--monitor", "meta/monitor.json")),
    Case("a monitor that is none", f"{NOISE} --output_dir run --monitor 30x20", ("--monitor", "'30x20'")),
    Case(
        "no receptive fields", f"{GRATINGS} --output_dir run --centre field",
        ("run/aRF.csv", "tuning_retinotopy/fit_aRFs.py --output_dir run"),
    ),
    Case(
        "a field off the screen", f"{GRATINGS} --output_dir run --centre field", ("neuron 0", "off the screen"),
        lambda: Path("run/aRF.csv").write_text(FIELDS.format(70, 10)),
    ),
    Case(
        "no neuron with a field", f"{GRATINGS} --output_dir run --centre field", ("mouse mouse", "no neuron"),
        lambda: Path("run/aRF.csv").write_text(FIELDS.format("nan", "nan")),
    ),
    Case("an unknown centre", f"{GRATINGS} --output_dir run --centre middle", ("--centre", "screen (0), field (1)")),
    Case("contrast above 1", f"{GRATINGS} --output_dir run --contrast 2", ("--contrast", "outside [0, 1]")),
    Case("an unknown behaviour", f"{NOISE} --output_dir run --behavior sleepy", ("--behavior", "running (3)")),
    Case("an unknown mouse", f"{GRATINGS} --output_dir run --mouse_ids mous", ("mous", "did you mean 'mouse'")),
    Case("an unknown neuron", f"{GRATINGS} --output_dir run --neurons 9", ("--neurons 9", "0 to 7")),
    Case(
        "a real mouse as an animal", f"{NOISE} --animal --data_dir data --output_dir new",
        ("truth/animal.json", "data/simulate.py"),
    ),
    Case(
        "no responses to noise", "tuning_retinotopy/fit_aRFs.py --output_dir run",
        ("run/retinotopy", "tuning_retinotopy/predict_noise.py --output_dir run"),
    ),
    Case(
        "responses that are none", "tuning_retinotopy/fit_aRFs.py --output_dir run",
        ("run/retinotopy/mousemouse.h5", "Delete it"),
        lambda: io.write_text("run/retinotopy/mousemouse.h5", "not HDF5"),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder with a recording and the run of an untrained twin."""
    folder = tmp_path_factory.mktemp("good")
    recording = Recording(write_recording(folder / MOUSE, num_neurons=8, frames=(62, 66), unusable=0, seed=3))
    mice = {"mouse": open_cache(recording).mouse()}
    config = TrainConfig.from_flags({**SMALL, "output_dir": "run", "data_dir": "data"})
    model = build_model(config.model, mice)
    info = {"epoch": 1, "step": 1, "validation_correlation": 0.0}
    save_checkpoint(checkpoint_path(folder / "run"), config.to_flags(), mice, model.state_dict(), info)
    io.write_json(folder / "run" / "config.json", config.to_flags())
    return folder


@pytest.fixture
def folder(good, tmp_path, monkeypatch) -> Path:
    """A copy of `good` to spoil, as the working directory."""
    shutil.copytree(good, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of what it holds; a complete cache may come and go, nothing else."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.parent.name != ".cache" or path.name.startswith("."))
    }


def call(command: str, monkeypatch) -> int:
    """Run a script as `python <command>` would, in this process; returns the exit code."""
    script, *flags = command.split()
    monkeypatch.setattr(sys, "argv", [script, *flags])
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as leaving:
        return leaving.code or 0
    finally:
        torch.set_grad_enabled(True)  # predict.py switches it off for its whole process
        torch.set_num_threads(threads)  # stream.py takes one
    return 0


def check(code: int, error: str, script: str, says: tuple[str, ...]) -> None:
    assert code == 2, error
    assert len(error.splitlines()) == 1, f"more than one line:\n{error}"
    assert error.startswith(f"{Path(script).name}: "), error
    for words in says:
        assert words in error, f"'{words}' is not in: {error}"


@pytest.mark.parametrize("case", DATA + FLAG + RUN + SIMULATION + PROBES, ids=lambda case: case.name)
def test_one_line_and_nothing_touched(case, folder, monkeypatch, capsys):
    case.spoil()
    before = snapshot(folder)
    code = call(case.command, monkeypatch)
    check(code, capsys.readouterr().err, case.command.split()[0], case.says)
    assert snapshot(folder) == before


def test_every_recording_is_checked_and_the_bad_one_named(folder, monkeypatch, capsys):
    shutil.copytree(MOUSE, MOUSE.with_name("second"))
    truncate(MOUSE / VIDEO, 5000)
    before = snapshot(folder)
    code = call("data/check.py --data_dir data", monkeypatch)
    out, error = capsys.readouterr()
    check(code, error, "check.py", ("1 of 2 recordings cannot be used",))
    assert f"{MOUSE / VIDEO}: truncated" in out
    assert snapshot(folder) == before


@pytest.mark.parametrize("command", [f"{TRAIN} --output_dir run", "predict.py --output_dir run --data_dir data"])
def test_a_run_folder_has_one_writer(command, folder, monkeypatch, capsys):
    locked = Path("run") if command.startswith("train") else Path("run/responses")
    with RunLock(locked):
        before = snapshot(folder)
        code = call(command, monkeypatch)
        check(code, capsys.readouterr().err, command.split()[0], (f"{locked}: another process", f"pid {os.getpid()}"))
        assert snapshot(folder) == before


FULL = [
    (f"{SIMULATE} --data_dir new", 2000),
    ("data/check.py --data_dir data --cache_dir new", 100_000),
    (f"{TRAIN} --output_dir new", 20_000),
    ("predict.py --output_dir run --data_dir data --device cpu", 1000),
]


@pytest.mark.parametrize("command, room", FULL, ids=lambda value: str(value).split()[0])
def test_a_disk_that_fills_up(command, room, folder):
    """No file can grow beyond `room` bytes: nothing half-written may stay, and nothing old may go."""
    before = snapshot(folder)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    script, *flags = command.split()
    done = subprocess.run(
        [sys.executable, ROOT / script, *flags], preexec_fn=limit, capture_output=True, text=True, timeout=120
    )
    check(done.returncode, done.stderr, script, ("new" if "new" in command else "responses", "Free some"))
    after = snapshot(folder)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if name.endswith(".tmp")]
    assert all((folder / name).stat().st_size <= room for name in after.keys() - before.keys())


@pytest.mark.parametrize("case", [DATA[0], FLAG[4]], ids=lambda case: case.name)
def test_the_same_from_a_shell(case, folder):
    script, *flags = case.command.split()
    done = subprocess.run([sys.executable, ROOT / script, *flags], capture_output=True, text=True, timeout=120)
    check(done.returncode, done.stderr, script, case.says)
    assert done.stdout == ""
