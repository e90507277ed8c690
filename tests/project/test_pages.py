# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files that the pages name exist, and tables are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.pages import PAGES
from tests.helpers.paths import ROOT

FOLDERS = (ROOT, ROOT / "anomalib_hgad", ROOT / "tests")
ROOM_OF_PAGE = {"flows": ROOT / "anomalib_hgad/models/hgad"}
"""Room that a page is on, which names files from there."""


def missing_files(text: str, folders: tuple[Path, ...]) -> list[str]:
    """Python files that a page names and none of the folders has."""
    named = dict.fromkeys(re.findall(r"[\w./-]+\.py\b", text))
    return [path for path in named if not any((folder / path).is_file() for folder in folders)]


def broken_tables(text: str) -> list[str]:
    """First lines of blocks of table lines that have no header, and lines with another number of cells than theirs."""
    broken = []
    for block in re.findall(r"(?:^\|.*\n?)+", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M):
        header, *others = block.splitlines()
        if not others or not re.fullmatch(r"\|(?: *:?-+:? *\|)+", others[0]):
            broken.append(header)
        broken += [line for line in others if len(cells(line)) != len(cells(header))]
    return broken


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.strip())[1:-1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page: Path) -> None:
    room = ROOM_OF_PAGE.get(page.stem)
    assert missing_files(page.read_text(), (*FOLDERS, *([room] if room else []))) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_of_a_page_are_whole(page: Path) -> None:
    assert broken_tables(page.read_text()) == []


def test_modules_that_moved_are_where_the_changes_say() -> None:
    """Names of modules are those with a dot in the second column."""
    rows = re.findall(r"^\| `[\w.*]+` \| (.+) \|$", (ROOT / "docs/changelog.md").read_text(), flags=re.MULTILINE)
    modules = [module for row in rows for module in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:\.\*)?`", row)]
    assert len(modules) >= 40
    for module in modules:
        path = ROOT / "anomalib_hgad" / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


def test_files_that_are_missing_are_found() -> None:
    text = "`data/batch.py` and `batch.py`, `unit/data/test_checks.py::test_x`\n```\n  ↓  data/nowhere.py\n```\n"
    assert missing_files(text, FOLDERS) == ["batch.py", "data/nowhere.py"]


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("| a | b |\n|---|---:|\n| 1 | 2 |\n", []),
        ("| a | b |\n|---|---:|\n| 1 | 2 |\n\n| 3 | 4 |\n", ["| 3 | 4 |"]),
        ("| a | b |\n|---|---:|\n| 1 | 2 |\n\n| 3 | 4 |\n| 5 | 6 |", ["| 3 | 4 |"]),
        ("| a | b |\n|---|---|\n| 1 |\n", ["| 1 |"]),
        ("| a | b |\n|---|---|\n| 1 \\| 2 | 3 |\n", []),
        ("```\n| a |\n```\n", []),
    ],
)
def test_tables_that_are_broken_are_found(text: str, broken: list[str]) -> None:
    assert broken_tables(text) == broken
