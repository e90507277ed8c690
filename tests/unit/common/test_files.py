# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files of text and of figures, and files that belong together."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from anomalib_hgad.common.files import UNFINISHED, atomic_folder, atomic_write, move_whole, write_json, write_text


def test_text_is_written_byte_for_byte(tmp_path: Path) -> None:
    """In UTF-8 with the ends of lines that are given; a byte of a file's name that is no text comes back."""
    write_text(tmp_path / "new/folder/file.txt", lambda file: file.write("Größe\r\nb\n\udcff"))
    assert (tmp_path / "new/folder/file.txt").read_bytes() == b"Gr\xc3\xb6\xc3\x9fe\r\nb\n\xff"


@pytest.mark.parametrize("letter", ["a", "é"])
def test_file_of_the_longest_name_is_written(letter: str, tmp_path: Path) -> None:
    """Its temporary name is not longer; names have 255 bytes at most."""
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_text(path, lambda file: file.write("text"))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


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


@pytest.mark.parametrize("empty_before", [False, True])
def test_a_folder_is_in_its_place_when_it_is_complete(tmp_path: Path, *, empty_before: bool) -> None:
    place = tmp_path / "new" / "set"
    if empty_before:
        place.mkdir(parents=True)
    with atomic_folder(place) as unfinished:
        (unfinished / "a.txt").write_text("whole")
        assert unfinished.name.endswith(UNFINISHED)
        assert not place.is_dir() or not any(place.iterdir())
    assert [file.read_text() for file in place.iterdir()] == ["whole"]
    assert list(place.parent.iterdir()) == [place]


def test_an_interrupted_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_folder(tmp_path / "set") as unfinished:
            (unfinished / "a.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_has_filled_meanwhile_stays(tmp_path: Path) -> None:
    place = tmp_path / "set"
    with atomic_folder(place) as slower:
        (slower / "a.txt").write_text("slower")
        with atomic_folder(place) as faster:
            (faster / "a.txt").write_text("faster")
    assert (place / "a.txt").read_text() == "faster"
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_has_the_permissions_of_any_other_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "set"):
        pass
    (tmp_path / "other").mkdir()
    assert (tmp_path / "set").stat().st_mode == (tmp_path / "other").stat().st_mode


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_in_torch(*_: object, **__: object) -> None:
    msg = "PytorchStreamWriter failed writing file data/0: file write failed"
    raise RuntimeError(msg)


def full_in_numpy(*_: object, **__: object) -> None:
    msg = "problem writing element 4096 to file"  # as tofile says on a full disk
    raise OSError(msg)


@pytest.mark.parametrize("write", [full, full_in_torch, full_in_numpy])
def test_full_disk_is_named_and_leaves_what_was_there(
    write: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    place = tmp_path / "results.json"
    place.write_text("earlier")
    with pytest.raises(OSError, match=r"results\.json cannot be written: No space left.* Free some space") as info:
        write_text(place, write)
    assert info.value.errno == errno.ENOSPC
    assert place.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [place]


def test_other_errors_of_a_write_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="PytorchStreamWriter failed"):
        write_text(tmp_path / "results.json", full_in_torch)
