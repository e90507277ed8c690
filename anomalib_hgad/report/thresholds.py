# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether the thresholds of a run keep the requested false-alarm rate, class by class."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest

from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.evaluation.threshold import images_needed
from anomalib_hgad.report.run_files import RunFiles

CONFIDENCE = 0.95
"""Probability that an interval covers the true rate."""


@dataclass(frozen=True)
class ThresholdRow:
    """Threshold of a class, and its false alarms on the test's normal images scored under the class.

    Attributes:
        name: The class.
        rate: Requested false-alarm rate.
        images: Number of normal validation images that the threshold was chosen on.
        threshold: The threshold, of unshifted scores.
        common: The threshold of all classes.
        normal: Normal test images.
        alarms: How many of them raise an alarm.
        common_alarms: How many would at the threshold of all classes.
    """

    name: str
    rate: float
    images: int
    threshold: float
    common: float
    normal: int
    alarms: int
    common_alarms: int

    @property
    def needed(self) -> int:
        """Normal validation images that the rate needs."""
        return images_needed(self.rate)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Clopper-Pearson interval of the false-alarm rate; ``None`` without normal test images."""
        return clopper_pearson(self.alarms, self.normal) if self.normal else None

    @property
    def verdict(self) -> str:
        """Whether the rate holds, see :func:`verdict_on`."""
        return verdict_on(self.alarms, self.normal, self.rate)

    @property
    def common_verdict(self) -> str:
        """Whether the rate would hold at the threshold of all classes."""
        return verdict_on(self.common_alarms, self.normal, self.rate)


def verdict_on(alarms: int, normal: int, rate: float) -> str:
    """Whether a rate of false alarms holds, in words.

    It does not if the whole interval is above it. It does if not, and if there are images enough for one false alarm to
    be expected among them and a new one.

    Args:
        alarms: False alarms.
        normal: Normal images.
        rate: The rate.
    """
    if normal and clopper_pearson(alarms, normal)[0] > rate:
        return "does not hold"
    return "holds" if normal >= images_needed(rate) else "too few images to tell"


def clopper_pearson(count: int, total: int) -> tuple[float, float]:
    """Exact confidence interval of a proportion, ``count`` of ``total``, at :data:`CONFIDENCE`."""
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def threshold_rows(run: RunFiles) -> list[ThresholdRow]:
    """Thresholds of the classes of a run.

    Args:
        run: The run.

    Returns:
        One for each class; none if no rate was requested, as with anomalib's own post-processor.

    Raises:
        ValueError: If the test was of a model of other classes.
    """
    of_classes = run.model.model.calibration.class_thresholds
    common = run.threshold
    if common is None or not of_classes.rate.any():
        return []
    names = run.model.threshold_names
    if others := sorted({row.scored_class_name for row in run.predictions if row.scored_class_name} - set(names)):
        msg = f"{run.folder}: the test has scores of {', '.join(others)}; the run's checkpoint knows only "
        msg += f"{', '.join(names)}. The test used another checkpoint: test this one, and make the report again."
        raise ValueError(msg)
    shifts = dict(zip(names, of_classes.shift.tolist(), strict=True))
    normal: dict[str, list[Prediction]] = {name: [] for name in names}
    for row in run.predictions:
        if not row.gt_label:
            normal[row.scored_class_name or names[0]].append(row)
    return [
        ThresholdRow(
            name,
            rate=rate,
            images=images,
            threshold=common - shifts[name],
            common=common,
            normal=len(normal[name]),
            alarms=sum(bool(row.pred_label) for row in normal[name]),
            common_alarms=sum((row.raw_score or 0.0) - shifts[name] > common for row in normal[name]),
        )
        for name, rate, images in zip(names, of_classes.rates, of_classes.images.tolist(), strict=True)
    ]
