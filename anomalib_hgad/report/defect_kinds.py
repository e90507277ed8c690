# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Kinds of defects that a run has named, for each true kind: the folders of the test images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from anomalib_hgad.data.reserved_names import OTHER
from anomalib_hgad.report.run_files import RunFiles


@dataclass(frozen=True)
class KindTable:
    """Anomalous test images of a product whose defects are named.

    Attributes:
        product: The product.
        names: True kinds, and other names that images got, ``"other"`` last.
        counts: For each true kind, how many images got each of these names.
        not_named: For each true kind, how many raised no alarm, or are assigned to a product without known defects.
    """

    product: str
    names: list[str]
    counts: dict[str, list[int]]
    not_named: dict[str, int]


def kind_tables(run: RunFiles) -> list[KindTable]:
    """Make the tables of a run.

    Args:
        run: The run.

    Returns:
        One for each product with an image whose defect is named: the test may have used another checkpoint than the
        run's.
    """
    tables = []
    for product in run.class_names:
        rows = run.of_class(product)
        if not any(row.defect_kind for row in rows):
            continue
        named: dict[str, Counter[str | None]] = {}
        for row in rows:
            if row.gt_label:
                named.setdefault(Path(row.image_path).parent.name, Counter())[row.defect_kind] += 1
        called = {name for of_kind in named.values() for name in of_kind if name is not None}
        names = [*sorted((called | set(named)) - {OTHER}), OTHER]
        counts = {kind: [of_kind[name] for name in names] for kind, of_kind in sorted(named.items())}
        tables.append(KindTable(product, names, counts, {kind: named[kind][None] for kind in counts}))
    return tables
