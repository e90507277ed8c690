# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Products that have drifted, with the first and last period."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from anomalib_hgad.report.monitor.chart import (
    Direction,
    Expectation,
    Point,
    control_chart,
    expected_of_periods,
    expected_of_scale,
)
from anomalib_hgad.report.monitor.periods import Period, ProductImages
from anomalib_hgad.report.monitor.scale import ProductScale


@dataclass(frozen=True)
class Record:
    """A product in a period.

    Attributes:
        period: The period.
        images: Images of the product.
        point: Its place on the charts; ``None`` if there is no image of it.
    """

    period: Period
    images: ProductImages
    point: Point | None


@dataclass(frozen=True)
class Movement:
    """Consecutive periods of a product that are outside the limits in one direction.

    Attributes:
        product: The product.
        direction: Whether it was less typical than expected, or more.
        first: First period outside the limits.
        last: Last period outside the limits; ``None`` if it lasts.
        in_mean: Whether the mean of a period was outside.
        in_ewma: Whether the EWMA was.
    """

    product: str
    direction: Direction
    first: Period
    last: Period | None
    in_mean: bool
    in_ewma: bool


def product_records(
    periods: Sequence[Period], products: ProductScale, false_alarm_rate: float, reference_periods: int
) -> dict[str, list[Record]]:
    """Charts of all products.

    Args:
        periods: The periods, in chronological order.
        products: Products of the checkpoint and the scale of their novelty.
        false_alarm_rate: As in :func:`~anomalib_hgad.report.monitor.chart.control_chart`.
        reference_periods: Number of first periods that are known to be good and set the expectation; 0 uses the
            checkpoint. These periods themselves have no limits.

    Returns:
        Records of every product that was seen, a record for each period.

    Raises:
        ValueError: If the variation of no product is known.
    """
    names = [name for name in products.names if any(name in period.products for period in periods)]
    means = {
        name: [
            products.typicality(name, images.novelty / images.count) if (images := of(period, name)).count else None
            for period in periods
        ]
        for name in names
    }
    if reference_periods:
        known = [[mean for mean in means[name][:reference_periods] if mean is not None] for name in names]
        expected = dict(zip(names, expected_of_periods(known), strict=True))
    else:
        expected = dict(zip(products.names, expected_of_scale(products.scale), strict=True))
    if names and all(math.isnan(expected[name].deviation) for name in names):
        msg = "The variation of a product is unknown: "
        msg += (
            f"no product occurs in two of the first {reference_periods} periods. Give more reference_periods."
            if reference_periods
            else "no class has two images held out of the training. Train with calibration_share, or give "
            "reference_periods."
        )
        raise ValueError(msg)
    return {
        name: _records(periods, name, means[name], expected[name], false_alarm_rate, reference_periods)
        for name in names
    }


def of(period: Period, name: str) -> ProductImages:
    """Images of a product in a period, which may be none."""
    return period.products.get(name, ProductImages())


def _records(
    periods: Sequence[Period],
    name: str,
    means: Sequence[float | None],
    expected: Expectation,
    false_alarm_rate: float,
    reference_periods: int,
) -> list[Record]:
    seen = [(number, mean) for number, mean in enumerate(means) if mean is not None]
    judged = [(number, mean) for number, mean in seen if number >= reference_periods]
    # With reference periods a value is the mean of a period.
    counts = [1 if reference_periods else of(periods[number], name).count for number, _ in judged]
    points = {number: Point(mean, *[math.nan] * 4) for number, mean in seen}
    chart = control_chart([mean for _, mean in judged], counts, expected, false_alarm_rate)
    points |= {number: point for (number, _), point in zip(judged, chart, strict=True)}
    return [Record(period, of(period, name), points.get(number)) for number, period in enumerate(periods)]


def not_judged(records: dict[str, list[Record]], reference_periods: int) -> list[str]:
    """Products seen after the reference periods that have no limits: whether they have moved is unknown.

    Args:
        records: Records of every product.
        reference_periods: Number of first periods that set the expectation.

    Returns:
        Their names.
    """
    return [
        name
        for name, of_product in records.items()
        if any(record.point and math.isnan(record.point.lower) for record in of_product[reference_periods:])
    ]


def movements(records: dict[str, list[Record]]) -> list[Movement]:
    """Products that have moved.

    Args:
        records: Records of every product.

    Returns:
        The movements, by product and in chronological order.
    """
    found = []
    for product, of_product in records.items():
        points = [(record.period, record.point) for record in of_product if record.point is not None]
        for direction, group in groupby(points, key=lambda pair: pair[1].direction):
            if direction is None:
                continue
            run = list(group)
            found.append(
                Movement(
                    product=product,
                    direction=direction,
                    first=run[0][0],
                    last=None if run[-1] is points[-1] else run[-1][0],
                    in_mean=any(point.mean_is_outside for _, point in run),
                    in_ewma=any(point.ewma_is_outside for _, point in run),
                )
            )
    return found
