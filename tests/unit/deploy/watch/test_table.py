# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The table of a watch: read as it was written, gone on with, repaired, and never anything else's."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anomalib_hgad.deploy.watch.table import ALL_COLUMNS, Table
from anomalib_hgad.evaluation.predictions import read_table

NAMES = ["a.png", 'quote".png', "comma,.png", "line\nbreak.png", "line\r\nbreak.png", "産品.png", "\udcff.png", "=1+1"]
ROW = {"pred_score": 0.1 + 0.2, "pred_label": True, "novelty": None, "verdict": "bad"}


def read(path: Path) -> list[dict[str, Any]]:
    """By Python's own readers."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def filled(path: Path, *names: str) -> Path:
    table = Table(path, "model")
    for name in names:
        table.append({"image_path": name} | ROW)
    table.close()
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    rows = read(filled(tmp_path / f"new/table{suffix}", *NAMES))
    assert [row["image_path"] for row in rows] == NAMES
    assert list(rows[0]) == ALL_COLUMNS
    values = (True, 0.1 + 0.2, None) if suffix == ".jsonl" else ("True", "0.30000000000000004", "")
    assert tuple(rows[0][name] for name in ("pred_label", "pred_score", "novelty")) == values
    table = Table(tmp_path / f"new/table{suffix}", "model")
    assert table.seen.unseen([*NAMES, "b.png"]) == ["b.png"]
    assert table.cut_off == 0
    table.close()


def test_monitor_reads_it_without_the_images_that_were_not_scored(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv", "model")
    table.append({"image_path": "a.png"} | ROW)
    table.append({"image_path": "b.png", "error": "broken"})
    table.close()
    (row,) = read_table(tmp_path / "table.csv")
    assert (row.image_path, row.pred_label, row.pred_score, row.novelty) == ("a.png", True, 0.1 + 0.2, None)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_wherever_a_crash_cuts_the_table_it_is_gone_on_with(tmp_path: Path, suffix: str) -> None:
    """At every byte of a table of three images; lines that are whole stay, and no image is there twice."""
    whole = filled(tmp_path / f"whole{suffix}", *NAMES[:4]).read_bytes()
    rows = read(tmp_path / f"whole{suffix}")
    path = tmp_path / f"cut{suffix}"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        table = Table(path, "model")
        missing = table.seen.unseen(NAMES[:4])
        assert missing == NAMES[4 - len(missing) : 4]
        for name in missing:
            table.append({"image_path": name} | ROW)
        table.close()
        assert read(path) == rows
    assert path.read_bytes() == whole


def test_zeros_that_a_power_cut_leaves_are_removed(tmp_path: Path) -> None:
    path = filled(tmp_path / "table.csv", "a.png")
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(100))
    table = Table(path, "model")
    assert table.cut_off == 100
    table.close()
    assert path.read_bytes() == whole


def test_lines_that_an_editor_has_ended_otherwise_are_read(tmp_path: Path) -> None:
    path = filled(tmp_path / "table.csv", "a.png", "b.png")
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    table = Table(path, "model")
    assert table.seen.unseen(["a.png", "b.png", "c.png"]) == ["c.png"]
    table.close()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    "content",
    [b"notes", b"a,b\r\n1,2\r\n", b'{"a": 1}\n', b"[1]\n", b"image_path\r\n", b"\x89PNG\r\n\x1a\n", b'"'],
    ids=["text", "CSV", "JSON", "list", "columns", "image", "quote"],
)
def test_file_of_something_else_is_refused_and_stays(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"table{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"table\{suffix} is not a table of a watch: .*another --output"):
        Table(path, "model")
    assert path.read_bytes() == content


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_broken_line_is_named(tmp_path: Path, suffix: str) -> None:
    path = filled(tmp_path / f"table{suffix}", "a.png", "b.png")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:20] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"line 2 is broken"):
        Table(path, "model")


def test_scores_of_another_model_are_not_mixed_in(tmp_path: Path) -> None:
    path = filled(tmp_path / "table.csv", "a.png")
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"table\.csv has scores of another model: model in line 2, now other\."):
        Table(path, "other")
    assert path.read_bytes() == content


def test_two_watches_do_not_write_one_table(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.csv", "model")
    with pytest.raises(OSError, match=r"Another process writes .*table\.csv"):
        Table(tmp_path / "table.csv", "model")
    table.close()
    Table(tmp_path / "table.csv", "model").close()


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    for place in ("file/table.csv", "folder.csv"):
        with pytest.raises(OSError, match=rf"The output .*{place} cannot be written: "):
            Table(tmp_path / place, "model")


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.csv or \.jsonl, got .*table\.png"):
        Table(tmp_path / "table.png", "model")
    assert not (tmp_path / "table.png").exists()


@pytest.mark.parametrize(
    "touch",
    [
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("rotated.csv")),
        lambda path: shutil.copy(path, path.with_name("saved.csv")).replace(path),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes().replace(b"a.png", b"another.png")),
        lambda path: shutil.rmtree(path.parent),
    ],
    ids=["deleted", "moved", "replaced", "cut", "edited", "folder"],
)
def test_table_that_another_program_touches_ends_the_watch(tmp_path: Path, touch: Callable[[Path], object]) -> None:
    """What comes after would be lost without a word."""
    table = Table(tmp_path / "line/table.csv", "model")
    table.append({"image_path": "a.png"} | ROW)
    table.append({"image_path": "b.png"} | ROW)
    touch(tmp_path / "line/table.csv")
    for _ in range(2):
        with pytest.raises(OSError, match=r"table\.csv was moved, deleted, replaced or changed by another program"):
            table.append({"image_path": "c.png"} | ROW)
    table.close()
