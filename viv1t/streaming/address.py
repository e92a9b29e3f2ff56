"""Where a server listens: tcp://HOST:PORT or unix:///PATH, opened with care."""

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from viv1t.data.locking import locked
from viv1t.errors import UserError

SCHEMES = ("tcp://", "unix://")
LOOPBACK = "127.0.0.1"
LONGEST = 100  # bytes of a unix socket's path; systems end between 103 and 107


def is_address(place: str) -> bool:
    return place.startswith(SCHEMES)


@contextmanager
def listening(place: str, allow_remote: bool = False) -> Iterator[socket.socket]:
    """A socket that listens at an address; unix sockets are their owner's alone, and removed in the end.

    UserError if others on the network could reach it and `allow_remote` is not given, or if it cannot be had.
    """
    open_socket = (
        _tcp(place, allow_remote) if place.startswith("tcp://") else _unix(Path(place.removeprefix("unix://")))
    )
    with open_socket as opened:
        yield opened


def name_of(opened: socket.socket) -> str:
    """The address where a socket really listens."""
    if opened.family == socket.AF_UNIX:
        return f"unix://{opened.getsockname()}"
    host, port = opened.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


@contextmanager
def _tcp(place: str, allow_remote: bool) -> Iterator[socket.socket]:
    try:
        parts = urlsplit(place)
        host, port = parts.hostname or LOOPBACK, parts.port
        well_formed = port is not None and not parts.path.strip("/") and "@" not in place and not parts.query
    except ValueError:
        well_formed = False
    if not well_formed:
        raise UserError(f"--source {place}: write tcp://HOST:PORT with a port of 0..65535, 0 for any that is free.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UserError(f"--source {place}: {host} cannot be found. Name an address of this machine.") from None
    if not ipaddress.ip_address(address[0].split("%")[0]).is_loopback and not allow_remote:
        raise UserError(
            f"--source {place}: other machines could reach {address[0]}, and nothing here is encrypted or asks for a "
            f"password. Use tcp://{LOOPBACK}:{port}, or add --allow_remote if you trust the network."
        )
    with socket.socket(family, kind) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(address)
            opened.listen()
        except OSError as error:
            cure = " Name another port, or 0 for any that is free." if error.errno == errno.EADDRINUSE else ""
            raise UserError(f"--source {place}: {error.strerror.lower()}.{cure}") from None
        yield opened


@contextmanager
def _unix(path: Path) -> Iterator[socket.socket]:
    if not path.name or not path.parent.is_dir():
        raise UserError(
            f"--source unix://{path}: no folder {path.parent}. Write unix:///PATH with a folder that exists."
        )
    if len(os.fsencode(path)) > LONGEST:
        raise UserError(f"--source unix://{path}: longer than the {LONGEST} bytes that such a path may have.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
        with locked(path.with_name(f".{path.name}.lock")):  # two servers that start at once must not both find it free
            _make_free(path)
            before = os.umask(0o177)  # readable and writable for its owner from the first moment
            try:
                opened.bind(str(path))
            finally:
                os.umask(before)
            opened.listen()
            made = os.lstat(path)
        try:
            yield opened
        finally:
            if path.exists() and os.path.samestat(made, os.lstat(path)):
                path.unlink()


def _make_free(path: Path) -> None:
    """Remove a socket that a killed server left; UserError if anything else is there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UserError(f"--source unix://{path}: exists and is no socket; it is left alone. Name another path.")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass  # somebody is there who is busy, or whom we may not ask
    raise UserError(f"--source unix://{path}: another server listens there. Stop it, or name another path.")
