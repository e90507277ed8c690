# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images called unknown and the novelty of products, by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.report.unknown_products import (
    ProductNovelty,
    called_unknown,
    product_novelties,
    products_with_novelty,
)
from tests.helpers.predictions import predicted

ROWS = [
    replace(predicted("nut", 0.5), class_name="nut"),
    replace(predicted(UNKNOWN, 7.0), class_name="spring"),
    replace(predicted("bolt", -1.0), class_name="bolt"),
    replace(predicted("bolt", 0.0), class_name="bolt"),
    replace(predicted(UNKNOWN, 1.5), class_name="bolt"),
    replace(predicted("nut", 0.9), class_name="spring"),
]


def run_of(rows: list[Any], names: list[str]) -> Any:
    return SimpleNamespace(class_names=names, predictions=rows)


def test_products_of_a_test() -> None:
    found = product_novelties(run_of(ROWS, ["bolt", "nut"]))
    assert found == [
        ProductNovelty("bolt", known=True, images=3, called_unknown=1, median=0.0, largest=1.5),
        ProductNovelty("nut", known=True, images=1, called_unknown=0, median=0.5, largest=0.5),
        ProductNovelty("spring", known=False, images=2, called_unknown=1, median=pytest.approx(3.95), largest=7.0),
    ]


def test_images_called_unknown_begin_with_the_most_novel() -> None:
    assert [row.novelty for row in called_unknown(run_of(ROWS, ["bolt"]))] == [7.0, 1.5]


@pytest.mark.parametrize(("names", "expected"), [(["bolt"], "bolt"), (["bolt", "nut"], "no class")])
def test_images_without_a_class_are_of_the_only_one(names: list[str], expected: str) -> None:
    rows = [predicted("bolt", 0.1)]
    assert products_with_novelty(run_of(rows, names)) == {expected: rows}


def test_without_novelty_there_is_no_product() -> None:
    rows = [replace(row, novelty=None) for row in ROWS]
    assert product_novelties(run_of(rows, ["bolt"])) == []
