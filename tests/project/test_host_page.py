# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Every row of the tables of docs/reference/host.md names files, names and tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.helpers.pages import cases_of, names_of
from tests.helpers.paths import ROOT

LINES = [line for line in (ROOT / "docs/reference/host.md").read_text().splitlines() if line.startswith("| ")]
ROWS = [line.strip("| ").split(" | ") for line in LINES if not line.startswith("| What |")]
PLACE = r"`([\w/]+\.py)`(?: `(\w+)`)?"
TEST = r"`([\w/]+\.py)::(test_\w+)`"


def test_there_are_rows_enough() -> None:
    assert len(ROWS) >= 60
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", " ", row[0])[:50])
def test_row_names_what_exists(row: list[str]) -> None:
    what, where, why, guards = row
    assert what
    assert why
    assert re.fullmatch(rf"{PLACE}(?:, {PLACE})*", where)
    assert re.fullmatch(rf"{TEST}(?:, {TEST})*", guards)
    for file, name in re.findall(PLACE, where):
        assert not name or name in names_of(file), f"{file} defines no {name}"
    for file, name in re.findall(TEST, guards):
        assert name in cases_of(file), f"{file} has no {name}"
