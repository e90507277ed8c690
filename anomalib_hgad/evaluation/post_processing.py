# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Handles anomalib's post-processing of a test batch, which clips scores and sets labels even without thresholds."""

from __future__ import annotations

import logging
import math
from collections.abc import Container
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_hgad.data.batch import ClassImageBatch

logger = logging.getLogger(__name__)

LABELS = {"pred_label": "image", "pred_mask": "pixel"}
"""Fields of a batch that need a threshold, and whether it is one of images or pixels."""


class RawScores(Callback):
    """Keeps scores and maps of a batch from before the post-processing; must be an earlier callback.

    If a batch has a field for the raw scores, they are also set there.
    """

    def __init__(self) -> None:
        self._batch: ImageBatch | None = None
        self._values: dict[str, torch.Tensor | None] = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: ImageBatch,
        *args: Any,  # noqa: ANN401
    ) -> None:
        """Keep the values of a batch."""
        del trainer, pl_module, outputs, args
        self._batch, self._values = batch, _fields(batch)
        if isinstance(batch, ClassImageBatch) and batch.raw_score is None and batch.pred_score is not None:
            batch.update(raw_score=batch.pred_score)

    def keep(self, batch: ImageBatch) -> None:
        """Keep the current values of a batch instead: scores on one scale that are not yet clipped.

        Args:
            batch: The batch.
        """
        self._batch, self._values = batch, _fields(batch)
        if isinstance(batch, ClassImageBatch):
            batch.update(raw_score=batch.pred_score)

    def take(self, batch: ImageBatch) -> dict[str, torch.Tensor | None]:
        """Return the values of a batch from before the post-processing, and forget them.

        Args:
            batch: The batch. One that was never post-processed still has them.

        Returns:
            ``pred_score``, ``anomaly_map``, ``pred_label`` and ``pred_mask``.
        """
        values = self._values if batch is self._batch else _fields(batch)
        self._batch, self._values = None, {}
        return values


def _fields(batch: ImageBatch) -> dict[str, torch.Tensor | None]:
    return {field: getattr(batch, field) for field in ("pred_score", "anomaly_map", *LABELS)}


def is_normalized(post_processor: object) -> bool:
    """Whether a post-processor scales scores to between 0 and 1; without a validation it does not change them."""
    return (
        isinstance(post_processor, PostProcessor)
        and post_processor.enable_normalization
        and not bool(post_processor.image_min.isnan() and post_processor.pixel_min.isnan())
    )


def labelled_above(post_processor: object) -> float:
    """Raw image score above which a post-processor labels images anomalous.

    A sensitivity other than 0.5 moves it away from the threshold, by a part of the width of the normalisation.

    Args:
        post_processor: The post-processor.

    Returns:
        The score; NaN without a threshold, or if the post-processor is not anomalib's.
    """
    if not isinstance(post_processor, PostProcessor):
        return math.nan
    threshold = float(post_processor.image_threshold)
    if not is_normalized(post_processor) or post_processor.image_sensitivity == 0.5:
        return threshold
    width = float(post_processor.image_max - post_processor.image_min)
    return threshold + (0.5 - post_processor.image_sensitivity) * width


def labels_without_meaning(post_processor: object) -> list[str]:
    """Return labels that a post-processor sets without a fitted threshold or scale, comparing raw scores with 0.5.

    Args:
        post_processor: The post-processor; one that is not anomalib's has no such labels.

    Returns:
        Some of ``pred_label`` and ``pred_mask``.
    """
    if not isinstance(post_processor, PostProcessor) or not post_processor.enable_thresholding:
        return []
    # A post-processor that marks pixels in its own way needs no threshold for them.
    cut = LABELS if type(post_processor).threshold_batch is PostProcessor.threshold_batch else ("pred_label",)
    return [
        field
        for field in cut
        if not post_processor.enable_normalization
        or bool(getattr(post_processor, f"{LABELS[field]}_threshold").isnan())
    ]


def remove_labels_without_meaning(batch: ImageBatch, post_processor: object, own: Container[str] = ()) -> None:
    """Remove meaningless labels from a batch.

    Args:
        batch: The batch, post-processed.
        post_processor: Its post-processor.
        own: Labels that the model has set itself.
    """
    for field in labels_without_meaning(post_processor):
        if field not in own:
            setattr(batch, field, None)


def warn_of_missing_labels(post_processor: object) -> None:
    """Warn that a post-processor has no threshold between normal and anomalous."""
    missing = labels_without_meaning(post_processor)
    if not missing or not isinstance(post_processor, PostProcessor):
        return
    reason = "no validation was run" if post_processor.enable_normalization else "enable_normalization is off"
    logger.warning(
        "anomalib's post-processor has no threshold on the scale of the scores, as %s: scores stay raw, and %s cannot "
        "be set. For labels train with validation images, see data.val_split_mode, trainer.limit_val_batches and "
        "trainer.check_val_every_n_epoch, and with normalization.",
        reason,
        " and ".join(missing),
    )
