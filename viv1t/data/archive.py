"""Unpack a zip archive that somebody else made, without trusting it."""

import shutil
import stat
import uuid
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from viv1t.data.mice import is_recording
from viv1t.errors import UserError

LARGEST = 200 * 10**9  # bytes that one recording may unpack to


def unpack(archive: Path, folder: Path, label: str = "") -> None:
    """Unpack the recording in an archive to `folder`, whole or not at all; the checksum of every entry is tested.

    UserError if the archive is damaged, reaches outside, holds links or no recording, or does not fit on the disk.
    """
    needed = checked_size(archive)
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a killed process
        shutil.rmtree(leftover)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UserError(f"{folder.parent}: {needed / 1e9:.1f} GB to unpack, {free / 1e9:.1f} GB are free. Free some.")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in tqdm(file.infolist(), unit="file", desc=label or folder.name, disable=None):
                file.extract(entry, temporary)
        roots = (temporary, *sorted(temporary.glob("*")), *sorted(temporary.glob("*/*")))
        recording = next((root for root in roots if is_recording(root)), None)
        if recording is None:
            raise UserError(f"{archive}: holds no recording (no meta/trials/tiers.npy). Delete it and run again.")
        recording.rename(folder)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: damaged ({error}). Delete it and run again.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def checked_size(archive: Path) -> int:
    """Bytes an archive unpacks to; UserError unless every entry is a plain file or folder inside it."""
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
    except zipfile.BadZipFile:
        raise UserError(f"{archive}: not a complete zip archive. Delete it and run again.") from None
    for entry in entries:
        flaw = _flaw(entry)
        if flaw:
            raise UserError(f"{archive}: the entry '{entry.filename}' {flaw}; nothing was unpacked. Do not trust it.")
    size = sum(entry.file_size for entry in entries)
    if size > LARGEST:
        raise UserError(f"{archive}: unpacks to {size / 1e9:.0f} GB, more than any recording. Do not trust it.")
    return size


def _flaw(entry: zipfile.ZipInfo) -> str:
    name = PurePosixPath(entry.filename)
    if name.is_absolute() or ".." in name.parts or set(entry.filename) & {"\\", ":"}:
        return "points outside the archive"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link"
    return "is encrypted" if entry.flag_bits & 1 else ""
