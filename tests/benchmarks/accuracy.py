# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""AUROC of images and pixels, by scikit-learn."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score
from torchvision.transforms.v2.functional import resize

from anomalib_hgad.data.batch import ClassImageItem


def aurocs_of_classes(
    scores: np.ndarray,
    maps: np.ndarray,
    anomalous: np.ndarray,
    class_index: np.ndarray,
    masks: Sequence[np.ndarray | None],
) -> list[tuple[float, float | None]]:
    """Image and pixel AUROC of every class in percent; masks have the size of the maps.

    There is no pixel AUROC of a class with images that have no mask.
    """
    of_classes = []
    for index in np.unique(class_index):
        rows = np.flatnonzero(class_index == index)
        image = 100 * float(roc_auc_score(anomalous[rows], scores[rows]))
        of_class = [mask for row in rows if (mask := masks[row]) is not None]
        pixel = None
        if len(of_class) == len(rows):
            pixel = 100 * float(roc_auc_score(np.stack(of_class).ravel(), maps[rows].ravel()))
        of_classes.append((image, pixel))
    return of_classes


def mean_aurocs(scores: np.ndarray, maps: np.ndarray, items: Sequence[ClassImageItem]) -> dict[str, float]:
    """Image and pixel AUROC in percent, each the mean over the classes that have one; masks are resized to the maps."""
    size = list(maps.shape[1:])
    masks = [
        None if item.gt_mask is None else resize(item.gt_mask.float().unsqueeze(0), size)[0].numpy() > 0.5
        for item in items
    ]
    classes = np.array([int(item.class_index) for item in items])
    anomalous = np.array([bool(item.gt_label) for item in items])
    of_classes = aurocs_of_classes(scores, maps, anomalous, classes, masks)
    return {
        "image AUROC": statistics.mean(image for image, _ in of_classes),
        "pixel AUROC": statistics.mean(pixel for _, pixel in of_classes if pixel is not None),
    }
