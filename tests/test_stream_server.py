"""A server answers every rig as the twin would offline, whatever other rigs do, and never holds more than it says."""

import ast
import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_stream_protocol import BAD, mutated

from viv1t.errors import UserError
from viv1t.inference import load_twin
from viv1t.streaming import address, protocol
from viv1t.streaming.protocol import BYE, FRAME, HELLO, RESET, encode
from viv1t.streaming.server import Rules, Server
from viv1t.streaming.state import Stream

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
from rig_client import Twin as Rig  # noqa: E402

sys.path.pop(0)
SECONDS = 20  # that anything may take before a test fails


@pytest.fixture(scope="module")
def twin(causal_run):
    return load_twin(causal_run, device="cpu")


def movie(frames: int, seed: int = 0, size: tuple[int, int] = (36, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, *size)).astype(np.uint8)


def offline(twin, frames: np.ndarray, mouse_ids=("tinyA", "tinyB"), **kwargs) -> np.ndarray:
    """(T, N) of the mice, one after the other."""
    video = frames[None, None].astype(np.float32)
    return np.concatenate([twin.respond(mouse_id, video, **kwargs)[0].numpy().T for mouse_id in mouse_ids], axis=1)


def same(rates: np.ndarray, expected: np.ndarray) -> None:
    assert rates.shape == expected.shape and rates.dtype == np.float32
    assert np.abs(rates - expected).max() <= 1e-5 * np.abs(expected).max()


class Running:
    """A server in a thread; `log` is what it has said."""

    def __init__(self, twin, place: str = "tcp://127.0.0.1:0", open_stream=None, send_buffer: int = 0, **rules):
        self.log, self.twin, self.send_buffer = [], twin, send_buffer
        self.server = Server(open_stream or self.open_stream, (36, 64), twin.hash, Rules(**rules), self.log.append)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(place)))
        self.ready = threading.Event()

    def open_stream(self, hello) -> Stream:
        return Stream(self.twin, hello.mouse_ids, hello.neurons, hello.inputs_of)

    async def _serve(self, place: str) -> None:
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        with address.listening(place) as listening:
            self.address = address.name_of(listening)
            if self.send_buffer:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)
            self.ready.set()
            await self.server.serve(listening, self.stop)

    def __enter__(self) -> "Running":
        self.thread.start()
        assert self.ready.wait(SECONDS)
        return self

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()

    def __exit__(self, *_) -> None:
        if self.thread.is_alive():
            self.close()

    def rig(self, **hello) -> Rig:
        rig = Rig(self.address, **hello)
        rig.socket.settimeout(SECONDS)
        return rig

    def connect(self) -> socket.socket:
        host, port = self.address.removeprefix("tcp://").split(":")
        return socket.create_connection((host, int(port)), timeout=SECONDS)

    def said(self, words: str) -> str:
        """Wait for a line of the log."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for line in list(self.log):
                if words in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"'{words}' was never said: {self.log}")


class Slow(Stream):
    """A twin that needs a tenth of a second for a frame."""

    def step(self, *args):
        time.sleep(0.1)
        return super().step(*args)


def ask(rig: Rig, frames: np.ndarray, first: int = 0, **traces) -> np.ndarray:
    """(T, N), one frame after the other."""
    answers = []
    for number, frame in enumerate(frames, first):
        rig.show(number, frame, **{name: trace[:, number].tolist() for name, trace in traces.items()})
        header, rates = rig.receive()
        assert header["frame"] == number and header["dropped"] == 0
        answers.append(rates)
    return np.stack(answers)


def error_of(connection: socket.socket) -> str:
    """The code with which the server takes its leave; "" if it leaves without a word."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            data += part
    while data:
        _, _, kind, _, header, body = protocol.PREFIX.unpack(data[:16])
        if kind == protocol.ERROR:
            return json.loads(data[16 : 16 + header])["code"]
        data = data[16 + header + body :]
    return ""


@pytest.fixture(scope="module")
def running(twin):
    with Running(twin, clients=8, timeout=30) as running:
        yield running


class TestAnswers:
    def test_are_those_of_the_whole_movie_at_once(self, running, twin):
        rng, frames = np.random.default_rng(1), movie(30)
        traces = {"behavior": rng.normal(50, 9, (2, 30)), "pupil_center": rng.normal(140, 9, (2, 30))}
        with running.rig(client="rig 1") as rig:
            rates = ask(rig, frames, **traces)
        same(rates, offline(twin, frames, **{name: trace[None] for name, trace in traces.items()}))
        assert np.ptp(rates, axis=0).min() > 1e-3 * rates.max()  # a constant would prove nothing
        assert "rig 1" in running.said("rig 1, 2 mice")

    def test_come_with_all_that_a_rig_must_know(self, running, twin):
        with running.rig(mouse_ids=["tinyB"], neurons={"tinyB": [4, 0]}) as rig:
            told = rig.welcome
            rig.show(0, movie(1)[0], time=1.25)
            header, rates = rig.receive()
        units = twin.mice["tinyB"].unit_ids[[4, 0]].tolist()
        assert told["mice"] == [{"id": "tinyB", "neurons": [4, 0], "unit_ids": units}]
        assert (told["frame_size"], told["fps"], told["units"]) == ([36, 64], 30, "recorded")
        assert told["checkpoint"] == twin.hash and told["state_bytes"] > 0
        assert told["limits"] == {"header_bytes": 4096, "waiting_frames": 8, "when_late": "queue", "timeout_s": 30}
        assert (header["frame"], header["time"], header["shown"], header["dropped"]) == (0, 1.25, 1, 0)
        assert 0 < header["step_ms"] <= header["latency_ms"] and rates.shape == (2,)

    def test_of_some_neurons_through_the_eyes_of_one_mouse(self, running, twin):
        frames = movie(5)
        with running.rig(mouse_ids=["tinyA", "tinyB"], neurons={"tinyB": [9, 2]}, inputs_of="tinyA") as rig:
            rates = ask(rig, frames)
        stream = Stream(twin, ["tinyA", "tinyB"], {"tinyB": [9, 2]}, "tinyA")
        expected = [stream.step(frame) for frame in frames]
        same(rates, np.stack([np.concatenate([now["tinyA"], now["tinyB"]]) for now in expected]))

    def test_of_floats_are_those_of_bytes(self, running, twin):
        frames = movie(4)
        with running.rig(white=1.0) as rig:
            for number, frame in enumerate(frames):
                body = (frame / 255).astype("<f4").tobytes()
                rig.send(FRAME, {"frame": number, "pixels": "float32"}, body)
            rates = np.stack([rig.receive()[1] for _ in frames])
        same(rates, offline(twin, frames))

    def test_begin_anew_after_a_reset(self, running, twin):
        frames = movie(12)
        with running.rig() as rig:
            ask(rig, frames[:7])
            rig.send(RESET, {})
            rates = ask(rig, frames[7:])
        same(rates, offline(twin, frames[7:]))

    def test_do_not_depend_on_other_rigs(self, running, twin):
        movies, rates = [movie(20, seed) for seed in range(3)], {}

        def show(seed: int) -> None:
            with running.rig(mouse_ids=["tinyA"]) as rig:
                rates[seed] = ask(rig, movies[seed])

        threads = [threading.Thread(target=show, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        for seed in range(3):
            same(rates[seed], offline(twin, movies[seed], ("tinyA",)))

    def test_all_come_after_a_goodbye(self, running, twin):
        frames = movie(40)  # more than may wait
        with running.rig(mouse_ids=["tinyA"]) as rig:
            sender = threading.Thread(
                target=lambda: [rig.show(i, frame) for i, frame in enumerate(frames)] + [rig.bye()]
            )
            sender.start()
            rates = [rig.receive()[1] for _ in frames]
            sender.join(SECONDS)
            with pytest.raises(EOFError):
                rig.receive()
        same(np.stack(rates), offline(twin, frames, ("tinyA",)))
        assert "(40 frames, 0 dropped, p50" in running.said("said bye (40 frames")

    def test_to_dropped_frames_never_come_and_their_number_is_told(self, twin):
        frames = movie(60)
        slow = Slow(twin, ["tinyA"])
        with Running(twin, open_stream=lambda hello: slow, when_late="drop", queue=2) as running, running.rig() as rig:
            messages = [encode(FRAME, {"frame": i}, frame.tobytes()) for i, frame in enumerate(frames)]
            rig.socket.sendall(b"".join(messages) + encode(BYE, {}))
            answers = []
            with contextlib.suppress(EOFError):
                while True:
                    answers.append(rig.receive())
        shown = [header["frame"] for header, _ in answers]
        assert shown == sorted(set(shown)) and shown[-1] == 59 and len(shown) < 60
        assert answers[-1][0]["dropped"] == 60 - len(shown)
        assert [header["shown"] for header, _ in answers] == list(range(1, len(shown) + 1))
        same(np.stack([rates for _, rates in answers]), offline(twin, frames[shown], ("tinyA",)))

    def test_to_frames_of_another_size_are_those_to_their_averages(self, twin):
        frames = movie(3, size=(72, 64))
        with Running(twin, resize=True) as running, running.rig(frame_size=[72, 64], mouse_ids=["tinyA"]) as rig:
            rates = ask(rig, frames)
        same(rates, offline(twin, frames.reshape(3, 36, 2, 64).mean(axis=2), ("tinyA",)))


class TestTrouble:
    @pytest.mark.parametrize("name", BAD)
    def test_bad_messages_end_the_connection_with_a_reason(self, name, running):
        data, code, words = BAD[name]
        with running.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            port = connection.getsockname()[1]
            assert error_of(connection) == code
        assert words in running.said(f":{port}: {code}")

    def test_mice_and_neurons_that_do_not_exist(self, running):
        for hello, words in (
            ({"mouse_ids": ["tinyC"]}, "mouse tinyC is not part of this run"),
            ({"neurons": {"tinyA": [8]}}, "0 to 7"),
            ({"mouse_ids": ["tinyA"], "neurons": {"tinyB": [0]}}, "tinyB"),
        ):
            with pytest.raises(ConnectionError, match=f"bad_hello: .*{words}"):
                running.rig(**hello)

    def test_hundreds_of_strangers_do_not_disturb_a_rig(self, twin):
        frames, rates = movie(300), []
        good = [encode(HELLO, {"client": "stranger", "mouse_ids": ["tinyA"]}), encode(RESET, {}), encode(BYE, {})]
        good += [
            encode(FRAME, {"frame": i, "behavior": [1, 2]}, frame.tobytes()) for i, frame in enumerate(frames[:2])
        ]

        def visit(seeds) -> None:
            for seed in seeds:
                with contextlib.suppress(ConnectionError), running.connect() as connection:
                    connection.sendall(mutated(good, np.random.default_rng([4, seed])))
                    if seed % 2:
                        connection.shutdown(socket.SHUT_WR)
                        connection.recv(100)

        with Running(twin, clients=1000, timeout=30) as running, running.rig() as rig:
            strangers = [threading.Thread(target=visit, args=(range(first, 400, 4),)) for first in range(4)]
            for stranger in strangers:
                stranger.start()
            for number in range(300):
                rates.append(ask(rig, frames[number : number + 1], first=number)[0])
            for stranger in strangers:
                stranger.join(SECONDS)
            with running.rig() as another:
                same(ask(another, frames[:3]), offline(twin, frames[:3]))
        same(np.stack(rates), offline(twin, frames))
        assert running.server.connections == 402
        assert not [line for line in running.log if "internal" in line or "refused" in line]

    def test_half_a_message_is_waited_for_until_the_timeout(self, twin):
        with Running(twin, timeout=0.3) as running:
            for sent, words in (
                (b"", "timeout: nothing came for 0.3 s"),
                (b"ViV", "timeout: a message was not complete after 0.3 s"),
                (encode(HELLO, {"client": "rig"})[:-1], "timeout: a message was not complete"),
                (
                    encode(HELLO, {}) + encode(FRAME, {"frame": 0}, bytes(2304))[:-100],
                    "timeout: a message was not com",
                ),
                (encode(HELLO, {}), "timeout: nothing came for 0.3 s"),
            ):
                running.log.clear()
                with running.connect() as connection:
                    connection.sendall(sent)
                    assert error_of(connection) == "timeout"
                running.said(words)

    def test_a_rig_that_waits_for_its_answer_is_not_silent(self, twin):
        slow = Slow(twin)
        with Running(twin, open_stream=lambda hello: slow, timeout=0.05) as running, running.rig() as rig:
            rig.show(0, movie(1)[0])
            rig.show(1, movie(1)[0])
            assert [rig.receive()[0]["frame"] for _ in range(2)] == [0, 1]

    def test_answers_that_nobody_reads_are_not_kept(self, twin):
        frame = encode(RESET, {}) + encode(FRAME, {"frame": 0}, movie(1)[0].tobytes())
        with Running(twin, timeout=0.5, send_buffer=4096) as running, socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.settimeout(SECONDS)
            host, port = running.address.removeprefix("tcp://").split(":")
            deaf.connect((host, int(port)))

            def talk() -> None:
                with contextlib.suppress(OSError):
                    deaf.sendall(encode(HELLO, {}) + frame * 3000)

            talker = threading.Thread(target=talk)
            talker.start()
            running.said("timeout: answers were not read for 0.5 s")
            talker.join(SECONDS)
            with running.rig() as rig:
                assert len(ask(rig, movie(2))) == 2

    def test_rigs_that_vanish_are_noticed_and_make_room(self, twin):
        with Running(twin, clients=1) as running:
            for sent, words in (
                (b"", "vanished (0 frames"),
                (encode(HELLO, {}), "left without bye (0 frames"),
                (b"ViV1T", "vanished in the middle of a message"),
                (encode(HELLO, {}) + encode(FRAME, {"frame": 0}, bytes(2304))[:-1], "vanished in the middle"),
            ):
                running.log.clear()
                with running.connect() as connection:
                    connection.sendall(sent)
                running.said(words)
            running.log.clear()
            with running.connect() as connection:
                linger = (1).to_bytes(4, sys.byteorder) + bytes(4)  # reset the connection instead of closing it
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.sendall(encode(HELLO, {}) + encode(FRAME, {"frame": 0}, bytes(2304)) * 3)
            running.said("0 dropped")
            with running.rig() as rig:
                assert len(ask(rig, movie(2))) == 2

    def test_no_more_clients_than_allowed(self, twin):
        with Running(twin, clients=2) as running:
            with running.rig(), running.rig() as second:
                with running.connect() as third:
                    assert error_of(third) == "busy"
                assert "2 clients are connected" in running.said("refused")
                assert len(ask(second, movie(1))) == 1
            running.said("left without bye")
            with running.rig() as rig:
                assert len(ask(rig, movie(1))) == 1

    def test_a_twin_that_fails_fails_one_client_only(self, twin):
        class Broken(Stream):
            def step(self, *args):
                raise RuntimeError("out of memory")

        def open_stream(hello):
            return (Broken if hello.client == "broken" else Stream)(twin)

        with Running(twin, open_stream=open_stream) as running, running.rig() as good:
            ask(good, movie(2))
            with running.rig(client="broken") as rig, pytest.raises(ConnectionError, match="internal"):
                ask(rig, movie(1))
            assert "RuntimeError('out of memory')" in running.said("internal")
            assert len(ask(good, movie(2), first=2)) == 2

    def test_rigs_are_told_when_the_server_closes(self, twin):
        with Running(twin) as running, running.rig() as rig:
            ask(rig, movie(3))
            running.close()
            with pytest.raises(ConnectionError, match="closing"):
                rig.receive()
            assert "(3 frames" in running.said("still connected")


class TestAddresses:
    def refused(self, place: str, *words: str, **kwargs) -> None:
        with pytest.raises(UserError) as caught, address.listening(place, **kwargs):
            pass
        for word in (place, *words):
            assert word in str(caught.value)

    def test_other_machines_are_kept_out_unless_they_are_wanted(self):
        for host in ("0.0.0.0", "[::]", "192.0.2.1"):
            self.refused(f"tcp://{host}:0", "--allow_remote", "tcp://127.0.0.1:0")
        with address.listening("tcp://0.0.0.0:0", allow_remote=True) as opened:
            assert opened.getsockname()[1] > 0

    @pytest.mark.parametrize("place", ["tcp://127.0.0.1:0", "tcp://localhost:0", "tcp://:0"])
    def test_this_machine_alone(self, place):
        with address.listening(place) as opened:
            assert address.name_of(opened).startswith(("tcp://127.0.0.1:", "tcp://[::1]:"))

    @pytest.mark.parametrize(
        "place",
        ["tcp://127.0.0.1", "tcp://127.0.0.1:x", "tcp://127.0.0.1:99999", "tcp://a@127.0.0.1:1", "tcp://h:1/x"],
    )
    def test_malformed(self, place):
        self.refused(place, "tcp://HOST:PORT")

    def test_hosts_that_are_none_of_ours(self):
        self.refused("tcp://a..b:1", "a..b cannot be found")
        self.refused("tcp://192.0.2.1:1", "cannot assign", allow_remote=True)

    def test_a_port_in_use(self):
        with address.listening("tcp://127.0.0.1:0") as opened:
            self.refused(address.name_of(opened), "in use", "Name another port")

    def test_unix_sockets_are_their_owners_and_go_with_the_server(self, twin, tmp_path):
        path = tmp_path / "rig.sock"
        with Running(twin, f"unix://{path}") as running:
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
            assert running.address == f"unix://{path}"
            with running.rig() as rig:
                same(ask(rig, movie(3)), offline(twin, movie(3)))
            running.said("client 1: left without bye (3 frames")
            self.refused(f"unix://{path}", "another server listens there")
            with running.rig() as rig:
                assert len(ask(rig, movie(1))) == 1
        assert not list(tmp_path.iterdir())

    def test_a_socket_that_a_killed_server_left_is_replaced(self, tmp_path):
        path = tmp_path / "rig.sock"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
        with address.listening(f"unix://{path}"):
            assert stat.S_ISSOCK(os.lstat(path).st_mode)

    def test_what_is_no_socket_is_left_alone(self, tmp_path):
        (tmp_path / "notes.txt").write_text("dear diary")
        (tmp_path / "link").symlink_to(tmp_path / "notes.txt")
        for name in ("notes.txt", "link"):
            self.refused(f"unix://{tmp_path / name}", "no socket", "Name another path")
        assert (tmp_path / "notes.txt").read_text() == "dear diary" and (tmp_path / "link").is_symlink()
        self.refused(f"unix://{tmp_path}", "no socket")
        self.refused("unix://", "unix:///PATH")
        self.refused(f"unix://{tmp_path / 'none' / 'rig.sock'}", "no folder")
        self.refused(f"unix://{tmp_path / ('x' * 101)}", "longer")

    def test_a_socket_that_somebody_replaced_is_left_alone(self, tmp_path):
        path = tmp_path / "rig.sock"
        with address.listening(f"unix://{path}"):
            path.unlink()
            path.write_text("mine now")
        assert path.read_text() == "mine now"


def test_the_example_needs_numpy_only():
    names = set()
    for node in ast.walk(ast.parse((EXAMPLES / "rig_client.py").read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names - sys.stdlib_module_names == {"numpy"}
