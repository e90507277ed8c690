# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics that a validation and a test compute unless others are given."""

from __future__ import annotations

import torch
from anomalib.metrics import AUPRO, AUROC, AnomalibMetric, F1Score
from torchmetrics import MeanMetric

from anomalib_hgad.evaluation.class_metric import FalseAlarmRate

RETURNED = frozenset({"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"})
"""Default metrics that a test returns: those of anomalib's own models, so that its tools can compare all models."""


class _ClassAccuracy(MeanMetric):
    def update(self, pred_class_index: torch.Tensor, class_index: torch.Tensor) -> None:
        super().update((pred_class_index == class_index).float())


class ClassAccuracy(AnomalibMetric, _ClassAccuracy):
    """Fraction of the images whose class was inferred correctly."""

    default_fields = ("pred_class_index", "class_index")


def default_test_metrics() -> list[AnomalibMetric]:
    """Return AUROC and F1 of images and pixels, AUPRO, and AUROCs of the raw scores with given and inferred class.

    The false-alarm rate and the accuracy of the inferred class are included too. The pixel F1 is included twice: at the
    post-processor's threshold, and at the limits of the classes' masks.
    """
    return [
        AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
        F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
        FalseAlarmRate(strict=False),
        AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
        AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
        F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
        F1Score(fields=["limit_mask", "gt_mask"], prefix="normal_limit_pixel_", strict=False),
        ClassAccuracy(strict=False),
        *(
            AUROC(fields=[f"{source}_{field}", truth], prefix=f"{source}_{level}_", strict=False)
            for source in ("class_given", "class_inferred")
            for level, field, truth in (("image", "score", "gt_label"), ("pixel", "map", "gt_mask"))
        ),
    ]


def default_val_metrics() -> list[AnomalibMetric]:
    """Return AUROC of images and pixels."""
    return [
        AUROC(fields=["pred_score", "gt_label"], prefix="val_image_", strict=False),
        AUROC(fields=["anomaly_map", "gt_mask"], prefix="val_pixel_", strict=False),
    ]
