"""Show frames to a trained twin one by one, as a rig does, and write its responses as they come.

reads   RUN/ckpt/best.pt (or a run of the public implementation), and frames:
          --source movie.npy          (frames, height, width) of grey levels 0..255; or .mp4, .avi, .mov, ...
          --source folder             of images, or of .npy frames (height, width), in the order of their names
          --source -                  messages on standard input
          --source tcp://HOST:PORT    a server for rigs, as is unix:///PATH; docs/streaming.md has the messages
writes  --out: JSON lines (- or file.jsonl), or a folder of arrays (frames, neurons) that grow; --report: latencies.
        Rigs of a server get their responses themselves.

Responses are those of the very frame, in recorded units, and the same as of the whole movie at once. A summary goes to
standard error. Ctrl-C and SIGTERM end a session in order: what was written stays, and can be read.
"""

import asyncio
import os
import signal
import sys
import time
from socket import socket

import numpy as np
import torch

from viv1t import cli, io
from viv1t.constants import FPS, GREY, HEIGHT, WIDTH
from viv1t.device import available_memory, describe
from viv1t.errors import UserError
from viv1t.inference import PRECISIONS, Twin, load_twin
from viv1t.streaming import address, sinks, sources
from viv1t.streaming.latency import Latency, in_words
from viv1t.streaming.protocol import Hello, ProtocolError
from viv1t.streaming.selection import choose_neurons
from viv1t.streaming.server import Rules, Server, welcome
from viv1t.streaming.state import Stream
from viv1t.streaming.waiting import LATE, Waiting
from viv1t.training.interrupt import Interrupt

FRAME_SIZE = HEIGHT, WIDTH


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder that train.py wrote")
    parser.add_argument("--data_dir", default="data", help="recordings, for runs of the public implementation")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu (default: auto)")
    parser.add_argument("--precision", default="32", choices=PRECISIONS, help="32 (default), tf32 or bf16, faster")
    parser.add_argument("--threads", type=cli.number(int, 1), default=1, help="CPU threads; more help large twins on "
                        "cores that nobody else uses, and make latency uneven elsewhere (default: 1)")  # fmt: skip
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice that answer (default: all of the run)")
    parser.add_argument(
        "--neurons", nargs="+", metavar="[ID=]WHICH", help="neurons that answer, of every mouse or of mouse ID: a "
        "count (the first 100: 100), indices (3,14,15 or 3,) or a file of them, .npy or text (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--inputs_of", metavar="ID", help="mouse whose statistics scale frames and behaviour (default: each its own)"
    )
    frames = parser.add_argument_group("frames")
    frames.add_argument("--source", required=True, metavar="WHERE", help="movie, folder, -, tcp://... or unix://...")
    frames.add_argument("--resize", action="store_true", help="average frames of another size to that of the twin")
    frames.add_argument("--behavior", metavar="FILE", help=".npy (2, frames): pupil dilation, running speed, for a "
                        "movie or folder (default: the mouse's mean)")  # fmt: skip
    frames.add_argument("--pupil_center", metavar="FILE", help=".npy (2, frames): x, y, likewise")
    frames.add_argument("--fps", type=cli.number(float, 0, 1000), default=0.0, help="show a movie or folder at this "
                        "pace, as a rig would; 0: as fast as the twin answers (default: 0)")  # fmt: skip
    frames.add_argument("--when_late", choices=LATE, default="queue", help="when the twin is late: the source waits "
                        "(queue, the default), or the oldest waiting frame is never shown (drop)")  # fmt: skip
    frames.add_argument(
        "--queue", type=cli.number(int, 1, 10_000), default=8, help="frames that may wait (default: 8)"
    )
    responses = parser.add_argument_group("responses")
    responses.add_argument("--out", default="-", help="- (standard output), file.jsonl or a new folder (default: -)")
    responses.add_argument("--report", metavar="FILE", help="write the summary as JSON, too")
    server = parser.add_argument_group("server")
    server.add_argument("--allow_remote", action="store_true", help="listen to other machines; there is no password")
    server.add_argument("--max_clients", type=cli.number(int, 1, 1000), default=4, help="at once (default: 4)")
    server.add_argument("--timeout", type=cli.number(float, 0.1, 86_400), default=60.0, help="seconds after which a "
                        "silent client is cut (default: 60)")  # fmt: skip
    return parser


def main(args) -> None:
    if address.is_address(args.source):
        refuse(args, "behavior", "pupil_center", "fps", "out", why="rigs send frames and get the responses")
        with address.listening(args.source, args.allow_remote) as listening:
            serve(load(args), listening, args)
    else:
        refuse(args, "allow_remote", "max_clients", "timeout", why="no rig can connect")
        show(load(args), args)


def refuse(args, *names: str, why: str) -> None:
    """UserError if a flag was given that means nothing for this source."""
    parser = get_parser()
    for name in names:
        if getattr(args, name) != parser.get_default(name):
            raise UserError(f"--{name} does not go with --source {args.source}: {why}.")


def load(args) -> Twin:
    torch.set_num_threads(args.threads)
    return load_twin(args.output_dir, args.device, args.precision, args.data_dir)


def open_stream(twin: Twin, args, hello: Hello = Hello()) -> Stream:  # noqa: B008
    """What a hello asks for, else the flags; shown one grey frame, so that the first real one is not late."""
    mouse_ids = hello.mouse_ids or args.mouse_ids or tuple(twin.mice)
    neurons = choose_neurons(args.neurons or (), twin, mouse_ids) | dict(hello.neurons or {})
    inputs_of = hello.inputs_of or args.inputs_of
    stream = Stream(twin, mouse_ids, neurons, inputs_of)
    stream.step(np.full(stream.frame_size, GREY, np.uint8))
    stream.reset()
    return stream


def show(twin: Twin, args) -> None:
    """Show a movie, a folder or the messages of standard input, and write the responses."""
    if args.source == "-":
        refuse(args, "behavior", "pupil_center", "fps", why="messages carry behaviour, and come at their own pace")
        frames = sources.MessageReader(sys.stdin.buffer.raw, FRAME_SIZE, args.resize)
        stream = open_stream(twin, args, frames.hello)
    else:
        movie = sources.open_movie(args.source, FRAME_SIZE, args.resize)
        frames = sources.frames_of(movie, args.fps or FPS, args.behavior, args.pupil_center)
        stream = open_stream(twin, args)
    header = welcome(stream, twin.hash) | {"settings": vars(args)}
    waiting, latency, start = Waiting(args.queue, args.when_late), Latency(), None
    with Interrupt() as interrupt:
        sink = sinks.open_sink(args.out, header, {mouse_id: len(rows) for mouse_id, rows in stream.neurons.items()})
        if args.fps or args.source == "-":
            arriving = sources.live(frames, args.fps, waiting, lambda: bool(interrupt))
        else:
            arriving = sources.at_once(frames)
        try:
            for arrived, frame in arriving:
                if interrupt:
                    break
                start = arrived if start is None else start
                if frame.first:
                    stream.reset()
                sink.write(frame, stream.step(frame.pixels, frame.behavior, frame.pupil_center))
                latency.add(time.perf_counter() - arrived)
        except BrokenPipeError:  # whoever reads our standard output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            sink.close()
            seconds = None if start is None else time.perf_counter() - start
            summarise(latency, waiting.dropped, seconds, stream.nbytes, args.report)
    if interrupt:
        raise SystemExit(128 + interrupt.signal)


def serve(twin: Twin, listening: socket, args) -> None:
    """Answer rigs until SIGINT or SIGTERM."""
    size = open_stream(twin, args).nbytes

    def open_another(hello: Hello) -> Stream:
        if available_memory(twin.device) < size:
            raise ProtocolError("busy", f"no memory is left for another session, which needs {size / 2**20:.0f} MiB")
        return open_stream(twin, args, hello)

    rules = Rules(args.max_clients, args.queue, args.when_late, args.timeout, args.resize)
    server = Server(open_another, FRAME_SIZE, twin.hash, rules, log)

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        log(
            f"listening on {address.name_of(listening)}: {describe(twin.device)}, up to {rules.clients} clients, "
            f"each with {size / 2**20:.1f} MiB of state. Ctrl-C ends it."
        )
        await server.serve(listening, stop)

    asyncio.run(until_told())
    log(f"closed; {server.served} clients were served")
    summarise(server.latency, server.dropped, None, size, args.report)


def summarise(latency: Latency, dropped: int, seconds: float | None, nbytes: int, report: str | None) -> None:
    """Frames and their latencies, from the moment a frame arrived until its responses were written, on stderr."""
    told = {
        "frames": latency.frames,
        "dropped": dropped,
        "frames_per_second": round(latency.frames / seconds, 2) if seconds else None,
        "latency_ms": latency.milliseconds(),
        "state_bytes": nbytes,
    }
    pace = f", {told['frames_per_second']:g} a second" if seconds else ""
    timing = f"; latency {in_words(told['latency_ms'])}" if latency.frames else ""
    print(
        f"{latency.frames} frames shown, {dropped} dropped{pace}{timing}; state {nbytes / 2**20:.1f} MiB",
        file=sys.stderr,
    )
    if report:
        io.write_json(report, told)


def log(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main, get_parser())
