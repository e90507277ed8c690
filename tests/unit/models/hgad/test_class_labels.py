# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names of the classes: from the data, in batches, in checkpoints."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anomalib.data import ImageBatch
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.data.batch import NO_CLASS, ClassImageBatch
from anomalib_hgad.models.hgad.class_labels import CLASS_NAMES_KEY, ClassLabels, with_class_fields


def labels(*names: str, num_classes: int | None = None) -> ClassLabels:
    made = ClassLabels(num_classes)
    made.names = list(names)
    return made


def trainer(fn: TrainerFn, names: list[str] | None = None, training: bool = False) -> Any:
    datamodule = None if names is None else SimpleNamespace(class_names=names)
    return SimpleNamespace(state=SimpleNamespace(fn=fn), training=training, datamodule=datamodule)


def batch(names: list[str] | None, indices: list[int] | None = None) -> ClassImageBatch:
    count = len(names or indices or [0])
    index = None if indices is None else torch.tensor(indices)
    return ClassImageBatch(image=torch.zeros(count, 3, 2, 2), class_name=names, class_index=index)


@pytest.mark.parametrize(
    ("datamodule", "num_classes", "expected"),
    [
        (None, None, ["0"]),
        (None, 3, ["0", "1", "2"]),
        (SimpleNamespace(class_names=["nut", "bolt"]), None, ["nut", "bolt"]),
        (SimpleNamespace(class_names=["nut", "bolt"]), 2, ["nut", "bolt"]),
        (SimpleNamespace(category="hazelnut", name="MVTecAD"), None, ["hazelnut"]),
    ],
)
def test_names_of_data(datamodule: Any, num_classes: int | None, expected: list[str]) -> None:
    assert labels(num_classes=num_classes).names_of(datamodule) == expected


def test_another_number_of_classes_than_expected() -> None:
    with pytest.raises(ValueError, match="num_classes=3, but the data has 2 classes: nut, bolt"):
        labels(num_classes=3).names_of(SimpleNamespace(class_names=["nut", "bolt"]))


def test_indices_are_those_of_the_model_by_name() -> None:
    known = labels("bolt", "gear", "nut")
    labelled = known.label(batch(["nut", "bolt"], [0, 1]), trainer(TrainerFn.TESTING, ["nut", "bolt"]))
    assert labelled.class_index.tolist() == [2, 0]


def test_data_of_one_class_names_all_its_images() -> None:
    labelled = labels("bolt", "nut").label(batch(None), trainer(TrainerFn.TESTING, ["nut"]))
    assert labelled.class_index.tolist() == [1]
    assert labels("bolt", "nut").label(batch(None), trainer(TrainerFn.PREDICTING)).class_index is None


def test_training_of_one_class_takes_any_image_for_it() -> None:
    assert labels("bolt").label(batch(None), trainer(TrainerFn.FITTING)).class_index.tolist() == [0]


def test_image_of_no_class_is_not_trained_on() -> None:
    known, odd = labels("bolt"), (["cat"], [NO_CLASS])
    assert known.label(batch(*odd), trainer(TrainerFn.FITTING)).class_index.tolist() == [NO_CLASS]  # a validation
    with pytest.raises(
        ValueError, match="Expected training images of the classes bolt, got images with class_index -1"
    ):
        known.label(batch(*odd), trainer(TrainerFn.FITTING, training=True))


def test_checkpoint_keeps_the_names_in_order() -> None:
    checkpoint: dict[str, Any] = {}
    labels("nut", "bolt").save(checkpoint)
    assert labels().names_in(checkpoint, resumes=False) == ["nut", "bolt"]
    assert labels("bolt", "nut").names_in(checkpoint, resumes=True) == ["nut", "bolt"]
    with pytest.raises(ValueError, match="trained on the classes nut, bolt, the data has nut, gear"):
        labels("nut", "gear").names_in(checkpoint, resumes=True)
    with pytest.raises(ValueError, match="this one is of another model"):
        labels().names_in({}, resumes=False)


@pytest.mark.parametrize("name", ["\x1b[31mbolt", "a\nb", "a/b", "..", "", "\udcff", 5])
def test_names_that_no_folder_has_are_refused(name: Any) -> None:
    """A checkpoint may come from anywhere; none is made with such a name."""
    with pytest.raises(
        ValueError, match="The name of a class of the checkpoint is also the name of its folder"
    ) as info:
        labels().names_in({CLASS_NAMES_KEY: ["nut", name]}, resumes=False)
    assert str(info.value).isprintable()
    if isinstance(name, str):
        with pytest.raises(ValueError, match="The name of a class is also the name of its folder"):
            labels().names_of(SimpleNamespace(class_names=["nut", name]))


def test_plain_batch_gets_class_fields() -> None:
    plain = ImageBatch(image=torch.ones(2, 3, 2, 2), gt_label=torch.tensor([0, 1]))
    made = with_class_fields(plain)
    assert isinstance(made, ClassImageBatch)
    assert made.gt_label.tolist() == [0, 1]
    assert made.class_index is None
    assert with_class_fields(made) is made


def test_training_data_without_a_class_of_the_model_is_refused() -> None:
    """A model that is trained again would have a class that was fitted to no image."""
    known = labels("bolt", "nut")
    for complete in (None, SimpleNamespace(class_names=["nut", "bolt"]), SimpleNamespace(category="", name="Folder")):
        known.check_complete(complete)
    with pytest.raises(ValueError, match=r"trained on bolt, nut, and the training data has no bolt: .* remove_class"):
        known.check_complete(SimpleNamespace(class_names=["nut"]))
