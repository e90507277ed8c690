# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Training data in place of all images of a datamodule: without held-out images, or as cached features."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import Dataset

from anomalib_hgad.common.warnings_by_design import ignored
from anomalib_hgad.data.hold_out import hold_out
from anomalib_hgad.models.hgad.feature_cache.dataset import FeatureDataset
from anomalib_hgad.models.hgad.pixel_limits import PatchedBatch


class TrainingData(Callback):
    """Changes the training data of a datamodule, and reverts the changes when the training ends.

    Nothing else changes the data: images are held out at the start, and features may replace images after that.

    Attributes:
        held_out: Normal images that are not trained on, or their features; ``None`` if there are none.
        held_out_images: The held-out images themselves.
        images: The training images themselves; ``None`` if the data is not anomalib's.
        has_features: Whether features have replaced the images.
        patched: Features of images with pasted patches, in main memory; ``None`` if they are computed when needed.
    """

    def __init__(self) -> None:
        self.held_out: Dataset[Any] | None = None
        self.held_out_images: AnomalibDataset | None = None
        self.images: AnomalibDataset | None = None
        self.has_features = False
        self.patched: list[PatchedBatch] | None = None
        self._undo = ExitStack()

    def start(self, datamodule: LightningDataModule | None, share: float) -> None:
        """Hold images out, if the data gives the class of each image.

        Args:
            datamodule: Data of the training.
            share: Share of the images of each class.
        """
        self.restore()
        self.held_out = self.held_out_images = None
        self.images = getattr(datamodule, "train_data", None)
        if share and "class_index" in getattr(self.images, "samples", ()):
            self.images, self.held_out_images = hold_out(self.images, share)
            self.held_out = self.held_out_images
            self._replace(datamodule, "train_data", self.images)

    def use_features(
        self, datamodule: AnomalibDataModule, training: FeatureDataset, held_out: FeatureDataset | None
    ) -> None:
        """Replace the images by features.

        Args:
            datamodule: Data of the training.
            training: Features of the images to train on.
            held_out: Features of the images that are held out.
        """
        self.has_features = True
        # Lightning advises more workers, which would slow these loaders down.
        self._undo.enter_context(ignored("The 'train_dataloader' does not have many workers"))
        self._replace(datamodule, "train_data", training)
        self._replace(datamodule, "train_dataloader", _without_workers(datamodule))
        self._undo.callback(training.close)
        if held_out is not None:
            self._replace(self, "held_out", held_out)
            self._undo.callback(held_out.close)

    def restore(self) -> None:
        """Revert all changes. The held-out images stay known until the next training."""
        self._undo.close()
        self.patched = None
        self.has_features = False

    def _replace(self, owner: Any, name: str, value: Any) -> None:  # noqa: ANN401
        """Set an attribute until the training is over."""
        if name in vars(owner):
            self._undo.callback(setattr, owner, name, vars(owner)[name])
        else:
            self._undo.callback(delattr, owner, name)
        setattr(owner, name, value)

    def teardown(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:
        """Leave the datamodule as it was."""
        del trainer, pl_module, stage
        self.restore()

    def on_exception(self, trainer: Trainer, pl_module: AnomalibModule, exception: BaseException) -> None:
        """Leave the datamodule as it was."""
        del trainer, pl_module, exception
        self.restore()


def _without_workers(datamodule: AnomalibDataModule) -> Callable[[], Any]:
    """Return the datamodule's method that makes the training dataloader, without worker processes.

    Features need no decoding, and sending them from a worker takes ten times as long as reading them here.
    """
    make = datamodule.train_dataloader

    def train_dataloader() -> Any:  # noqa: ANN401
        workers, datamodule.num_workers = datamodule.num_workers, 0
        try:
            return make()
        finally:
            datamodule.num_workers = workers

    return train_dataloader
