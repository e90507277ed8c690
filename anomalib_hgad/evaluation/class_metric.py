# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A metric of one class, computed from the right values of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPIMO, AUPRO, PIMO, PRO, AnomalibMetric, F1Max, MinMax, PBn, PGn
from anomalib.metrics.threshold import Threshold
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryConfusionMatrix, BinaryPrecisionRecallCurve, BinaryStatScores

from anomalib_hgad.evaluation.post_processing import LABELS
from anomalib_hgad.evaluation.values import between_0_and_1, scaled_down

POST_PROCESSED = frozenset({"pred_score", "anomaly_map"})
"""Fields that a post-processor scales to between 0 and 1 in a test, where it clips them."""

ALWAYS_RAW = frozenset(f"class_{source}_{field}" for source in ("given", "inferred") for field in ("score", "map"))
"""Fields that no post-processor changes."""

NEEDS_CLASS = frozenset({"class_index", "class_given_score", "class_given_map"})
"""Fields that are meaningless for an image of no class."""

OF_ORDER = (BinaryPrecisionRecallCurve, AUPRO, AUPIMO, PIMO, F1Max, PGn, PBn)
"""Metrics that depend only on the order of the scores, unless they are given thresholds."""

OF_THRESHOLD = (BinaryStatScores, BinaryConfusionMatrix, PRO)
"""Metrics that compare scores with one threshold."""


class _FalseAlarmRate(MeanMetric):
    def update(self, pred_label: torch.Tensor, gt_label: torch.Tensor) -> None:
        super().update(pred_label[~gt_label.bool()].float())


class FalseAlarmRate(AnomalibMetric, _FalseAlarmRate):
    """Fraction of the normal images that are predicted anomalous."""

    default_fields = ("pred_label", "gt_label")


class Source(NamedTuple):
    """Source of the values of a metric's field.

    Attributes:
        field: The field.
        raw: Whether to use the values before post-processing.
        squeezed: Whether they have to be scaled to between 0 and 1.
    """

    field: str
    raw: bool
    squeezed: bool

    def of(self, batch: ImageBatch, raw: Mapping[str, torch.Tensor | None]) -> torch.Tensor | None:
        """Return the values of a batch, maps and masks scaled down for pixel metrics; ``None`` if it has none.

        Args:
            batch: The batch after the post-processing.
            raw: Scores and maps from before the post-processing.
        """
        values = raw[self.field] if self.raw else getattr(batch, self.field, None)
        if values is None:
            return None
        values = scaled_down(values)
        return between_0_and_1(values) if self.squeezed else values


def values_of(
    batch: ImageBatch, raw: Mapping[str, torch.Tensor | None], sources: Iterable[Source]
) -> dict[Source, torch.Tensor]:
    """Return the values of a batch by source, without those that it lacks; arguments as in :meth:`Source.of`."""
    found = {source: source.of(batch, raw) for source in dict.fromkeys(sources)}
    return {source: values for source, values in found.items() if values is not None}


def sources_of(metric: AnomalibMetric, normalized: bool) -> list[Source]:
    """Return the sources of a metric's fields, in order.

    Scores and maps are raw where only their order matters: anomalib's post-processor clips them to [0, 1], which
    makes ties.

    Args:
        metric: The metric.
        normalized: Whether the post-processor scales scores and maps to between 0 and 1 before the metric.
    """
    # Thresholds that were given are those of post-processed scores.
    given = isinstance(metric, Threshold) or getattr(metric, "thresholds", None) is not None
    of_order = isinstance(metric, OF_ORDER) and not given
    takes_0_to_1 = isinstance(metric, BinaryPrecisionRecallCurve)
    sources = []
    for field in metric.fields:
        raw = field in POST_PROCESSED and of_order
        outside = field in ALWAYS_RAW or (field in POST_PROCESSED and (raw or not normalized))
        sources.append(Source(field, raw, squeezed=outside and takes_0_to_1))
    return sources


def needs_threshold(metric: AnomalibMetric) -> bool:
    """Whether a metric has no value without a threshold, as in a validation."""
    fields = set(metric.fields)
    return bool(fields & LABELS.keys() or (fields & POST_PROCESSED and isinstance(metric, OF_THRESHOLD)))


def check_metric_names(metrics: Iterable[AnomalibMetric]) -> None:
    """Check that metrics have different names, by which their values are kept.

    Raises:
        ValueError: If two have the same.
    """
    counts = Counter(metric.name for metric in metrics)
    if shared := [name for name, count in counts.items() if count > 1]:
        msg = f"{counts[shared[0]]} metrics have the name {shared[0]}: only one of them would have a value. Give each "
        msg += "a prefix, such as F1Score(fields=['pred_mask', 'gt_mask'], prefix='pixel_')."
        raise ValueError(msg)


def _never() -> bool:
    return False


class ClassMetric:
    """A metric on the images of one class.

    Args:
        metric: The metric to copy.
        normalized: As in :func:`sources_of`.

    Attributes:
        sources: What the metric reads, in the order of its fields.
        fault: Why it could not be computed, if so.
    """

    def __init__(self, metric: AnomalibMetric, normalized: bool) -> None:
        self.sources = sources_of(metric, normalized)
        self.needs_class = not NEEDS_CLASS.isdisjoint(metric.fields)
        self.metric = metric.clone()
        self.metric.reset()
        # All processes see all images, see ClassEvaluator._update: there is nothing to exchange at the end.
        self.metric.distributed_available_fn = _never
        self.truth_range = MinMax(fields=[metric.fields[-1]]).to(metric.device)
        self.truth_range.distributed_available_fn = _never
        self.missing: list[str] = []
        self.fault: str | None = None

    def update(self, values: Mapping[Source, torch.Tensor]) -> None:
        """Add the values of a batch; a batch that lacks some of the fields is skipped."""
        lacking = [source.field for source in self.sources if source not in values]
        if not set(lacking) <= LABELS.keys():
            self.missing = self.missing or lacking
            return
        batch: Any = SimpleNamespace(**{source.field: values.get(source) for source in self.sources})
        self.truth_range.update(batch)
        if lacking:
            self.missing = self.missing or lacking
        else:
            self.metric.update(batch)

    @property
    def concerned(self) -> bool:
        """Whether there were images for the metric, with or without labels."""
        return self.truth_range.update_called

    def compute(self) -> float | None:
        """Compute the value; ``None`` if it is not defined.

        With a ground truth it needs normal and anomalous images; the false-alarm rate needs normal images only.
        """
        if not self.metric.update_called:
            return None
        lowest, highest = self.truth_range.compute()
        missing = lowest > 0 if isinstance(self.metric, FalseAlarmRate) else lowest == highest
        if self.sources[-1].field.startswith("gt_") and missing:
            return None
        return self._number()

    def _number(self) -> float | None:
        """Compute the metric; ``None`` and a fault if it has no value: the other metrics of a test are kept."""
        try:
            value = self.metric.compute()
        except (ValueError, RuntimeError) as error:
            self.fault = f"has no value: {error}"
            return None
        if not isinstance(value, float | int) and not (isinstance(value, torch.Tensor) and value.numel() == 1):
            self.fault = "is no single number, and is left out of the results."
            return None
        return float(value)
