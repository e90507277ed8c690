# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Where a map is cut into a mask, for every class: where patches that are pasted into normal images are found best.

The scores of normal pixels do not tell it: what a normal image never reaches is far below what the surroundings of a
strong defect have, and a mask would be many times as large as the defect.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.metrics import precision_recall_curve

LIMIT_IMAGES = 10
"""Most normal images of a class that patches are pasted into."""

PATCHES_OF_IMAGE = 2

PIXEL_GRID = 64
"""Rows and columns of a map whose pixels are compared, at most."""


class PatchPixels:
    """Pixels of the maps of images with pasted patches, and which of them the patches have changed."""

    def __init__(self) -> None:
        self._batches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, maps: torch.Tensor, masks: torch.Tensor, class_index: torch.Tensor) -> None:
        """Add a batch.

        Args:
            maps: Anomaly maps, shape (B, 1, height, width).
            masks: Where the images have changed, shape (B, height, width).
            class_index: Classes of the images, int64, shape (B,).
        """
        batch = (on_grid(maps.squeeze(1)).float(), on_grid(masks).bool(), class_index)
        values, changed, classes = (part.cpu().numpy() for part in batch)
        self._batches.append((values, changed, classes))

    def limits(self, num_classes: int) -> list[float]:
        """Limits of the classes.

        Args:
            num_classes: K.

        Returns:
            Values above which pixels are marked; NaN for a class of no pasted patch.
        """
        limits = [math.nan] * num_classes
        if not self._batches:
            return limits
        values, changed, classes = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        for index in np.unique(classes[changed.any(axis=(1, 2))]):
            rows = classes == index
            limits[index] = best_f1_limit(values[rows].ravel(), changed[rows].ravel())
        return limits


def best_f1_limit(scores: np.ndarray, truth: np.ndarray) -> float:
    """Value above which scores agree best with the truth.

    Args:
        scores: Scores, shape (n,).
        truth: Which of them shall be above it, shape (n,), not none.

    Returns:
        The limit of the largest F1, half way between the scores on both of its sides.
    """
    precision, recall, reached = precision_recall_curve(truth, scores)
    best = int(np.argmax(2 * precision * recall / np.maximum(precision + recall, 1e-12)))
    return float(np.mean(reached[max(0, best - 1) : best + 1]))


def on_grid(maps: torch.Tensor) -> torch.Tensor:
    """At most :data:`PIXEL_GRID` rows and columns of maps, shape (B, height, width)."""
    step = math.ceil(max(maps.shape[-2:]) / PIXEL_GRID)
    return maps[..., step // 2 :: step, step // 2 :: step]
