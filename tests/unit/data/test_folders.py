# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What is found in folders, against trees that are written down."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from anomalib_hgad.data import folders
from anomalib_hgad.data.folders import (
    category_folder,
    check_permission,
    image_files,
    is_hidden,
    listed,
    mask_files,
    mask_names,
    named_folders,
    pair_masks,
    subfolders,
)


def tree(root: Path, *files: str) -> None:
    """Write empty files; a name that ends with a slash is a folder."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).mkdir() if file.endswith("/") else (root / file).touch()


def names(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_images_are_found_below_by_their_endings(tmp_path: Path) -> None:
    tree(tmp_path, "b.png", "a.JPG", "sub/deep/c.Tiff", "notes.txt", "d.png.bak", "png", "folder.png/", "e.bmp")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert names(tmp_path, image_files(tmp_path)) == ["a.JPG", "b.png", "e.bmp", "sub/deep/c.Tiff"]
    assert image_files(tmp_path / "missing") == []


def test_hidden_images_are_left_out(tmp_path: Path) -> None:
    """As those that Jupyter and macOS leave; what is above the folder does not matter."""
    root = tmp_path / ".cache/set"
    tree(root, "a.png", ".ipynb_checkpoints/a-checkpoint.png", "._a.png", "sub/.thumbs/deep/a.png", "sub/b.png")
    assert names(root, image_files(root)) == ["a.png", "sub/b.png"]
    assert names(root, image_files(root / "sub/.thumbs")) == ["sub/.thumbs/deep/a.png"]
    assert [is_hidden(root / "sub/.thumbs/deep/a.png", [root, root / folder]) for folder in ("sub", "sub/.thumbs")] == [
        True,
        False,
    ]


def test_subfolders_are_those_in_sight(tmp_path: Path) -> None:
    tree(tmp_path, "nut/a.png", "bolt/", ".cache/a.png", "file.png", "nut/inner/")
    (tmp_path / "gear").symlink_to(tmp_path / "nut")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path, subfolders(tmp_path)) == ["bolt", "gear", "nut"]
    assert subfolders(tmp_path / "file.png") == []
    assert subfolders(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.png", ["a.png"]),
        (["a.png", "b.png"], ["a.png", "b.png"]),
        ("", []),
        (None, []),
        (float("nan"), []),
        ([], []),
        (["", "b.png"], ["b.png"]),
    ],
)
def test_mask_names(value: object, expected: list[str]) -> None:
    assert mask_names(value) == expected


def test_mask_files_are_those_that_are_there(tmp_path: Path) -> None:
    tree(tmp_path, "a.png", "folder/")
    given = [str(tmp_path / name) for name in ("a.png", "b.png", "folder")]
    assert mask_files(given) == [tmp_path / "a.png"]


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        (["1.png", "10.png"], ["1_mask.png", "10_mask.png"], {"1.png": ["1_mask.png"], "10.png": ["10_mask.png"]}),
        (["000.png"], ["gt-000.bmp"], {"000.png": ["gt-000.bmp"]}),
        (["a_b.png", "a.png"], ["a_b_mask.png"], {"a_b.png": ["a_b_mask.png"], "a.png": []}),
        (["x/1.png", "y/1.png"], ["y/1_mask.png"], {"x/1.png": [], "y/1.png": ["y/1_mask.png"]}),
        (["1.png"], ["11.png", "mask1.png"], {"1.png": []}),
        (["1.jpg"], ["1.png"], {"1.jpg": ["1.png"]}),
        (["1.jpg"], [], {"1.jpg": []}),
        (["1.png"], ["1_mask_1.png", "1_mask_0.png"], {"1.png": ["1_mask_0.png", "1_mask_1.png"]}),
        (["볼.png"], ["볼트_mask.png", "볼_mask.png"], {"볼.png": ["볼_mask.png"]}),
        (["für.png"], ["fu\u0308r_mask.png"], {"für.png": ["fu\u0308r_mask.png"]}),
    ],
    ids=[
        *("numbers", "before", "longest", "below the same folder", "part of a name", "other ending", "none"),
        *("several", "other letters", "letters taken apart"),
    ],
)
def test_masks_are_paired(tmp_path: Path, images: list[str], masks: list[str], expected: dict[str, list[str]]) -> None:
    tree(tmp_path / "images", *images)
    tree(tmp_path / "masks", *masks)
    found = pair_masks(tmp_path / "images", tmp_path / "masks")
    assert found == {
        tmp_path / "images" / image: [tmp_path / "masks" / mask for mask in of_image]
        for image, of_image in expected.items()
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], ""),
        (["b", "a"], "a, b"),
        (list("edcba"), "a, b, c, d, e"),
        (list("gfedcba"), "a, b, c, d, e and 2 more"),
    ],
)
def test_files_are_listed_in_order(files: list[str], expected: str) -> None:
    assert listed([Path(file) for file in files]) == expected


def test_category_may_be_one_folder_deeper(tmp_path: Path) -> None:
    tree(tmp_path, "visa_pytorch/candle/a.png", "bolt/a.png", "visa_pytorch/bolt/a.png")
    for category, expected in (("candle", "visa_pytorch/candle"), ("bolt", "bolt"), ("nut", "nut")):
        assert category_folder(tmp_path, category) == tmp_path / expected


def test_folders_that_a_datamodule_was_given(tmp_path: Path) -> None:
    datamodule = SimpleNamespace(
        root=tmp_path, normal_dir="good", abnormal_dir=["bad", tmp_path / "worse"], mask_dir=None
    )
    found = named_folders(datamodule, "normal_dir", "abnormal_dir", "mask_dir", "normal_test_dir")
    assert found == [tmp_path / "good", tmp_path / "bad", tmp_path / "worse"]
    assert named_folders(SimpleNamespace(root=None, normal_dir="good"), "normal_dir") == [Path("good")]


def test_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read all folders: the system's refusal is made here."""
    tree(tmp_path, "open/a.png", "closed/a.png")
    scan = folders.os.scandir

    def refusing(path: object) -> object:
        if Path(str(path)).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    check_permission(tmp_path)
    check_permission(tmp_path / "missing")
    monkeypatch.setattr(folders.os, "scandir", refusing)
    check_permission(tmp_path / "open")
    with pytest.raises(PermissionError, match=r"No permission to read the folder .*closed\. Grant it to this user"):
        check_permission(tmp_path)
