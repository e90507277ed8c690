# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Every row of the table of bad input is a test that exists."""

from __future__ import annotations

import re

import pytest

from tests.helpers.pages import cases_of
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs/reference/reliability.md"
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| `([\w/]+\.py)::(test_\w+)(?:\[(.+)\])?` \|$", PAGE.read_text(), re.MULTILINE)


def test_there_are_rows_enough() -> None:
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| Fault")]
    assert len(ROWS) == len(table) >= 60
    assert len({fault for fault, *_ in ROWS}) > 0.8 * len(ROWS)


@pytest.mark.parametrize(("file", "name", "case"), sorted({row[2:] for row in ROWS}))
def test_row_is_a_test(file: str, name: str, case: str) -> None:
    assert name in cases_of(file)
    assert not case or case in cases_of(file)[name]
