# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Image- and pixel-level precision and recall of a run at its thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anomalib_hgad.data.reserved_names import MEAN, POOLED
from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.report.run_files import RunFiles


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall, as fractions of 1; ``None`` where one is not defined.

    Attributes:
        precision: Fraction of those predicted anomalous that are anomalous.
        recall: Fraction of the anomalous that are predicted anomalous.
    """

    precision: float | None
    recall: float | None

    @classmethod
    def of_counts(cls, found: int, false: int, missed: int) -> PrecisionRecall:
        """Both from counts of images or pixels; not defined without anomalous ones.

        Args:
            found: True positives.
            false: False positives.
            missed: False negatives.
        """
        anomalous = found + missed
        precision = found / (found + false) if anomalous and found + false else None
        return cls(precision, found / anomalous if anomalous else None)

    @classmethod
    def mean(cls, values: Sequence[PrecisionRecall]) -> PrecisionRecall:
        """Means over the classes where each is defined."""
        return cls(_mean([value.precision for value in values]), _mean([value.recall for value in values]))


def precision_and_recall(run: RunFiles) -> dict[str, dict[str, PrecisionRecall]]:
    """Precision and recall of a run.

    The label of an image predicted unknown counts like any other, as in the F1 of the test.

    Args:
        run: The run.

    Returns:
        For each class, their mean, and all images pooled: those of images under ``image``, and those of pixels under
        ``pixel``. Empty where there was no threshold, and without ``pixel`` where no pixels were counted.
    """
    groups = {name: run.of_class(name) for name in run.class_names}
    found = {}
    for level, of_level in (("image", _of_images), ("pixel", _of_pixels)):
        pooled = of_level(run.predictions)
        if pooled is not None:
            of_classes = {name: of_level(rows) or PrecisionRecall(None, None) for name, rows in groups.items()}
            found[level] = of_classes | {MEAN: PrecisionRecall.mean(list(of_classes.values())), POOLED: pooled}
    return {name: {level: rows[name] for level, rows in found.items()} for name in [*groups, MEAN, POOLED] if found}


def _of_images(rows: Sequence[Prediction]) -> PrecisionRecall | None:
    judged = [(bool(row.gt_label), row.pred_label) for row in rows if row.pred_label is not None]
    if not judged:
        return None
    return PrecisionRecall.of_counts(*(judged.count(pair) for pair in ((True, True), (False, True), (True, False))))


def _of_pixels(rows: Sequence[Prediction]) -> PrecisionRecall | None:
    counts = [
        (row.pixel_true_positives, row.pixel_false_positives or 0, row.pixel_false_negatives or 0)
        for row in rows
        if row.pixel_true_positives is not None
    ]
    return PrecisionRecall.of_counts(*map(sum, zip(*counts, strict=True))) if counts else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
