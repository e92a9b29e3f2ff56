"""Images are made of what the project has, hold no recordings, and run as nobody in particular."""

import fnmatch
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """(word, rest) of every instruction, continued lines joined."""
    lines = path.read_text().replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_made_of_files_that_are_there_and_not_run_by_root(path):
    told = instructions(path)
    copied = [source for word, rest in told if word == "COPY" for source in shlex.split(rest)[:-1]]
    assert copied == ["constraints.txt", "."] and all((ROOT / source).exists() for source in copied)
    users = [rest for word, rest in told if word == "USER"]
    assert users == ["viv1t"] and [word for word, _ in told][-2:] == ["USER", "CMD"]
    installed = " ".join(rest for word, rest in told if word == "RUN")
    assert "-r constraints.txt" in installed and "useradd" in installed and "--no-deps -e ." in installed


def ignored(name: str) -> bool:
    """Whether a path of the project stays out of images, by the patterns of .dockerignore; the last one decides."""
    verdict = False
    for pattern in (ROOT / ".dockerignore").read_text().split("\n"):
        if pattern and not pattern.startswith("#"):
            kept, pattern = pattern.startswith("!"), pattern.lstrip("!").removeprefix("**/")
            parts = [name, *name.split("/"), "/".join(name.split("/")[:2])]
            verdict = not kept if any(fnmatch.fnmatchcase(part, pattern) for part in parts) else verdict
    return verdict


@pytest.mark.parametrize("name", [".git", ".venv", "runs", "data/simulated", "data/sensorium", "viv1t/__pycache__"])
def test_recordings_runs_and_caches_stay_out(name):
    assert ignored(name)


def test_code_goes_in():
    scripts = [
        path.relative_to(ROOT) for path in (*ROOT.glob("*.py"), *ROOT.glob("data/*.py"), *ROOT.glob("viv1t/**/*.py"))
    ]
    assert scripts and not [path for path in scripts if ignored(str(path))]
    assert not ignored("pyproject.toml") and not ignored("presets/demo.txt") and not ignored("README.md")


def test_commands_name_scripts_and_presets_that_exist():
    job = yaml.safe_load((ROOT / "docker" / "job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"]
    words = [*container["command"], *(ROOT / "docker" / "README.md").read_text().split()]
    named = [word.removeprefix("@") for word in words if word.endswith(".py") or word.startswith("@")]
    assert {"train.py", "predict.py", "report.py"} <= set(named)
    assert all((ROOT / name).is_file() for name in named)
