# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""True positive, false positive and false negative pixels of the predicted mask of every tested image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from anomalib.data import ImageBatch

from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.evaluation.values import scaled_down


def with_pixel_counts(predictions: Sequence[Prediction], batch: ImageBatch) -> list[Prediction]:
    """Add the pixel counts of a batch to its predictions.

    The masks are those that the pixel metrics compare: scaled down for images larger than
    :data:`~anomalib_hgad.evaluation.values.PIXEL_METRIC_SIZE`.

    Args:
        predictions: One for each image of the batch, or none where the files are not known.
        batch: The batch, with ``pred_mask`` and ``gt_mask`` where there are thresholds and masks.

    Returns:
        The predictions; unchanged for a batch without both masks.
    """
    if not predictions or batch.pred_mask is None or batch.gt_mask is None:
        return list(predictions)
    predicted, true = (scaled_down(mask).flatten(1).bool() for mask in (batch.pred_mask, batch.gt_mask))
    counts = torch.stack([predicted & true, predicted & ~true, ~predicted & true]).sum(dim=2).T.tolist()
    return [
        replace(row, pixel_true_positives=found, pixel_false_positives=false, pixel_false_negatives=missed)
        for row, (found, false, missed) in zip(predictions, counts, strict=True)
    ]
