"""stream.py gives a movie's responses frame by frame, from any source into any sink, and ends in order."""

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_bad_input import ROOT, Case, call, check, snapshot

from viv1t.errors import UserError
from viv1t.inference import load_twin
from viv1t.movies import write_movie
from viv1t.streaming import sources
from viv1t.streaming.protocol import BYE, FRAME, HELLO, RESET, encode
from viv1t.streaming.waiting import Waiting

T = 24
BASE = "stream.py --output_dir run --device cpu"


@pytest.fixture
def folder(causal_run, tmp_path, monkeypatch) -> Path:
    """The working directory: a run, and the same random movie in every form, with behaviour and gaze."""
    shutil.copytree(causal_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    movie = rng.integers(0, 256, (T, 36, 64)).astype(np.uint8)
    np.save("movie.npy", movie)
    np.save("large.npy", np.kron(movie, np.ones((1, 2, 3), np.uint8)).astype(np.float32))
    write_movie("movie.gif", movie)
    for name in ("images", "arrays"):
        Path(name).mkdir()
    for number, frame in enumerate(movie):
        Image.fromarray(frame).save(f"images/frame{number}.png")
        np.save(f"arrays/{number}.npy", frame)
    np.save("behavior.npy", rng.normal(50, 9, (2, T)))
    np.save("pupil.npy", rng.normal(140, 9, (2, T)))
    return tmp_path


@pytest.fixture
def twin(causal_run):
    return load_twin(causal_run, device="cpu")


def offline(twin, frames=None, traces: bool = False) -> dict[str, np.ndarray]:
    """Mouse -> (T, N) of the whole movie at once."""
    movie = np.load("movie.npy")
    movie = movie if frames is None else movie[frames]
    given = [np.load(name)[None] for name in ("behavior.npy", "pupil.npy")] if traces else []
    return {id: twin.respond(id, movie[None, None].astype(np.float32), *given)[0].numpy().T for id in twin.mice}


def same(rates, expected: np.ndarray) -> None:
    rates = np.asarray(rates)
    assert rates.shape == expected.shape
    assert np.abs(rates - expected).max() <= 1e-5 * np.abs(expected).max()


def lines(text: str) -> tuple[dict, list[dict]]:
    header, *frames = map(json.loads, text.splitlines())
    return header, frames


def spawn(*flags: str, **kwargs) -> subprocess.Popen:
    command = [sys.executable, ROOT / "stream.py", "--output_dir", "run", "--device", "cpu", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
    return subprocess.Popen(command, **pipes)


@pytest.mark.parametrize(
    "source", ["movie.npy", "movie.gif", "images", "arrays", "large.npy --resize", "movie.npy --fps 500"]
)
def test_every_source_gives_the_responses_of_the_whole_movie(source, folder, twin, monkeypatch, capsysbinary):
    assert call(f"{BASE} --source {source}", monkeypatch) == 0
    out, error = capsysbinary.readouterr()
    header, frames = lines(out.decode())
    assert [frame["frame"] for frame in frames] == list(range(T))
    assert [frame["first"] for frame in frames] == [True] + [False] * (T - 1)
    for mouse_id, expected in offline(twin).items():
        same([frame["rates"][mouse_id] for frame in frames], expected)
    assert header["checkpoint"] == twin.hash and header["settings"]["source"] == source.split()[0]
    assert [(mouse["id"], mouse["unit_ids"]) for mouse in header["mice"]] == [
        (mouse_id, mouse.unit_ids.tolist()) for mouse_id, mouse in twin.mice.items()
    ]
    assert f"{T} frames shown, 0 dropped, ".encode() in error and b"latency p50" in error and b"MiB" in error


def test_behaviour_and_gaze_are_shown_with_their_frames(folder, twin, monkeypatch):
    command = f"{BASE} --source movie.gif --behavior behavior.npy --pupil_center pupil.npy --out out.jsonl"
    assert call(command, monkeypatch) == 0
    _, frames = lines(Path("out.jsonl").read_text())
    for mouse_id, expected in offline(twin, traces=True).items():
        same([frame["rates"][mouse_id] for frame in frames], expected)


def test_arrays_have_a_row_for_each_frame(folder, twin, monkeypatch):
    Path("rows.txt").write_text("5, 0\n7\n")
    np.save("rows.npy", [1, 6])
    for flags, rows in (
        ("", {"tinyA": slice(None), "tinyB": slice(None)}),
        ("--mouse_ids tinyB --neurons 4", {"tinyB": slice(4)}),
        ("--neurons rows.txt tinyB=3,", {"tinyA": [5, 0, 7], "tinyB": [3]}),
        ("--neurons rows.npy", {"tinyA": [1, 6], "tinyB": [1, 6]}),
    ):
        out = folder / "out"
        assert call(f"{BASE} --source movie.npy --out {out} --report report.json {flags}", monkeypatch) == 0
        names = {f"mouse{mouse_id}.npy" for mouse_id in rows} | {"frames.npy", "times.npy", "session.json"}
        assert {path.name for path in out.iterdir()} == names
        for mouse_id, chosen in rows.items():
            rates = np.load(out / f"mouse{mouse_id}.npy", allow_pickle=False)
            assert rates.dtype == np.float32
            same(rates, offline(twin)[mouse_id][:, chosen])
        assert np.load(out / "frames.npy").tolist() == list(range(T))
        np.testing.assert_allclose(np.load(out / "times.npy"), np.arange(T) / 30)
        session = json.loads((out / "session.json").read_text())
        assert (session["rows"], session["starts"], session["checkpoint"]) == (T, [0], twin.hash)
        report = json.loads(Path("report.json").read_text())
        assert (report["frames"], report["dropped"]) == (T, 0) and report["state_bytes"] > 0
        assert set(report["latency_ms"]) == {"p50", "p95", "p99", "max"}
        shutil.rmtree(out)


def test_a_late_twin_drops_frames_and_says_which(folder, twin, monkeypatch, capsys):
    command = f"{BASE} --source movie.npy --fps 1000 --when_late drop --queue 1 --out out"
    assert call(command, monkeypatch) == 0
    shown = np.load("out/frames.npy")
    assert shown[-1] == T - 1 and (np.diff(shown) > 0).all()
    assert f"{len(shown)} frames shown, {T - len(shown)} dropped" in capsys.readouterr().err
    for mouse_id, expected in offline(twin, shown).items():  # the twin's time is the frames that it saw
        same(np.load(f"out/mouse{mouse_id}.npy"), expected)


def test_messages_on_standard_input(folder, twin):
    movie = np.load("movie.npy")
    messages = [encode(FRAME, {"frame": i, "time": i / 10}, frame.tobytes()) for i, frame in enumerate(movie)]
    messages[10:10] = [encode(RESET, {})]
    messages = [encode(HELLO, {"mouse_ids": ["tinyB"], "neurons": {"tinyB": [2, 1]}}), *messages, encode(BYE, {})]
    done = spawn("--source", "-", "--out", "out", stdin=subprocess.PIPE)
    _, error = done.communicate(b"".join(messages) + b"never read", timeout=60)
    assert done.returncode == 0 and error.startswith(b"24 frames shown"), error
    parts = [offline(twin, part)["tinyB"][:, [2, 1]] for part in (slice(10), slice(10, None))]
    same(np.load("out/mousetinyB.npy"), np.concatenate(parts))
    assert json.loads(Path("out/session.json").read_text())["starts"] == [0, 10]
    np.testing.assert_allclose(np.load("out/times.npy"), np.arange(T) / 10)


def test_sigterm_leaves_the_lines_that_were_written(folder, twin):
    movie = np.tile(np.load("movie.npy"), (100, 1, 1))
    np.save("long.npy", movie)
    process = spawn("--source", "long.npy", "--out", "out.jsonl", "--fps", "100")
    written, end = Path("out.jsonl"), time.monotonic() + 60
    while not (written.exists() and written.stat().st_size > 4000) and time.monotonic() < end:
        time.sleep(0.02)
    process.terminate()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM and b"frames shown, 0 dropped" in error, error
    _, frames = lines(written.read_text())
    assert 0 < len(frames) == int(error.split()[0]) < len(movie)
    for mouse_id in twin.mice:
        expected = twin.respond(mouse_id, movie[None, None, : len(frames)].astype(np.float32))[0].numpy().T
        same([frame["rates"][mouse_id] for frame in frames], expected)


def test_ctrl_c_leaves_the_rows_that_were_written(folder, twin, monkeypatch, capsys):
    movie = np.tile(np.load("movie.npy"), (100, 1, 1))
    np.save("long.npy", movie)

    def press() -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            growing = list(Path("out").glob(".frames.npy.*"))
            if growing and growing[0].stat().st_size > 300:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.01)

    finger = threading.Thread(target=press)
    finger.start()
    assert call(f"{BASE} --source long.npy --fps 100 --out out", monkeypatch) == 128 + signal.SIGINT
    finger.join()
    shown = int(capsys.readouterr().err.split()[0])
    assert 0 < shown < len(movie) and len(np.load("out/frames.npy")) == shown
    assert not list(Path("out").glob(".*"))
    for mouse_id in twin.mice:
        expected = twin.respond(mouse_id, movie[None, None, :shown].astype(np.float32))[0].numpy().T
        same(np.load(f"out/mouse{mouse_id}.npy"), expected)


@pytest.mark.parametrize("out, room", [("out.jsonl", 9000), ("out", 600)])
def test_a_full_disk_leaves_what_was_complete(out, room, folder, twin, monkeypatch, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        code = call(f"{BASE} --source movie.npy --out {out}", monkeypatch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    *_, error = capsys.readouterr().err.splitlines()
    check(code, error, "stream.py", (f"{out}", "Free some space"))
    if out == "out":
        rates = np.load("out/mousetinyB.npy")
    else:
        rates = np.array([frame["rates"]["tinyB"] for frame in lines(Path(out).read_text())[1]])
    assert 0 < len(rates) < T
    same(rates, offline(twin, slice(len(rates)))["tinyB"])


def test_a_reader_that_has_seen_enough(folder):
    process = spawn("--source", "movie.npy", "--fps", "100")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert b"frames shown" in (error := process.stderr.read()) and b"Traceback" not in error, error
    process.stderr.close()


def test_a_server_and_the_example_client(folder):
    process = spawn("--source", "unix://rig.sock", "--report", "report.json")
    end = time.monotonic() + 60
    while not Path("rig.sock").exists() and time.monotonic() < end:
        time.sleep(0.05)
    client = [sys.executable, ROOT / "examples" / "rig_client.py", "unix://rig.sock", "--mouse_ids", "tinyA"]
    for flags in (["--seconds", "0.2"], ["--movie", "movie.npy", "--fps", "200"]):
        done = subprocess.run([*client, *flags], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        said, *neurons = done.stdout.splitlines()
        assert "frames answered; round trip p50" in said and len(neurons) == 5
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 0 and not Path("rig.sock").exists(), error
    assert b"listening on unix://rig.sock" in error and b"said bye (24 frames, 0 dropped, p50" in error
    assert json.loads(Path("report.json").read_text())["frames"] == T + 6


class TestLive:
    """Sources as a rig has them, without a twin."""

    FRAMES = [sources.Frame(number, np.zeros((2, 2), np.uint8)) for number in range(6)]

    def test_frames_come_at_their_pace(self):
        shown = list(sources.live(self.FRAMES, 50, Waiting(8, "queue"), lambda: False))
        assert [frame.number for _, frame in shown] == list(range(6))
        np.testing.assert_allclose(np.diff([arrived for arrived, _ in shown]), 0.02, atol=1e-6)

    def test_a_slow_reader_gets_all_frames_or_the_latest(self):
        for when_late in ("queue", "drop"):
            waiting, seen = Waiting(1, when_late), []
            for _, frame in sources.live(self.FRAMES, 0, waiting, lambda: False):
                seen.append(frame.number)
                time.sleep(0.1)
            assert seen[-1] == 5 and len(seen) + waiting.dropped == 6
            assert waiting.dropped if when_late == "drop" else seen == list(range(6))

    def test_an_error_of_the_source_comes_after_its_frames(self):
        def failing():
            yield from self.FRAMES
            raise UserError("the camera fell over")

        seen = []
        with pytest.raises(UserError, match="fell over"):
            for _, frame in sources.live(failing(), 0, Waiting(8, "queue"), lambda: False):
                seen.append(frame.number)
        assert seen == list(range(6))

    def test_a_stop_is_seen_while_nothing_comes(self):
        def silent():
            time.sleep(30)
            yield self.FRAMES[0]

        end = time.monotonic() + 0.3
        assert list(sources.live(silent(), 0, Waiting(8, "queue"), lambda: time.monotonic() > end)) == []


def spoil_image(number: int, **kwargs) -> None:
    Image.new(**kwargs).save(f"images/frame{number}.png")


def set_frame(value, dtype=np.float32) -> None:
    movie = np.load("movie.npy").astype(dtype)
    movie[7, 3, 5] = value
    np.save("movie.npy", movie)


BAD = [
    Case("no such source", f"{BASE} --source none.npy", ("--source none.npy", "tcp://HOST:PORT")),
    Case("not a movie", f"{BASE} --source run/ckpt/best.pt", ("best.pt: not a movie", ".mp4")),
    Case("no such run", "stream.py --output_dir none --source movie.npy", ("none: no such run folder", "train.py")),
    Case("frames of another size", f"{BASE} --source large.npy", ("large.npy", "72 x 192", "Use --resize")),
    Case(
        "a video of another size", f"{BASE} --source small.gif", ("small.gif", "18 x 32 pixels", "Use --resize"),
        lambda: write_movie("small.gif", np.zeros((3, 18, 32), np.uint8)),
    ),
    Case(
        "frames last", f"{BASE} --source movie.npy", ("movie.npy: has (36, 64, 24), frames last",),
        lambda: np.save("movie.npy", np.load("movie.npy").transpose(1, 2, 0)),
    ),
    Case(
        "a movie in colour", f"{BASE} --source movie.npy", ("must hold grey levels (frames, height, width)",),
        lambda: np.save("movie.npy", np.zeros((4, 36, 64, 3), np.uint8)),
    ),
    Case(
        "a movie of objects", f"{BASE} --source movie.npy", ("movie.npy: holds Python objects",),
        lambda: np.save("movie.npy", np.array([None]), allow_pickle=True),
    ),
    Case("a torn movie", f"{BASE} --source movie.npy", ("movie.npy: truncated",),
         lambda: Path("movie.npy").write_bytes(Path("movie.npy").read_bytes()[:-9])),
    Case("a torn video", f"{BASE} --source movie.mp4", ("movie.mp4: ffmpeg cannot read it",),
         lambda: Path("movie.mp4").write_bytes(b"no movie")),
    Case("behaviour of another length", f"{BASE} --source movie.npy --behavior short.npy",
         ("short.npy: has shape (2, 23); the movie has 24 frames, so it must be (2, 24)",),
         lambda: np.save("short.npy", np.zeros((2, T - 1)))),
    Case("behaviour of another length, counted in a video", f"{BASE} --source movie.gif --pupil_center short.npy",
         ("short.npy: has shape (24, 2); the movie has 24 frames",), lambda: np.save("short.npy", np.zeros((T, 2)))),
    Case("behaviour with a gap", f"{BASE} --source movie.npy --behavior gap.npy", ("gap.npy", "at frame 3", "Fill"),
         lambda: np.save("gap.npy", np.where(np.arange(T) == 3, np.nan, np.zeros((2, T))))),
    Case("no such behaviour", f"{BASE} --source movie.npy --behavior none.npy", ("none.npy: no such file",)),
    Case("an empty folder", f"{BASE} --source empty", ("empty: no frames here",), lambda: Path("empty").mkdir()),
    Case("a folder of both", f"{BASE} --source images", ("images: holds images and .npy frames",),
         lambda: np.save("images/0.npy", np.zeros((36, 64)))),
    Case("images of another size", f"{BASE} --source images", ("images/frame0.png: frames of 9 x 8", "Use --resize"),
         lambda: spoil_image(0, mode="L", size=(8, 9))),
    Case("images of 16 bits", f"{BASE} --source images", ("images/frame0.png: more than 8 bits",),
         lambda: spoil_image(0, mode="I;16", size=(64, 36))),
    Case("a broken image", f"{BASE} --source images", ("images/frame0.png: not a readable image",),
         lambda: Path("images/frame0.png").write_bytes(b"PNG")),
    Case("frames of three axes", f"{BASE} --source arrays", ("arrays/0.npy: must hold grey levels (height, width)",),
         lambda: np.save("arrays/0.npy", np.zeros((1, 36, 64)))),
    Case("an output that exists", f"{BASE} --source movie.npy --out movie.npy/x", ("another",)),
    Case("an array as output", f"{BASE} --source movie.npy --out out.npy", ("--out out.npy", "folder of arrays")),
    Case("a folder that exists", f"{BASE} --source movie.npy --out images", ("--out images: exists already",)),
    Case("lines that exist", f"{BASE} --source movie.npy --out old.jsonl", ("--out old.jsonl: exists already",),
         lambda: Path("old.jsonl").write_text("{}")),
    Case("lines in no folder", f"{BASE} --source movie.npy --out none/o.jsonl", ("there is no folder none",)),
    Case("a mouse outside the run", f"{BASE} --source movie.npy --mouse_ids tinyC", ("did you mean 'tinyB'",)),
    Case("inputs of nobody", f"{BASE} --source movie.npy --inputs_of tinyC", ("mouse tinyC is not part",)),
    Case("too many neurons", f"{BASE} --source movie.npy --neurons 9", ("--neurons 9: mouse tinyA has 8 neurons",)),
    Case("too high a neuron", f"{BASE} --source movie.npy --neurons tinyB=0,11", ("tinyB has 11 neurons, 0 to 10",)),
    Case("a neuron twice", f"{BASE} --source movie.npy --neurons 1,1", ("name each once",)),
    Case("neurons that are words", f"{BASE} --source movie.npy --neurons best", ("--neurons best: neither a count",)),
    Case("neurons that are floats", f"{BASE} --source movie.npy --neurons n.npy", ("n.npy: holds float64",),
         lambda: np.save("n.npy", [0.5])),
    Case("neurons of nobody", f"{BASE} --source movie.npy --neurons tinyC=3", ("mouse tinyC is not part",)),
    Case("a server for everybody", f"{BASE} --source tcp://0.0.0.0:0", ("--allow_remote",)),
    Case("a server without port", f"{BASE} --source tcp://127.0.0.1", ("write tcp://HOST:PORT",)),
    Case("a server in place of a file", f"{BASE} --source unix://movie.npy", ("is no socket; it is left alone",)),
    Case("behaviour for a server", f"{BASE} --source tcp://127.0.0.1:0 --behavior behavior.npy",
         ("--behavior does not go with --source tcp://",)),
    Case("clients for a movie", f"{BASE} --source movie.npy --max_clients 2", ("--max_clients does not go",)),
    Case("a pace for messages", f"{BASE} --source - --fps 30", ("--fps does not go with --source -",)),
    Case("no clients", f"{BASE} --source tcp://127.0.0.1:0 --max_clients 0", ("--max_clients: 0 is outside",)),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_input_costs_one_line_and_touches_nothing(case, folder, monkeypatch, capsys):
    case.spoil()
    before = snapshot(folder)
    code = call(case.command, monkeypatch)
    check(code, capsys.readouterr().err, "stream.py", case.says)
    assert snapshot(folder) == before


LATER = [
    Case("NaN in a frame", f"{BASE} --source movie.npy --out out", ("movie.npy, frame 7: grey levels",),
         lambda: set_frame(np.nan)),
    Case("a frame too bright", f"{BASE} --source movie.npy --out out", ("frame 7: grey levels", "0..255"),
         lambda: set_frame(256)),
    Case("a negative frame", f"{BASE} --source movie.npy --out out", ("frame 7: grey levels", "0..255"),
         lambda: set_frame(-1, np.int16)),
    Case("mixed sizes", f"{BASE} --source images --out out", ("images/frame7.png: 9 x 8 pixels", "one size"),
         lambda: spoil_image(7, mode="L", size=(8, 9))),
    Case("a broken image later", f"{BASE} --source images --out out --fps 500", ("frame7.png: not a readable image",),
         lambda: Path("images/frame7.png").write_bytes(b"PNG")),
]  # fmt: skip


@pytest.mark.parametrize("case", LATER, ids=lambda case: case.name)
def test_bad_frames_end_a_session_that_keeps_the_good_ones(case, folder, twin, monkeypatch, capsys):
    expected = offline(twin)
    case.spoil()
    code = call(case.command, monkeypatch)
    summary, *error = capsys.readouterr().err.splitlines(keepends=True)
    check(code, "".join(error), "stream.py", case.says)
    assert summary.startswith("7 frames shown")
    for mouse_id, rates in expected.items():
        same(np.load(f"out/mouse{mouse_id}.npy"), rates[:7])


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "ended before a hello"),
        (encode(HELLO, {})[:9], "ended in the middle of a message"),
        (b"x" * 100, "begins with"),
        (encode(FRAME, {"frame": 0}), "frame before the hello"),
        (encode(HELLO, {}) + encode(FRAME, {"frame": 0}, b"x"), "frame 0 has 1 bytes"),
        (encode(HELLO, {}) + encode(FRAME, {"frame": 0}, bytes(2304))[:-5], "in the middle of a message"),
    ],
)
def test_bad_messages_on_standard_input_are_named(data, words):
    with pytest.raises(UserError, match=f"standard input.*{words}"):
        list(sources.MessageReader(io.BytesIO(data), (36, 64)))
