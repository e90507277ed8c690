# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images for the calibration of INT8: the same ones every time, of every class, as they are in their files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.data.utils import read_image
from torchvision.transforms.v2 import ColorJitter

from anomalib_hgad import MultiClass
from anomalib_hgad.deploy.calibration_images import CALIBRATION_IMAGES, calibration_images, drawn
from tests.helpers import trees


def test_every_class_is_drawn_however_rare_it_is() -> None:
    classes = np.array(["bolt"] * 20_000 + ["nut"] * 12 + ["gear"] * 3 + ["pin"])
    rows = drawn(classes)
    assert len(rows) == len(set(rows)) == CALIBRATION_IMAGES
    assert Counter(classes[rows].tolist()) == {"bolt": 300 - 14, "nut": 10, "gear": 3, "pin": 1}
    assert drawn(classes) == rows
    assert np.ptp(np.flatnonzero(classes[rows] != "bolt")) > 100, "in random order"


@pytest.mark.parametrize(("count", "least"), [(100, 3), (280, 1), (400, 1)])
def test_every_one_of_many_classes_is_drawn(count: int, least: int) -> None:
    """More images than otherwise, if there are more classes."""
    counts = Counter(np.repeat(np.arange(count), 40)[drawn(np.repeat(np.arange(count), 40))].tolist())
    assert len(counts) == count
    assert min(counts.values()) >= least
    assert counts.total() == max(CALIBRATION_IMAGES, count)


def test_classes_that_are_not_rare_are_drawn_as_they_come() -> None:
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).tolist()
    assert drawn(np.arange(1000) % 5) == order[:CALIBRATION_IMAGES]
    assert drawn(np.zeros(20)) == torch.randperm(20, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("several", [True, False])
def test_images_are_those_of_the_files_every_time(several: bool, tmp_path: Path) -> None:
    """Whatever is done to them in a training, which stays as it is."""
    jitter = ColorJitter(brightness=(0.1, 0.9))
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / name, train=3)
    several_classes = MultiClass(root=tmp_path, train_augmentations=jitter, num_workers=0)
    none = {"test_split_mode": "none", "val_split_mode": "none"}
    one = Folder("bolt", tmp_path / "bolt/train/good", train_augmentations=jitter, **none)
    datamodule = several_classes if several else one
    datamodule.setup("fit")
    data = datamodule.train_data
    if several:
        data.augmentations = jitter  # as anomalib's tiled ensemble does
    images = calibration_images(datamodule, None)
    files = [data.samples["image_path"].iloc[row] for row in images.dataset.indices]
    for image, again, file in zip(images, images, files, strict=True):
        assert image.shape == (1, 3, 32, 32)
        np.testing.assert_array_equal(image[0], read_image(file, as_tensor=True).numpy())
        np.testing.assert_array_equal(image, again)
    assert (data.parts[0].dataset if several else data).augmentations is not None
    assert calibration_images(datamodule, (8, 12)).__iter__().__next__().shape == (1, 3, 8, 12)
