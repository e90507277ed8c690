# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Threshold from normal images only: a new production line has no examples of defects yet."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

import torch
from anomalib.data import Batch
from anomalib.metrics import create_anomalib_metric
from anomalib.post_processing import PostProcessor
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from anomalib_hgad.common.checks import check_range

logger = logging.getLogger(__name__)

SCALE_REACH = 8.0
"""Reach of the scale of the scores above the threshold, in distances from the lowest normal score to the threshold.

Normal images do not show how large scores become; without room for larger ones all anomalies would have the score 1.
"""

LEAST_WIDTH = 0.01
"""Minimum width of the scale of the scores, relative to the threshold.

One validation image, or many that are nearly equal, do not show how much normal scores vary. The scale is then as wide
as if they varied by the size of the threshold or as much as the pixels of their maps.
"""


def normal_threshold(scores: torch.Tensor, false_positive_rate: float) -> torch.Tensor:
    """Compute the threshold that a normal image exceeds with at most a given probability.

    It is the k-th smallest of n scores, k = ceil((n + 1)(1 - rate)): a new image from the same source is above it with
    a probability of at most the rate, whatever the distribution (split conformal prediction, Vovk et al. 2005). With
    fewer than 1 / rate - 1 images no score is high enough; the threshold is then the largest.

    Args:
        scores: Scores of normal images that the model was not trained on, shape (n,), n > 0.
        false_positive_rate: The probability, between 0 and 1; its decimal digits count as exact.

    Returns:
        Scalar.

    Example:
        Of nine scores the rank is k = ceil(10 * 0.8) = 8.

        >>> normal_threshold(torch.tensor([0.9, 0.1, 0.5, 0.3, 0.2, 0.8, 0.4, 0.7, 0.6]), 0.2)
        tensor(0.8000)
    """
    # In floating point (149 + 1)(1 - 0.18) is a little more than 123, which leads to the 124th.
    rank = math.ceil((len(scores) + 1) * (1 - _as_written(false_positive_rate)))
    return scores.kthvalue(min(rank, len(scores))).values


def images_needed(false_positive_rate: float) -> int:
    """Return the minimum number of normal images for a threshold that keeps a rate, see :func:`normal_threshold`.

    Example:
        >>> images_needed(0.05), images_needed(0.01)
        (19, 99)
    """
    return math.ceil(1 / _as_written(false_positive_rate)) - 1


def class_thresholds(scores: Sequence[torch.Tensor], common: torch.Tensor, false_positive_rate: float) -> torch.Tensor:
    """Compute the threshold of each class that its normal images exceed with at most a given probability.

    A class with enough images, :func:`images_needed`, gets its own :func:`normal_threshold`. Of fewer scores none is
    high enough: the threshold is then the larger of their largest score and the common threshold, so that a class with
    a few low scores does not get more false alarms than with the common threshold. A class without images gets the
    common threshold.

    Args:
        scores: Scores of every class's normal images that the model was not trained on, shapes (images of the class,).
        common: The common threshold of all classes, scalar.
        false_positive_rate: The probability, between 0 and 1; its decimal digits count as exact.

    Returns:
        Thresholds, shape (K,).
    """
    needed = images_needed(false_positive_rate)
    return torch.stack(
        [
            normal_threshold(of_class, false_positive_rate)
            if len(of_class) >= needed
            else torch.cat([of_class, common.view(1).to(of_class)]).amax()
            for of_class in scores
        ]
    )


def _as_written(rate: float) -> Fraction:
    return Fraction(str(rate))


@runtime_checkable
class ModelOfClassThresholds(Protocol):
    """A model that takes thresholds of its classes, so that one common threshold acts as all of them.

    Its batches have ``scored_class_index``. The scores of a validation are not shifted by any threshold.
    """

    @property
    def threshold_names(self) -> list[str]:
        """Names of the K classes, in the order of ``scored_class_index``."""

    def set_class_thresholds(
        self, thresholds: torch.Tensor, common: torch.Tensor, images: torch.Tensor, rate: float
    ) -> None:
        """Set thresholds, shape (K,), given the common threshold, and what they come from."""


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
            msg += "data.val_split_mode=from_train to use some of the training images."
            raise ValueError(msg)
        if len(scores) < images_needed(self.false_positive_rate):
            logger.warning(
                "%d normal validation images are too few for a false-positive rate of %g: the threshold is their "
                "largest score, and the rate may be up to %.3f. Use %d or more.",
                len(scores),
                self.false_positive_rate,
                1 / (len(scores) + 1),
                images_needed(self.false_positive_rate),
            )
        return normal_threshold(scores, self.false_positive_rate)


NormalThreshold = create_anomalib_metric(_NormalThreshold)
""":func:`normal_threshold` of the normal images of a validation, as an anomalib metric."""


class _ScoresOfClasses(Metric):
    """Collects the scores of all images, and which of them are anomalous and of which class."""

    scores: list[torch.Tensor]
    labels: list[torch.Tensor]
    classes: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("scores", "labels", "classes"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, values: torch.Tensor, gt_label: torch.Tensor, class_index: torch.Tensor) -> None:
        self.scores.append(values)
        self.labels.append(gt_label.long())  # not all backends gather booleans
        self.classes.append(class_index)

    def compute(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return dim_zero_cat(self.scores), dim_zero_cat(self.labels), dim_zero_cat(self.classes)


ScoresOfClasses = create_anomalib_metric(_ScoresOfClasses)
"""Scores of a validation with labels and scored classes, as an anomalib metric, shapes (images,)."""


class NormalPostProcessor(PostProcessor):
    """anomalib's post-processor with thresholds from the normal validation images only.

    An image is predicted anomalous if its score is above the threshold. The threshold is chosen so that at most the
    given fraction of new normal images is above it. With ``each_class`` the fraction applies to each class, which gets
    its own threshold. This needs a model that scales its scores by class, such as :class:`~anomalib_hgad.Hgad`: the
    model shifts the scores of each class by the difference between the common threshold and that of the class, so that
    the common threshold fits all classes. The class is the one that the image is scored under. A warning names classes
    with too few images, see :func:`class_thresholds`.

    The threshold of the maps is the ``pixel_limit`` of the model. :class:`~anomalib_hgad.Hgad` has one: it scales the
    maps of each class by the class's own limit. For other models it is chosen from the largest values of the maps: at
    most the given fraction of normal images has a pixel above it.

    Validate on normal images that were not trained on (``val_split_mode: from_train``). When loaded from a checkpoint,
    it is anomalib's plain post-processor with the same thresholds.

    Args:
        false_positive_rate: Fraction of normal images that may be predicted anomalous.
            Defaults to ``0.05``.
        each_class: Apply the rate to each class instead of all images together.
            Defaults to ``False``.
        **kwargs: Arguments of :class:`anomalib.post_processing.PostProcessor`.

    Raises:
        ValueError: If the rate is not between 0 and 1, or, before the first image, if ``each_class`` is set and the
            model does not support thresholds of classes.

    Example:
        >>> from anomalib_hgad import Hgad, NormalPostProcessor
        >>> model = Hgad(post_processor=NormalPostProcessor(false_positive_rate=0.02))  # doctest: +SKIP
    """

    def __init__(
        self,
        false_positive_rate: float = 0.05,
        each_class: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        check_range("0 < {} < 1", false_positive_rate=false_positive_rate)
        if self.image_sensitivity != 0.5:
            logger.warning(
                "image_sensitivity=%s moves labels away from the threshold that keeps false_positive_rate=%s. Leave it "
                "out for that rate to hold.",
                self.image_sensitivity,
                false_positive_rate,
            )
        self.false_positive_rate = false_positive_rate
        self.each_class = each_class
        self._image_threshold_metric = NormalThreshold(
            ["pred_score", "gt_label"], false_positive_rate=false_positive_rate
        )
        self._pixel_threshold_metric = NormalThreshold(
            ["anomaly_map", "gt_label"], strict=False, false_positive_rate=false_positive_rate
        )
        self._class_scores_metric = ScoresOfClasses(["pred_score", "gt_label", "scored_class_index"], strict=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reject a model that does not support thresholds of classes, if they are requested.

        Args:
            trainer: The trainer.
            pl_module: The model.
            stage: Stage that the trainer starts.

        Raises:
            ValueError: If it is such a model.
        """
        del trainer, stage
        if self.each_class and not isinstance(pl_module, ModelOfClassThresholds):
            msg = "A threshold for each class needs a model that scales its scores by class: expected Hgad, or "
            msg += f"each_class=False, got {type(pl_module).__name__}."
            raise ValueError(msg)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Batch,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Add a batch of the validation.

        Args:
            trainer: The trainer.
            pl_module: The model.
            outputs: Batch with predictions and labels.
            *args: As in anomalib.
            **kwargs: As in anomalib.
        """
        super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)
        if self.enable_thresholding:
            self._class_scores_metric.update(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the thresholds, and leave room on the scale for scores of anomalies.

        Args:
            trainer: The trainer.
            pl_module: The model.
        """
        super().on_validation_epoch_end(trainer, pl_module)
        if (limit := getattr(pl_module, "pixel_limit", None)) is not None:
            self._pixel_threshold.fill_(limit)
        if self._class_scores_metric.update_called and isinstance(pl_module, ModelOfClassThresholds):
            self._set_class_thresholds(pl_module)
        self._class_scores_metric.reset()
        spread = (self.pixel_max - self.pixel_min).nan_to_num()
        for least, most, threshold in (
            (self.image_min, self.image_max, self.image_threshold),
            (self.pixel_min, self.pixel_max, self.pixel_threshold),
        ):
            most.copy_(torch.maximum(most, threshold + SCALE_REACH * (threshold - least)))
            if most - least <= LEAST_WIDTH * threshold.abs():
                width = torch.maximum(threshold.abs(), spread)
                most.copy_(least + SCALE_REACH * torch.where(width > 0, width, 1.0))

    def _set_class_thresholds(self, model: ModelOfClassThresholds) -> None:
        """Give the model the thresholds of the classes: the common one, unless each class has its own."""
        names = model.threshold_names
        scores, labels, classes = (values.view(-1) for values in self._class_scores_metric.compute())
        of_classes = [scores[(classes == index) & (labels == 0)] for index in range(len(names))]
        images = torch.tensor([len(of_class) for of_class in of_classes], device=scores.device)
        common = self._image_threshold.to(scores)
        thresholds = common.expand(len(names))
        if self.each_class:
            thresholds = class_thresholds(of_classes, common, self.false_positive_rate)
            self._warn_of_few_images(names, images.tolist())
            if self.enable_normalization:
                shifted = scores - thresholds[classes] + common
                self.image_min.copy_(shifted.amin())
                self.image_max.copy_(shifted.amax())
        model.set_class_thresholds(thresholds, common, images, self.false_positive_rate)

    def _warn_of_few_images(self, names: Sequence[str], images: Sequence[int]) -> None:
        needed = images_needed(self.false_positive_rate)
        few = [
            f"{name} ({count}, for {1 / (count + 1):.3g} at the least)"
            for name, count in zip(names, images, strict=True)
            if count < needed
        ]
        if few:
            logger.warning(
                "Too few normal validation images for a false-positive rate of %g in these classes: %s. Use %d or "
                "more of each. Until then their threshold is the larger of their largest score and the common one.",
                self.false_positive_rate,
                ", ".join(few),
                needed,
            )
