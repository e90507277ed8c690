# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The product classes of a model: taken from the data, set in every batch, kept in the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_hgad.data.batch import NO_CLASS, ClassImageBatch, FeatureBatch
from anomalib_hgad.data.class_names import claimed_class_names, datamodule_class_names, label_batch
from anomalib_hgad.models.base import PluginModel
from anomalib_hgad.models.checkpoint import check_score
from anomalib_hgad.models.hgad.torch_model import HgadModel

CLASS_NAMES_KEY = "hgad_class_names"
"""Key of the names in a checkpoint."""


class ClassModel(PluginModel):
    """A model that knows its classes by their names.

    Attributes:
        model: The torch model, with a mixture of as many classes.
        num_classes: Expected number of classes. ``None`` takes it from the data.
        class_names: Their names, in the order of the mixture; none before the first training.
    """

    model: HgadModel
    num_classes: int | None
    class_names: list[str]

    @property
    def _datamodule(self) -> LightningDataModule | None:
        return getattr(self.trainer, "datamodule", None)

    def _set_class_names(self, names: list[str]) -> None:
        self.class_names = names
        if names and self.model.num_classes != len(names):  # there are none before the first training
            self.model.set_num_classes(len(names))

    def _names_of_data(self) -> list[str]:
        if self._datamodule is None:
            return [str(index) for index in range(self.num_classes or 1)]
        names = datamodule_class_names(self._datamodule)
        if self.num_classes not in {None, len(names)}:
            msg = f"num_classes={self.num_classes}, but the data has {len(names)} classes: {', '.join(names)}. Leave "
            msg += "num_classes out to take it from the data."
            raise ValueError(msg)
        return names

    def on_before_batch_transfer(
        self, batch: ImageBatch | FeatureBatch, dataloader_idx: int
    ) -> ClassImageBatch | FeatureBatch:
        """Give every batch the class fields, with the model's class indices.

        Args:
            batch: Batch in main memory.
            dataloader_idx: Unused.

        Returns:
            The batch.

        Raises:
            ValueError: If the model does not know a class, if it is to train on an image of none, or if an image has
                numbers that are not finite.
        """
        batch = super().on_before_batch_transfer(batch, dataloader_idx)
        if not isinstance(batch, ClassImageBatch | FeatureBatch):
            batch = ClassImageBatch.from_image_batch(batch)
        names = claimed_class_names(self._datamodule)
        if self.trainer.state.fn == TrainerFn.FITTING and len(self.class_names) == 1:
            names = self.class_names
        batch = label_batch(batch, self.class_names, only_name=names[0] if len(names) == 1 else None)
        if self.trainer.training and batch.class_index is not None and (batch.class_index == NO_CLASS).any():
            msg = f"Expected training images of the classes {', '.join(self.class_names)}, got images with class_index "
            msg += f"{NO_CLASS}, which is for evaluation. Take them out of the training data."
            raise ValueError(msg)
        return batch

    def mixture_class_index(self, batch: ClassImageBatch | FeatureBatch) -> torch.Tensor:
        """True classes as the mixture counts them; a mixture of one class takes all images for that one.

        Args:
            batch: Batch of images.

        Returns:
            Class indices, int64, shape (B,).

        Raises:
            ValueError: If the batch has no classes though the mixture has several.
        """
        if self.model.num_classes == 1:
            return torch.zeros(batch.batch_size, dtype=torch.int64, device=self.device)
        if batch.class_index is None:
            msg = f"The model has the classes {', '.join(self.class_names)}, but the batch carries no class_index. "
            msg += "Load the images with anomalib_hgad.MultiClass."
            raise ValueError(msg)
        return batch.class_index

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the class names, and what made the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CLASS_NAMES_KEY] = list(self.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the classes.

        Args:
            checkpoint: The checkpoint.

        Raises:
            ValueError: If the checkpoint is not of this model, of other settings or of other versions, or if a training
                is resumed on other classes.
        """
        if CLASS_NAMES_KEY not in checkpoint:
            msg = "Expected a checkpoint of anomalib_hgad.Hgad; this one is of another model."
            raise ValueError(msg)
        names = list(checkpoint[CLASS_NAMES_KEY])
        if self.stage == TrainerFn.FITTING and set(names) != set(self.class_names):
            msg = f"The checkpoint was trained on the classes {', '.join(names)}, the data has "
            msg += f"{', '.join(self.class_names)}. A training can only be resumed on the classes it began with."
            raise ValueError(msg)
        self._set_class_names(names)
        super().on_load_checkpoint(checkpoint)
        check_score(checkpoint, self.model.score)
