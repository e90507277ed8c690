# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Control charts of a product, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from anomalib_hgad.report.figures import ANOMALOUS, NORMAL, QUIET, drawing
from anomalib_hgad.report.monitor.movements import Record

MOST_LABELS = 10
"""Periods that are named below a chart; of more, some are."""


def control_charts(records: Sequence[Record]) -> Markup:
    """Means of the periods with their limits, and beside them the EWMA with its own.

    Args:
        records: Records of the product, of all periods.

    Returns:
        SVG.
    """
    seen = [(number, record.point) for number, record in enumerate(records) if record.point is not None]
    places = np.array([number for number, _ in seen])
    points = [point for _, point in seen]
    directions = [(record.period.label, point.direction) for record in records if (point := record.point) is not None]
    moved = "; ".join(f"{label} {direction}" for label, direction in directions if direction) or "none has moved"
    with drawing(10.4, 2.6, f"Mean typicality and EWMA of {len(directions)} periods: {moved}") as (figure, svg):
        left, right = figure.subplots(1, 2)
        outside = [point.mean_is_outside for point in points]
        _chart(left, places, [point.mean for point in points], outside)
        _limits(left, places, [point.lower for point in points], [point.upper for point in points])
        left.set(title="mean typicality of a period", ylabel="nats per dimension")
        outside = [point.ewma_is_outside for point in points]
        _chart(right, places, [point.ewma for point in points], outside)
        limits = [point.ewma_limit for point in points]
        _limits(right, places, [-limit for limit in limits], limits)
        right.set(title="EWMA over the periods", ylabel="standard deviations")
        named = np.unique(np.linspace(0, len(records) - 1, min(MOST_LABELS, len(records))).round().astype(int))
        for axis in (left, right):
            axis.set_xlim(-0.5, len(records) - 0.5)
            axis.set_xticks(named, [records[number].period.label for number in named], rotation=30, ha="right")
    return svg[0]


def _chart(axis: Axes, places: np.ndarray, values: Sequence[float], outside: Sequence[bool]) -> None:
    axis.plot(places, values, color=NORMAL, linewidth=1)
    axis.scatter(places, values, s=18, color=[ANOMALOUS if is_outside else NORMAL for is_outside in outside], zorder=3)


def _limits(axis: Axes, places: np.ndarray, lower: Sequence[float], upper: Sequence[float]) -> None:
    for limits in (lower, upper):
        axis.plot(places, limits, color=QUIET, linewidth=1, linestyle="--", drawstyle="steps-mid")
