# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics of every class and of all images pooled, image by image."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from anomalib.metrics import AnomalibMetric

from anomalib_hgad.data.reserved_names import POOLED
from anomalib_hgad.evaluation.class_metric import ClassMetric, Source
from anomalib_hgad.evaluation.results import Results
from anomalib_hgad.evaluation.values import rows_of

logger = logging.getLogger(__name__)


class MetricsByClass:
    """Metrics of every class and of all images pooled.

    Args:
        metrics: The metrics; copies of them are updated.
        class_names: Classes that are known in advance; others are added with their images.
        normalized: Whether the post-processor normalises scores and maps.

    Attributes:
        pooled: Metrics of all images pooled.
        images: Number of images of every class, and of all under :data:`~anomalib_hgad.data.reserved_names.POOLED`.
    """

    def __init__(
        self, metrics: Sequence[AnomalibMetric] = (), class_names: Iterable[str] = (), normalized: bool = False
    ) -> None:
        self._metrics = list(metrics)
        self._normalized = normalized
        self._by_class = {name: self._new_metrics() for name in class_names}
        self.pooled = self._new_metrics()
        self.images: Counter[str] = Counter()

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order in which they were added."""
        return list(self._by_class)

    @property
    def sources(self) -> list[Source]:
        """Sources of the values that the metrics use of a batch."""
        return [source for metric in self.pooled for source in metric.sources]

    def _new_metrics(self) -> list[ClassMetric]:
        return [ClassMetric(metric, self._normalized) for metric in self._metrics]

    def add(self, values: Mapping[Source, torch.Tensor], names: Sequence[str | None]) -> None:
        """Add the values of some images.

        Args:
            values: A row for each image.
            names: Their classes; ``None`` for an image of no class.
        """
        if not names:
            return
        self.images.update([POOLED] * len(names) + [name for name in names if name is not None])
        with_class = rows_of(values, [name is not None for name in names])
        for metric in self.pooled:
            metric.update(with_class if metric.needs_class else values)
        for name in dict.fromkeys(names):
            if name is None:
                continue
            of_class = rows_of(values, [other == name for other in names])
            for metric in self._by_class.setdefault(name, self._new_metrics()):
                metric.update(of_class)

    def compute(self, track: Callable[..., Iterable[list[ClassMetric]]] | None = None) -> Results:
        """Compute the metrics; a warning names those that lack a value which they should have.

        Args:
            track: Shows the progress over the classes and all images pooled, whose number is its argument ``total``:
                with many regions AUPRO takes longer than the images.

        Returns:
            The results.
        """
        for pooled in self.pooled:
            if pooled.metric.strict and pooled.missing and not pooled.metric.update_called:
                logger.warning("%s has no value: no image has %s.", pooled.metric.name, " and ".join(pooled.missing))
        names = [metric.name for metric in self._metrics]
        groups: Iterable[list[ClassMetric]] = [*self._by_class.values(), self.pooled]
        if track is not None:
            groups = track(groups, total=len(self._by_class) + 1)
        computed = [dict(zip(names, (one.compute() for one in group), strict=True)) for group in groups]
        for same in zip(*self._by_class.values(), self.pooled, strict=True):
            if fault := next((one.fault for one in same if one.fault), None):
                logger.warning("%s %s", same[0].metric.name, fault)
        return Results(classes=dict(zip(self._by_class, computed[:-1], strict=True)), pooled=computed[-1])
