# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The table that the monitor writes, ``monitor.csv``, for other programs and for the report of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from anomalib_hgad.report.monitor.chart import Point
from anomalib_hgad.report.monitor.movements import Record
from anomalib_hgad.report.monitor.periods import Period, ProductImages, labels

TABLE = "monitor.csv"

POINT_COLUMNS = ["mean_typicality", "lower_limit", "upper_limit", "ewma", "ewma_limit"]
"""Columns of a point of the charts, in the order of its fields; empty where a product was not seen."""


def record_table(records: dict[str, list[Record]]) -> pd.DataFrame:
    """A row for each product and period.

    Args:
        records: Records of every product.

    Returns:
        The table; what there is not is empty.
    """
    rows = []
    for name, of_product in records.items():
        for number, record in enumerate(of_product, start=1):
            row = {
                "product": name,
                "period": number,
                "table": str(record.period.table),
                "normal": record.images.normal,
                "anomalous": record.images.anomalous,
                "unknown_of_all_products": record.period.unknown,
            }
            if (point := record.point) is not None:
                row |= {
                    "mean_typicality": point.mean,
                    "lower_limit": point.lower,
                    "upper_limit": point.upper,
                    "mean_outside": point.mean_is_outside,
                    "ewma": point.ewma,
                    "ewma_limit": point.ewma_limit,
                    "ewma_outside": point.ewma_is_outside,
                    "moved": point.direction,
                }
            rows.append(row)
    return pd.DataFrame(rows)


def read_records(folder: Path) -> dict[str, list[Record]]:
    """Read the table that a monitor wrote.

    Args:
        folder: The monitor's ``--output``.

    Returns:
        Records of every product, as of :func:`~anomalib_hgad.report.monitor.movements.product_records`, without the
        sums that the charts do not need.

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If it is broken, or another one.
    """
    path = folder / TABLE
    if not path.is_file():
        msg = f"{path} is missing. Expected the --output of `anomalib-hgad monitor`."
        raise FileNotFoundError(msg)
    try:
        # Names such as NA are names, and names of files may have bytes that are no text.
        empty = {name: [""] for name in POINT_COLUMNS}
        # So are 0815, 1.10 and 20261127.
        text = dict.fromkeys(("product", "table"), str)
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty, encoding_errors="surrogateescape")
        tables = table.sort_values("period")["table"].drop_duplicates().tolist()
        named = zip(tables, labels([Path(name) for name in tables]), strict=True)
        periods = {name: Period(Path(name), label) for name, label in named}
        records: dict[str, list[Record]] = {}
        for row in table.to_dict("records"):
            images = ProductImages(int(row["normal"]), int(row["anomalous"]))
            point = Point(*(float(row[name]) for name in POINT_COLUMNS)) if images.count else None
            records.setdefault(row["product"], []).append(Record(periods[row["table"]], images, point))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        msg = f"{path} is not a table of `anomalib-hgad monitor`: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
    return records
