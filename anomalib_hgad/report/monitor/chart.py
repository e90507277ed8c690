# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Control charts of the mean typicality of a product: of each single period, and over the periods.

The limits are those of charts for means and of the EWMA (Montgomery, Introduction to Statistical Quality Control), with
two corrections, as the expectation comes from few values: Student's t instead of the normal distribution, and the
error of the expected mean, which all periods share.

Symbols: n values in a period, mu and sigma the expected mean and deviation of a value, m values that mu comes from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.stats import t as student_t

from anomalib_hgad.models.hgad.novelty import LEAST_DEVIATION, NoveltyScale, class_variance, degrees_of_freedom

EWMA_WEIGHT = 0.2
"""Weight of the newest period in the exponentially weighted moving average (EWMA)."""

LEAST_RATE = 1e-15
"""Lowest false-alarm rate: limits for much lower ones are beyond the range of numbers, or so wide that no point is
outside."""

Direction = Literal["less typical", "more typical"]


@dataclass(frozen=True)
class Expectation:
    """Expected typicality of a product without drift. A value is an image's typicality, or the mean of a period.

    Attributes:
        location: mu, in nats per dimension.
        deviation: sigma, likewise, positive; NaN where it is not known, which makes all limits NaN.
        count: m.
        degrees: Degrees of freedom that sigma comes from.
    """

    location: float
    deviation: float
    count: int
    degrees: float


@dataclass(frozen=True)
class Point:
    """A period of a product on its charts.

    Attributes:
        mean: Mean typicality, in nats per dimension.
        lower: Lower limit of the mean; NaN where there is none.
        upper: Upper limit.
        ewma: EWMA of the standardized means up to this one.
        ewma_limit: Largest allowed absolute value of the EWMA.
    """

    mean: float
    lower: float
    upper: float
    ewma: float
    ewma_limit: float

    @property
    def mean_is_outside(self) -> bool:
        """Whether the mean is beyond its limits."""
        return self.mean < self.lower or self.mean > self.upper

    @property
    def ewma_is_outside(self) -> bool:
        """Whether the EWMA is beyond its limits."""
        return abs(self.ewma) > self.ewma_limit

    @property
    def direction(self) -> Direction | None:
        """Direction of the drift; ``None`` without drift. The period itself takes precedence over earlier ones."""
        if self.mean_is_outside:
            return "less typical" if self.mean < self.lower else "more typical"
        if self.ewma_is_outside:
            return "less typical" if self.ewma < 0 else "more typical"
        return None


def control_chart(
    means: Sequence[float], counts: Sequence[int], expected: Expectation, false_alarm_rate: float
) -> list[Point]:
    """Limits of the means of periods, and of their EWMA.

    The mean of n values has the variance sigma^2 (1/n + 1/m) around mu. The EWMA is a weighted sum of the means'
    deviations from mu, with weights c: its variance is sigma^2 (sum c^2 / n + (sum c)^2 / m), as the error of mu is the
    same in all. Either over its standard deviation follows Student's t.

    Args:
        means: Mean of every period, in nats per dimension.
        counts: n of every period.
        expected: The expectation.
        false_alarm_rate: Probability that a point is outside its limits without drift, for means and EWMA separately.

    Returns:
        The points.
    """
    if math.isnan(expected.deviation):
        return [Point(mean, *[math.nan] * 4) for mean in means]
    limit = float(student_t.isf(false_alarm_rate / 2, expected.degrees))
    points = []
    ewma = squares = weights = 0.0
    for mean, count in zip(means, counts, strict=True):
        relative = math.sqrt(1 / count + 1 / expected.count)
        spread = expected.deviation * relative
        ewma = (1 - EWMA_WEIGHT) * ewma + EWMA_WEIGHT * (mean - expected.location) / spread
        squares = (1 - EWMA_WEIGHT) ** 2 * squares + (EWMA_WEIGHT / relative) ** 2 / count
        weights = (1 - EWMA_WEIGHT) * weights + EWMA_WEIGHT / relative
        ewma_deviation = math.sqrt(squares + weights**2 / expected.count)
        points.append(
            Point(
                mean=mean,
                lower=expected.location - limit * spread,
                upper=expected.location + limit * spread,
                ewma=ewma,
                ewma_limit=limit * ewma_deviation,
            )
        )
    return points


def expected_of_scale(scale: NoveltyScale) -> list[Expectation]:
    """Expectation from the images held out of the training; a value is an image's typicality.

    Args:
        scale: The scale of a checkpoint, of K classes.

    Returns:
        One for each class.
    """
    degrees = degrees_of_freedom(scale.images)
    deviation = scale.deviation.clamp(min=LEAST_DEVIATION).where((degrees > 0) & (scale.images > 0), torch.nan)
    return _expectations(scale.location, deviation, scale.images, degrees)


def expected_of_periods(means: Sequence[Sequence[float]]) -> list[Expectation]:
    """Expectation from periods that are known to be good; a value is the mean of a period.

    Args:
        means: Means of the periods of each product; none for a product that was not made in them.

    Returns:
        One for each product.
    """
    values = [torch.tensor(of_product, dtype=torch.float64) for of_product in means]
    counts = torch.tensor([len(of_product) for of_product in values], dtype=torch.float64)
    location = torch.stack([of_product.sum() / max(1, len(of_product)) for of_product in values])
    squares = torch.stack([(of_product - of_product.mean()).square().sum() for of_product in values])
    degrees = degrees_of_freedom(counts)
    # Periods that are all alike have no deviation.
    deviation = class_variance(counts, squares).sqrt().clamp(min=torch.finfo(torch.float32).eps)
    return _expectations(location, deviation.where((degrees > 0) & (counts > 0), torch.nan), counts, degrees)


def _expectations(*columns: torch.Tensor) -> list[Expectation]:
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Expectation(location, deviation, int(count), degrees) for location, deviation, count, degrees in rows]
