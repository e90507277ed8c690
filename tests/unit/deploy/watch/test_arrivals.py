# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which files a watch takes for images that are complete, and when."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from anomalib_hgad.deploy.watch import arrivals as module
from anomalib_hgad.deploy.watch.arrivals import Arrivals
from anomalib_hgad.deploy.watch.seen_paths import SeenPaths


class Clock:
    """The monotonic clock, by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def files(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"image")
    return [str(folder / name) for name in names]


def test_images_of_all_subfolders_come_once_and_in_order(tmp_path: Path) -> None:
    expected = files(tmp_path, "a.png", "b/c/d.JPG", "b/e.tiff", "z.webp")
    files(tmp_path, "notes.txt", "c.gif", ".hidden.png", ".trash/f.png", "png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "b/loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=0, give_up_after=10)
    assert arrivals.look() == expected
    assert arrivals.look() == []
    assert not arrivals.is_empty
    for path in expected:
        arrivals.finish(path)
    assert arrivals.is_empty
    assert arrivals.look() == []
    assert arrivals.look() + files(tmp_path, "new.png") == arrivals.look()


def test_what_is_in_the_table_does_not_come(tmp_path: Path) -> None:
    old, new = files(tmp_path, "old.png", "new.png")
    seen = SeenPaths()
    seen.add(old)
    assert Arrivals(tmp_path, seen, settle=0, give_up_after=10).look() == [new]


def test_image_comes_when_it_has_stayed_the_same(tmp_path: Path, clock: Clock) -> None:
    (path,) = files(tmp_path, "a.png")
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=2, give_up_after=10)
    assert arrivals.look() == []
    clock.now += 1.5
    Path(path).write_bytes(b"a longer image")
    assert arrivals.look() == []
    clock.now += 1.5
    assert arrivals.look() == []
    clock.now += 1
    assert arrivals.look() == [path]


def test_image_of_the_same_size_that_is_written_to_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    """As a file whose place is taken first and filled then."""
    (path,) = files(tmp_path, "a.png")
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=2, give_up_after=10)
    arrivals.look()
    clock.now += 3
    os.utime(path, (5, 5))
    assert arrivals.look() == []
    clock.now += 3
    assert arrivals.look() == [path]


def test_image_that_was_put_back_comes_again_until_it_is_given_up(tmp_path: Path, clock: Clock) -> None:
    (path,) = files(tmp_path, "a.png")
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=0, give_up_after=10)
    for _ in range(10):
        assert arrivals.look() == [path]
        assert not arrivals.is_given_up(path)
        arrivals.put_back(path)
        assert arrivals.look() == []
        clock.now += 0.99
    arrivals.look()
    Path(path).write_bytes(b"a longer image")
    assert not arrivals.is_given_up(path)
    arrivals.put_back(path)
    clock.now += 5
    assert arrivals.look() == [path]
    assert not arrivals.is_given_up(path)
    clock.now += 10
    assert arrivals.is_given_up(path)


def test_image_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    (path,) = files(tmp_path, "a.png")
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=0, give_up_after=10)
    arrivals.look()
    assert not arrivals.has_changed(path)
    Path(path).write_bytes(b"a longer image")
    assert arrivals.has_changed(path)
    Path(path).unlink()
    assert not arrivals.has_changed(path)


def test_image_that_goes_away_is_forgotten(tmp_path: Path) -> None:
    (path,) = files(tmp_path, "a.png")
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=100, give_up_after=10)
    arrivals.look()
    assert not arrivals.is_empty
    Path(path).unlink()
    arrivals.look()
    assert arrivals.is_empty


def test_more_images_than_one_look_hands_out(tmp_path: Path, clock: Clock) -> None:
    """Those of the second look have settled during the first."""
    expected = files(tmp_path, *(f"{number:04}.png" for number in range(1300)))
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=1, give_up_after=10)
    assert arrivals.look() == []
    clock.now += 1
    taken = []
    while ready := arrivals.look():
        assert len(ready) <= 500
        for path in ready:
            arrivals.finish(path)
        taken += ready
        clock.now += 1
    assert taken == expected


def test_folder_that_cannot_be_listed_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A share that is gone for a while does not end the watch."""
    folder = tmp_path / "share"
    folder.mkdir()
    arrivals = Arrivals(folder, SeenPaths(), settle=0, give_up_after=10)
    folder.rename(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        assert [arrivals.look(), arrivals.look()] == [[], []]
    (record,) = caplog.records
    assert "cannot be listed now; will retry: No such file or directory" in record.getMessage()
    folder.mkdir()
    assert files(folder, "a.png") == arrivals.look()


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path, function: str) -> None:
    """Make one of the module's functions say of a folder what it says to a user without permission."""
    real = getattr(os, function)

    def refuse(path: str, *arguments: object) -> object:
        if path != str(folder):
            return real(path, *arguments)
        if function == "access":
            return False
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.os, function, refuse)


@pytest.mark.parametrize("function", ["scandir", "access"])
def test_subfolder_that_may_not_be_read_is_unlisted_until_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    """Also one whose names may be listed and whose files may not be reached."""
    first, other = files(tmp_path, "a/1.png", "b/2.png")
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=0, give_up_after=10)
    with monkeypatch.context() as patch:
        forbid(patch, tmp_path / "a", function)
        assert arrivals.look() + arrivals.look() == [other]
        assert arrivals.unlisted == [str(tmp_path / "a")]
    assert len(caplog.records) == 1
    assert arrivals.look() == [first]
    assert arrivals.unlisted == []


def test_subfolder_that_goes_away_while_it_is_listed_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files(tmp_path, "a/1.png")
    real = os.scandir

    def listed_too_late(path: str) -> object:
        if path == str(tmp_path / "a"):
            shutil.rmtree(path)
        return real(path)

    monkeypatch.setattr(module.os, "scandir", listed_too_late)
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=0, give_up_after=10)
    assert arrivals.look() == arrivals.unlisted == caplog.records == []


def test_links_that_lead_nowhere_take_no_place_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1001):
        (tmp_path / f"{number:04}.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "linked.png").symlink_to(*files(tmp_path.with_name("elsewhere"), "x.png"))
    expected = [str(tmp_path / "linked.png"), *files(tmp_path, "real.png")]
    arrivals = Arrivals(tmp_path, SeenPaths(), settle=0, give_up_after=10)
    assert arrivals.look() == expected
    assert arrivals.look() == []
    assert len(caplog.records) == 1002
    assert "itself.png is a link that leads to no file: Too many levels of symbolic links." in caplog.text
    files(tmp_path, "nowhere.png")
    assert arrivals.look()[0] == str(tmp_path / "0000.png")


def test_link_to_a_folder_elsewhere_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One into the folder is not: its images are scored where they are."""
    folder = tmp_path / "line"
    expected = files(folder, "a/1.png")
    files(tmp_path, "elsewhere/2.png")
    (folder / "cam2").symlink_to(tmp_path / "elsewhere")
    (folder / "latest").symlink_to(folder / "a")
    arrivals = Arrivals(folder, SeenPaths(), settle=0, give_up_after=10)
    assert arrivals.look() + arrivals.look() == expected
    (record,) = caplog.records
    assert f"{folder / 'cam2'} is a link to a folder and is not followed" in record.getMessage()
