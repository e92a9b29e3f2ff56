"""A twin for rigs: each client shows its own frames to a session of its own.

One event loop talks, one thread computes, so that no client can hold up the conversation with another. All that
clients can make the server hold is bounded: messages, waiting frames, unread answers, and how many clients there are.
Whoever breaks the rules, stalls or vanishes is told why where possible, disconnected, and named in the log.
"""

import asyncio
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from socket import AF_UNIX, socket

import numpy as np

from viv1t import __version__
from viv1t.constants import FPS
from viv1t.errors import UserError
from viv1t.streaming import protocol
from viv1t.streaming.latency import Latency, in_words
from viv1t.streaming.protocol import Bye, Conversation, Frame, Hello, ProtocolError
from viv1t.streaming.sources import fitted
from viv1t.streaming.state import Stream
from viv1t.streaming.waiting import Waiting

HELLO_SECONDS = 10.0  # within which a new client must introduce itself
LINGER_SECONDS = 1.0  # that a client gets to read why it is disconnected


@dataclass(frozen=True)
class Rules:
    """What clients may do: how many, how many frames of each may wait, how long (seconds) they may be silent."""

    clients: int = 4
    queue: int = 8
    when_late: str = "queue"
    timeout: float = 60.0
    resize: bool = False


class Server:
    """Serves clients on a listening socket until it is told to stop.

    open_stream: from a client's hello to its stream; UserError if it asks for what there is not, or ProtocolError;
    frame_size: rows and columns that the twin takes; checkpoint: hash of its weights; log: takes one line.
    """

    def __init__(
        self,
        open_stream: Callable[[Hello], Stream],
        frame_size: tuple[int, int],
        checkpoint: str,
        rules: Rules,
        log: Callable[[str], None],
    ):
        self.open_stream, self.frame_size, self.checkpoint = open_stream, frame_size, checkpoint
        self.rules, self.log = rules, log
        self.latency, self.dropped, self.served = Latency(), 0, 0
        self.clients: set[asyncio.Task] = set()
        self.connections = 0  # so far; tells clients of a unix socket apart

    async def serve(self, listening: socket, stop: asyncio.Event) -> None:
        start = asyncio.start_unix_server if listening.family == AF_UNIX else asyncio.start_server
        with ThreadPoolExecutor(1, thread_name_prefix="twin") as self.worker:
            server = await start(self._meet, sock=listening)
            try:
                await stop.wait()
            finally:
                server.close()
                for task in self.clients:
                    task.cancel()
                await asyncio.gather(*self.clients, return_exceptions=True)

    async def compute(self, work: Callable, *args):
        """The result of some work of the twin, in the one thread that does such work, in order of demand."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, work, *args)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its last."""
        self.connections += 1
        address = writer.get_extra_info("peername")
        name = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else f"client {self.connections}"
        if len(self.clients) >= self.rules.clients:
            self.log(f"{name}: refused, {self.rules.clients} clients are connected")
            await leave(reader, writer, ProtocolError("busy", f"{self.rules.clients} clients are connected already"))
            return
        task = asyncio.current_task()
        self.clients.add(task)
        client = Client(self, reader, writer, name)
        try:
            self.log(f"{name}: connected ({len(self.clients)} of {self.rules.clients})")
            told, reason = await client.attend()
        finally:
            self.clients.discard(task)
            self.latency.merge(client.latency)
            self.dropped += client.waiting.dropped
            self.served += client.stream is not None
        timing = f", {in_words(client.latency.milliseconds())}" if client.latency.frames else ""
        self.log(f"{name}: {reason} ({client.latency.frames} frames, {client.waiting.dropped} dropped{timing})")
        await leave(reader, writer, told)


class Client:
    """One client and its session. A listener puts its frames where they wait; an answerer takes them to the twin."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str):
        self.server, self.rules, self.reader, self.writer, self.name = server, server.rules, reader, writer, name
        self.conversation = Conversation(server.frame_size, self.rules.resize)
        self.waiting, self.changed = Waiting(self.rules.queue, self.rules.when_late), asyncio.Condition()
        self.listening = True  # more frames may come
        self.answering = False  # a frame is with the twin, or its response on the way
        self.stream: Stream | None = None
        self.latency = Latency()
        writer.transport.set_write_buffer_limits(0)  # `drain` waits until the system has taken everything

    async def attend(self) -> tuple[ProtocolError | None, str]:
        """Serve until the client leaves or errs, or the server closes.

        What the client must still be told, if anything, and the reason for the log.
        """
        told, tasks = None, []
        try:
            await self._greet()
            tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._answer())]
            reason, _ = await asyncio.gather(*tasks)
        except ProtocolError as error:
            told, reason = error, f"{error.code}: {error}"
        except asyncio.CancelledError:
            told, reason = ProtocolError("closing", "the server is closing"), "still connected when the server closed"
        except asyncio.IncompleteReadError:
            reason = "vanished in the middle of a message"
        except OSError:
            reason = "vanished"
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            told = ProtocolError("internal", protocol.CODES["internal"])
            reason = f"internal: {error!r} in {at.filename}, line {at.lineno}"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return told, reason

    async def _greet(self) -> None:
        """Hear what the client wants, and tell it what it gets."""
        hello = await self._hear(min(HELLO_SECONDS, self.rules.timeout))
        if not isinstance(hello, Hello):
            raise ConnectionResetError
        try:
            self.stream = stream = await self.server.compute(self.server.open_stream, hello)
        except UserError as error:
            raise ProtocolError("bad_hello", str(error)) from None
        self.fit = fitted(hello.frame_size or self.server.frame_size, self.server.frame_size, True, self.name)
        mice = f"{len(stream.mouse_ids)} mice, " if len(stream.mouse_ids) > 1 else f"mouse {stream.mouse_ids[0]}, "
        self.server.log(f"{self.name}: {hello.client or 'hello'}, {mice}{stream.nbytes / 2**20:.1f} MiB of state")
        await self._send(protocol.WELCOME, {**welcome(stream, self.server.checkpoint), "limits": {
            "header_bytes": protocol.MAX_HEADER,
            "waiting_frames": self.rules.queue,
            "when_late": self.rules.when_late,
            "timeout_s": self.rules.timeout,
        }})  # fmt: skip

    async def _listen(self) -> str:
        """Let frames wait until the client has no more; how it left."""
        while isinstance(heard := await self._hear(self.rules.timeout), Frame | None):
            if heard is None:
                continue
            arrived = time.perf_counter()
            async with self.changed:
                while not self.waiting.offer(arrived, heard):
                    await self.changed.wait()
                self.changed.notify_all()
        async with self.changed:
            self.listening = False
            self.changed.notify_all()
        return "said bye" if heard.said else "left without bye"

    async def _answer(self) -> None:
        """Show waiting frames to the twin, one after the other, and send what it responds."""
        while True:
            async with self.changed:
                while not self.waiting:
                    if not self.listening:
                        return
                    await self.changed.wait()
                arrived, frame = self.waiting.take()
                self.answering = True
                self.changed.notify_all()
            rates, seconds = await self.server.compute(self._show, frame)
            header = {
                "frame": frame.number,
                "time": frame.time,
                "shown": self.stream.frames,
                "dropped": self.waiting.dropped,
                "latency_ms": round(1000 * (time.perf_counter() - arrived), 3),
                "step_ms": round(1000 * seconds, 3),
            }
            await self._send(protocol.RESPONSE, header, rates)
            self.latency.add(time.perf_counter() - arrived)
            self.answering = False

    def _show(self, frame: Frame) -> tuple[bytes, float]:
        """Rates of all mice, one after the other, and the seconds it took."""
        start = time.perf_counter()
        if frame.first:
            self.stream.reset()
        rates = self.stream.step(self.fit(frame.pixels), frame.behavior, frame.pupil_center)
        body = b"".join(np.asarray(rates[id], protocol.RATES).tobytes() for id in self.stream.mouse_ids)
        return body, time.perf_counter() - start

    async def _hear(self, seconds: float) -> Hello | Frame | Bye | None:
        """The meaning of the next message, which must begin, and end, within so many seconds."""
        await asyncio.sleep(0)  # whoever sends much at once lets others speak in between
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    start = await self.reader.read(1)
                break
            if not self.answering and not self.waiting:  # else it may wait for us
                raise ProtocolError("timeout", f"nothing came for {seconds:g} s")
        if not start:
            return Bye(said=False)
        try:
            async with asyncio.timeout(seconds):
                prefix = start + await self.reader.readexactly(protocol.PREFIX.size - 1)
                kind, *sizes = protocol.parse_prefix(prefix)
                return self.conversation.hear(kind, *[await self.reader.readexactly(size) for size in sizes])
        except TimeoutError:
            raise ProtocolError("timeout", f"a message was not complete after {seconds:g} s") from None

    async def _send(self, kind: int, header: dict, body: bytes = b"") -> None:
        self.writer.write(protocol.encode(kind, header, body))
        try:
            async with asyncio.timeout(self.rules.timeout):
                await self.writer.drain()
        except TimeoutError:
            raise ProtocolError("timeout", f"answers were not read for {self.rules.timeout:g} s") from None


def welcome(stream: Stream, checkpoint: str) -> dict:
    """What a stream is: its mice, in the order of their rates, and the frames it takes."""
    return {
        "software": f"viv1t {__version__}",
        "checkpoint": checkpoint,
        "mice": [
            {"id": id, "neurons": stream.neurons[id].tolist(), "unit_ids": stream.unit_ids[id].tolist()}
            for id in stream.mouse_ids
        ],
        "frame_size": list(stream.frame_size),
        "fps": FPS,
        "units": "recorded",
        "state_bytes": int(stream.nbytes),
    }  # fmt: skip


async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: ProtocolError | None) -> None:
    """Close a connection. A client that must be told something gets a moment to read it.

    Its own messages are read and forgotten meanwhile: closing on unread ones would take our words back.
    """
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            if told is not None:
                writer.write(protocol.encode(protocol.ERROR, {"code": told.code, "text": str(told)}))
                await writer.drain()
                writer.write_eof()
                while await reader.read(1 << 16):
                    continue
    except OSError:
        pass  # too slow to read it, or gone
    finally:
        writer.transport.abort()
