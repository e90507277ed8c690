# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What sources import, by their import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def imported_names(source: str, module: str) -> Iterator[str]:
    """Dotted names of all that a source imports, within functions and for the type checker as well.

    Args:
        source: Text of a module.
        module: Dotted name of that module, from which its relative imports lead.

    Yields:
        ``a.b`` for ``import a.b`` and for ``from a import b``, whether ``b`` is a module or what ``a`` holds.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)
