"""Imports point down only; scripts never import each other; matplotlib and torch stay at their levels."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "viv1t"

# From the ground up; a module may import from its own level if listed in WITHIN, and from every level below.
LEVELS = (
    {"constants", "geometry", "errors"},
    {"stimulus", "estimators", "stats", "results", "tables", "cli", "io", "baselines", "movies", "measurements",
     "curves", "looks"},
    {"data", "simulate"},
    {"device", "distributed", "model", "training", "evaluation", "shown", "truth"},
    {"portable"},
    {"checkpoint"},
    {"inference"},
    {"origin"},
    {"streaming", "presentation", "scoring", "sweep", "study"},
    {"subjects", "attention"},
    {"experiment"},
    {"targets"},
)  # fmt: skip
WITHIN = {
    ("cli", "io"), ("results", "io"), ("results", "stats"), ("results", "cli"), ("movies", "io"),
    ("measurements", "io"), ("curves", "io"), ("looks", "io"),
    ("baselines", "io"), ("baselines", "estimators"), ("estimators", "stats"), ("training", "device"),
    ("training", "model"), ("model", "device"), ("training", "checkpoint"), ("training", "distributed"),
    ("device", "distributed"), ("constants", "errors"), ("geometry", "constants"), ("simulate", "data"),
}  # fmt: skip
TORCH_FROM = 2  # the first level that may import torch


def noun(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level(name: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if name in names)


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")
FOLDERS = (
    "",
    "data",
    "misc",
    "benchmarks",
    "examples",
    "tuning_retinotopy",
    "tuning_direction",
    "tuning_feedbackRF",
    "tuning_contextual_modulation",
)
SCRIPTS = sorted(p for folder in FOLDERS for p in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_points_up(path):
    own = noun(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("viv1t.")} - {own, "__version__"}
    if own == "plotting":
        allowed = {"plotting"} | LEVELS[0] | LEVELS[1]
        assert used <= allowed, "plotting sees arrays and tables, never a model"
        return
    for other in used:
        assert other != "plotting", "only scripts draw"
        assert level(other) < level(own) or (own, other) in WITHIN, f"{own} must not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_and_matplotlib_stay_at_their_level(path):
    roots = {name.split(".")[0] for name in imports(path)}
    own = noun(path)
    assert "matplotlib" not in roots or own == "plotting"
    assert "torch" not in roots or (own != "plotting" and level(own) >= TORCH_FROM)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_scripts_never_import_each_other(path):
    others = {p.stem for p in SCRIPTS if p.parent == path.parent} - {path.stem}
    helpers = {"textbook"}  # the benchmark's yardstick, a module, not a script
    used = {name.split(".")[0] for name in imports(path)} - helpers
    assert not used & others
    assert not used & {folder for folder in FOLDERS if folder}


def test_optional_packages_are_imported_where_they_are_used():
    optional = {"wandb", "ray", "optuna", "ffmpeg", "pyarrow"}
    for path in [*MODULES, *SCRIPTS]:
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {a.name.split(".")[0] for n in top if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module.split(".")[0] for n in top if isinstance(n, ast.ImportFrom) and n.module}
        assert not names & optional, path
