# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Control charts against hand, linear algebra and drawn numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.normal_scores import ClassValues
from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT, NoveltyScale
from anomalib_hgad.report.monitor.chart import (
    LEAST_RATE,
    Expectation,
    Point,
    control_chart,
    expected_of_periods,
    expected_of_scale,
)

RATE = 0.02
"""A rate that can be counted."""

PRODUCTS = 3


def scale_of(values: np.ndarray) -> NoveltyScale:
    """Scale of the typicalities of some images, shape (products, images)."""
    moments = ClassValues(len(values), torch.device("cpu"))
    for index, of_class in enumerate(values):
        moments.add(torch.tensor(of_class).unsqueeze(-1), torch.full((len(of_class),), index))
    scale = NoveltyScale(len(values)).double()
    scale.update(moments)
    return scale


def novelties(scale: NoveltyScale, index: int, values: np.ndarray) -> np.ndarray:
    level = torch.tensor(values).unsqueeze(-1)
    levels = [LevelScores(level, torch.zeros_like(level), torch.zeros_like(level), (1, 1))]
    return scale(levels, torch.full((len(values),), index)).numpy()


def test_limits_by_hand() -> None:
    """Student's t of 14 degrees is beyond ±4.1405 once in a thousand."""
    first, second = control_chart([2.1, 1.0], [20, 5], Expectation(2.0, 0.5, 15, 14), 0.001)
    assert first.upper - 2 == pytest.approx(4.1405 * 0.5 * math.sqrt(1 / 20 + 1 / 15), rel=1e-4)
    assert 2 - second.lower == pytest.approx(4.1405 * 0.5 * math.sqrt(1 / 5 + 1 / 15), rel=1e-4)
    z = [0.1 / (0.5 * math.sqrt(1 / 20 + 1 / 15)), -1 / (0.5 * math.sqrt(1 / 5 + 1 / 15))]
    assert first.ewma == pytest.approx(0.2 * z[0])
    assert second.ewma == pytest.approx(0.8 * 0.2 * z[0] + 0.2 * z[1])
    assert first.ewma_limit == pytest.approx(0.2 * 4.1405, rel=1e-4)


@pytest.mark.parametrize("degrees", [1, 3, 1e9])
def test_limits_of_the_lowest_rate_are_numbers(degrees: float) -> None:
    rare, less = (control_chart([2.0], [20], Expectation(2.0, 0.5, 15, degrees), rate)[0] for rate in (LEAST_RATE, 0.1))
    assert rare.lower < less.lower < 2 < less.upper < rare.upper < math.inf
    assert rare.direction is None


def test_variance_of_the_ewma_is_that_of_the_weighted_means() -> None:
    """Means share the error of what is expected: with their covariance C, weights w give the variance w C w."""
    counts, known = np.array([20, 3, 50, 8, 8, 100]), 7
    points = control_chart([0.0] * len(counts), counts.tolist(), Expectation(0.0, 1.0, known, 1e9), 0.0026998)
    for last, point in enumerate(points):
        covariance = np.diag(1 / counts[: last + 1]) + 1 / known
        deviations = np.sqrt(np.diag(covariance))
        weights = 0.2 * 0.8 ** np.arange(last, -1, -1) / deviations
        assert point.ewma_limit == pytest.approx(3 * math.sqrt(weights @ covariance @ weights), rel=1e-5)


def test_limit_of_the_ewma_is_the_textbooks_where_all_is_known() -> None:
    points = control_chart([0.0] * 9, [5] * 9, Expectation(0.0, 1.0, 10**12, 1e9), 0.0026998)
    for period, point in enumerate(points, start=1):
        assert point.ewma_limit == pytest.approx(3 * math.sqrt(0.2 / 1.8 * (1 - 0.8 ** (2 * period))), rel=1e-4)


@pytest.mark.parametrize(
    ("point", "direction"),
    [
        (Point(0.0, -1.0, 1.0, 0.5, 1.0), None),
        (Point(-2.0, -1.0, 1.0, 0.5, 1.0), "less typical"),
        (Point(2.0, -1.0, 1.0, 0.5, 1.0), "more typical"),
        (Point(0.0, -1.0, 1.0, -1.5, 1.0), "less typical"),
        (Point(0.0, -1.0, 1.0, 1.5, 1.0), "more typical"),
        (Point(2.0, -1.0, 1.0, -1.5, 1.0), "more typical"),
        (Point(2.0, math.nan, math.nan, math.nan, math.nan), None),
    ],
)
def test_direction(point: Point, direction: str | None) -> None:
    assert point.direction == direction


@pytest.mark.slow
@pytest.mark.parametrize("known", [2, *(pytest.param(many, marks=pytest.mark.nightly) for many in (4, 40))])
def test_rate_of_false_alarms_is_as_stated_for_few_images_and_many(known: int) -> None:
    """Images called unknown, and a tenth found anomalous, are left out; sizes of periods differ."""
    rng = np.random.default_rng(5)
    counts = [30, 6, 60, 12, 25, 40]
    outside = []
    for _ in range(400):
        scale = scale_of(rng.normal(0.4, 0.02, size=(PRODUCTS, known)))
        for index, expected in enumerate(expected_of_scale(scale)):
            values = [novelties(scale, index, rng.normal(0.4, 0.02, size=count)) for count in counts]
            kept = [of[(of <= NOVELTY_LIMIT) & (rng.random(len(of)) > 0.1)] for of in values]
            means = [scale.location[index].item() - of.mean() * scale.margin[index].item() for of in kept]
            last = control_chart(means, [len(of) for of in kept], expected, RATE)[-1]
            outside.append((last.mean_is_outside, last.ewma_is_outside))
    spread = math.sqrt(RATE * (1 - RATE) / len(outside))
    assert np.mean(outside, axis=0) == pytest.approx([RATE, RATE], abs=3 * spread)


@pytest.mark.slow
def test_days_that_differ_need_days_that_are_known_to_be_good() -> None:
    """Light of the day moves all images of a day: images tell too narrow limits, days the right ones."""
    rng = np.random.default_rng(6)
    known, days, images = 8, 4, 25
    outside = []
    for _ in range(1000):
        lights = rng.normal(0, 0.01, size=(PRODUCTS, known + days, 1))
        means = rng.normal(0.4 + lights, 0.02, size=(PRODUCTS, known + days, images)).mean(axis=-1)
        for of_product, expected in zip(means, expected_of_periods(means[:, :known].tolist()), strict=True):
            last = control_chart(of_product[known:].tolist(), [1] * days, expected, RATE)[-1]
            by_images = control_chart(of_product[-1:].tolist(), [images], Expectation(0.4, 0.02, 10**6, 1e6), RATE)[0]
            outside.append((last.mean_is_outside, last.ewma_is_outside, by_images.mean_is_outside))
    spread = math.sqrt(RATE * (1 - RATE) / len(outside))
    mean, ewma, by_images = np.mean(outside, axis=0)
    assert [mean, ewma] == pytest.approx([RATE, RATE], abs=3 * spread)
    assert by_images > 5 * RATE


def test_what_periods_expect_by_hand() -> None:
    """Squares of 2 and 8 over 1 + 2 degrees of freedom are 10 / 3 in common, which counts as 5 periods."""
    first, second, none = expected_of_periods([[1.0, 3.0], [2.0, 4.0, 6.0], []])
    assert (first.location, first.count, first.degrees) == (2, 2, 3)
    assert (second.location, second.count, second.degrees) == (4, 3, 3)
    assert first.deviation == pytest.approx(math.sqrt((2 + 5 * 10 / 3) / 6))
    assert second.deviation == pytest.approx(math.sqrt((8 + 5 * 10 / 3) / 7))
    assert math.isnan(none.deviation)


def test_a_product_of_which_nothing_is_known_has_no_limits() -> None:
    scale = NoveltyScale(2)
    scale.images.copy_(torch.tensor([4.0, 0.0]))
    scale.deviation.fill_(0.1)
    known, unknown = expected_of_scale(scale)
    assert (known.count, known.degrees) == (4, 3)
    (point,) = control_chart([5.0], [10], unknown, RATE)
    assert point.direction is None
    assert math.isnan(point.lower)
    assert control_chart([5.0], [10], known, RATE)[0].direction == "more typical"


def test_nothing_is_known_of_single_images() -> None:
    scale = scale_of(np.array([[1.0], [2.0]]))
    assert all(math.isnan(expected.deviation) for expected in expected_of_scale(scale))
    assert all(math.isnan(expected.deviation) for expected in expected_of_periods([[1.0], [2.0]]))


def test_images_and_periods_that_are_all_alike() -> None:
    expected = [expected_of_scale(scale_of(np.full((1, 9), 2.0)))[0], expected_of_periods([[2.0] * 9])[0]]
    for of_alike in expected:
        assert control_chart([2.0], [5], of_alike, RATE)[0].direction is None
        assert control_chart([2.5], [5], of_alike, RATE)[0].direction == "more typical"
