# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Counted pixels are those that scikit-learn counts, and make the F1 that torchmetrics computes."""

from __future__ import annotations

import pytest
import torch
from anomalib.data import ImageBatch
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.classification import binary_f1_score

from anomalib_hgad.evaluation.pixel_counts import with_pixel_counts
from anomalib_hgad.evaluation.predictions import predictions_of_batch
from anomalib_hgad.evaluation.values import PIXEL_METRIC_SIZE, scaled_down


def batch_of_masks(side: int) -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    true, predicted = (torch.rand(3, side, side, generator=generator) < share for share in (0.1, 0.3))
    true[1] = False  # a normal image
    paths = [f"{number}.png" for number in range(3)]
    return ImageBatch(image=torch.zeros(3, 3, side, side), image_path=paths, gt_mask=true, pred_mask=predicted)


@pytest.mark.parametrize("side", [32, PIXEL_METRIC_SIZE + 50])
def test_counts_are_those_of_the_pixel_metrics(side: int) -> None:
    batch = batch_of_masks(side)
    rows = with_pixel_counts(predictions_of_batch(batch), batch)
    true, predicted = scaled_down(batch.gt_mask), scaled_down(batch.pred_mask)
    for row, of_true, of_predicted in zip(rows, true, predicted, strict=True):
        counts = confusion_matrix(of_true.flatten(), of_predicted.flatten(), labels=[False, True])
        assert row.pixel_true_positives == counts[1, 1]
        assert row.pixel_false_positives == counts[0, 1]
        assert row.pixel_false_negatives == counts[1, 0]
    found, false, missed = (
        sum(getattr(row, f"pixel_{name}") for row in rows)
        for name in ("true_positives", "false_positives", "false_negatives")
    )
    f1 = binary_f1_score(predicted.flatten().int(), true.flatten().int())
    assert 2 * found / (2 * found + false + missed) == pytest.approx(float(f1))


@pytest.mark.parametrize("lacking", ["gt_mask", "pred_mask"])
def test_without_masks_nothing_is_counted(lacking: str) -> None:
    batch = batch_of_masks(8)
    setattr(batch, lacking, None)
    rows = predictions_of_batch(batch)
    assert with_pixel_counts(rows, batch) == rows
    assert {row.pixel_true_positives for row in rows} == {None}


def test_images_without_files_have_no_rows() -> None:
    assert with_pixel_counts([], batch_of_masks(8)) == []
