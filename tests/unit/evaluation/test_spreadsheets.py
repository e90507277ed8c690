# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tables of predictions that a spreadsheet has saved anew are read as they were, or refused by name."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from anomalib_hgad.evaluation.predictions import (
    COLUMNS,
    PIXEL_COLUMNS,
    PREDICTIONS_FILE,
    Prediction,
    read_table,
    write_predictions,
)

ALL_COLUMNS = [*COLUMNS, *PIXEL_COLUMNS]
NO, YES = False, True
ROWS = [
    Prediction("a;b.png", None, "1,5", "bolt", YES, NO, 0.25, -12.5, 1e-3, "bolt", None),
    Prediction("c|d.png", "m\t.png", "nut", "nut", NO, YES, 1.0, 1234.5, 2.0, None, "crack", 0, 12, 65536),
    Prediction("e\nf.png", None, None, None, None, None, None, None, None),
]
TRUTHS = {"gt_label", "pred_label"}
NUMBERS = {"pred_score", "raw_score", "novelty"}


def saved(change: Callable[[str, str], str], separator: str = ",", columns: list[str] = ALL_COLUMNS) -> str:
    """The rows as written, each cell changed by its column, with a separator between them."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, delimiter=separator)
    writer.writeheader()
    for row in ROWS:
        cells = {name: "" if (value := getattr(row, name)) is None else str(value) for name in columns}
        writer.writerow({name: change(name, cell) for name, cell in cells.items()})
    return text.getvalue()


def truths(true: str, false: str) -> Callable[[str, str], str]:
    words = {"True": true, "False": false, "": ""}
    return lambda name, cell: words[cell] if name in TRUTHS else cell


def as_it_is(_: str, cell: str) -> str:
    return cell


def german(name: str, cell: str) -> str:
    cell = truths("WAHR", "FALSCH")(name, cell)
    return cell.replace(".", ",") if name in NUMBERS else cell


def one_with_comma(name: str, cell: str) -> str:
    return truths("1,0", "0,0")(name, cell) if name in TRUTHS else german(name, cell)


@pytest.mark.parametrize(
    "content",
    [
        saved(truths("TRUE", "FALSE")).encode(),
        saved(truths("true", "false")).encode(),
        saved(truths("1", "0")).encode(),
        saved(truths("1.0", "0.0")).encode(),
        saved(truths("VRAI", "FAUX"), ";").encode(),
        saved(as_it_is).encode("utf-8-sig"),
        saved(as_it_is, ";").encode(),
        saved(german, ";").encode("utf-8-sig"),
        saved(german, "\t").encode("utf-16"),
        saved(one_with_comma, ";").encode(),
        saved(as_it_is, "|").encode(),
        ("sep=;\r\n" + saved(german, ";")).encode(),
        saved(as_it_is, columns=ALL_COLUMNS[::-1]).encode(),
        (saved(as_it_is) + "," * 13 + "\r\n\r\n").encode(),
        saved(as_it_is).replace("\r\n", ",,\r\n").encode(),
    ],
    ids=[
        "capital letters",
        "small letters",
        "1 and 0",
        "1.0 and 0.0",
        "French",
        "byte-order mark",
        "semicolons",
        "German",
        "Unicode text",
        "1,0 and 0,0",
        "bars",
        "line that names the separator",
        "columns in another order",
        "empty rows",
        "empty columns",
    ],
)
def test_table_is_read_as_it_was_written(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS_FILE
    path.write_bytes(content)
    assert read_table(path) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved(truths("yes", "no")), "row 1, gt_label: expected True, False or an empty cell, got 'yes'"),
        (saved(truths("2", "0")), "row 1, gt_label: expected True, False or an empty cell, got '2'"),
        (saved(lambda name, cell: cell.replace(".", ",")), "row 1, pred_score: expected a number .*, got '0,25'"),
        (saved(lambda name, cell: "#VALUE!" if name == "novelty" else cell), "row 1, novelty: .*got '#VALUE!'"),
        (saved(lambda name, cell: "1.234,5" if cell == "1234.5" else cell, ";"), "decimal comma, and '0.25' has a po"),
        (saved(lambda name, cell: "" if name == "image_path" else cell), "row 1 has no image_path"),
        (saved(as_it_is, columns=ALL_COLUMNS[:-1]), "expected the columns image_path, .*, got 'image_path'"),
        (saved(as_it_is, columns=[*ALL_COLUMNS, "raw_score"]), "expected the columns"),
        (saved(lambda name, cell: "0.5" if cell == "12" else cell), "row 2, pixel_false_positives: .* integer .*'0.5'"),
        (saved(lambda name, cell: "-1" if cell == "12" else cell), "row 2, pixel_false_positives: .* integer .*'-1'"),
        (saved(as_it_is)[:-60], "row 2 has .* of 14 columns: the file is truncated"),
        (saved(as_it_is).partition("\nf")[0], "unexpected end of data"),
        ("", "got none"),
        ("PK\x03\x04...", "it is a spreadsheet workbook. Save the sheet as CSV"),
        ("\x00\x01\x02", "expected the columns"),
    ],
    ids=[
        "words",
        "numbers that are no truth values",
        "decimal commas between commas",
        "error of a cell",
        "separators of thousands",
        "no image",
        "column missing",
        "column twice",
        "part of a pixel",
        "fewer pixels than none",
        "cut within a row",
        "cut within a cell",
        "empty",
        "book",
        "no text",
    ],
)
def test_table_that_says_something_else_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS_FILE
    path.write_bytes(content.encode())
    with pytest.raises(ValueError, match=f"{PREDICTIONS_FILE} is not a table of predictions: .*{message}"):
        read_table(path)


@pytest.mark.parametrize("separator", [",", ";"])
def test_table_without_pixels_is_read(separator: str, tmp_path: Path) -> None:
    """A prediction writes such a one."""
    path = tmp_path / PREDICTIONS_FILE
    path.write_bytes(saved(as_it_is, separator, COLUMNS).encode())
    assert read_table(path) == [replace(row, **dict.fromkeys(PIXEL_COLUMNS)) for row in ROWS]


def test_rows_are_those_that_are_written(tmp_path: Path) -> None:
    """The examples above begin with what the plugin writes."""
    write_predictions(ROWS, tmp_path)
    assert (tmp_path / PREDICTIONS_FILE).read_bytes() == saved(as_it_is).encode()
