# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Every row of the table of bad input is a test that exists."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.helpers.paths import ROOT

TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "reliability.md"
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| `([\w/]+\.py)::(test_\w+)(?:\[(.+)\])?` \|$", PAGE.read_text(), re.MULTILINE)


@cache
def cases_of(file: str) -> dict[str, set[str]]:
    """Names of the tests of a file, each with the strings that its cases may be called by."""
    functions = [node for node in ast.parse((TESTS / file).read_text()).body if isinstance(node, ast.FunctionDef)]
    return {
        function.name: {
            str(node.value)
            for decorator in function.decorator_list
            for node in ast.walk(decorator)
            if isinstance(node, ast.Constant)
        }
        for function in functions
    }


def test_there_are_rows_enough() -> None:
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| Fault")]
    assert len(ROWS) == len(table) >= 60
    assert len({fault for fault, *_ in ROWS}) > 0.8 * len(ROWS)


@pytest.mark.parametrize(("file", "name", "case"), sorted({row[2:] for row in ROWS}))
def test_row_is_a_test(file: str, name: str, case: str) -> None:
    assert name in cases_of(file)
    assert not case or case in cases_of(file)[name]
