"""Scores of whole runs: beside ceilings and baselines, and nothing is left out in silence."""

import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import evaluate
import report
from viv1t import baselines, scoring
from viv1t.checkpoint import checkpoint_path, save_checkpoint
from viv1t.data.cache import open_cache
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.inference import file_hash
from viv1t.results import Responses, locate, write_responses

ROOT = Path(__file__).parents[1]
N = 12


@pytest.fixture(autouse=True)
def few_components(monkeypatch):
    """Random movies have no structure to keep; a few components make the baselines fast."""
    monkeypatch.setattr(baselines, "COMPONENTS", 5)


@pytest.fixture(scope="module")
def data_dir(make_module_recording):
    """A mouse whose responses are a rate per clip, known as truth, and noise."""
    folder = make_module_recording(num_neurons=N, num_train=8, frames=(120, 130), withheld=("final_test_bonus",))
    recording = Recording(folder)
    rng = np.random.default_rng(0)
    (folder / "truth" / "rates").mkdir(parents=True)
    rates = {}
    for i in recording.usable:
        clip = int(recording.video_ids[i])
        rate = rates.setdefault(clip, rng.gamma(0.5, 4, (N, 130)))[:, : recording.frames(i)]
        np.save(folder / "truth" / "rates" / f"{i}.npy", rate.astype(np.float16))
        if recording.tiers[i] != "final_bonus":
            noisy = rate + rng.normal(0, 6, rate.shape)
            np.save(folder / "data" / "responses" / f"{i}.npy", noisy.astype(np.float32))
    return folder.parent


@pytest.fixture(scope="module")
def make_module_recording(tmp_path_factory):
    from conftest import write_recording

    return lambda **kwargs: write_recording(tmp_path_factory.mktemp("data") / "lab" / "mouse", **kwargs)


@pytest.fixture
def run_dir(data_dir, tmp_path):
    """A run whose predictions are the true rate plus an error; its weights are never used."""
    run_dir = tmp_path / "run"
    recording = Recording(data_dir / "mouse")
    mouse = open_cache(recording).mouse()
    info = {"epoch": 1, "step": 1, "validation_correlation": 0.1}
    save_checkpoint(checkpoint_path(run_dir), {}, {"mouse": mouse}, {"weight": torch.zeros(1)}, info)
    write(run_dir, recording, error=2.0)
    return run_dir


def write(run_dir: Path, recording: Recording, error: float, attributes: dict | None = None) -> None:
    rng = np.random.default_rng(1)
    made = {
        "checkpoint": file_hash(checkpoint_path(run_dir)),
        "recording": recording.fingerprint,
        "skip": 0,
        "units": "recorded",
        "precision": "32",
    }
    trials = [i for i in recording.usable if recording.tiers[i] != "train"]
    rates = {i: recording.truth_rates(i) for i in trials}
    responses = ((i, str(recording.tiers[i]), r + error * rng.standard_normal(r.shape)) for i, r in rates.items())
    write_responses(locate(run_dir, "responses", "mouse"), responses, made | (attributes or {}))


def run(run_dir, data_dir, *flags):
    arguments = ["--output_dir", str(run_dir), "--data_dir", str(data_dir), *map(str, flags)]
    evaluate.main(evaluate.get_parser().parse_args(arguments))
    return json.loads((run_dir / "evaluation_tiers.json").read_text())


def test_the_true_rate_is_the_ceiling_and_baselines_are_scored(run_dir, data_dir, capsys):
    scores = run(run_dir, data_dir)["mice"]["mouse"]
    assert set(scores) >= {"validation", "live_main", "live_bonus", "final_main"}
    for tier in ("validation", "live_main"):
        s = scores[tier]
        assert s["ceiling"] == "true_rate" and s["neurons"] == N and s["trials"] == 2 and not s["beats_true_rate"]
        assert 0.5 < s["ratio_to_ceiling"]["low"] < s["ratio_to_ceiling"]["mean"] < 1
        low, mean, high = (s["challenge_correlation"][key] for key in ("low", "mean", "high"))
        assert low < mean < high < s["true_rate"]["mean"] + 0.1
        assert abs(s["baseline_mean"]["mean"]) < 1e-6
        assert all(s[f"baseline_{name}"]["n"] == N for name in ("behavior", "linear_nonlinear"))
    printed = capsys.readouterr().out
    assert re.search("final_bonus +not scored: responses withheld", printed) and "WARNING" not in printed


def test_the_table_of_neurons_holds_the_competitions_score(run_dir, data_dir):
    run(run_dir, data_dir, "--ds_tier", "live_main", "--baselines", 0)
    table = pd.read_csv(run_dir / "evaluation_neurons.csv")
    recording = Recording(data_dir / "mouse")
    with Responses(locate(run_dir, "responses", "mouse")) as file:
        trials = file.trial_ids("live_main")
        pred = np.concatenate([file.read(i)[:, 50:] for i in trials], axis=1)
    true = np.concatenate([recording.trial(i).responses[:, 50:] for i in trials], axis=1)
    expected = [np.corrcoef(t, p)[0, 1] for t, p in zip(true, pred, strict=True)]
    np.testing.assert_allclose(table["challenge_correlation"], expected, atol=1e-4)
    assert table["baseline_mean"].isna().all() and (table["unit_id"] == recording.unit_ids).all()


def test_without_repeats_scores_are_missing_not_wrong(run_dir, data_dir):
    s = run(run_dir, data_dir, "--ds_tier", "final_main")["mice"]["mouse"]["final_main"]
    for name in ("normalized_correlation", "feve", "oracle", "cc_max"):
        assert s[name]["mean"] is None and s[name]["n"] == 0 and s[name]["excluded"] == N and s[name]["reason"]


def test_a_second_run_computes_nothing_and_new_predictions_do(run_dir, data_dir, monkeypatch):
    first = run(run_dir, data_dir)
    before = (run_dir / "evaluation_tiers.json").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score", None)
        assert run(run_dir, data_dir) == first
    assert (run_dir / "evaluation_tiers.json").stat().st_mtime_ns == before
    write(run_dir, Recording(data_dir / "mouse"), error=20.0)
    fitted = (run_dir / "baselines" / "mousemouse.npz").stat().st_mtime_ns
    second = run(run_dir, data_dir)["mice"]["mouse"]["live_main"]["challenge_correlation"]["mean"]
    assert second < first["mice"]["mouse"]["live_main"]["challenge_correlation"]["mean"]
    assert (run_dir / "baselines" / "mousemouse.npz").stat().st_mtime_ns == fitted


def test_a_twin_that_beats_the_true_rate_is_called_out(run_dir, data_dir, capsys):
    recording = Recording(data_dir / "mouse")
    made = {"checkpoint": file_hash(checkpoint_path(run_dir)), "recording": recording.fingerprint, "units": "recorded"}
    leaking = ((int(i), "live_main", recording.trial(i).responses) for i in recording.trial_ids("live_main"))
    write_responses(locate(run_dir, "responses", "mouse"), leaking, made | {"skip": 0, "precision": "32"})
    assert run(run_dir, data_dir)["mice"]["mouse"]["live_main"]["beats_true_rate"]
    assert "better than the true rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    "made, told",
    [
        ({"checkpoint": "another"}, "other weights"),
        ({"recording": "another"}, "another state"),
        ({"units": "standardised"}, "recorded units"),
        ({"skip": 60}, "frames from 50 on"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(run_dir, data_dir, made, told):
    write(run_dir, Recording(data_dir / "mouse"), error=1.0, attributes=made)
    with pytest.raises(UserError, match=told):
        run(run_dir, data_dir)


def test_missing_predictions_name_the_command(run_dir, data_dir):
    shutil.rmtree(run_dir / "responses")
    with pytest.raises(UserError, match="predict.py --output_dir"):
        run(run_dir, data_dir)


def draw(script: str, run_dir: Path, *flags) -> None:
    """Run one of misc/*.py."""
    names = runpy.run_path(str(ROOT / "misc" / f"{script}.py"))
    names["main"](names["get_parser"]().parse_args(["--output_dir", str(run_dir), *map(str, flags)]))


def test_figures_come_with_the_numbers_drawn(run_dir, data_dir):
    run(run_dir, data_dir)
    draw("visualize_performance", run_dir)
    draw("visualize_traces", run_dir, "--data_dir", data_dir)
    figures = run_dir / "figures"
    assert {path.name for path in figures.glob("*.p*")} == {
        f"{name}.{kind}" for name in ("performance", "traces_mousemouse") for kind in ("pdf", "png")
    }
    traces = pd.read_csv(figures / "traces_mousemouse.csv")
    single = traces[traces["trace"].str.startswith("trial")].groupby(["neuron", "second"])["response"].mean()
    mean = traces[traces["trace"] == "recorded mean"].set_index(["neuron", "second"])["response"].sort_index()
    np.testing.assert_allclose(single.to_numpy(), mean.to_numpy(), rtol=1e-3, atol=1e-3)
    assert {"twin", "true rate"} <= set(traces["trace"])
    assert len(pd.read_csv(figures / "performance.csv")) == len(pd.read_csv(run_dir / "evaluation_neurons.csv"))


def test_report_needs_no_other_file(run_dir, data_dir):
    run(run_dir, data_dir)
    draw("visualize_performance", run_dir)
    arguments = ["--output_dir", str(run_dir)]
    report.main(report.get_parser().parse_args(arguments))
    html = (run_dir / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 1 and 'href="figures/performance.csv"' in html
    assert "live_main" in html and "true rate" in html and "<script" not in html and 'src="http' not in html
    quarters = html[html.index("By quarter, tier live_main") :]
    assert quarters.index("quarter 1") < quarters.index("quarter 4") and "By imaging plane" in html
