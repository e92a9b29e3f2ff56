"""A rig in 100 lines: show frames to a live twin at 30 Hz, and see what its neurons answer and how fast.

    python stream.py --output_dir runs/demo --source tcp://127.0.0.1:7788        in one terminal
    python examples/rig_client.py tcp://127.0.0.1:7788                            in another: a drifting grating
    python examples/rig_client.py tcp://127.0.0.1:7788 --movie movie.npy          (frames, height, width), 0..255

Needs Python and NumPy only. `Twin` is the whole protocol of docs/streaming.md, to be copied into a rig's own program.
"""

import argparse
import json
import socket
import struct
import threading
import time

import numpy as np

PREFIX = struct.Struct(">5sBBBII")  # "ViV1T", version, kind, 0, bytes of the header, bytes of the body
HELLO, FRAME, RESET, BYE, WELCOME, RESPONSE, ERROR = 1, 2, 3, 4, 129, 130, 131


class Twin:
    """A connection to a live twin. welcome: what it is, with `mice` in the order of their rates."""

    def __init__(self, address: str, **hello):
        """hello: what is wanted, any of mouse_ids, neurons, inputs_of, frame_size, white, client."""
        if address.startswith("unix://"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address.removeprefix("unix://"))
        else:
            host, port = address.removeprefix("tcp://").rsplit(":", 1)
            self.socket = socket.create_connection((host.strip("[]"), int(port)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # send small messages at once
        try:
            self.send(HELLO, hello)
            self.welcome, _ = self.receive()
        except BaseException:
            self.socket.close()
            raise

    def send(self, kind: int, header: dict, body: bytes = b"") -> None:
        text = json.dumps(header).encode()
        self.socket.sendall(PREFIX.pack(b"ViV1T", 1, kind, 0, len(text), len(body)) + text + body)

    def show(self, number: int, frame: np.ndarray, **traces) -> None:
        """Send a frame (height, width) uint8; traces: behavior=[dilation, speed], pupil_center=[x, y]."""
        self.send(FRAME, {"frame": number, "pixels": "uint8", **traces}, np.ascontiguousarray(frame, "u1").tobytes())

    def receive(self) -> tuple[dict, np.ndarray]:
        """The header of the next answer, and the rates of all mice, one after the other. EOFError after the last."""
        _, _, kind, _, header, body = PREFIX.unpack(self._exactly(PREFIX.size))
        header, body = json.loads(self._exactly(header)), self._exactly(body)
        if kind == ERROR:
            raise ConnectionError(f"{header['code']}: {header['text']}")
        return header, np.frombuffer(body, "<f4")

    def bye(self) -> None:
        """Nothing more will be shown; what still waits is answered."""
        self.send(BYE, {})

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError("the twin has closed the connection")
            data += part
        return data

    def __enter__(self) -> "Twin":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()


def grating(seconds: float, fps: float, height: int = 36, width: int = 64, direction: float = 0.0):
    """Frames of a sine grating, 16 pixels a cycle, that drifts at 2 Hz into a direction in degrees (90: down)."""
    y, x = np.mgrid[:height, :width]
    angle = np.radians(direction)
    along = (x * np.cos(angle) + y * np.sin(angle)) / 16
    for frame in range(round(seconds * fps)):
        yield np.rint(127.5 + 127.5 * np.sin(2 * np.pi * (along - 2 * frame / fps))).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="tcp://HOST:PORT or unix:///PATH of a running stream.py")
    parser.add_argument("--movie", help="a .npy file (frames, height, width) instead of the grating")
    parser.add_argument(
        "--direction", type=float, default=0.0, help="of the grating, degrees (default: 0, rightwards)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of grating (default: 10)")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second (default: 30)")
    parser.add_argument("--mouse_ids", nargs="+", help="mice that shall answer (default: all)")
    args = parser.parse_args()

    movie = (
        np.load(args.movie, mmap_mode="r")
        if args.movie
        else list(grating(args.seconds, args.fps, direction=args.direction))
    )
    hello = {"client": "rig_client.py", "frame_size": list(movie[0].shape)}
    if args.mouse_ids:
        hello["mouse_ids"] = args.mouse_ids
    with Twin(args.address, **hello) as twin:
        shown, latencies, total = {}, [], 0.0

        def listen() -> None:
            nonlocal total
            try:
                while True:
                    header, rates = twin.receive()
                    latencies.append(time.perf_counter() - shown.pop(header["frame"]))
                    total = total + rates
            except EOFError:
                pass
            except ConnectionError as error:
                print(f"rig_client.py: {error}")

        listener = threading.Thread(target=listen)
        listener.start()
        start = time.perf_counter()
        for number, frame in enumerate(movie):
            time.sleep(max(start + number / args.fps - time.perf_counter(), 0))
            shown[number] = time.perf_counter()
            twin.show(number, frame)
        twin.bye()
        listener.join()

    p50, p95, p99 = 1000 * np.percentile(latencies, (50, 95, 99))
    print(
        f"{len(latencies)} of {len(movie)} frames answered; round trip p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms"
    )
    units = [(mouse["id"], unit) for mouse in twin.welcome["mice"] for unit in mouse["unit_ids"]]
    for i in np.argsort(total)[::-1][:5]:
        print(f"mouse {units[i][0]}, unit {units[i][1]}: {total[i] / len(latencies):.3g}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, EOFError) as error:
        raise SystemExit(f"rig_client.py: {error}") from None
