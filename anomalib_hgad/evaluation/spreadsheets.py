# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tables saved by spreadsheets, with other separators, decimal commas and truth values than the original."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

SEPARATORS = (",", ";", "\t", "|")

ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Encodings by the marks at the beginning of a file."""

BOOK = b"PK\x03\x04"
"""First bytes of .xlsx and .ods files."""

TRUE = frozenset({"true", "1", "wahr", "vrai", "vero", "verdadero", "verdadeiro", "waar", "prawda", "sant", "sand"})
FALSE = frozenset({"false", "0", "falsch", "faux", "falso", "onwaar", "fałsz", "falskt", "falsk"})
"""Truth values, in lower case, in the languages that spreadsheets write them in."""


def read_rows(
    path: Path, columns: Sequence[str], numbers: Sequence[str], further: Sequence[Sequence[str]] = ()
) -> list[dict[str, str]]:
    """Read the cells of a table.

    Args:
        path: The file.
        columns: Names of its columns, in any order.
        numbers: Columns with numbers or truth values, including further columns.
        further: Lists of additional columns; the table may have all columns of one list. Defaults to ``()``, none.

    Returns:
        The rows, without empty ones. Numbers have decimal points.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not such a table, or is broken.
    """
    content = path.read_bytes()
    if content.startswith(BOOK):
        msg = "it is a spreadsheet workbook. Save the sheet as CSV."
        raise ValueError(msg)
    encoding = next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), None)
    # A file name may have bytes that are not text.
    text = content.decode(encoding) if encoding else content.decode("utf-8", errors="surrogateescape")
    if text.startswith("sep="):  # this tells Excel the separator
        text = text.partition("\n")[2]
    expected = [sorted([*columns, *beside]) for beside in ([], *further)]
    separator = next((one for one in SEPARATORS if sorted(_header(text, one)) in expected), ",")
    header = _header(text, separator)
    if sorted(header) not in expected:
        msg = f"expected the columns {', '.join(columns)}, got {', '.join(map(ascii, header)) or 'none'}."
        raise ValueError(msg)
    rows = [dict(zip(header, cells, strict=True)) for cells in _body(text, separator, len(header))]
    return rows if separator == "," else _with_decimal_points(rows, [name for name in numbers if name in header])


def as_truth(text: str) -> bool | None:
    """Read a truth value of a cell; ``None`` if it is empty.

    Raises:
        ValueError: If it is not a truth value.
    """
    word = text.strip().casefold()
    if word in {"1.0", "0.0"}:
        word = word[0]
    if word in TRUE | FALSE:
        return word in TRUE
    if word:
        msg = f"expected True, False or an empty cell, got {text!a}"
        raise ValueError(msg)
    return None


def as_number(text: str) -> float | None:
    """Read a number of a cell; ``None`` if it is empty or NaN.

    Raises:
        ValueError: If it is not a number.
    """
    try:
        number = float(text) if text.strip() else None
    except ValueError as error:
        msg = f"expected a number or an empty cell, got {text!a}"
        raise ValueError(msg) from error
    return None if number != number else number  # noqa: PLR0124 - only NaN differs from itself


def as_count(text: str) -> int | None:
    """Read a count of a cell; ``None`` if it is empty.

    Raises:
        ValueError: If it is not a non-negative integer.
    """
    number = as_number(text)
    if number is not None and (number < 0 or not number.is_integer()):
        msg = f"expected a non-negative integer or an empty cell, got {text!a}"
        raise ValueError(msg)
    return None if number is None else int(number)


def _header(text: str, separator: str) -> list[str]:
    names = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    while names and not names[-1]:
        names.pop()
    return names


def _body(text: str, separator: str, width: int) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    next(reader)
    for number, cells in enumerate(reader, start=1):
        if not any(cells):
            continue
        if len(cells) < width or any(cells[width:]):
            msg = f"row {number} has {len(cells)} of {width} columns: the file is truncated, or its text is not quoted."
            raise ValueError(msg)
        yield cells[:width]


def _with_decimal_points(rows: list[dict[str, str]], numbers: Sequence[str]) -> list[dict[str, str]]:
    """Replace the decimal commas of a table whose separator is not a comma.

    Raises:
        ValueError: If numbers also have points, which would separate thousands.
    """
    cells = [row[name] for row in rows for name in numbers]
    if not any("," in cell for cell in cells):
        return rows
    if with_point := next((cell for cell in cells if "." in cell), None):
        msg = f"some numbers have a decimal comma, and {with_point!a} has a point. Write all numbers in one format, "
        msg += "without thousands separators."
        raise ValueError(msg)
    return [row | {name: row[name].replace(",", ".") for name in numbers} for row in rows]
