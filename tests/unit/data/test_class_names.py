# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of how the classes of data map to those of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from anomalib.data import Folder, MVTecAD
from lightning.pytorch import LightningDataModule

from anomalib_hgad.data.batch import ClassImageBatch
from anomalib_hgad.data.class_names import check_known, claimed_class_names, datamodule_class_names, label_batch

KNOWN = ["bottle", "cable", "tile"]


class TwoClasses(LightningDataModule):
    """A datamodule that knows its classes."""

    class_names = ("tile", "bottle")


def batch(index: list[int] | None = None, names: list[str] | None = None) -> ClassImageBatch:
    """Two images."""
    class_index = torch.tensor(index) if index is not None else None
    return ClassImageBatch(image=torch.zeros(2, 3, 4, 4), class_index=class_index, class_name=names)


def test_names_of_datamodules(tmp_path: Path) -> None:
    """Own names first, then the category, then the name."""
    assert datamodule_class_names(TwoClasses()) == ["tile", "bottle"]
    assert datamodule_class_names(MVTecAD(tmp_path, "cable")) == ["cable"]
    assert datamodule_class_names(Folder("screws", root=tmp_path, normal_dir="good")) == ["screws"]


def test_claims_of_datamodules(tmp_path: Path) -> None:
    """A folder's name says nothing about the product in it."""
    assert claimed_class_names(TwoClasses()) == ["tile", "bottle"]
    assert claimed_class_names(MVTecAD(tmp_path, "cable")) == ["cable"]
    assert claimed_class_names(Folder("screws", root=tmp_path, normal_dir="good")) == []
    assert claimed_class_names(None) == []


def test_known_classes_are_no_error() -> None:
    """In any order and number."""
    assert check_known(["tile", "bottle", "tile"], KNOWN) is None


def test_unknown_classes_are_named_once_with_the_known_ones() -> None:
    message = r"not trained on these classes of the data: zipper, grid\. It knows bottle, cable, tile\. Choose"
    with pytest.raises(ValueError, match=message):
        check_known(["zipper", "tile", "grid", "zipper"], KNOWN)
    with pytest.raises(ValueError, match=r"It knows none\."):
        check_known(["tile"], [])


def test_names_decide_the_index() -> None:
    """The data's own index counts in its own order."""
    labelled = label_batch(batch([0, 1], ["tile", "bottle"]), KNOWN, only_name="cable")
    assert labelled.class_index.tolist() == [2, 0]
    assert labelled.class_name == ["tile", "bottle"]
    assert labelled.class_index.dtype == torch.int64


def test_indices_without_names_are_the_models() -> None:
    labelled = label_batch(batch([2, 1]), KNOWN, only_name="bottle")
    assert labelled.class_index.tolist() == [2, 1]
    assert labelled.class_name == ["tile", "cable"]


def test_only_class_of_the_data_is_that_of_all_images() -> None:
    labelled = label_batch(batch(), KNOWN, only_name="cable")
    assert labelled.class_index.tolist() == [1, 1]
    assert labelled.class_name == ["cable", "cable"]


def test_batch_of_unknown_class_stays_without_one() -> None:
    labelled = label_batch(batch(), KNOWN, only_name=None)
    assert labelled.class_index is None
    assert labelled.class_name is None


@pytest.mark.parametrize(("index", "got"), [([0, 3], r"\[3\]"), ([-1, 2], r"\[-1\]"), ([5, 4], r"\[5, 4\]")])
def test_index_of_no_class(index: list[int], got: str) -> None:
    with pytest.raises(ValueError, match=rf"class_index from 0 to 2 \(bottle, cable, tile\), got {got}"):
        label_batch(batch(index), KNOWN, only_name=None)


@pytest.mark.parametrize("index", [[0.0, 1.0], [True, False]], ids=["float", "bool"])
def test_index_of_no_whole_numbers(index: list[float]) -> None:
    with pytest.raises(ValueError, match=r"class_index of integers, got torch\.(float32|bool)\. Make it an int64"):
        label_batch(batch(index), KNOWN, only_name=None)


def test_names_of_mixed_types() -> None:
    with pytest.raises(ValueError, match="not trained on these classes of the data: 1"):
        label_batch(batch([0, 1], ["tile", 1]), KNOWN, only_name=None)


def test_named_image_of_no_class_stays_one() -> None:
    labelled = label_batch(batch([-1, 0], ["zipper", "tile"]), KNOWN, only_name=None)
    assert labelled.class_index.tolist() == [-1, 2]
    assert labelled.class_name == ["zipper", "tile"]


def test_unknown_name_in_a_batch() -> None:
    with pytest.raises(ValueError, match="not trained on these classes of the data: zipper"):
        label_batch(batch([0, 1], ["tile", "zipper"]), KNOWN, only_name=None)
    with pytest.raises(ValueError, match="not trained on these classes of the data: zipper"):
        label_batch(batch(), KNOWN, only_name="zipper")
