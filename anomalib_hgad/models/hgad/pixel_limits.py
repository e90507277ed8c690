# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Threshold from map to mask for each class: the one that best segments patches pasted into normal images.

The scores of normal pixels cannot set it: the pixels around a strong defect also score far above those of any normal
image, and a mask would be many times as large as the defect.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import precision_recall_curve

LIMIT_IMAGES = 10
"""Maximum number of normal images of a class that patches are pasted into."""

PATCHES_OF_IMAGE = 2

PIXEL_GRID = 64
"""Maximum number of rows and columns of a map whose pixels are compared."""


class PatchedBatch(NamedTuple):
    """Some images with pasted patches.

    Attributes:
        features: Feature maps of the levels, shapes (B, D, H, W).
        masks: Where the images have changed, shape (B, height, width).
        class_index: Classes of the images, int64, shape (B,).
    """

    features: list[torch.Tensor]
    masks: torch.Tensor
    class_index: torch.Tensor


class PatchPixels:
    """Pixels of the maps of images with pasted patches, and which of them the patches have changed.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self._images: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(num_classes)]

    def add(self, maps: torch.Tensor, masks: torch.Tensor, class_index: torch.Tensor) -> None:
        """Add a batch.

        Args:
            maps: Anomaly maps, shape (B, 1, height, width).
            masks: Where the images have changed, shape (B, height, width).
            class_index: Classes of the images, int64, shape (B,).
        """
        values, changed = on_grid(maps.squeeze(1)).float().cpu().numpy(), on_grid(masks).bool().cpu().numpy()
        for index, of_image, mask in zip(class_index.tolist(), values, changed, strict=True):
            self._images[index].append((of_image.ravel(), mask.ravel()))

    def limits(self) -> list[float]:
        """Limits of the classes.

        Returns:
            Values above which pixels are marked; NaN for a class without pasted patches.
        """
        limits = []
        for images in self._images:
            limit = math.nan
            if any(mask.any() for _, mask in images):
                limit = best_f1_limit(*(np.concatenate(parts) for parts in zip(*images, strict=True)))
            limits.append(limit)
        return limits


def best_f1_limit(scores: np.ndarray, truth: np.ndarray) -> float:
    """Compute the threshold with the largest F1.

    Args:
        scores: Scores, shape (n,).
        truth: Which of them should be above it, shape (n,), at least one.

    Returns:
        The threshold, half way between the scores on both of its sides.
    """
    precision, recall, reached = precision_recall_curve(truth, scores)
    best = int(np.argmax(2 * precision * recall / np.maximum(precision + recall, 1e-12)))
    return float(np.mean(reached[max(0, best - 1) : best + 1]))


def on_grid(maps: torch.Tensor) -> torch.Tensor:
    """Subsample maps, shape (B, height, width), to at most :data:`PIXEL_GRID` rows and columns."""
    step = math.ceil(max(maps.shape[-2:]) / PIXEL_GRID)
    return maps[..., step // 2 :: step, step // 2 :: step]
