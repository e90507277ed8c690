# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The pages of the documentation, and what is in the files that they name."""

from __future__ import annotations

import ast
from functools import cache

from tests.helpers.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def cases_of(file: str) -> dict[str, set[str]]:
    """Names of the tests of a file below ``tests``, each with the strings that its cases may be called by."""
    functions = [
        node for node in ast.parse((ROOT / "tests" / file).read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    return {
        function.name: {
            str(node.value)
            for decorator in function.decorator_list
            for node in ast.walk(decorator)
            if isinstance(node, ast.Constant)
        }
        for function in functions
    }


@cache
def names_of(file: str) -> set[str]:
    """Names that a file below ``anomalib_hgad`` defines: classes, functions and constants of the module."""
    names = set()
    for node in ast.parse((ROOT / "anomalib_hgad" / file).read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names
