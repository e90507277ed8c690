# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments of MultiClass of types that are easily given in Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from anomalib.data import Folder, MVTecAD
from torch.nn import Sequential
from torchvision import transforms
from torchvision.transforms.v2 import Resize

from anomalib_hgad.data.multi_class import MultiClass
from tests.helpers import trees


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"datamodules": MVTecAD()}, "Expected a list of datamodules, got MVTecAD. Put one for each class into a list"),
        ({"datamodules": {"bottle": MVTecAD()}}, "Expected a list of datamodules, got dict"),
        ({"dataset": MVTecAD}, "Expected the name of a dataset, such as 'MVTecAD', got <class"),
        ({"dataset": "BTech", "categories": "01"}, "Expected a list of names as categories, .*, got '01'"),
        ({"dataset": "BTech", "categories": [1]}, r"Expected a list of names as categories, .*, got \[1\]"),
        (
            {"root": ".", "train_augmentations": [Resize(8)]},
            r"Expected train_augmentations to be a transform.*\[Resize",
        ),
        ({"root": ".", "augmentations": Sequential(Resize(8))}, "Expected augmentations to be a transform of .*v2"),
        ({"root": ".", "test_augmentations": transforms.Grayscale()}, "Expected test_augmentations to be a transform"),
    ],
)
def test_arguments_of_another_type(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        MultiClass(**arguments)


def test_folders_may_be_paths(tmp_path: Path) -> None:
    """As those of anomalib's Folder."""
    trees.folder_class(tmp_path / "bolt")
    named = {"normal_dir": Path("good"), "abnormal_dir": [Path("bad")], "mask_dir": [Path("masks")]}
    datamodule = MultiClass(root=tmp_path, num_workers=0, **named)
    datamodule.setup()
    as_text = MultiClass(root=tmp_path, num_workers=0, normal_dir="good", abnormal_dir=["bad"], mask_dir=["masks"])
    as_text.setup()
    assert datamodule.test_data.samples.equals(as_text.test_data.samples)


def test_datamodules_may_be_a_tuple() -> None:
    assert MultiClass((MVTecAD(category="bottle"), Folder("bolt", "good"))).class_names == ["bottle", "bolt"]
