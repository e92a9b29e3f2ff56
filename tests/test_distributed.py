"""Several processes train the model that one trains, end together whatever happens to one, and share predictions."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import predict
import train as script
from viv1t import distributed
from viv1t.checkpoint import checkpoint_path, load_checkpoint
from viv1t.errors import UserError
from viv1t.inference import load_twin, respond_sharded
from viv1t.training.config import TrainParser
from viv1t.training.team import Share, deal, renumbered

ROOT = Path(__file__).parents[1]
TINY = (
    "--core_use_causal_attention --core_emb_dim 8 --core_head_dim 4 --core_ff_dim 8 --core_spatial_depth 1 "
    "--core_temporal_depth 1 --core_reg_tokens 2 --core_spatial_patch_stride 8 --core_temporal_patch_size 5 "
    "--crop_frame 51 --adam_warmup_steps 5 --verbose 1 --device cpu --autocast disable --micro_batch_size 1"
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def train(tiny_recording_dir, tmp_path):
    """`train(*flags, run="name", processes=1)` trains a tiny model, dropout and all, and returns its run folder."""

    def run(*flags, run="run", processes=1):
        given = ["--data_dir", tiny_recording_dir, "--output_dir", tmp_path / run, *TINY.split(), *flags]
        if processes == 1:
            script.main(TrainParser().parse_args([str(flag) for flag in given]))
        else:
            ended = finish(start(processes, "train.py", *given))
            assert [code for code, _ in ended] == [0] * processes, ended
        return tmp_path / run

    return run


def start(processes: int, *command, limits: dict[int, int] | None = None) -> list[subprocess.Popen]:
    """Start a script as a scheduler would, one process for each rank. limits: rank -> largest file it may write."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in range(processes):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        environment = os.environ | meeting | {key: str(n) for key, n in numbers.items()} | {"OMP_NUM_THREADS": "1"}
        limit = (limits or {}).get(rank, resource.RLIM_INFINITY)
        started.append(
            subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            )
        )  # fmt: skip
    return started


def finish(processes: list[subprocess.Popen], seconds: float = 60) -> list[tuple[int, str]]:
    """Exit code and what was said on the standard error, by rank."""
    said = [process.communicate(timeout=seconds)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)


def assert_same_training(a: Path, b: Path, tolerance: float = 1e-5) -> None:
    logs = [pd.read_csv(run / "log.csv") for run in (a, b)]
    for name in ("step", "train_loss", "val_loss", "lr", "grad_norm", "clipped", "skipped"):
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=tolerance, err_msg=name)
    np.testing.assert_allclose(logs[0].val_correlation, logs[1].val_correlation, atol=1e-4)
    states = [load_checkpoint(run, "last") for run in (a, b)]
    assert_close(*(state.model_state for state in states), tolerance)
    optimizers = [state.training["optimizer"] for state in states]
    assert optimizers[0]["param_groups"] == optimizers[1]["param_groups"]
    assert list(optimizers[0]["state"]) == list(optimizers[1]["state"])
    for i, values in optimizers[0]["state"].items():
        assert values.keys() == optimizers[1]["state"][i].keys()


def assert_close(a: dict, b: dict, tolerance: float) -> None:
    """Two states have the same names, in the same order, and differ by less than a share of their norm."""
    assert list(a) == list(b)
    one, other = (torch.cat([value.double().flatten() for value in state.values()]) for state in (a, b))
    assert (one - other).norm() < tolerance * one.norm()


def test_processes_train_the_model_of_one(train):
    """24 steps; the first mouse is shared by two of the three processes."""
    flags = ["--epochs", 8, "--eval_every", 4, "--batch_size", 2, "--schedule_free"]
    one, three = train(*flags, run="one"), train(*flags, run="three", processes=3)
    log = pd.read_csv(one / "log.csv")
    assert log.step.iloc[-1] >= 20 and log.clipped.sum() > 0
    assert_same_training(one, three)
    scores = [json.loads((run / "evaluation.json").read_text()) for run in (one, three)]
    assert scores[0].keys() == scores[1].keys()
    assert list(scores[0]["validation"]["correlation"]) == list(scores[1]["validation"]["correlation"])
    assert sorted(path.name for path in three.rglob("*")) == sorted(path.name for path in one.rglob("*"))


def test_a_run_goes_on_with_another_number_of_processes(train):
    half, whole = (["--eval_every", 2, "--limit_data", 4, "--epochs", epochs] for epochs in (2, 4))
    straight = train(*whole, run="straight")
    train(*half, run="more")
    assert_same_training(straight, train(*whole, run="more", processes=2))
    train(*half, run="fewer", processes=2)
    assert_same_training(straight, train(*whole, run="fewer"))


def test_torchrun_saves_on_sigterm_and_the_run_goes_on(train, tiny_recording_dir, tmp_path):
    straight = train("--epochs", 3, "--schedule_free", run="straight")
    stopped = tmp_path / "stopped"
    command = f"torch.distributed.run --standalone --nproc_per_node 2 train.py {TINY} --epochs 3 --schedule_free"
    folders = ["--data_dir", str(tiny_recording_dir), "--output_dir", str(stopped)]
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split(), *folders],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_for(checkpoint_path(stopped, "last"))
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert output.count("Run the same command again to continue") == 1
    assert checkpoint_path(stopped, "step").exists()
    assert_same_training(straight, train("--epochs", 3, "--schedule_free", run="stopped"))


def test_a_signal_to_one_process_stops_all_in_order(tiny_recording_dir, tmp_path):
    flags = ["--data_dir", tiny_recording_dir, "--output_dir", tmp_path / "run", *TINY.split()]
    processes = start(2, "train.py", *flags)
    wait_for(checkpoint_path(tmp_path / "run", "last"))
    processes[1].send_signal(signal.SIGUSR1)
    assert finish(processes) == [(128 + signal.SIGUSR1, "")] * 2
    assert checkpoint_path(tmp_path / "run", "step").exists()


def test_a_user_error_in_one_process_ends_all_with_one_line(train, tiny_recording_dir, tmp_path):
    train("--epochs", 1, "--limit_data", 2, run="before")  # leaves the cache behind
    small = {0: 30_000}  # bytes; less than a checkpoint
    flags = ["--data_dir", tiny_recording_dir, "--output_dir", tmp_path / "run", *TINY.split()]
    ended = finish(start(2, "train.py", *flags, limits=small))
    assert [code for code, _ in ended] == [2, 2]
    assert "last.pt: file too large" in ended[0][1] and ended[0][1].count("\n") == 1 and ended[1][1] == ""


def test_a_killed_process_ends_the_others(tiny_recording_dir, tmp_path):
    flags = ["--data_dir", tiny_recording_dir, "--output_dir", tmp_path / "run", *TINY.split()]
    processes = start(2, "train.py", *flags)
    wait_for(checkpoint_path(tmp_path / "run", "last"))
    processes[1].kill()
    code, said = finish(processes)[0]
    assert code == 2 and "Run the same command again" in said and said.count("\n") == 1


FAIL = """
import math
import train
from viv1t import distributed
from viv1t.training.task import ResponseTask

calls, losses = 0, ResponseTask.losses

def failing(self, batches, micro_batch_size):
    global calls
    if len(batches[min(batches)].video) < 2:
        return losses(self, batches, micro_batch_size)  # the trial from which the time is estimated
    calls += 1
    if distributed.rank() == 1 and micro_batch_size > 1:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    bad = distributed.rank() == 1 and 4 <= calls <= 6
    return (loss * math.nan if bad else loss for loss in losses(self, batches, micro_batch_size))

ResponseTask.losses = failing
train.cli.run(train.main, train.TrainParser())
"""


def test_what_befalls_one_process_is_decided_by_all(tiny_recording_dir, tmp_path):
    """The second of two runs out of memory in the first step; in steps 3 to 5 its loss is no number."""
    flags = ["--data_dir", tiny_recording_dir, "--output_dir", tmp_path, *TINY.split(), "--micro_batch_size", 2]
    assert finish(start(2, "-c", FAIL, *flags, "--batch_size", 2, "--epochs", 3)) == [(0, "")] * 2
    progress = load_checkpoint(tmp_path, "last").training["progress"]
    assert (progress["micro_batch_size"], progress["recoveries"], progress["epoch"]) == (1, 1, 3)
    log = pd.read_csv(tmp_path / "log.csv")
    assert log.skipped.sum() == 1 and np.isfinite(log.train_loss).all()


SHARED = """
import sys
import numpy as np
import predict
from viv1t import cli, distributed
from viv1t.inference import load_twin, respond_sharded

def main(args):
    with distributed.joined():
        predict.main(args)
        twin, videos = load_twin(sys.argv[2], "cpu"), list(np.load(sys.argv[2] + "/videos.npy"))
        everywhere = respond_sharded(twin, "tinyA", videos, neurons=[1, 2])
        on_main = respond_sharded(twin, "tinyA", videos, neurons=[1, 2], everywhere=False)
        assert len(on_main) == (len(videos) if distributed.is_main() else 0)
        np.save(f"{sys.argv[2]}/{distributed.rank()}.npy", everywhere)

cli.run(main, predict.get_parser())
"""


def test_predictions_are_shared_out_and_the_same(train, tiny_recording_dir, tmp_path):
    one = train("--epochs", 1, run="one")
    videos = np.random.default_rng(0).integers(0, 256, (5, 12, 36, 64)).astype(np.float32)
    np.save(one / "videos.npy", videos)
    several = shutil.copytree(one, tmp_path / "several")
    flags = ["--data_dir", str(tiny_recording_dir), "--device", "cpu", "--batch_size", "2"]
    predict.main(predict.get_parser().parse_args(["--output_dir", str(one), *flags]))
    assert finish(start(2, "-c", SHARED, "--output_dir", several, *flags)) == [(0, "")] * 2
    for id in ("tinyA", "tinyB"):
        files = [run / "responses" / f"mouse{id}.h5" for run in (one, several)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(several.rglob("*.parts"))
    alone = respond_sharded(load_twin(one, "cpu"), "tinyA", videos, neurons=[1, 2])
    for rank in range(2):
        np.testing.assert_array_equal(np.load(several / f"{rank}.npy"), alone)


def test_every_trial_of_a_step_is_dealt_out_once_and_evenly():
    for mice, batch_size, processes in ((10, 1, 4), (10, 1, 10), (3, 4, 5), (2, 8, 16), (1, 7, 3)):
        ids = [f"m{i}" for i in range(mice)]
        shares = deal(ids, batch_size, processes)
        dealt = [(id, row) for share in shares for id, s in share.items() for row in range(batch_size)[s.rows]]
        assert dealt == [(id, row) for id in ids for row in range(batch_size)]
        sizes = [sum(len(range(batch_size)[s.rows]) for s in share.values()) for share in shares]
        assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0
        for id in ids:
            parts = [(s[id].part, s[id].parts) for s in shares if id in s]
            assert parts == [(i, len(parts)) for i in range(len(parts))]


def test_more_processes_than_trials_are_refused():
    with pytest.raises(UserError, match="start at most 3, or raise --batch_size"):
        deal(["a", "b", "c"], 1, 4)
    assert deal(["a"], 2, 2) == [{"a": Share(slice(0, 1), 0, 2)}, {"a": Share(slice(1, 2), 1, 2)}]


def test_optimizer_state_follows_the_names_of_its_parameters():
    whole = {"core": ["core.w"], "readouts": ["readouts.a.w", "readouts.b.w", "readouts.b.v"]}
    part = {"core": ["core.w"], "readouts": ["readouts.b.w", "readouts.b.v"]}
    groups = [{"name": "core", "lr": 1, "params": [0]}, {"name": "readouts", "lr": 2, "params": [1, 2, 3]}]
    state = {"state": {0: "core", 1: "a", 3: "b.v"}, "param_groups": groups}
    there = renumbered(state, whole, part)
    assert there["state"] == {0: "core", 2: "b.v"} and there["param_groups"][1]["params"] == [1, 2]
    back = renumbered(there, part, whole)
    assert back["state"] == {0: "core", 3: "b.v"} and back["param_groups"] == groups


def test_one_process_talks_to_itself():
    assert (distributed.rank(), distributed.size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather({"a": 1}) == distributed.collect({"a": 1}) == [{"a": 1}]
    assert distributed.gather_numbers([1.5, 2]).tolist() == [[1.5, 2.0]]
    assert distributed.main_does(lambda: True) and distributed.share([1, 2, 3]) == [1, 2, 3]


def test_half_an_environment_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="torchrun"), distributed.joined():
        pass


def test_an_experiment_is_shared_out(causal_run, tmp_path):
    """Two processes show half of the parts each; one file, with the bytes that one process writes."""
    flags = ["--monitor", "sensorium", "--patterns", "300", "--device", "cpu", "--mouse_ids", "tinyA"]
    files = []
    for processes in (1, 2):
        run_dir = tmp_path / str(processes)
        shutil.copytree(causal_run, run_dir)
        ended = finish(start(processes, "tuning_retinotopy/predict_noise.py", "--output_dir", run_dir, *flags))
        assert [code for code, _ in ended] == [0] * processes, ended
        files.append((run_dir / "retinotopy" / "mousetinyA.h5").read_bytes())
        assert [path.name for path in (run_dir / "retinotopy").iterdir()] == ["mousetinyA.h5"]
    assert files[0] == files[1]
