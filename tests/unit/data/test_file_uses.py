# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""No file is trained on and tested as well, whichever way the folders say so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from anomalib.data import Folder

from anomalib_hgad.data.multi_class import MultiClass
from tests.helpers import trees

FOLDERS = {"normal_dir": "good", "abnormal_dir": "bad", "mask_dir": "masks"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A class in MVTec layout, and one in folders of any name."""
    trees.mvtec_class(tmp_path / "layout/bolt")
    trees.mvtec_class(tmp_path / "layout/nut")
    trees.folder_class(tmp_path / "named/bolt")
    return tmp_path


@pytest.mark.parametrize(
    ("folders", "file", "uses"),
    [
        ({"normal_dir": "."}, "bad/0.png", "training image of 'bolt', anomalous test image of 'bolt'"),
        ({"abnormal_dir": "good", "mask_dir": None}, "good/0.png", "training image .* anomalous test image"),
        ({"normal_test_dir": "good"}, "good/0.png", "training image of 'bolt', normal test image of 'bolt'"),
        ({"normal_test_dir": "bad"}, "bad/0.png", "anomalous test image of 'bolt'"),
        ({"normal_dir": "masks"}, "masks/0_mask.png", "training image of 'bolt', mask of 'bolt'"),
        ({"mask_dir": "bad"}, "bad/0.png", "anomalous test image of 'bolt', mask of 'bolt'"),
    ],
    ids=["inside", "equal", "normal ones", "normal and anomalous", "masks", "images as masks"],
)
@pytest.mark.parametrize("form", ["folders", "datamodules"])
def test_folders_that_lie_in_each_other(root: Path, folders: dict[str, str], file: str, uses: str, form: str) -> None:
    given = {name: folder for name, folder in (FOLDERS | folders).items() if folder is not None}
    if form == "folders":
        datamodule = MultiClass(root=root / "named", **given)
    else:
        datamodule = MultiClass([Folder("bolt", root=root / "named/bolt", **given)])
    with pytest.raises(ValueError, match=rf"'bolt': \d+ files have more than one use: .*named/bolt/{file} \(.*{uses}"):
        datamodule.setup()


@pytest.mark.parametrize("link", ["symbolic", "hard"])
@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("bolt/test/crack/001.png", "bolt/train/good/x.png"),
        ("bolt/test/good/001.png", "bolt/train/good/x.png"),
        ("bolt/train/good/001.png", "bolt/test/crack/x.png"),
        ("nut/test/crack/001.png", "bolt/train/good/x.png"),
        ("bolt/train/good/001.png", "nut/test/good/x.png"),
    ],
)
def test_links_between_training_and_test(root: Path, source: str, place: str, link: str) -> None:
    folder = root / "layout"
    if link == "symbolic":
        (folder / place).symlink_to(folder / source)
    else:
        os.link(folder / source, folder / place)
    with pytest.raises(ValueError, match=r"1 files have more than one use: .*(x|001)\.png \(training image of '\w+', "):
        MultiClass(root=folder).setup()


def test_folder_that_links_to_the_test_images(root: Path) -> None:
    shutil.rmtree(root / "layout/bolt/train/good")
    (root / "layout/bolt/train/good").symlink_to(root / "layout/bolt/test/crack")
    with pytest.raises(ValueError, match=r"2 files have more than one use: .*bolt/test/crack/000\.png"):
        MultiClass(root=root / "layout").setup()


@pytest.mark.parametrize("mode", ["same_as_test", "from_test", "from_train", "synthetic"])
def test_files_of_one_use_are_no_error(root: Path, mode: str) -> None:
    """Also where validation and test share images, or a file has another name that nothing reads."""
    os.link(root / "layout/bolt/train/good/000.png", root / "layout/copy.png")
    (root / "layout/bolt/train/good/again.png").symlink_to(root / "layout/bolt/train/good/000.png")
    datamodule = MultiClass(root=root / "layout", val_split_mode=mode, seed=0)
    datamodule.setup()
    assert len(datamodule.val_data)


def test_what_is_normal_in_one_class_may_be_an_anomaly_in_another(root: Path) -> None:
    (root / "layout/nut/test/bolts").symlink_to(root / "layout/bolt/test/good")
    for number in range(2):
        trees.write_mask(root / f"layout/nut/ground_truth/bolts/00{number}_mask.png")
    datamodule = MultiClass(root=root / "layout")
    datamodule.setup()
    assert datamodule.test_data.samples["label_index"].sum() == 6


def test_masks_without_their_images(root: Path) -> None:
    with pytest.raises(ValueError, match=r"got mask_dir='masks' and abnormal_dir=None\. Give the same number"):
        MultiClass(root=root / "named", normal_dir="good", mask_dir="masks")
