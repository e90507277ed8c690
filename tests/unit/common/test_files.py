# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files of text and of figures, and files that belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomalib_hgad.common.files import atomic_write, move_whole, write_json, write_text


def test_text_is_written_byte_for_byte(tmp_path: Path) -> None:
    """In UTF-8 with the ends of lines that are given; a byte of a file's name that is no text comes back."""
    write_text(tmp_path / "new/folder/file.txt", lambda file: file.write("Größe\r\nb\n\udcff"))
    assert (tmp_path / "new/folder/file.txt").read_bytes() == b"Gr\xc3\xb6\xc3\x9fe\r\nb\n\xff"


def test_json_parses_back(tmp_path: Path) -> None:
    values = {"AUROC": 1 / 3, "none": None, "names": ["ä", "b"]}
    write_json(values, tmp_path / "new/figures.json")
    assert json.loads((tmp_path / "new/figures.json").read_text(encoding="utf-8")) == values


@pytest.mark.parametrize("values", [{"a": object()}, {("a",): 1}])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, values: object) -> None:
    write_json([1], tmp_path / "figures.json")
    with pytest.raises(TypeError):
        write_json(values, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_equal_runs_write_one_file_together(tmp_path: Path) -> None:
    """Each beside the other's, and the place holds one of them as a whole."""
    with atomic_write(tmp_path / "file") as first, atomic_write(tmp_path / "file") as second:
        assert first.parent == second.parent == tmp_path
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "file").read_text() == "first"  # the one that is complete last
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_file_that_was_never_written_takes_no_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "old"


def test_file_is_moved_with_those_beside_it(tmp_path: Path) -> None:
    for folder in ("made", "place"):
        (tmp_path / folder).mkdir()
    (tmp_path / "made/model.onnx").write_text("new")
    (tmp_path / "made/model.onnx.data").write_text("new data")
    (tmp_path / "place/model.onnx").write_text("old")
    (tmp_path / "place/other.onnx").write_text("other")
    move_whole(tmp_path / "made/model.onnx", tmp_path / "place/model.onnx")
    found = {path.name: path.read_text() for path in (tmp_path / "place").iterdir()}
    assert found == {"model.onnx": "new", "model.onnx.data": "new data", "other.onnx": "other"}
    assert list((tmp_path / "made").iterdir()) == []


def test_folder_is_made_for_a_file_that_is_moved(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/model.pt").write_text("new")
    move_whole(tmp_path / "made/model.pt", tmp_path / "a/b/model.pt")
    assert (tmp_path / "a/b/model.pt").read_text() == "new"
