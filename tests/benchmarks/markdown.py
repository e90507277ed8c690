# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]], texts: int = 1) -> str:
    """Make a table.

    Args:
        heads: Headings of the columns.
        rows: Their cells.
        texts: Number of the first columns that are text; numbers are aligned at the right.

    Returns:
        Its lines.
    """
    lines = [line(heads), "|" + texts * "---|" + (len(heads) - texts) * "---:|"]
    return "\n".join([*lines, *map(line, rows)])


def line(cells: Sequence[object]) -> str:
    """Make a row."""
    return f"| {' | '.join(map(str, cells))} |"
