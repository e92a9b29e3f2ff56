"""Messages mean what was said; anything else is an error with a code and a reason, and never anything worse."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from viv1t.streaming import protocol
from viv1t.streaming.latency import Latency
from viv1t.streaming.protocol import (
    BYE,
    FRAME,
    HELLO,
    MAX_BODY,
    MAX_HEADER,
    MAX_HELLO,
    PREFIX,
    RESET,
    Bye,
    Conversation,
    Frame,
    Hello,
    ProtocolError,
    encode,
    parse_prefix,
)
from viv1t.streaming.waiting import Waiting

SIZE = (36, 64)
PIXELS = np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)


def frame(number: int = 0, pixels: np.ndarray = PIXELS, **fields) -> bytes:
    return encode(FRAME, {"frame": number, "pixels": pixels.dtype.name, **fields}, pixels.tobytes())


def hear(data: bytes, conversation: Conversation | None = None) -> list:
    """What a server understands of a stream of bytes, until a goodbye or until bytes are missing."""
    conversation = conversation or Conversation(SIZE)
    heard = []
    while len(data) >= PREFIX.size and not (heard and isinstance(heard[-1], Bye)):
        kind, header, body = parse_prefix(data[: PREFIX.size])
        end = PREFIX.size + header + body
        if len(data) < end:
            break
        heard.append(conversation.hear(kind, data[PREFIX.size : end - body], data[end - body : end]))
        data = data[end:]
    return heard


def fails(data: bytes, conversation: Conversation | None = None) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        hear(data, conversation)
    assert caught.value.code in protocol.CODES
    assert str(caught.value).isascii() and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return caught.value


def test_everything_a_rig_can_say_is_understood():
    asked = {
        "client": "rig 3", "mouse_ids": ["B", "A"], "neurons": {"A": [4, 0]}, "inputs_of": "A",
        "frame_size": [36, 64], "white": 255,
    }  # fmt: skip
    told = {"behavior": [50.5, 0], "pupil_center": [1, -2.5], "time": 0.25}
    messages = encode(HELLO, asked) + frame(7, **told) + frame(9) + encode(RESET, {}) + frame(0) + encode(BYE, {})
    hello, first, second, reset, third, bye = hear(messages)
    assert hello == Hello("rig 3", ("B", "A"), {"A": (4, 0)}, "A", SIZE, 255.0)
    assert (first.number, second.number, third.number) == (7, 9, 0)
    assert (first.first, second.first, third.first) == (True, False, True) and reset is None
    assert np.array_equal(first.pixels, PIXELS) and first.time == 0.25 and second.time is None
    assert np.array_equal(first.behavior, [50.5, 0]) and np.array_equal(first.pupil_center, [1, -2.5])
    assert second.behavior is None and bye == Bye()


def test_an_empty_hello_and_nulls_leave_everything_to_the_server():
    fields = ("client", "mouse_ids", "neurons", "inputs_of", "frame_size", "white")
    assert hear(encode(HELLO, {})) == hear(encode(HELLO, dict.fromkeys(fields))) == [Hello()]


def test_float_frames_are_scaled_by_their_white():
    ramp = np.linspace(0, 1, 36 * 64, dtype=np.float32).reshape(SIZE)
    _, shown = hear(encode(HELLO, {"white": 1.0}) + frame(pixels=ramp))
    assert shown.pixels.dtype == np.float32 and shown.pixels.max() == 255
    np.testing.assert_allclose(shown.pixels, 255 * ramp, rtol=1e-6)


def test_the_example_client_speaks_this_protocol():
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    try:
        import rig_client
    finally:
        sys.path.pop(0)
    assert rig_client.PREFIX.format == PREFIX.format
    names = ("HELLO", "FRAME", "RESET", "BYE", "WELCOME", "RESPONSE", "ERROR")
    assert [getattr(rig_client, name) for name in names] == [getattr(protocol, name) for name in names]


def raw(
    kind: int, header: bytes = b"{}", body: bytes = b"", sizes: tuple = (), version: int = 1, zero: int = 0
) -> bytes:
    """A message whose prefix may lie."""
    return PREFIX.pack(b"ViV1T", version, kind, zero, *(sizes or (len(header), len(body)))) + header + body


GOOD = encode(HELLO, {})
FLOATS = PIXELS.astype(np.float32)
BAD = {
    "another program": (b"GET / HTTP/1.1\r\nHost: rig\r\n\r\n", "bad_message", "begins with"),
    "another version": (raw(HELLO, version=2), "bad_message", "version 2"),
    "a byte that must be 0": (raw(HELLO, zero=1), "bad_message", "begins with"),
    "an unknown kind": (raw(77), "bad_message", "kind 77"),
    "an answer instead of a question": (raw(protocol.WELCOME), "bad_message", "kind 129"),
    "a huge body": (raw(FRAME, sizes=(2, MAX_BODY + 1)), "too_large", "8,388,609 bytes; at most 8,388,608"),
    "a huge header": (raw(FRAME, sizes=(MAX_HEADER + 1, 0)), "too_large", "4,097 bytes"),
    "a huge hello": (raw(HELLO, sizes=(MAX_HELLO + 1, 0)), "too_large", "hello with a header"),
    "the largest length of all": (raw(FRAME, sizes=(2**32 - 1, 2**32 - 1)), "too_large", "4,294,967,295"),
    "a hello with a body": (raw(HELLO, body=b"x"), "too_large", "hello with a body of 1 bytes"),
    "a frame before the hello": (frame(), "bad_message", "frame before the hello"),
    "a goodbye before the hello": (raw(BYE), "bad_message", "bye before the hello"),
    "two hellos": (GOOD + GOOD, "bad_message", "hello after the hello"),
    "no JSON": (raw(HELLO, b"{mouse"), "bad_message", "not JSON"),
    "no UTF-8": (raw(HELLO, b'{"client": "\xff\xfe"}'), "bad_message", "not JSON in UTF-8"),
    "an empty header": (raw(HELLO, b""), "bad_message", "not JSON"),
    "endless nesting": (raw(HELLO, b"[" * 500_000), "bad_message", "not JSON"),
    "endless digits": (raw(HELLO, b'{"white": ' + b"9" * 100_000 + b"}"), "bad_message", "not JSON"),
    "a key twice": (raw(HELLO, b'{"white": 1, "white": 2}'), "bad_message", "not JSON"),
    "a list": (raw(HELLO, b"[1]"), "bad_message", "no JSON object"),
    "an unknown field": (raw(HELLO, b'{"mouse_id": "A"}'), "bad_hello", "did you mean 'mouse_ids'"),
    "a field of control characters": (raw(HELLO, b'{"\\n\\u001b[2J": 1}'), "bad_hello", "no field"),
    "a name of control characters": (raw(HELLO, b'{"client": "\\u001b[2J"}'), "bad_hello", "printable"),
    "half a character": (raw(HELLO, b'{"client": "\\ud800"}'), "bad_hello", "printable"),
    "a long name": (encode(HELLO, {"client": "x" * 201}), "bad_hello", "at most 200"),
    "mice as a text": (encode(HELLO, {"mouse_ids": "A"}), "bad_hello", "list of different mouse ids"),
    "no mice": (encode(HELLO, {"mouse_ids": []}), "bad_hello", "list of different mouse ids"),
    "a mouse twice": (encode(HELLO, {"mouse_ids": ["A", "A"]}), "bad_hello", "different"),
    "neurons of no mouse": (encode(HELLO, {"neurons": [1, 2]}), "bad_hello", "object of mouse id"),
    "a neuron twice": (encode(HELLO, {"neurons": {"A": [1, 1]}}), "bad_hello", "different indices"),
    "a neuron below 0": (encode(HELLO, {"neurons": {"A": [-1]}}), "bad_hello", "different indices"),
    "a neuron that is true": (encode(HELLO, {"neurons": {"A": [True]}}), "bad_hello", "different indices"),
    "half a neuron": (encode(HELLO, {"neurons": {"A": [0.5]}}), "bad_hello", "different indices"),
    "no neurons": (encode(HELLO, {"neurons": {"A": []}}), "bad_hello", "different indices"),
    "frames of another size": (encode(HELLO, {"frame_size": [72, 128]}), "bad_hello", "--resize"),
    "frames of no size": (encode(HELLO, {"frame_size": [0, 64]}), "bad_hello", "[rows, columns]"),
    "a white of 0": (encode(HELLO, {"white": 0}), "bad_hello", "above 0"),
    "an infinite white": (raw(HELLO, b'{"white": 1e999}'), "bad_hello", "above 0"),
    "a frame without number": (GOOD + raw(FRAME, b"{}", PIXELS.tobytes()), "bad_frame", "no number"),
    "a number that is a text": (GOOD + frame("1"), "bad_frame", "an integer"),
    "a number that is true": (GOOD + frame(True), "bad_frame", "an integer"),
    "a number below 0": (GOOD + frame(-1), "bad_frame", "an integer"),
    "a number beyond all integers": (GOOD + frame(2**53), "bad_frame", "an integer"),
    "the same frame twice": (GOOD + frame(4) + frame(4), "bad_frame", "frame 4 after frame 4"),
    "frames backwards": (GOOD + frame(4) + frame(3), "bad_frame", "frame 3 after frame 4"),
    "a frame too short": (GOOD + raw(FRAME, b'{"frame": 3}', PIXELS.tobytes()[1:]), "bad_frame", "2303 bytes"),
    "a frame of no pixels": (GOOD + raw(FRAME, b'{"frame": 3}'), "bad_frame", "frame 3 has 0 bytes"),
    "bytes as floats": (GOOD + encode(FRAME, {"frame": 3, "pixels": "float32"}, bytes(2304)), "bad_frame", "9216"),
    "an unknown type": (GOOD + encode(FRAME, {"frame": 3, "pixels": "int64"}), "bad_frame", "one of uint8, float32"),
    "a list as type": (GOOD + encode(FRAME, {"frame": 3, "pixels": ["uint8"]}), "bad_frame", "one of uint8"),
    "NaN in a frame": (GOOD + frame(5, np.where(PIXELS > 9, FLOATS, np.nan)), "bad_frame", "frame 5 has pixels"),
    "infinity in a frame": (GOOD + frame(5, FLOATS + np.float32(np.inf)), "bad_frame", "within 0..255"),
    "brighter than white": (GOOD + frame(5, FLOATS + 1), "bad_frame", "within 0..255"),
    "brighter than its own white": (encode(HELLO, {"white": 1}) + frame(5), "bad_frame", "within 0..1"),
    "darker than black": (GOOD + frame(5, FLOATS - 1), "bad_frame", "within 0..255"),
    "NaN for a pupil": (GOOD + raw(FRAME, b'{"frame": 0, "pupil_center": [NaN, 1]}'), "bad_frame", "two finite"),
    "one number of behaviour": (GOOD + frame(0, behavior=[1]), "bad_frame", "pupil dilation, running speed"),
    "huge behaviour": (GOOD + frame(0, behavior=[1, 10**400]), "bad_frame", "two finite numbers"),
    "a time that is no number": (GOOD + frame(0, time="now"), "bad_frame", "number of seconds"),
    "a field in a goodbye": (GOOD + raw(BYE, b'{"really": true}'), "bad_message", "no field 'really'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_messages_are_named(name):
    data, code, words = BAD[name]
    error = fails(data)
    assert error.code == code and words in str(error), f"{error.code}: {error}"


def test_frames_of_another_size_are_taken_if_the_server_resizes():
    conversation = Conversation(SIZE, resize=True)
    _, shown = hear(encode(HELLO, {"frame_size": [2, 3]}) + frame(pixels=PIXELS[:2, :3]), conversation)
    assert np.array_equal(shown.pixels, PIXELS[:2, :3])
    assert fails(encode(HELLO, {"frame_size": [9999, 9999]}), Conversation(SIZE, resize=True)).code == "too_large"


def test_ten_thousand_mutated_conversations():
    """Whatever bytes come, the outcome is a meaning or a ProtocolError."""
    rng = np.random.default_rng(2)
    good = [
        encode(HELLO, {"client": "rig", "mouse_ids": ["A", "B"], "neurons": {"A": [1, 2]}, "white": 255}),
        frame(3, behavior=[1, 2], pupil_center=[3, 4], time=0.1),
        frame(4, FLOATS),
        encode(RESET, {}),
        encode(BYE, {}),
    ]
    outcomes = {"understood": 0, "refused": 0}
    for _ in range(10_000):
        try:
            hear(mutated(good, rng))
            outcomes["understood"] += 1
        except ProtocolError as error:
            assert error.code in protocol.CODES and str(error).isascii()
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 500, outcomes


def mutated(good: list[bytes], rng: np.random.Generator) -> bytes:
    """Noise, or good messages that were shuffled, cut, repeated, or had bytes changed; mostly in their headers."""
    if rng.random() < 0.1:
        return rng.bytes(rng.integers(0, 200))
    order = rng.integers(0, len(good), rng.integers(1, 4)) if rng.random() < 0.3 else range(rng.integers(1, 6))
    data = bytearray(b"".join(good[i] for i in order))
    for _ in range(rng.integers(0, 4)):
        at = int(rng.integers(0, min(len(data), 200)))
        action = rng.integers(4)
        if action == 0:
            data[at] = rng.integers(256)
        elif action == 1:
            data[at : at + rng.integers(1, 9)] = rng.bytes(rng.integers(0, 9))
        elif action == 2:
            data[at:at] = rng.choice([b'"', b"{", b"]", b"null", b"-1", b"1e999", b"NaN", b"\\u0000", b"true"])
        else:
            data[8:16] = rng.bytes(8)
    return bytes(data[: rng.integers(0, len(data) + 1)] if rng.random() < 0.2 else data)


def test_what_is_sent_is_strict_json():
    message = encode(protocol.RESPONSE, {"frame": 1, "time": None}, b"abcd")
    *_, header, body = PREFIX.unpack(message[: PREFIX.size])
    assert json.loads(message[PREFIX.size : PREFIX.size + header]) == {"frame": 1, "time": None}
    assert message[-body:] == b"abcd"
    with pytest.raises(ValueError):
        encode(protocol.RESPONSE, {"time": math.nan})


class TestWaiting:
    def test_a_full_queue_refuses_or_drops_the_oldest(self):
        shown = [Frame(number, PIXELS, first=number == 0) for number in range(5)]
        queue, drop = Waiting(2, "queue"), Waiting(2, "drop")
        assert [queue.offer(0.0, frame) for frame in shown] == [True, True, False, False, False]
        assert all(drop.offer(0.0, frame) for frame in shown)
        assert (queue.dropped, drop.dropped) == (0, 3)
        assert [queue.take()[1].number for _ in range(2)] == [0, 1]
        assert [drop.take()[1] for _ in range(2)] == [replace(shown[3], first=True), shown[4]]

    def test_a_queue_of_one_keeps_the_start_of_a_session(self):
        drop = Waiting(1, "drop")
        for number, first in ((0, True), (1, False), (0, True), (1, False)):
            drop.offer(1.5, Frame(number, PIXELS, first=first))
        arrived, frame = drop.take()
        assert arrived == 1.5 and frame.first and frame.number == 1 and not drop


class TestLatency:
    def test_percentiles_are_those_of_all_frames_to_a_percent(self):
        seconds = np.random.default_rng(3).lognormal(-5, 1, 5000)
        latency, second = Latency(), Latency()
        for i, value in enumerate(seconds):
            (latency if i % 2 else second).add(value)
        latency.merge(second)
        told = latency.milliseconds()
        for percent in (50, 95, 99):
            assert told[f"p{percent}"] == pytest.approx(1000 * np.percentile(seconds, percent), rel=0.01)
        assert latency.frames == 5000 and told["max"] == pytest.approx(1000 * seconds.max(), abs=1e-3)

    def test_memory_is_bounded_and_extremes_are_counted(self):
        latency = Latency()
        assert set(latency.milliseconds().values()) == {None}
        for value in (0.0, 1e-9, 1e9):
            latency.add(value)
        assert latency.frames == 3 and latency.largest == 1e9 and latency.counts.nbytes < 1 << 17
