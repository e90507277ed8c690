# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Threshold from normal images alone: a factory has no defects when it begins."""

from __future__ import annotations

import logging
import math
from fractions import Fraction
from typing import Any

import torch
from anomalib.metrics import create_anomalib_metric
from anomalib.post_processing import PostProcessor
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import Metric

from anomalib_hgad.common.checks import check_range

logger = logging.getLogger(__name__)

SCALE_REACH = 8.0
"""How far above the threshold the scale of the scores reaches, in distances from the lowest normal score to it.

Normal images do not say how large scores become; without room for larger ones all anomalies would have the score 1.
"""


def normal_threshold(scores: torch.Tensor, false_positive_rate: float) -> torch.Tensor:
    """Threshold that a normal image exceeds with at most a given probability.

    The k-th smallest of n scores, k = ceil((n + 1)(1 - rate)): a new image from the same source is above it with a
    probability of at most the rate, whatever the distribution (split conformal prediction, Vovk et al. 2005). With
    fewer than 1 / rate - 1 images no score of theirs is high enough; it is the largest then.

    Args:
        scores: Scores of normal images that the model was not trained on, shape (n,), n > 0.
        false_positive_rate: The probability, between 0 and 1, as its decimal digits say.

    Returns:
        Scalar.
    """
    # In floating point (149 + 1)(1 - 0.18) is a little more than 123, which leads to the 124th.
    rank = math.ceil((len(scores) + 1) * (1 - _as_written(false_positive_rate)))
    return scores.kthvalue(min(rank, len(scores))).values


def images_needed(false_positive_rate: float) -> int:
    """The fewest normal images of which one can be a threshold that keeps a rate, see :func:`normal_threshold`."""
    return math.ceil(1 / _as_written(false_positive_rate)) - 1


def _as_written(rate: float) -> Fraction:
    return Fraction(str(rate))


class _NormalThreshold(Metric):
    """Collects the scores of the normal images, or the largest values of their maps."""

    scores: list[torch.Tensor]

    def __init__(self, false_positive_rate: float = 0.05) -> None:
        super().__init__()
        self.false_positive_rate = false_positive_rate
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, values: torch.Tensor, gt_label: torch.Tensor) -> None:
        of_images = values.flatten(1).amax(dim=1) if values.ndim > 1 else values
        self.scores.append(of_images[~gt_label.bool()])

    def compute(self) -> torch.Tensor:
        scores = torch.cat(self.scores) if isinstance(self.scores, list) else self.scores
        if not len(scores):
            msg = "A threshold from normal images needs normal validation images, and there are none. Set "
            msg += "data.val_split_mode=from_train to take some of the training images."
            raise ValueError(msg)
        if len(scores) < images_needed(self.false_positive_rate):
            logger.warning(
                "%d normal validation images are too few for a false-positive rate of %g: the threshold is their "
                "largest score, and the rate may be up to %.3f. Take %d or more.",
                len(scores),
                self.false_positive_rate,
                1 / (len(scores) + 1),
                images_needed(self.false_positive_rate),
            )
        return normal_threshold(scores, self.false_positive_rate)


NormalThreshold = create_anomalib_metric(_NormalThreshold)
""":func:`normal_threshold` of the normal images of a validation, as an anomalib metric."""


class NormalPostProcessor(PostProcessor):
    """anomalib's post-processor with thresholds from the normal validation images alone.

    An image is found anomalous if its score is above the threshold; of new normal images at most the given share are.
    The threshold of the maps is the model's ``pixel_limit``, if it has one, as :class:`~anomalib_hgad.Hgad` has, whose
    maps are scaled by the limits of each class's masks; else it is that of the maps' largest values: at most the given
    share of normal images has a pixel marked.
    Validate on normal images that were not trained on (``val_split_mode: from_train``). One that is loaded from a
    checkpoint is anomalib's plain post-processor with the same thresholds.

    Args:
        false_positive_rate: Share of normal images that may be found anomalous.
            Defaults to ``0.05``.
        **kwargs: Arguments of :class:`anomalib.post_processing.PostProcessor`.

    Raises:
        ValueError: If the rate is not between 0 and 1.

    Example:
        >>> from anomalib_hgad import Hgad, NormalPostProcessor
        >>> model = Hgad(post_processor=NormalPostProcessor(false_positive_rate=0.02))  # doctest: +SKIP
    """

    def __init__(self, false_positive_rate: float = 0.05, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        check_range("0 < {} < 1", false_positive_rate=false_positive_rate)
        self._image_threshold_metric = NormalThreshold(
            ["pred_score", "gt_label"], false_positive_rate=false_positive_rate
        )
        self._pixel_threshold_metric = NormalThreshold(
            ["anomaly_map", "gt_label"], false_positive_rate=false_positive_rate
        )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the thresholds, and leave room on the scale for scores of anomalies.

        Args:
            trainer: The trainer.
            pl_module: The model.
        """
        super().on_validation_epoch_end(trainer, pl_module)
        if (limit := getattr(pl_module, "pixel_limit", None)) is not None:
            self._pixel_threshold.fill_(limit)
        for least, most, threshold in (
            (self.image_min, self.image_max, self.image_threshold),
            (self.pixel_min, self.pixel_max, self.pixel_threshold),
        ):
            most.copy_(torch.maximum(most, threshold + SCALE_REACH * (threshold - least)))
