# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which pixels mask files mark, against masks that are drawn by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_hgad import MultiClass
from anomalib_hgad.data.masks import joined, read_masks, split_masks
from tests.helpers import trees

SQUARE = np.zeros((32, 32), dtype=np.uint8)
SQUARE[2:10, 2:10] = 255
"""What the masks of :mod:`tests.helpers.trees` mark: 64 pixels."""


def transparent(mode: str) -> Image.Image:
    """White everywhere, and opaque in the square alone."""
    white = Image.new(mode.replace("A", ""), (32, 32), "white")
    white.putalpha(Image.fromarray(SQUARE))
    return white


def with_colour_key() -> Image.Image:
    """A palette whose white entry is transparent, with a grey square."""
    image = Image.fromarray(np.where(SQUARE, 1, 0).astype(np.uint8), mode="P")
    image.putpalette([255, 255, 255, 128, 128, 128])
    return image


WAYS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "RGBA": ("a.png", lambda path: transparent("RGBA").save(path)),
    "grey with alpha": ("a.png", lambda path: transparent("LA").save(path)),
    "TIFF with alpha": ("a.tiff", lambda path: transparent("RGBA").save(path)),
    "palette": ("a.png", lambda path: with_colour_key().save(path, transparency=0)),
    "JPEG": ("a.jpg", lambda path: Image.fromarray(SQUARE).save(path, quality=60)),
    "JPEG in colours": ("a.jpg", lambda path: Image.fromarray(SQUARE).convert("RGB").save(path, quality=60)),
    "dark JPEG": ("a.jpg", lambda path: Image.fromarray(SQUARE // 2).save(path, quality=60)),
    "JPEG named .png": ("a.png", lambda path: Image.fromarray(SQUARE).save(path, format="JPEG", quality=60)),
    "JPEG in TIFF": ("a.tiff", lambda path: Image.fromarray(SQUARE).save(path, compression="jpeg", quality=60)),
    "lossy WEBP": ("a.webp", lambda path: Image.fromarray(SQUARE).convert("RGB").save(path, quality=60)),
    "dark blue": (
        "a.png",
        lambda path: Image.fromarray(np.stack([SQUARE * 0, SQUARE * 0, SQUARE // 255], axis=2)).save(path),
    ),
    "16 bits": ("a.png", lambda path: Image.fromarray((SQUARE // 255).astype(np.uint16)).save(path)),
    "0 and 1": ("a.bmp", lambda path: Image.fromarray(SQUARE // 255).save(path)),
    "numbers": ("a.tiff", lambda path: Image.fromarray((SQUARE / 1000).astype(np.float32)).save(path)),
}


@pytest.mark.parametrize("way", WAYS)
def test_square_is_marked_however_it_is_saved(tmp_path: Path, way: str) -> None:
    name, write = WAYS[way]
    write(tmp_path / name)
    assert np.array_equal(read_masks([tmp_path / name]), SQUARE > 0)


def test_black_jpeg_marks_nothing(tmp_path: Path) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "a.jpg")
    assert not read_masks([tmp_path / "a.jpg"]).any()


def test_text_of_several_files_is_read_back(tmp_path: Path) -> None:
    """Also of a file that is called like several."""
    one, two = tmp_path / "a.png", tmp_path / "b | c.png"
    two.touch()
    assert split_masks(joined([one])) == [one]
    assert split_masks(joined([two])) == [two]
    assert split_masks(joined([one, tmp_path / "c.png"])) == [one, tmp_path / "c.png"]
    assert joined([]) == ""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    trees.mvtec_class(tmp_path / "tile")
    return tmp_path


def anomalous_items(root: Path) -> list:
    datamodule = MultiClass(root=root, num_workers=0)
    datamodule.setup()
    return [item for item in datamodule.test_data if item.gt_label]


def test_masks_of_one_image_are_united(root: Path) -> None:
    second = np.zeros((32, 32), dtype=np.uint8)
    second[20:24, 5:30] = 255
    folder = root / "tile/ground_truth/crack"
    (folder / "000_mask.png").rename(folder / "000_mask_0.png")
    Image.fromarray(second).save(folder / "000_mask_1.png")
    first, other = anomalous_items(root)
    assert np.array_equal(first.gt_mask.numpy() > 0, (SQUARE > 0) | (second > 0))
    assert split_masks(first.mask_path) == [folder / "000_mask_0.png", folder / "000_mask_1.png"]
    assert np.array_equal(other.gt_mask.numpy() > 0, SQUARE > 0)
    with pytest.raises(ValueError, match=r"1 anomalous images have several masks, .*crack/000\.png\. Merge them"):
        MultiClass(dataset="MVTecAD", root=root).setup()


@pytest.mark.parametrize("way", ["RGBA", "JPEG"])
def test_items_have_what_is_marked(root: Path, way: str) -> None:
    name, write = WAYS[way]
    folder = root / "tile/ground_truth/crack"
    (folder / "001_mask.png").unlink()
    write(folder / f"001_mask{Path(name).suffix}")
    assert [int(item.gt_mask.sum()) for item in anomalous_items(root)] == [64, 64]


def test_inverted_mask_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(255 - SQUARE).save(root / "tile/ground_truth/crack/001_mask.png")
    anomalous_items(root)
    assert "the masks of 1 anomalous images mark more than half of the image: " in caplog.text
    assert "crack/001.png. All pixels that are not black count as marked: invert" in caplog.text


def test_mask_deleted_since_is_named(root: Path) -> None:
    datamodule = MultiClass(root=root, num_workers=0)
    datamodule.setup()
    (root / "tile/ground_truth/crack/001_mask.png").unlink()
    with pytest.raises(OSError, match=r"001_mask\.png"):
        list(datamodule.test_data)


def test_some_masks_of_no_image_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not those of normal images, which datasets have too."""
    (root / "tile/test/crack/000.png").unlink()
    MultiClass(root=root).setup()
    masks = sorted((root / "tile/ground_truth/crack").iterdir())
    assert f"Class 'tile': 1 masks belong to no image: {masks[0]}. Their images are missing" in caplog.text
    caplog.clear()
    Image.new("L", (32, 32)).save(masks[0])
    MultiClass(root=root).setup()
    assert "belong to no image" not in caplog.text


@pytest.mark.parametrize("kind", ["ground_truth", "named otherwise"])
def test_masks_of_no_image(root: Path, kind: str) -> None:
    """They would be left out, and the class would be one without masks."""
    folder = root / "tile/ground_truth/crack"
    if kind == "ground_truth":
        folder.rename(folder.with_name("Crack"))
    for mask in folder.parent.rglob("*.png") if kind != "ground_truth" else ():
        mask.rename(mask.with_name(f"x{mask.name}"))
    with pytest.raises(ValueError, match=r"'tile' .*no anomalous image has a mask, but there are masks .*_mask\.png"):
        MultiClass(root=root).setup()
