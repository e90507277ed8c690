# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Drift of the products of a run over time, as a monitor found it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from anomalib_hgad.report.monitor.figure import control_charts
from anomalib_hgad.report.monitor.movements import Movement, movements
from anomalib_hgad.report.monitor.table import TABLE, read_records


@dataclass(frozen=True)
class Drift:
    """Products over time.

    Attributes:
        products: Number of products that were seen.
        periods: Number of periods.
        first: Name of the first period.
        last: Name of the last.
        moved: Products that have moved.
        charts: Their control charts.
    """

    products: int
    periods: int
    first: str
    last: str
    moved: list[Movement]
    charts: dict[str, Markup]


def read_drift(folder: Path, class_names: Sequence[str]) -> Drift:
    """Read what a monitor wrote.

    Args:
        folder: The monitor's ``--output``.
        class_names: Products that the model of the run knows.

    Returns:
        The drift.

    Raises:
        FileNotFoundError: If there is no table.
        ValueError: If it is broken, empty, or of another model.
    """
    records = read_records(folder)
    if others := sorted(set(records) - set(class_names)):
        msg = f"{folder / TABLE} is of another model: the run does not know {', '.join(others)}, only "
        msg += f"{', '.join(class_names)}."
        raise ValueError(msg)
    periods = [record.period.label for record in next(iter(records.values()), [])]
    if not periods:
        msg = f"{folder / TABLE} has no rows. Expected a monitor that has seen a product."
        raise ValueError(msg)
    moved = movements(records)
    charts = {name: control_charts(records[name]) for name in dict.fromkeys(movement.product for movement in moved)}
    return Drift(len(records), len(periods), periods[0], periods[-1], moved, charts)
