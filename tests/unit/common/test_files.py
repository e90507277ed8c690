# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of folders that are there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_hgad.common.files import UNFINISHED, atomic_folder


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
