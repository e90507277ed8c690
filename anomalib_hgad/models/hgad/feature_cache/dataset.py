# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Features of images in place of the images, as a dataset.

Dimensions: B images, D channels of a level, H x W its grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anomalib.data import AnomalibDataset
from torch.utils.data import Dataset

from anomalib_hgad.data.batch import FeatureBatch, FeatureItem
from anomalib_hgad.models.hgad.feature_cache.store import FileFeatures, MemoryFeatures


class FeatureDataset(Dataset[FeatureItem]):
    """The features of a dataset's images.

    Args:
        images: The dataset.
        features: Features of its images and of others.
        first: Position of the first image's features among them.
    """

    def __init__(self, images: AnomalibDataset, features: MemoryFeatures | FileFeatures, first: int) -> None:
        super().__init__()
        samples = images.samples
        self.class_names = samples["class_name"].to_list() if "class_name" in samples else [None] * len(samples)
        self.features: MemoryFeatures | FileFeatures | None = features
        self.first = first

    def __len__(self) -> int:
        """Count the images."""
        return len(self.class_names)

    def __getitem__(self, index: int) -> FeatureItem:
        """Get the features of an image.

        Args:
            index: Row of the dataset's ``samples``.

        Returns:
            The features.

        Raises:
            RuntimeError: If the training that they were computed for has ended.
        """
        if self.features is None:
            msg = "The features were cached for a training that has ended. Get a new dataloader from the datamodule."
            raise RuntimeError(msg)
        return FeatureItem(self.features[self.first + index], self.class_names[index])

    @property
    def collate_fn(self) -> Callable[[Sequence[FeatureItem]], FeatureBatch]:
        """Batches items."""
        return FeatureBatch.collate

    def close(self) -> None:
        """Free the memory; the dataset cannot be used after that."""
        self.features = None
