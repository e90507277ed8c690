# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The product classes that a model knows: read from the data, set in every batch, saved in the checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from anomalib.data import AnomalibDataset, ImageBatch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.common.checks import check_folder_names
from anomalib_hgad.data.batch import NO_CLASS, ClassImageBatch, FeatureBatch
from anomalib_hgad.data.class_names import check_known, claimed_class_names, datamodule_class_names, label_batch

CLASS_NAMES_KEY = "hgad_class_names"
"""Key of the names in a checkpoint."""

RECORDS_KEY = "hgad_classes"
"""Key of the records of the classes in a checkpoint."""


@dataclass(frozen=True)
class ClassRecord:
    """Origin of a class.

    Attributes:
        images: Number of its normal images, including held-out ones.
        date: Day on which the class was trained or added, as YYYY-MM-DD.
    """

    images: int
    date: str

    @classmethod
    def of_today(cls, images: int) -> ClassRecord:
        """Return a record with today's date, in universal time."""
        return cls(images, datetime.now(tz=timezone.utc).date().isoformat())


_Batch = TypeVar("_Batch", ClassImageBatch, FeatureBatch)


class ClassLabels:
    """Names of the classes of a model.

    Args:
        num_classes: Expected number of classes. ``None`` takes it from the data.

    Attributes:
        names: Names of the classes, in the order of the mixture; none before the first training.
        records: Origins of the classes, by name.
    """

    def __init__(self, num_classes: int | None) -> None:
        self.num_classes = num_classes
        self.names: list[str] = []
        self.records: dict[str, ClassRecord] = {}

    def record(self, images: AnomalibDataset | None) -> None:
        """Record the number of images of each class in a training that starts today.

        Args:
            images: The training images; ``None`` if the data is not anomalib's.
        """
        if images is None:
            self.records = {}
            return
        of_images = images.samples.get("class_name", [self.names[0]] * len(images.samples))
        self.records = {name: ClassRecord.of_today(count) for name, count in Counter(of_images).items()}

    def names_of(self, datamodule: LightningDataModule | None) -> list[str]:
        """Return the names of the classes in a training on some data.

        Args:
            datamodule: The data. ``None`` numbers the classes.

        Returns:
            The names.

        Raises:
            ValueError: If the number of classes is not the expected one, or if a class name cannot be a folder name.
        """
        if datamodule is None:
            return [str(index) for index in range(self.num_classes or 1)]
        names = datamodule_class_names(datamodule)
        check_folder_names("a class", names)
        if self.num_classes not in {None, len(names)}:
            msg = f"num_classes={self.num_classes}, but the data has {len(names)} classes: {', '.join(names)}. Leave "
            msg += "num_classes out to take it from the data."
            raise ValueError(msg)
        return names

    def check(self, datamodule: LightningDataModule | None) -> None:
        """Check that the model knows the classes of some data.

        Args:
            datamodule: The data.

        Raises:
            ValueError: If it does not know a class.
        """
        check_known(claimed_class_names(datamodule), self.names)

    def check_complete(self, datamodule: LightningDataModule | None) -> None:
        """Check that training data has all classes of the model: a class without images cannot be fitted.

        Args:
            datamodule: The data.

        Raises:
            ValueError: If it lacks a class.
        """
        names = claimed_class_names(datamodule)
        if names and (missing := [name for name in self.names if name not in names]):
            msg = (
                f"The model was trained on {', '.join(self.names)}, and the training data has no {', '.join(missing)}: "
            )
            msg += "scores of missing classes would be meaningless. Train on all classes, remove a class from the "
            msg += "model with remove_class, or train a new model."
            raise ValueError(msg)

    def label(self, batch: _Batch, trainer: Trainer) -> _Batch:
        """Set the class indices of a batch to the model's.

        Args:
            batch: Batch in main memory.
            trainer: Trainer that the batch comes from.

        Returns:
            The same batch; unchanged if neither it nor the data has classes.

        Raises:
            ValueError: If the model does not know a class, or if a training image has no class.
        """
        names: Sequence[str] = claimed_class_names(getattr(trainer, "datamodule", None))
        if trainer.state.fn == TrainerFn.FITTING and len(self.names) == 1:
            names = self.names
        batch = label_batch(batch, self.names, only_name=names[0] if len(names) == 1 else None)
        if trainer.training and batch.class_index is not None and (batch.class_index == NO_CLASS).any():
            msg = f"Expected training images of the classes {', '.join(self.names)}, got images with class_index "
            msg += f"{NO_CLASS}, which is for evaluation only. Remove them from the training data."
            raise ValueError(msg)
        return batch

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Save the names and the records in a checkpoint."""
        checkpoint[CLASS_NAMES_KEY] = list(self.names)
        checkpoint[RECORDS_KEY] = {name: asdict(record) for name, record in self.records.items()}

    def names_in(self, checkpoint: dict[str, Any], resumes: bool) -> list[str]:
        """Names of the classes of a checkpoint.

        Args:
            checkpoint: The checkpoint.
            resumes: Whether a training is resumed from it, on the classes of :attr:`names`.

        Returns:
            The names.

        Raises:
            ValueError: If the checkpoint is of another model, if one of its class names cannot be a folder name, or if
                the training would be resumed on other classes.
        """
        if CLASS_NAMES_KEY not in checkpoint:
            msg = "Expected a checkpoint of anomalib_hgad.Hgad; this one is of another model."
            raise ValueError(msg)
        names = list(checkpoint[CLASS_NAMES_KEY])
        check_folder_names("a class of the checkpoint", names)
        if resumes and set(names) != set(self.names):
            msg = f"The checkpoint was trained on the classes {', '.join(names)}, the data has "
            msg += f"{', '.join(self.names)}. A training can only be resumed on the classes it began with."
            raise ValueError(msg)
        if not resumes:
            self.records = {name: ClassRecord(**record) for name, record in checkpoint.get(RECORDS_KEY, {}).items()}
        return names


def with_class_fields(batch: ImageBatch | FeatureBatch) -> ClassImageBatch | FeatureBatch:
    """Return a batch with class fields; a plain one of anomalib is converted."""
    if isinstance(batch, ClassImageBatch | FeatureBatch):
        return batch
    return ClassImageBatch.from_image_batch(batch)
