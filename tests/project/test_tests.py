# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The order of the tests: what they share is in helpers, and unit tests are where their module is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.imports import imported_names
from tests.helpers.paths import ROOT

TESTS = ROOT / "tests"


def imported_test_modules(source: str, module: str) -> set[str]:
    """Names by which a module imports test modules, or what is in them."""
    names = imported_names(source, module)
    return {name for name in names if re.match(r"tests\.([a-z0-9_]+\.)*test_", name)}


def units_without_module(unit: Path, package: Path) -> list[str]:
    """Unit tests in whose place the package has neither a module nor a room."""
    files = [file.relative_to(unit) for file in unit.rglob("test_*.py")]
    places = {file: package / file.parent / file.stem.removeprefix("test_") for file in files}
    return sorted(
        str(file)
        for file, place in places.items()
        if not place.with_suffix(".py").is_file() and not (place / "__init__.py").is_file()
    )


def test_no_test_module_is_imported() -> None:
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text() for file in TESTS.rglob("*.py")}
    assert "tests.project.test_tests" in modules
    imported = {module: imported_test_modules(source, module) for module, source in modules.items()}
    assert {module: names for module, names in imported.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from tests.unit.data.test_checks import helper",
        "from tests.unit.data import test_checks",
        "import tests.unit.data.test_checks",
        "from .test_checks import helper",
        "from ..data import test_checks",
        "def late():\n    from tests.unit.data.test_checks import helper",
    ],
)
def test_every_form_of_an_import_is_seen(line: str) -> None:
    source = f"import pytest\nfrom tests.helpers import trees\n{line}\n"
    (name,) = imported_test_modules(source, "tests.unit.data.test_dataset")
    assert name.startswith("tests.unit.data.test_checks")


def test_units_mirror_the_package() -> None:
    assert units_without_module(TESTS / "unit", ROOT / "anomalib_hgad") == []


def test_unit_without_a_module_is_seen(tmp_path: Path) -> None:
    for file in ("package/data/checks.py", "package/flows/__init__.py", "package/loose/part.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for file in ("data/test_checks.py", "test_flows.py", "test_checks.py", "data/test_check.py", "test_loose.py"):
        (tmp_path / "unit" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "unit" / file).touch()
    found = units_without_module(tmp_path / "unit", tmp_path / "package")
    assert found == ["data/test_check.py", "test_checks.py", "test_loose.py"]
