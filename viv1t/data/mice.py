"""Which recordings exist: names of the published ones, and a search for any folder in their layout."""

import re
from dataclasses import dataclass
from pathlib import Path

from viv1t.cli import did_you_mean
from viv1t.errors import UserError
from viv1t.geometry import MONITORS, Monitor

LABS = {"sensorium": "sensorium", "rochefort-lab": "rochefort"}  # lab folder -> its monitor in `geometry.MONITORS`
_OLD = "Video-8744edeac3b4d1ce16b680916b5267ce"
_NEW = "Video-9b4f6a1a067fe51e15306b9628efea20"
_GIN = "https://gin.g-node.org/pollytur/{}/raw/master"
_ID = re.compile(r"[A-Za-z0-9_-]+")
_FOLLOW_UP = re.compile(r"_day([2-9]|[1-9]\d+)$")


@dataclass(frozen=True)
class KnownRecording:
    """A published recording: its folder below the data directory and where it can be downloaded ('' if nowhere)."""

    lab: str
    folder: str
    group: str
    url: str = ""


def _sensorium(animal: str, year: str) -> KnownRecording:
    suffix, source = (_OLD, "Sensorium2023Data") if year == "old" else (_NEW, "sensorium_2023_dataset")
    folder = f"dynamic{animal}-{suffix}"
    return KnownRecording("sensorium", folder, f"sensorium_{year}", f"{_GIN.format(source)}/{folder}.zip")


def _rochefort(folder: str) -> KnownRecording:
    return KnownRecording("rochefort-lab", folder, "rochefort_lab")


KNOWN: dict[str, KnownRecording] = {
    "A": _sensorium("29156-11-10", "old"),
    "B": _sensorium("29228-2-10", "old"),
    "C": _sensorium("29234-6-9", "old"),
    "D": _sensorium("29513-3-5", "old"),
    "E": _sensorium("29514-2-9", "old"),
    "F": _sensorium("29515-10-12", "new"),
    "G": _sensorium("29623-4-9", "new"),
    "H": _sensorium("29647-19-8", "new"),
    "I": _sensorium("29712-5-9", "new"),
    "J": _sensorium("29755-2-8", "new"),
    "K": _rochefort("VIPcre232_FOV1_day1"),
    "L": _rochefort("VIPcre232_FOV2_day1"),
    "M": _rochefort("VIPcre233_FOV1_day1"),
    "N": _rochefort("VIPcre233_FOV2_day1"),
    "O": _rochefort("VT288_FOV1_day1"),
    "P": _rochefort("VT289_FOV1_day1"),
}
ALIASES = {known.folder: alias for alias, known in KNOWN.items()}


SIMULATED = "simulated"  # the folder that data/simulate.py writes to


def is_recording(folder: Path) -> bool:
    return (folder / "meta" / "trials" / "tiers.npy").is_file()


def lab_of(folder: Path) -> str:
    """The lab folder a recording lies in: a known one among its parents, else its immediate parent."""
    folder = folder.resolve()
    return next((parent.name for parent in folder.parents if parent.name in LABS), folder.parent.name)


def known_monitor(lab: str) -> Monitor | None:
    return MONITORS[LABS[lab]] if lab in LABS else None


def recording_id(folder: Path) -> str:
    """The alias of a published recording (A, K_day2), else the folder's name.

    The movies repeated in a later session lie one level deeper, in `natural_movies`, and take their session's id.
    """
    folder = folder.resolve()
    name = folder.parent.name if folder.name == "natural_movies" else folder.name
    if name in ALIASES:
        return ALIASES[name]
    first_day = _FOLLOW_UP.sub("_day1", name)
    if first_day != name and first_day in ALIASES:
        return f"{ALIASES[first_day]}{_FOLLOW_UP.search(name).group()}"
    return name


def first_session(mouse_id: str) -> str:
    """The id of a mouse's first session, in which its neurons have their numbers: K of K_day2."""
    return _FOLLOW_UP.sub("", mouse_id)


def find_recordings(data_dir: Path | str, mouse_ids: list[str] | None = None) -> dict[str, Path]:
    """Recordings below `data_dir` (<data_dir>/<lab>/<recording>, or up to two levels fewer) by mouse id.

    Without `mouse_ids`: all first sessions, which must then come from one lab (simulated mice do not count beside real
    ones); follow-up sessions (`..._day2`) are opened only by name. Raises UserError for unknown or ambiguous ids, or
    when nothing is found.
    """
    found = _search(Path(data_dir))
    if not found:
        raise UserError(
            f"{data_dir}: no recordings found. Simulate some with 'python data/simulate.py' or get the published ones "
            "with 'python data/download.py', or name their folder with --data_dir."
        )
    if mouse_ids is None:
        chosen = {id: folders for id, folders in found.items() if not _FOLLOW_UP.search(id)} or found
        labs = sorted({lab_of(folder) for folders in chosen.values() for folder in folders})
        if SIMULATED in labs and len(labs) > 1:
            print(f"{data_dir}: simulated mice are left out beside real ones; name them with --mouse_ids to use them.")
            labs.remove(SIMULATED)
            chosen = {id: [f for f in folders if lab_of(f) != SIMULATED] for id, folders in chosen.items()}
            chosen = {id: folders for id, folders in chosen.items() if folders}
        if len(labs) > 1:
            raise UserError(
                f"{data_dir} holds recordings of {len(labs)} labs ({', '.join(labs)}). Say which mice with "
                f"--mouse_ids, or name one lab with --data_dir {Path(data_dir) / labs[0]}."
            )
    else:
        chosen = {id: found[id] if id in found else _unknown(id, found, data_dir) for id in mouse_ids}
    for id, folders in chosen.items():
        if len(folders) > 1:
            places = ", ".join(str(folder) for folder in folders)
            raise UserError(f"mouse {id} exists more than once below {data_dir} ({places}). Narrow --data_dir.")
    return {id: folders[0] for id, folders in chosen.items()}


def _search(data_dir: Path) -> dict[str, list[Path]]:
    """Every folder in the layout, at most two levels down (later sessions: one more), by id."""
    found: dict[str, list[Path]] = {}
    for pattern in (".", "*", "*/*", "*/*/natural_movies"):
        for folder in sorted(data_dir.glob(pattern)) if pattern != "." else [data_dir]:
            hidden = any(part.startswith(".") for part in folder.relative_to(data_dir).parts)
            if hidden or not is_recording(folder):
                continue
            id = recording_id(folder)
            if not _ID.fullmatch(id):
                raise UserError(f"{folder}: mouse ids are made of letters, digits, - and _. Rename the folder.")
            if folder not in found.setdefault(id, []):
                found[id].append(folder)
    return dict(sorted(found.items()))


def _unknown(id: str, found: dict, data_dir: Path | str):
    if id in KNOWN:
        known = KNOWN[id]
        cure = f"Get it with 'python data/download.py --mouse_ids {id}'." if known.url else "It is not public yet."
        raise UserError(f"mouse {id}: no recording {Path(data_dir) / known.lab / known.folder}. {cure}")
    raise UserError(f"mouse {id} is not below {data_dir}{did_you_mean(id, list(found))}; found: {', '.join(found)}.")
