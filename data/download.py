"""Download the ten recordings of Sensorium 2023 (mice A to J) and unpack them below --data_dir.

    python data/download.py                        all ten, one after another
    python data/download.py --mouse_ids A B        some of them

A download that was interrupted goes on where it stopped when the command is run again, and recordings that are
complete are skipped. An archive that already lies in the data directory is used. The recordings are published by
their authors under CC BY-NC-ND.

Reads nothing but the network. Writes <data_dir>/sensorium/<recording>/. Next: python data/check.py, python train.py
"""

import shutil
from pathlib import Path

from viv1t import cli
from viv1t.data import archive, remote
from viv1t.data.locking import locked
from viv1t.data.mice import KNOWN, KnownRecording
from viv1t.data.recording import Recording
from viv1t.errors import UserError

PUBLIC = [id for id, known in KNOWN.items() if known.url]


def main(args) -> None:
    data_dir = Path(args.data_dir)
    checksums = read_checksums(args.checksums) if args.checksums else {}
    missing = [id for id in dict.fromkeys(args.mouse_ids) if not is_complete(id, data_dir)]
    sizes = announce(missing, data_dir, args.base_url)
    for id in missing:
        folder = folder_of(id, data_dir)
        busy = f"{folder}: another process downloads this recording. Wait for it."
        with locked(folder.with_name(f".{folder.name}.lock"), busy):
            zipped = local_archive(id, data_dir)
            if zipped is None:
                zipped = folder.with_name(f"{folder.name}.zip")
                remote.fetch(url_of(id, args.base_url), zipped, sizes[id], label=f"mouse {id}: downloading")
            if zipped.name in checksums:
                remote.check_sha256(zipped, checksums[zipped.name])
            archive.unpack(zipped, folder, label=f"mouse {id}: unpacking")
            Recording(folder, id)
            if not args.keep_zip:
                zipped.unlink()
        print(f"mouse {id}: {folder}")


def folder_of(id: str, data_dir: Path) -> Path:
    return data_dir / KNOWN[id].lab / KNOWN[id].folder


def url_of(id: str, base_url: str | None) -> str:
    known: KnownRecording = KNOWN[id]
    return f"{base_url.rstrip('/')}/{known.folder}.zip" if base_url else known.url


def is_complete(id: str, data_dir: Path) -> bool:
    """Whether the recording is there and passes the checks; UserError if its folder holds something else."""
    folder = folder_of(id, data_dir)
    if not folder.exists():
        return False
    try:
        Recording(folder, id)
    except UserError as error:
        raise UserError(f"{error} To download mouse {id} again, delete {folder} first.") from None
    print(f"mouse {id}: already in {folder}")
    return True


def local_archive(id: str, data_dir: Path) -> Path | None:
    """An archive that the user put into the data directory or its lab folder."""
    name = f"{KNOWN[id].folder}.zip"
    return next((path for path in (data_dir / KNOWN[id].lab / name, data_dir / name) if path.is_file()), None)


def announce(missing: list[str], data_dir: Path, base_url: str | None) -> dict[str, int | None]:
    """Print what will be downloaded; returns the sizes in bytes. UserError if it cannot fit on the disk."""
    sizes = {id: remote.remote_size(url_of(id, base_url)) for id in missing if not local_archive(id, data_dir)}
    if not sizes:
        return {}
    data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_dir).free
    for id, size in sizes.items():
        print(f"mouse {id}: {'unknown size' if size is None else f'{size / 1e9:.2f} GB'} to download")
    total, largest = sum(size or 0 for size in sizes.values()), max(size or 0 for size in sizes.values())
    print(f"At least {(total + largest) / 1e9:.2f} GB of disk space are needed, {free / 1e9:.2f} GB are free.")
    if free < total + largest:
        raise UserError(f"{data_dir}: not enough disk space. Free some, or download fewer mice with --mouse_ids.")
    return sizes


def read_checksums(path: str) -> dict[str, str]:
    """File name -> SHA-256, from lines as `sha256sum` writes them."""
    try:
        lines = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        return {Path(name.lstrip("*")).name: digest for digest, name in lines}
    except (OSError, ValueError):
        raise UserError(f"{path}: not readable as lines of 'SHA-256 file name', as sha256sum writes them.") from None


def parse_options() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--data_dir", default="data", help="where to put them (default: data)")
    parser.add_argument("--mouse_ids", nargs="+", default=PUBLIC, choices=PUBLIC, metavar="ID", help="default: A to J")
    parser.add_argument("--keep_zip", action="store_true", help="keep the archives after unpacking")
    parser.add_argument("--base_url", help="a mirror: <base_url>/<recording>.zip (default: the authors' repository)")
    parser.add_argument(
        "--checksums", help="file with SHA-256 sums, as sha256sum writes them, to verify archives with"
    )
    return parser


if __name__ == "__main__":
    cli.run(main, parse_options())
