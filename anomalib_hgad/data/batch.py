# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Items and batches that carry a product class.

anomalib's :class:`~anomalib.data.ImageItem` and :class:`~anomalib.data.ImageBatch` know whether an image is normal or
anomalous, but not which product it shows. The subclasses in this module add the class, and work with every anomalib
model, metric, callback and visualizer.

Dimensions: B images, height x width pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem

NO_CLASS = -1
"""``class_index`` of an image that shows none of the product classes of its data; for evaluation only."""


ArrayT = TypeVar("ArrayT", torch.Tensor, np.ndarray)
NameT = TypeVar("NameT", str, list[str])


@dataclass
class ClassFields(Generic[ArrayT, NameT]):
    """Product class of an image or of each image of a batch, and predictions that depend on it; ``None`` if unknown.

    The shapes are those of a batch. An item has the same shapes without B.

    Attributes:
        class_index: True class, int64, shape (B,), with :data:`NO_CLASS` for something else.
        class_name: Name of the true class, or of something else.
        pred_class_index: Class inferred by the model, int64, shape (B,).
        pred_class_name: Name of the inferred class, or ``"unknown"``.
        scored_class_index: Class whose scale and threshold apply to the image score, in the model's numbering, int64,
            shape (B,).
        scored_class_name: Its name.
        raw_score: Image score before post-processing, shape (B,).
        class_given_score, class_inferred_score: The same with the true and with the inferred class, shape (B,).
        class_given_map, class_inferred_map: The corresponding anomaly map, shape (B, height, width).
        limit_mask: Pixels above the limit of the class of the image, bool, shape (B, height, width).
        novelty: How much less typical the image is than normal images of its class; above 1 it is unknown. Shape (B,).
        defect_kind: Most similar kind of known defects, ``"other"`` if none is similar; empty for classes without known
            defects. It is meaningless for an image that is not predicted as anomalous.
    """

    class_index: ArrayT | None = None
    class_name: NameT | None = None
    pred_class_index: ArrayT | None = None
    pred_class_name: NameT | None = None
    scored_class_index: ArrayT | None = None
    scored_class_name: NameT | None = None
    raw_score: ArrayT | None = None
    class_given_score: ArrayT | None = None
    class_given_map: ArrayT | None = None
    class_inferred_score: ArrayT | None = None
    class_inferred_map: ArrayT | None = None
    limit_mask: ArrayT | None = None
    novelty: ArrayT | None = None
    defect_kind: NameT | None = None


@dataclass
class NumpyClassImageItem(ClassFields[np.ndarray, str], NumpyImageItem):
    """:class:`ClassImageItem` as NumPy arrays."""


@dataclass
class NumpyClassImageBatch(ClassFields[np.ndarray, list[str]], NumpyImageBatch):
    """:class:`ClassImageBatch` as NumPy arrays."""

    item_class: ClassVar[type[NumpyClassImageItem]] = NumpyClassImageItem


@dataclass
class ClassImageItem(ClassFields[torch.Tensor, str], ImageItem):
    """An image and the product class it shows."""

    numpy_class: ClassVar[type[NumpyClassImageItem]] = NumpyClassImageItem


@dataclass
class ClassImageBatch(ClassFields[torch.Tensor, list[str]], ImageBatch):
    """A batch of images and the product classes they show."""

    item_class: ClassVar[type[ClassImageItem]] = ClassImageItem
    numpy_class: ClassVar[type[NumpyClassImageBatch]] = NumpyClassImageBatch

    @classmethod
    def collate(cls, items: list[ClassImageItem]) -> ClassImageBatch:
        """Batch items, keeping the fields that all of them have.

        anomalib's collate checks the first item only, and fails or loses masks if a batch has images of classes with
        and without masks.

        Args:
            items: The items to batch. Images of different sizes are resized to the largest.

        Returns:
            The batch. A field that any item lacks is ``None``; missing mask paths, as of normal images, are empty.
        """
        mask_paths = [item.mask_path or "" for item in items]
        for field in fields(ClassImageItem):
            if any(getattr(item, field.name) is None for item in items):
                for item in items:
                    setattr(item, field.name, None)
        batch = super().collate(items)
        if any(mask_paths):
            batch.mask_path = mask_paths
        return batch

    @classmethod
    def from_image_batch(cls, batch: ImageBatch) -> ClassImageBatch:
        """Copy the fields of a plain anomalib batch; the class fields stay ``None``."""
        return cls(**{field.name: getattr(batch, field.name) for field in fields(batch)})


def batching_with_classes(collate: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Make a collate function return batches with classes instead of anomalib's own batches, which have none.

    Args:
        collate: Collate function. That of anomalib's tiled ensemble calls its ``default_collate_fn``, which is replaced
            here. ``None`` for none.

    Returns:
        The function.
    """
    if collate == ImageBatch.collate:
        return ClassImageBatch.collate
    if getattr(collate, "default_collate_fn", None) == ImageBatch.collate:
        collate.default_collate_fn = ClassImageBatch.collate  # type: ignore[union-attr]
    return collate


def cuts_tiles(collate: Callable[..., Any] | None) -> bool:
    """Whether a collate function is that of anomalib's tiled ensemble, which cuts a tile out of every image."""
    return hasattr(collate, "tiler")


class FeatureItem(NamedTuple):
    """Features of an image.

    Attributes:
        features: Feature maps of the levels, shapes (D, H, W).
        class_name: Class of the image; ``None`` if its dataset has none.
    """

    features: list[torch.Tensor]
    class_name: str | None


@dataclass
class FeatureBatch:
    """Features of a batch of images.

    Attributes:
        features: Feature maps of the levels, shapes (B, D, H, W).
        class_name: Classes of the images; ``None`` if their dataset has none.
        class_index: The model's class indices, int64, shape (B,).
        image: Always ``None``; anomalib's pre-processor reads it.
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
