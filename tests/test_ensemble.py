"""An ensemble predicts the mean of its members, beats them where they err independently, and is never a stale one."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_recording

import ensemble
import evaluate
import report
from viv1t import baselines, io
from viv1t.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from viv1t.data.cache import open_cache
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.origin import twin_of
from viv1t.results import Responses, locate, write_responses

N = 12
WRITTEN = {
    "responses",
    "baselines",
    "ensemble.json",
    "ensemble.csv",
    "evaluation_tiers.json",
    "evaluation_neurons.csv",
}


@pytest.fixture(autouse=True, scope="module")
def few_components():
    """Random movies have no structure to keep; a few components make the baselines fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "COMPONENTS", 5)
        yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two mice of random responses."""
    data_dir = tmp_path_factory.mktemp("data") / "lab"
    for seed, name in enumerate(("one", "two")):
        write_recording(data_dir / name, num_neurons=N, num_train=4, frames=(100, 110), withheld=(), seed=seed)
    return data_dir


@pytest.fixture(scope="module")
def scored(few_components, data_dir, tmp_path_factory):
    """Three scored runs, whose predictions err independently. Read only."""
    folders = [member(tmp_path_factory.mktemp("runs") / f"run{seed}", data_dir, seed) for seed in (1, 2, 3)]
    for folder in folders:
        score(folder, data_dir)
    return folders


@pytest.fixture
def members(scored, tmp_path):
    """The same, to be spoilt by the test."""
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in scored]


def member(run_dir: Path, data_dir: Path, seed: int, names=("one", "two"), neurons=slice(None)) -> Path:
    """A run whose predictions are the recording plus an error; of its weights only the hash is used."""
    mice = {name: open_cache(Recording(data_dir / name)).mouse(np.arange(N)[neurons]) for name in names}
    info = {"epoch": 1, "step": 1, "validation_correlation": 0.1}
    save_checkpoint(checkpoint_path(run_dir), {}, mice, {"weight": torch.full((1,), float(seed))}, info)
    for name in names:
        predict(run_dir, Recording(data_dir / name), seed, neurons)
    return run_dir


def predict(
    run_dir: Path, recording: Recording, seed: int, neurons=slice(None), without: str = "", made: dict | None = None
) -> None:
    rng = np.random.default_rng(seed)
    attributes = {"checkpoint": twin_of(run_dir).hash, "recording": recording.fingerprint, "skip": 0,
                  "units": "recorded", "precision": "32"} | (made or {})  # fmt: skip
    tiers = {i: str(recording.tiers[i]) for i in recording.usable}
    true = {i: recording.trial(i).responses[neurons] for i, tier in tiers.items() if tier != without}
    trials = ((i, tiers[i], y + 40 * rng.standard_normal(y.shape)) for i, y in true.items())
    write_responses(locate(run_dir, "responses", recording.id), trials, attributes)


def score(run_dir: Path, data_dir: Path, *flags) -> None:
    given = ["--output_dir", str(run_dir), "--data_dir", str(data_dir), *flags]
    evaluate.main(evaluate.get_parser().parse_args(given))


def average(members: list[Path], data_dir: Path, *flags, to: Path | None = None) -> Path:
    run_dir = to or members[0].parent / "ensemble"
    given = ["--output_dir", run_dir, "--data_dir", data_dir, "--members", *members, *flags]
    ensemble.main(ensemble.get_parser().parse_args(list(map(str, given))))
    return run_dir


def test_responses_are_the_mean_of_those_of_the_members(members, data_dir):
    run_dir = average(members, data_dir)
    assert {path.name for path in run_dir.iterdir()} == WRITTEN
    for name in ("one", "two"):
        files = [Responses(locate(run, "responses", name)) for run in (*members, run_dir)]
        assert all(file.tiers == files[0].tiers for file in files)
        for trial in files[0].tiers:
            *parts, mean = [file.read(trial) for file in files]
            np.testing.assert_array_equal(mean, np.mean(parts, axis=0, dtype=np.float64).astype(np.float32))


def test_independent_errors_average_out(members, data_dir):
    table = pd.read_csv(locate(average(members, data_dir), "ensemble_scores"))
    assert set(table["mouse"]) == {"one", "two", "2 mice"}
    for _, rows in table[table["tier"] != "final_bonus"].groupby(["mouse", "tier"]):
        *alone, together = rows.itertuples()
        assert together.correlation > max(row.correlation for row in alone)
        assert all(row.gain_low > 0 and row.low < row.correlation < row.high for row in alone)
        np.testing.assert_allclose([row.correlation + row.gain for row in alone], together.correlation, atol=1e-5)


def test_a_run_with_itself_scores_as_the_run(members, data_dir):
    twin = shutil.copytree(members[0], members[0].parent / "twin")
    run_dir = average([members[0], twin], data_dir)
    for name in ("one", "two"):
        with Responses(locate(run_dir, "responses", name)) as a, Responses(locate(twin, "responses", name)) as b:
            assert all(np.array_equal(a.read(trial), b.read(trial)) for trial in a.tiers)
    scores = [io.read_json(locate(run, "evaluation")) for run in (run_dir, twin)]
    assert scores[0].pop("key") != scores[1].pop("key") and scores[0] == scores[1]
    assert (pd.read_csv(locate(run_dir, "ensemble_scores"))["gain"].dropna() == 0).all()


def test_an_ensemble_is_scored_and_reported_as_a_run(members, data_dir, capsys):
    run_dir = average(members, data_dir)
    written = locate(run_dir, "evaluation").stat().st_mtime_ns
    score(run_dir, data_dir)
    assert locate(run_dir, "evaluation").stat().st_mtime_ns == written
    report.main(report.get_parser().parse_args(["--output_dir", str(run_dir)]))
    moved = shutil.move(members[0].parent, members[0].parent.with_name("elsewhere"))
    score(Path(moved) / "ensemble", data_dir, "--ds_tier", "live_main")
    with pytest.raises(UserError, match="an ensemble, which has no weights"):
        load_checkpoint(Path(moved) / "ensemble")


def test_complete_mice_are_not_averaged_again(members, data_dir, capsys):
    run_dir = average(members, data_dir)
    first, second = (locate(run_dir, "responses", name) for name in ("one", "two"))
    content, written = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    average(members, data_dir)
    assert first.stat().st_mtime_ns == written and second.read_bytes() == content
    assert "mouse one: nothing to average" in capsys.readouterr().out
    average(members[:2], data_dir)
    assert first.stat().st_mtime_ns != written


def test_members_with_new_weights_make_an_ensemble_stale(members, data_dir):
    run_dir = average(members, data_dir)
    member(members[1], data_dir, seed=9)
    with pytest.raises(UserError, match="run2 has other weights now"):
        score(run_dir, data_dir)


def other_mice(folder, data_dir):
    locate(folder, "responses", "two").unlink()


def other_neurons(folder, data_dir):
    member(folder, data_dir, seed=2, neurons=slice(0, 9))


def other_skip(folder, data_dir):
    predict(folder, Recording(data_dir / "one"), 2, made={"skip": 10})


def other_trials(folder, data_dir):
    predict(folder, Recording(data_dir / "one"), 2, without="live_main")


def other_units(folder, data_dir):
    predict(folder, Recording(data_dir / "one"), 2, made={"units": "standardised"})


def other_recording(folder, data_dir):
    predict(folder, Recording(data_dir / "one"), 2, made={"recording": "another"})


def new_weights(folder, data_dir):
    mice = load_checkpoint(folder).mice
    info = {"epoch": 2, "step": 2, "validation_correlation": 0.2}
    save_checkpoint(checkpoint_path(folder), {}, mice, {"weight": torch.zeros(1)}, info)


def new_predictions(folder, data_dir):
    predict(folder, Recording(data_dir / "one"), 7)


def no_scores(folder, data_dir):
    locate(folder, "evaluation").unlink()


@pytest.mark.parametrize(
    "spoil, told",
    [
        (other_mice, "run2 predicts mice one, .*run1 mice one, two. Choose common ones with --mouse_ids"),
        (other_neurons, r"run2.*differs from .*run1 in its neurons \(9, 12 there\)"),
        (other_skip, "run2.*differs from .*run1 in the frames left out. Run predict.py on both with the same --skip"),
        (other_trials, r"run2.*differs from .*run1 in its live_main trials \(0, 2 there\)"),
        (other_units, "run2.*scores need recorded units"),
        (other_recording, "run2.*made from another state of .*one"),
        (new_weights, "run2.*made by other weights than those in the run folder. Run predict.py again"),
        (new_predictions, "run2.*lacks the scores of these predictions. Run 'python evaluate.py --output_dir .*run2"),
        (no_scores, "run2.*lacks the scores of these predictions. Run 'python evaluate.py --output_dir .*run2"),
    ],
)
def test_members_that_do_not_fit_together_are_refused(members, data_dir, spoil, told):
    spoil(members[1], data_dir)
    with pytest.raises(UserError, match=told) as refusal:
        average(members, data_dir)
    assert len(str(refusal.value).splitlines()) == 1 and not (members[0].parent / "ensemble").exists()


def test_what_is_no_ensemble_is_refused(members, data_dir):
    for few in (members[:1], [members[0], members[1], members[0]]):
        with pytest.raises(UserError, match="two or more different runs"):
            average(few, data_dir)
    io.write_json(members[2] / "config.json", {})
    with pytest.raises(UserError, match="holds a run of train.py"):
        average(members[:2], data_dir, to=members[2])
    nested = average(members[:2], data_dir)
    with pytest.raises(UserError, match="an ensemble, which has no weights of its own"):
        average([nested, members[2]], data_dir, to=members[0].parent / "nested")


def test_common_mice_and_tiers_can_be_chosen(members, data_dir):
    other_mice(members[1], data_dir)
    other_trials(members[1], data_dir)
    chosen = ("--mouse_ids", "one", "--ds_tier", "validation", "final_main", "--baselines", "0")
    for folder in members:
        score(folder, data_dir, *chosen)
    table = pd.read_csv(locate(average(members, data_dir, *chosen), "ensemble_scores"))
    assert set(table["mouse"]) == {"one"} and {"validation", "final_main"} <= set(table["tier"])
