"""What a rig and a twin say to each other: messages as bytes, and which may come when. Nothing is read or sent here.

A message is a prefix of 16 bytes, a header (JSON object, UTF-8) and a body (raw numbers):

    bytes   what
    0..4    "ViV1T"
    5       version of the protocol, 1
    6       kind of message, see `KINDS`
    7       0
    8..11   length of the header in bytes, unsigned, most significant byte first
    12..15  length of the body in bytes, likewise

Sizes are checked before anything is read or allocated, JSON is checked field by field, and nothing else is ever
interpreted: what a stranger sends can cost an error message, never more. docs/streaming.md has every field.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from viv1t.cli import did_you_mean

VERSION = 1
MAGIC = b"ViV1T"
PREFIX = struct.Struct(">5sBBBII")
HELLO, FRAME, RESET, BYE = 1, 2, 3, 4  # from the rig
WELCOME, RESPONSE, ERROR = 129, 130, 131  # from the twin
KINDS = {
    HELLO: "hello", FRAME: "frame", RESET: "reset", BYE: "bye",
    WELCOME: "welcome", RESPONSE: "response", ERROR: "error",
}  # fmt: skip
CODES = {
    "bad_message": "not a message of this protocol, or not at this point",
    "bad_hello": "the mice, neurons or frames asked for do not exist here",
    "bad_frame": "a frame of another size or type, or with values that are not possible",
    "too_large": "longer than a message of this kind may be",
    "timeout": "nothing more came for too long, or answers were not read",
    "busy": "as many rigs as are allowed are connected",
    "closing": "the server was told to stop",
    "internal": "the twin failed; the server's log says why",
}
MAX_HEADER = 1 << 12  # bytes
MAX_HELLO = 1 << 20  # bytes; it may list neurons
MAX_BODY = 1 << 23  # bytes; 1080 x 1920 pixels of float32 fit
COUNTERS = 1 << 53  # above any frame counter; beyond it, JSON readers lose integers
PIXELS = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}
RATES = np.dtype("<f4")


class ProtocolError(Exception):
    """A message that cannot be accepted; `code` is a key of `CODES`."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Hello:
    """What a rig wants: mice and neurons of the twin (None: as the server was started), the size of its frames."""

    client: str = ""  # a name for the log
    mouse_ids: tuple[str, ...] | None = None
    neurons: Mapping[str, tuple[int, ...]] | None = None  # indices into the twin's neurons of each mouse
    inputs_of: str | None = None
    frame_size: tuple[int, int] | None = None  # height, width; None: the twin's
    white: float = 255.0  # pixel value of white; black is 0


@dataclass(frozen=True)
class Frame:
    """One frame, numbered by its source: a number that is left out is a frame that the source did not send."""

    number: int
    pixels: np.ndarray  # (H, W), grey levels 0..255, uint8 or float32
    behavior: np.ndarray | None = None  # (2,): pupil dilation, running speed, in recorded units
    pupil_center: np.ndarray | None = None  # (2,): x, y, in recorded units
    time: float | None = None  # seconds, by the source's clock
    first: bool = False  # a new session begins with this frame


@dataclass(frozen=True)
class Bye:
    """Nothing more will come; whatever still waits is answered."""

    said: bool = True  # else the connection was closed without a word


def encode(kind: int, header: dict, body: bytes = b"") -> bytes:
    """One message."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    return PREFIX.pack(MAGIC, VERSION, kind, 0, len(text), len(body)) + text + body


def parse_prefix(prefix: bytes) -> tuple[int, int, int]:
    """(kind, bytes of the header, bytes of the body) from the first 16 bytes of a message of a rig."""
    magic, version, kind, zero, header, body = PREFIX.unpack(prefix)
    if magic != MAGIC or zero:
        raise ProtocolError("bad_message", f"a message begins with {MAGIC!r}, version, kind and 0; got {prefix[:8]!r}")
    if version != VERSION:
        raise ProtocolError("bad_message", f"version {version} of the protocol; this twin speaks version {VERSION}")
    if kind not in (HELLO, FRAME, RESET, BYE):
        raise ProtocolError("bad_message", f"kind {kind} of message; a rig sends hello, frame, reset or bye")
    for what, size, largest in (
        ("header", header, MAX_HELLO if kind == HELLO else MAX_HEADER),
        ("body", body, MAX_BODY if kind == FRAME else 0),
    ):
        if size > largest:
            raise ProtocolError(
                "too_large", f"{KINDS[kind]} with a {what} of {size:,} bytes; at most {largest:,} are allowed"
            )
    return kind, header, body


class Conversation:
    """The order of a rig's messages: hello first and once, then frames with rising numbers, of one size.

    frame_size: (height, width) that the twin takes; resize: whether a rig may have frames of another size.
    """

    def __init__(self, frame_size: tuple[int, int], resize: bool = False):
        self.frame_size, self.resize = tuple(frame_size), resize
        self.hello: Hello | None = None
        self.number, self.first = -1, True

    def hear(self, kind: int, header: bytes, body: bytes) -> Hello | Frame | Bye | None:
        """The meaning of a whole message; None for a reset, which shows in the next frame."""
        name = KINDS[kind]
        if (kind == HELLO) != (self.hello is None):
            raise ProtocolError("bad_message", f"{name} {'after' if self.hello else 'before'} the hello")
        fields = _fields(kind, header)
        if kind == HELLO:
            self.hello = self._greet(Hello(**fields))
            return self.hello
        if kind == FRAME:
            return self._frame(fields, body)
        if kind == RESET:
            self.number, self.first = -1, True
            return None
        return Bye()

    def _greet(self, hello: Hello) -> Hello:
        size = hello.frame_size or self.frame_size
        if size != self.frame_size and not self.resize:
            raise ProtocolError(
                "bad_hello",
                f"frames of {size[0]} x {size[1]} pixels; this twin takes {self.frame_size[0]} x {self.frame_size[1]} "
                "(rows x columns). Resize them, or start the server with --resize",
            )
        if size[0] * size[1] * PIXELS["float32"].itemsize > MAX_BODY:
            raise ProtocolError("too_large", f"frames of {size[0]} x {size[1]} pixels are above {MAX_BODY:,} bytes")
        self.size = size
        return hello

    def _frame(self, fields: dict, body: bytes) -> Frame:
        if "frame" not in fields:
            raise ProtocolError("bad_frame", "a frame has no number in its header ('frame')")
        number, dtype = fields.pop("frame"), PIXELS[fields.pop("pixels", "uint8")]
        if number <= self.number:
            raise ProtocolError("bad_frame", f"frame {number} after frame {self.number}; numbers rise until a reset")
        expected = self.size[0] * self.size[1] * dtype.itemsize
        if len(body) != expected:
            raise ProtocolError(
                "bad_frame",
                f"frame {number} has {len(body)} bytes; {self.size[0]} x {self.size[1]} pixels of "
                f"{dtype.name} have {expected}",
            )
        pixels = np.frombuffer(body, dtype).reshape(self.size)
        white = self.hello.white
        with np.errstate(invalid="ignore"):
            if not (pixels.min() >= 0 and pixels.max() <= white):  # written so that NaN fails, too
                raise ProtocolError("bad_frame", f"frame {number} has pixels that are not within 0..{white:g}")
        if white != 255:
            pixels = np.minimum(pixels * np.float32(255 / white), np.float32(255))
        frame = Frame(number, pixels, first=self.first, **fields)
        self.number, self.first = number, False
        return frame


def _fields(kind: int, header: bytes) -> dict:
    """The checked fields of a header; what was sent as null is left out, as if it had not been sent."""
    name = KINDS[kind]
    code = {HELLO: "bad_hello", FRAME: "bad_frame"}.get(kind, "bad_message")
    try:
        content = json.loads(header.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):  # of bytes that are no UTF-8, JSON or integer, or are nested without end
        raise ProtocolError("bad_message", f"the header of a {name} is not JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise ProtocolError("bad_message", f"the header of a {name} is no JSON object")
    fields = {}
    for key, value in content.items():
        if key not in FIELDS[kind]:
            known = ", ".join(FIELDS[kind]) or "no fields"
            raise ProtocolError(
                code, f"a {name} has no field {_shown(key)}{did_you_mean(key, list(FIELDS[kind]))} ({known})"
            )
        if value is None:
            continue
        what, check = FIELDS[kind][key]
        checked = check(value)
        if checked is None:
            raise ProtocolError(code, f"'{key}' of a {name} must be {what}, not {_shown(value)}")
        fields[key] = checked
    return fields


def _unique(pairs: list[tuple[str, object]]) -> dict:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _shown(value) -> str:
    """A stranger's value as one short, harmless line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)


def _integer(low: int, high: int) -> Callable:
    return lambda value: value if type(value) is int and low <= value < high else None


def _number(value) -> float | None:
    return float(value) if _is_number(value) else None


def _pair(value) -> np.ndarray | None:
    if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)):
        return np.array(value, np.float32)
    return None


def _text(value) -> str | None:
    return value if isinstance(value, str) and len(value) <= 200 and value.isprintable() else None


def _texts(value) -> tuple[str, ...] | None:
    good = isinstance(value, list) and value and all(_text(item) for item in value)
    return tuple(value) if good and len(set(value)) == len(value) else None


def _size(value) -> tuple[int, int] | None:
    good = isinstance(value, list) and len(value) == 2 and all(_integer(1, 1 << 14)(side) for side in value)
    return tuple(value) if good else None


def _indices(value) -> Mapping[str, tuple[int, ...]] | None:
    if not isinstance(value, dict) or not value or not all(map(_text, value)):
        return None
    index = _integer(0, 1 << 31)
    for rows in value.values():
        if not isinstance(rows, list) or not rows or any(index(row) is None for row in rows):
            return None
        if len(set(rows)) < len(rows):
            return None
    return {mouse_id: tuple(rows) for mouse_id, rows in value.items()}


FIELDS = {  # kind -> field -> what it must be, in words, and a function that gives the checked value or None
    HELLO: {
        "client": ("a printable text of at most 200 characters", _text),
        "mouse_ids": ("a list of different mouse ids", _texts),
        "neurons": ("an object of mouse id: list of different indices", _indices),
        "inputs_of": ("a mouse id", _text),
        "frame_size": ("[rows, columns] in pixels", _size),
        "white": ("a number above 0", lambda value: float(value) if _is_number(value) and value > 1e-6 else None),
    },
    FRAME: {
        "frame": (f"an integer from 0 to {COUNTERS - 1}", _integer(0, COUNTERS)),
        "pixels": (f"one of {', '.join(PIXELS)}", lambda value: value if value in tuple(PIXELS) else None),
        "behavior": ("two finite numbers: pupil dilation, running speed", _pair),
        "pupil_center": ("two finite numbers: x, y", _pair),
        "time": ("a finite number of seconds", _number),
    },
    RESET: {},
    BYE: {},
}  # fmt: skip
