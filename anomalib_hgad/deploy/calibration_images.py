# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Training images on which the activations of a quantised graph are calibrated."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataset
from torch.utils.data import DataLoader, Subset
from torchvision.transforms.v2.functional import resize

from anomalib_hgad.data.dataset import MultiClassDataset

CALIBRATION_IMAGES = 300
"""Maximum number of images, unless there are more classes."""

LEAST_OF_A_CLASS = 10
"""Minimum number of images of each class, if it has as many and if they fit into the maximum."""


def calibration_images(datamodule: Any, size: tuple[int, int] | None) -> DataLoader[np.ndarray]:  # noqa: ANN401
    """Return training images without augmentations, the same ones in the same order every time.

    Args:
        datamodule: The data, set up.
        size: Height and width that the images are resized to; ``None`` keeps theirs.

    Returns:
        Images of shape (1, 3, height, width), float32, from 0 to 1.
    """
    images = without_augmentations(datamodule.train_data)
    classes = images.samples["class_name"] if "class_name" in images.samples else np.zeros(len(images))
    return DataLoader(
        Subset(images, drawn(np.asarray(classes))),
        collate_fn=lambda items: resized(images.collate_fn(items).image, size),
    )


def resized(images: torch.Tensor, size: tuple[int, int] | None) -> np.ndarray:
    """Return the input of a graph; for a graph of one image size, the images are resized first."""
    return (images if size is None else resize(images, list(size), antialias=True)).numpy()


def without_augmentations(images: AnomalibDataset) -> AnomalibDataset:
    """Return a copy of a dataset without augmentations: a camera's images are not augmented."""
    plain = copy(images)
    plain.augmentations = None
    if isinstance(plain, MultiClassDataset):
        plain.parts = [replace(part, dataset=without_augmentations(part.dataset)) for part in plain.parts]
    return plain


def drawn(classes: np.ndarray) -> list[int]:
    """Draw images at random, the same ones every time, with some of every class among them.

    Args:
        classes: Class of each image, shape (number of images,).

    Returns:
        Rows of the drawn images, in random order.
    """
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0)).numpy()
    names, labels = np.unique(classes[order], return_inverse=True)
    rank = np.empty(len(order), dtype=np.int64)
    for label in range(len(names)):
        of_class = labels == label
        rank[of_class] = np.arange(of_class.sum())
    least = max(1, min(LEAST_OF_A_CLASS, CALIBRATION_IMAGES // len(names)))
    first = np.argsort(rank >= least, kind="stable")[: max(CALIBRATION_IMAGES, len(names))]
    return [int(row) for row in order[np.sort(first)]]
