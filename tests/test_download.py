"""Downloads survive a bad network, go on where they stopped, and never write outside their folder."""

import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import write_recording

from viv1t.data import archive, remote
from viv1t.data.mice import KNOWN
from viv1t.data.recording import Recording
from viv1t.errors import UserError

SCRIPT = Path(__file__).parents[1] / "data" / "download.py"
FAST = 0.001  # s of back-off


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, with one vice at a time, and remembers where downloads started."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.vice, self.starts, self.heads = "", [], 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.server.heads += 1
        if self.server.vice == "no HEAD":
            return self.send_error(405)
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        vice, content = self.server.vice, self.server.files.get(self.path.lstrip("/"))
        if content is None:
            return self.send_error(404)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if vice == "ignores Range":
            start = 0
        if body:
            self.server.starts.append(start)
            if vice == "overloaded" and len(self.server.starts) < 3:
                return self.send_error(503)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        surplus = 999 if vice == "announces too much" or vice == "announces otherwise" and not body else 0
        self.send_header("Content-Length", str(len(content) - start + surplus))
        self.end_headers()
        if body:
            rest = content[start:]
            broken = vice == "breaks off" or vice == "breaks off once" and len(self.server.starts) == 1
            self.wfile.write(rest[: len(rest) // 2 if broken else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def content(server):
    server.files["file"] = bytes(range(256)) * 1000
    return server.files["file"]


def fetch(server, path):
    url = f"{server.url}/file"
    remote.fetch(url, path, remote.remote_size(url, FAST), backoff=FAST)
    return path.read_bytes()


@pytest.mark.parametrize("vice", ["", "ignores Range", "breaks off once", "overloaded", "no HEAD"])
def test_files_arrive_whole(server, content, tmp_path, vice):
    server.vice = vice
    assert fetch(server, tmp_path / "copy") == content
    assert not (tmp_path / "copy.part").exists()


def test_a_broken_connection_goes_on_where_it_broke(server, content, tmp_path):
    server.vice = "breaks off once"
    assert fetch(server, tmp_path / "copy") == content
    assert server.starts == [0, len(content) // 2]


@pytest.mark.parametrize(("vice", "starts"), [("", [1000]), ("ignores Range", [0])])
def test_a_rerun_goes_on_from_the_part_file(server, content, tmp_path, vice, starts):
    server.vice = vice
    (tmp_path / "copy.part").write_bytes(content[:1000])
    assert fetch(server, tmp_path / "copy") == content
    assert server.starts == starts


def test_a_part_file_that_is_already_complete_or_too_long(server, content, tmp_path):
    (tmp_path / "copy.part").write_bytes(content)
    assert fetch(server, tmp_path / "copy") == content and server.starts == []
    (tmp_path / "copy.part").write_bytes(content + b"more")
    assert fetch(server, tmp_path / "copy") == content and server.starts == [0]


def test_giving_up_keeps_what_arrived_and_says_so(server, content, tmp_path):
    server.vice = "announces too much"
    with pytest.raises(UserError, match="goes on where it stopped"):
        fetch(server, tmp_path / "copy")
    assert (tmp_path / "copy.part").read_bytes() == content
    assert not (tmp_path / "copy").exists()


def test_a_size_that_changes_is_refused(server, content, tmp_path):
    server.vice = "announces otherwise"
    with pytest.raises(UserError, match="were announced"):
        fetch(server, tmp_path / "copy")


def test_absent_files_and_servers(server, tmp_path):
    with pytest.raises(UserError, match="404"):
        remote.remote_size(f"{server.url}/absent", FAST)
    with pytest.raises(UserError, match="404"):
        remote.fetch(f"{server.url}/absent", tmp_path / "copy", None, backoff=FAST)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="Check the network"):
        remote.remote_size(f"{server.url}/file", FAST)


def test_checksums(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    remote.check_sha256(tmp_path / "file", hashlib.sha256(b"content").hexdigest().upper())
    with pytest.raises(UserError, match="SHA-256"):
        remote.check_sha256(tmp_path / "file", hashlib.sha256(b"other").hexdigest())


def zip_of(folder: Path, top: str = "") -> bytes:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.rglob("*.npy")):
            file.write(member, f"{top}{member.relative_to(folder)}")
    return path.read_bytes()


@pytest.fixture(scope="module")
def archived(tmp_path_factory):
    return zip_of(write_recording(tmp_path_factory.mktemp("source") / "mouse"), top="some folder/")


@pytest.mark.parametrize("top", ["", "recording/", "a/recording/"])
def test_archives_with_any_top_folder(make_recording, tmp_path, top):
    zip_of(make_recording(), top)
    archive.unpack(tmp_path / "data" / "lab" / "mouse.zip", tmp_path / "unpacked")
    assert Recording(tmp_path / "unpacked").num_neurons == 8


def link_entry() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    "entry", ["../outside", "/outside", "a/../../outside", "..\\outside", "C:/outside", link_entry()]
)
def test_archives_that_reach_outside_are_refused_whole(tmp_path, entry):
    path = tmp_path / "in" / "bad.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("meta/trials/tiers.npy", "harmless")
        file.writestr(entry, "/etc/passwd")
    with pytest.raises(UserError, match="nothing was unpacked"):
        archive.unpack(path, tmp_path / "in" / "mouse")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "bad.zip"]


def test_archives_that_are_too_large(archived, tmp_path, monkeypatch):
    (tmp_path / "mouse.zip").write_bytes(archived)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(UserError, match="are free"):
        archive.unpack(tmp_path / "mouse.zip", tmp_path / "mouse")
    monkeypatch.setattr(archive, "LARGEST", 1000)
    with pytest.raises(UserError, match="more than any recording"):
        archive.unpack(tmp_path / "mouse.zip", tmp_path / "mouse")


@pytest.mark.parametrize("damage", ["cut off", "flipped", "no recording"])
def test_damaged_archives_leave_nothing(archived, tmp_path, damage):
    path = tmp_path / "mouse.zip"
    middle = len(archived) // 2
    if damage == "no recording":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("readme", "nothing else")
    else:
        flipped = archived[:middle] + bytes(200) + archived[middle + 200 :]
        path.write_bytes(archived[:-99] if damage == "cut off" else flipped)
    with pytest.raises(UserError, match="Delete it"):
        archive.unpack(path, tmp_path / "mouse")
    assert [p.name for p in tmp_path.iterdir()] == ["mouse.zip"]


def download(server, data_dir, *options):
    command = [sys.executable, str(SCRIPT), "--data_dir", str(data_dir), "--base_url", server.url, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_command_downloads_skips_and_uses_local_archives(server, archived, tmp_path):
    for id in "AF":
        server.files[f"{KNOWN[id].folder}.zip"] = archived
    sums = tmp_path / "sums"
    sums.write_text(f"{hashlib.sha256(archived).hexdigest()}  {KNOWN['A'].folder}.zip\n")
    code, out, err = download(server, tmp_path / "data", "--mouse_ids", "A", "--checksums", str(sums))
    assert code == 0, err
    assert "GB to download" in out
    folder = tmp_path / "data" / "sensorium" / KNOWN["A"].folder
    assert Recording(folder).id == "A" and not folder.with_name(f"{folder.name}.zip").exists()
    (tmp_path / "data" / f"{KNOWN['B'].folder}.zip").write_bytes(archived)
    started = len(server.starts)
    code, out, err = download(server, tmp_path / "data", "--mouse_ids", "A", "B", "--keep_zip")
    assert code == 0, err
    assert "mouse A: already in" in out and len(server.starts) == started
    assert Recording(folder.with_name(KNOWN["B"].folder)).id == "B"
    assert (tmp_path / "data" / f"{KNOWN['B'].folder}.zip").exists()


def test_the_command_refuses_a_traversal_with_exit_code_2(server, tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../escaped", "x")
    server.files[f"{KNOWN['A'].folder}.zip"] = path.read_bytes()
    code, _, err = download(server, tmp_path / "data", "--mouse_ids", "A")
    assert code == 2 and len(err.strip().splitlines()) == 1 and "points outside" in err
    assert not list(tmp_path.rglob("escaped"))


def test_the_command_says_404_in_one_line(server, tmp_path):
    code, _, err = download(server, tmp_path / "data", "--mouse_ids", "A")
    assert code == 2 and "404" in err and len(err.strip().splitlines()) == 1


def test_published_recordings_have_addresses():
    for id in "ABCDEFGHIJ":
        assert KNOWN[id].url.startswith("https://gin.g-node.org/pollytur/") and KNOWN[id].url.endswith(".zip")
    assert "Sensorium2023Data" in KNOWN["E"].url and "sensorium_2023_dataset" in KNOWN["F"].url
    assert not KNOWN["K"].url
