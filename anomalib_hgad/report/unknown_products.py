# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images that a run has predicted unknown, and the novelty of the images of each product."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.report.run_files import RunFiles

MOST_LISTED = 50
"""Images called unknown that are listed, the most novel ones."""


@dataclass(frozen=True)
class ProductNovelty:
    """Novelty of the test images of a product.

    Attributes:
        name: The product; ``"no class"`` for images without one.
        known: Whether it is one of the classes of the test, whose images should not be called unknown.
        images: Number of images.
        called_unknown: How many of them were called unknown.
        median: Median of their novelty.
        largest: Largest novelty.
    """

    name: str
    known: bool
    images: int
    called_unknown: int
    median: float
    largest: float


def products_with_novelty(run: RunFiles) -> dict[str, list[Prediction]]:
    """Test images whose novelty is known.

    Args:
        run: The run.

    Returns:
        The images of every product, those of the classes of the test first.
    """
    only = run.class_names[0] if len(run.class_names) == 1 else "no class"
    products: dict[str, list[Prediction]] = {name: [] for name in run.class_names}
    for row in run.predictions:
        if row.novelty is not None:
            products.setdefault(row.class_name or only, []).append(row)
    return {name: rows for name, rows in products.items() if rows}


def product_novelties(run: RunFiles) -> list[ProductNovelty]:
    """Novelty of the test images, product by product.

    Args:
        run: The run.

    Returns:
        A row for each product; none if the run's model computes no novelty.
    """
    rows = []
    for name, images in products_with_novelty(run).items():
        novelties = [row.novelty for row in images if row.novelty is not None]
        called = sum(row.called_unknown for row in images)
        known = name in run.class_names
        rows.append(ProductNovelty(name, known, len(images), called, median(novelties), max(novelties)))
    return rows


def called_unknown(run: RunFiles) -> list[Prediction]:
    """Images that were called unknown, the most novel first.

    Args:
        run: The run.
    """
    rows = [row for row in run.predictions if row.called_unknown]
    return sorted(rows, key=lambda row: -(row.novelty or 0.0))
