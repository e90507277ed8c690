# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which products have moved, and when."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.report.monitor.chart import Point
from anomalib_hgad.report.monitor.movements import Record, movements, product_records
from anomalib_hgad.report.monitor.periods import Period, ProductImages
from anomalib_hgad.report.monitor.scale import ProductScale


def period(label: str, **novelties: float) -> Period:
    """A period of ten normal images of each product, of some mean novelty."""
    images = {name: ProductImages(normal=10, novelty=10 * novelty) for name, novelty in novelties.items()}
    return Period(Path(label), label, images=10 * len(images), products=images)


@pytest.fixture
def products() -> ProductScale:
    """A nat of novelty is a tenth of a nat of typicality, and two deviations."""
    scale = NoveltyScale(3)
    scale.location.copy_(torch.tensor([1.0, 2.0, 3.0]))
    scale.margin.fill_(0.1)
    scale.deviation.fill_(0.05)
    scale.images.fill_(50)
    return ProductScale(["bolt", "nut", "washer"], scale)


def test_novelty_is_turned_back_into_typicality(products: ProductScale) -> None:
    records = product_records([period("1", nut=0.5), period("2", bolt=-1.0)], products, 0.001, 0)
    assert list(records) == ["bolt", "nut"]
    assert records["nut"][0].point.mean == pytest.approx(2 - 0.05)
    assert records["bolt"][1].point.mean == pytest.approx(1.1)
    assert records["nut"][1].point is records["bolt"][0].point is None


def test_reference_periods_say_what_is_expected_and_have_no_limits(products: ProductScale) -> None:
    """Far from the checkpoint, but as in the first four periods, until the last."""
    novelties = [5.0, 5.1, 4.9, 5.0, 5.0, 9.0]
    periods = [period(str(number), bolt=novelty) for number, novelty in enumerate(novelties)]
    points = [record.point for record in product_records(periods, products, 0.001, 4)["bolt"]]
    assert all(math.isnan(point.lower) and point.direction is None for point in points[:4])
    assert [point.direction for point in points[4:]] == [None, "less typical"]
    by_checkpoint = product_records(periods, products, 0.001, 0)["bolt"]
    assert {record.point.direction for record in by_checkpoint} == {"less typical"}


def test_nothing_tells_how_much_a_product_varies(products: ProductScale) -> None:
    periods = [period("1", bolt=0.0), period("2", nut=0.0), period("3", bolt=0.0)]
    with pytest.raises(ValueError, match=r"in two of the first 2 periods\. Give more reference_periods"):
        product_records(periods, products, 0.001, 2)
    products.scale.images.fill_(1)
    with pytest.raises(ValueError, match="Train with calibration_share, or give reference_periods"):
        product_records(periods, products, 0.001, 0)


def test_movements_are_runs_of_periods_on_one_side() -> None:
    inside, low = Point(0.0, -1.0, 1.0, 0.0, 1.0), Point(-2.0, -1.0, 1.0, 0.0, 1.0)
    slow, high = Point(0.0, -1.0, 1.0, -2.0, 1.0), Point(2.0, -1.0, 1.0, 0.0, 1.0)
    points = [inside, low, None, slow, inside, low, high, high]
    periods = [period(str(number)) for number in range(len(points))]
    records = [Record(of, ProductImages(), point) for of, point in zip(periods, points, strict=True)]
    found = movements({"bolt": records, "nut": records[:1]})
    assert [(of.product, of.direction, of.first.label, of.last and of.last.label) for of in found] == [
        ("bolt", "less typical", "1", "3"),
        ("bolt", "less typical", "5", "5"),
        ("bolt", "more typical", "6", None),
    ]
    assert [(of.in_mean, of.in_ewma) for of in found] == [(True, True), (True, False), (True, False)]
