# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The table that the monitor writes, ``monitor.csv``, for other programs and for the report of a run."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_hgad.evaluation.spreadsheets import as_count, as_number, read_rows
from anomalib_hgad.report.monitor.chart import Point
from anomalib_hgad.report.monitor.movements import Record
from anomalib_hgad.report.monitor.periods import Period, ProductImages, labels

TABLE = "monitor.csv"

POINT_COLUMNS = ["mean_typicality", "lower_limit", "upper_limit", "ewma", "ewma_limit"]
"""Columns of a point of the charts, in the order of its fields; empty where a product was not seen."""

NUMBERS = ["period", "normal", "anomalous", "unknown_of_all_products", *POINT_COLUMNS]
"""Columns that hold numbers."""

COLUMNS = ["product", "table", *NUMBERS, "mean_outside", "ewma_outside", "moved"]


def record_table(records: dict[str, list[Record]]) -> pd.DataFrame:
    """A row for each product and period.

    Args:
        records: Records of every product.

    Returns:
        The table; missing values are empty.
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
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=COLUMNS)


def read_records(folder: Path) -> dict[str, list[Record]]:
    """Read the table that a monitor wrote, even if a spreadsheet has sorted or saved it again.

    Args:
        folder: The monitor's ``--output``.

    Returns:
        Records of every product, as from :func:`~anomalib_hgad.report.monitor.movements.product_records`, without the
        sums that the charts do not need.

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If it is broken, or another table.
    """
    path = folder / TABLE
    if not path.is_file():
        msg = f"{path} is missing. Expected the --output of `anomalib-hgad monitor`."
        raise FileNotFoundError(msg)
    try:
        rows = read_rows(path, COLUMNS, NUMBERS)
        return _records([row | {"period": _count(row, "period")} for row in rows])
    except (ValueError, csv.Error) as error:
        msg = f"{path} is not a table of `anomalib-hgad monitor`: {error}"
        raise ValueError(msg) from error


def _records(rows: Sequence[dict[str, Any]]) -> dict[str, list[Record]]:
    """Records of rows in any order.

    Raises:
        ValueError: If a product does not have one row for each period.
    """
    tables = {row["period"]: row["table"] for row in sorted(rows, key=lambda row: row["period"])}
    named = zip(tables.items(), labels([Path(name) for name in tables.values()]), strict=True) if tables else ()
    periods = {number: Period(Path(name), label) for (number, name), label in named}
    of_products: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_products.setdefault(row["product"], []).append(row)
    records = {}
    for product, of_product in of_products.items():
        of_product.sort(key=lambda row: row["period"])
        if [(row["period"], row["table"]) for row in of_product] != list(tables.items()):
            msg = f"expected one row of {product} for each of the {len(tables)} periods, got {len(of_product)} of "
            msg += f"{', '.join(row['table'] for row in of_product)}. Run the monitor again."
            raise ValueError(msg)
        records[product] = [_record(periods[row["period"]], row) for row in of_product]
    return records


def _record(period: Period, row: dict[str, str]) -> Record:
    images = ProductImages(_count(row, "normal"), _count(row, "anomalous"))
    values = [math.nan if (value := as_number(row[name])) is None else value for name in POINT_COLUMNS]
    return Record(period, images, Point(*values) if images.count else None)


def _count(row: dict[str, str], column: str) -> int:
    if (count := as_count(row[column])) is None:
        msg = f"a row has no {column}."
        raise ValueError(msg)
    return count
