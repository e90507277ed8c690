# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Features of images in place of the images, as a dataset.

Dimensions: B images, D channels of a level, H x W its grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from anomalib.data import AnomalibDataset
from torch.utils.data import Dataset

from anomalib_hgad.models.hgad.feature_cache.store import FileFeatures, MemoryFeatures


class FeatureItem(NamedTuple):
    """Features of an image.

    Attributes:
        features: One of shape (D, H, W) for every level.
        class_name: Class of the image; ``None`` if its dataset does not say.
    """

    features: list[torch.Tensor]
    class_name: str | None


@dataclass
class FeatureBatch:
    """Features of a batch of images.

    Attributes:
        features: One of shape (B, D, H, W) for every level.
        class_name: Classes of the images; ``None`` if their dataset does not say.
        class_index: The model's class indices, int64, shape (B,).
        image: Always ``None``; anomalib's pre-processor asks for it.
        gt_mask: Likewise.
    """

    features: list[torch.Tensor]
    class_name: list[str] | None = None
    class_index: torch.Tensor | None = None
    image: None = None
    gt_mask: None = None

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.features[0])

    @classmethod
    def collate(cls, items: Sequence[FeatureItem]) -> FeatureBatch:
        """Batch items."""
        features = [torch.stack(level) for level in zip(*(item.features for item in items), strict=True)]
        names = [item.class_name for item in items if item.class_name is not None]
        return cls(features, names or None)


class FeatureDataset(Dataset[FeatureItem]):
    """The features of a dataset's images.

    Args:
        images: The dataset.
        features: Features of its images and of others.
        first: Position of the first image's among them.
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
            RuntimeError: If the training that they were kept for is over.
        """
        if self.features is None:
            msg = "The features were kept for a training that is over. Get a new dataloader from the datamodule."
            raise RuntimeError(msg)
        return FeatureItem(self.features[self.first + index], self.class_names[index])

    @property
    def collate_fn(self) -> Callable[[Sequence[FeatureItem]], FeatureBatch]:
        """Batches items."""
        return FeatureBatch.collate

    def close(self) -> None:
        """Give the memory back; whoever still holds the dataset can do nothing with it."""
        self.features = None
