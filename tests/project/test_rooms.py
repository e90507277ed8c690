# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Rooms of the package know only rooms below them, by the import statements of the sources."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.imports import imported_names
from tests.helpers.paths import ROOT

PACKAGE = ROOT / "anomalib_hgad"
FLOORS = (
    ("common", "compatibility"),
    ("data",),
    ("evaluation",),
    ("deploy",),
    ("models",),
    ("models.hgad", "models.uniad"),
    ("demo", "benchmark"),
    ("report", "products"),
    ("cli",),
)
"""Rooms from the bottom up. Those of one floor do not know one another."""

ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
AT_THE_DOOR = {"", "autoload"}
"""What Python and users come in by: it imports what it is asked for, and no room may ask it."""

MOST_ENTRIES = 15
MOST_ARGUMENTS = 30


def module_name(file: Path) -> str:
    """Name of a module below the package, ``""`` for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Innermost room that a module is in."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(name for name in names if name in ROOMS or name in AT_THE_DOOR)


def imported(source: str, module: str, modules: set[str]) -> Iterator[str]:
    """Modules of the package that a source imports, within functions and for the type checker as well."""
    for name in imported_names(source, f"{PACKAGE.name}.{module}"):
        package, _, inner = name.partition(".")
        if package == PACKAGE.name:
            yield inner if inner in modules else inner.rpartition(".")[0]


def arrows_against_the_order(sources: dict[str, str]) -> list[str]:
    """Imports from a room of one that is above it, or beside it on its floor."""
    return [
        f"{module} imports {target}"
        for module, source in sources.items()
        for target in imported(source, module, set(sources))
        if room_of(module) not in AT_THE_DOOR and room_of(module) != room_of(target)
        if room_of(target) in AT_THE_DOOR or ROOMS[room_of(target)] >= ROOMS[room_of(module)]
    ]


def test_no_room_knows_one_above_it() -> None:
    sources = {module_name(file): file.read_text() for file in PACKAGE.rglob("*.py")}
    assert arrows_against_the_order(sources) == []


@pytest.mark.parametrize(
    "line",
    [
        "from anomalib_hgad.models.base import PluginModel",
        "import anomalib_hgad.models.base",
        "from anomalib_hgad.models import base",
        "from anomalib_hgad import Hgad",
        "from ..models import base",
        "def late():\n    from anomalib_hgad.models.base import PluginModel",
        "if TYPE_CHECKING:\n    from anomalib_hgad.models.base import PluginModel",
    ],
)
def test_every_form_of_an_import_is_seen(line: str) -> None:
    sources = {"": "", "common.files": "", "data.batch": line, "models.base": "from anomalib_hgad.data import batch"}
    (arrow,) = arrows_against_the_order(sources)
    assert arrow.startswith("data.batch imports")


def test_rooms_of_one_floor_do_not_know_one_another() -> None:
    sources = {"models.hgad.loss": "", "models.uniad.model": "from anomalib_hgad.models.hgad.loss import total_loss"}
    assert arrows_against_the_order(sources) == ["models.uniad.model imports models.hgad.loss"]


def test_the_package_can_be_taken_in_at_a_glance() -> None:
    entries = [entry.name for entry in PACKAGE.iterdir() if entry.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_nothing_else_lies_at_the_top() -> None:
    """What a trial leaves there comes in with the next commit of everything."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    tracked = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    entries = {line.strip('"').partition("/")[0] for line in tracked.splitlines()}
    allowed = {"anomalib_hgad", "configs", "docs", "tests", "pyproject.toml", "README.md", "LICENSE"}
    assert {entry for entry in entries if not entry.startswith(".")} == allowed


def test_no_constructor_is_too_wide_to_read() -> None:
    widths = {
        f"{module_name(file)}.{owner.name}": len(function.args.args) + len(function.args.kwonlyargs) - 1
        for file in PACKAGE.rglob("*.py")
        for owner in ast.walk(ast.parse(file.read_text()))
        if isinstance(owner, ast.ClassDef)
        for function in owner.body
        if isinstance(function, ast.FunctionDef) and function.name == "__init__"
    }
    widest = max(widths, key=lambda name: widths[name])
    assert widths[widest] < MOST_ARGUMENTS, widest
