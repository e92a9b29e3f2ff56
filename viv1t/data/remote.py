"""Files on a server, fetched over an unreliable connection."""

import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from viv1t.errors import UserError

CHUNK = 1 << 20
TIMEOUT = 60  # s without a byte before a connection counts as broken
ATTEMPTS = 5  # in a row without a new byte
BACKOFF = 1.0  # s before the second attempt, doubled before each further one
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def remote_size(url: str, backoff: float = BACKOFF) -> int | None:
    """Bytes of a remote file, None if the server does not tell. UserError if it is not there or not reachable."""
    for failures in range(ATTEMPTS):
        try:
            with _open(url, method="HEAD") as response:
                return _length(response)
        except _BROKEN as error:
            if getattr(error, "code", None) in (405, 501):
                return None  # a server without HEAD
            reason = _transient(url, error)
        time.sleep(backoff * 2**failures)
    raise UserError(
        f"{url}: not reachable, {reason}. Check the network and run again, or put the archive into the data directory."
    )


def fetch(url: str, path: Path, size: int | None, label: str = "", backoff: float = BACKOFF) -> None:
    """Download `url` to `path`, continuing `<path>.part` if there is one. size: what `remote_size` said.

    Broken connections are tried again, up to ATTEMPTS times in a row without progress; then, or when the server sends
    something else than it announced, UserError. The part file stays, so that a later call goes on from it.
    """
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    if size is not None and part.stat().st_size > size:
        os.truncate(part, 0)  # of another file
    failures, complete = 0, part.stat().st_size == size
    with tqdm(total=size, unit="B", unit_scale=True, desc=label or path.name, disable=None) as bar:
        while not complete:
            before = part.stat().st_size
            try:
                complete = _receive(url, part, size, bar)
                reason = "the connection was closed"
            except _BROKEN as error:
                reason = _transient(url, error)
            if complete:
                break
            received = part.stat().st_size
            failures = 0 if received > before else failures + 1
            if failures == ATTEMPTS:
                raise UserError(
                    f"{url}: {reason} after {received} of {size or 'an unknown number of'} bytes, {ATTEMPTS} times. "
                    "Run the same command again later; it goes on where it stopped."
                )
            time.sleep(backoff * 2 ** max(failures - 1, 0))
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def check_sha256(path: Path, expected: str) -> None:
    """UserError unless the file has this SHA-256."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.lower():
        raise UserError(f"{path}: SHA-256 is {found}, expected {expected}. Delete it and run again.")


def _receive(url: str, part: Path, size: int | None, bar: tqdm) -> bool:
    """Add to `part` what one connection delivers; whether the file is complete."""
    have = part.stat().st_size
    with _open(url, start=have) as response:
        if response.status == 206:
            have = min(have, _range_start(response))
        else:
            have = 0  # the server sends the file from its beginning, whatever it is asked for
        length = _length(response)
        total = size if length is None else have + length
        if size is not None and total != size:
            raise UserError(f"{url}: {size} bytes were announced, {total} are sent. Run again later or use a mirror.")
        bar.reset(total=total)
        bar.update(have)
        with open(part, "r+b") as file:
            file.truncate(have)
            file.seek(have)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                file.flush()
                bar.update(len(chunk))
    received = part.stat().st_size
    if total is not None and received > total:
        os.truncate(part, 0)
        raise UserError(f"{url}: {total} bytes were announced, {received} were sent. Run again later or use a mirror.")
    return total is None or received == total


def _open(url: str, method: str = "GET", start: int = 0) -> http.client.HTTPResponse:
    headers = {"User-Agent": "viv1t", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=TIMEOUT)


def _length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _range_start(response: http.client.HTTPResponse) -> int:
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else 0


def _transient(url: str, error: Exception) -> str:
    """Why to try again; UserError where that would not help."""
    if not isinstance(error, urllib.error.HTTPError):
        return f"the connection failed ({getattr(error, 'reason', error)})"
    if error.code < 500 and error.code not in (408, 416, 429):
        raise UserError(f"{url}: the server answered {error.code} {error.reason}. Check --base_url or try later.")
    return f"the server answered {error.code}"
