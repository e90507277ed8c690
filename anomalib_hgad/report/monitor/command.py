# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Monitor a production line for drift."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.common.files import write_text
from anomalib_hgad.common.terminal import console
from anomalib_hgad.report.monitor.chart import LEAST_RATE
from anomalib_hgad.report.monitor.figure import control_charts
from anomalib_hgad.report.monitor.movements import Movement, Record, movements, not_judged, product_records
from anomalib_hgad.report.monitor.periods import Period, read_periods
from anomalib_hgad.report.monitor.scale import read_scale
from anomalib_hgad.report.monitor.table import TABLE, record_table
from anomalib_hgad.report.templates import page_template, time_of_page

PAGE = "monitor.html"

NOT_JUDGED = (
    "Their expected values are unknown: no reference period has them, or no image was held out of the training."
)
"""Why products have no limits."""


def monitor(
    predictions: list[Path],
    ckpt_path: Path,
    output: Path = Path("monitor"),
    false_alarm_rate: float = 0.001,
    reference_periods: int = 0,
) -> list[Movement]:
    """Find products of a production line that no longer look as in training, and since when.

    Args:
        predictions: Tables of ``anomalib predict`` or ``anomalib test``, or folders of runs that contain one, in
            chronological order. Each is a period, such as a day or a shift.
        ckpt_path: The checkpoint that made the tables.
        output: Folder for ``monitor.csv`` and ``monitor.html``.
        false_alarm_rate: Probability that a product is outside the limits of a chart in a period without drift.
        reference_periods: Number of first periods that are known to be good: they set the expectation instead of
            the checkpoint.

    Returns:
        Products that have drifted.

    Raises:
        NotADirectoryError: If output is a file.
        FileNotFoundError: If a table or the checkpoint is missing.
        ValueError: If a setting is out of range, or if tables and checkpoint do not match.
    """
    check_range(f"{LEAST_RATE} <= {{}} < 1", false_alarm_rate=false_alarm_rate)
    if reference_periods != 0:
        check_range(f"2 <= {{}} < {len(predictions)}", reference_periods=reference_periods)
    if output.exists() and not output.is_dir():
        msg = f"Expected a folder for {PAGE} and {TABLE} as output, got the file {output}. Give another name."
        raise NotADirectoryError(msg)
    products = read_scale(ckpt_path)
    periods = read_periods(predictions, products.names)
    records = product_records(periods, products, false_alarm_rate, reference_periods)
    moved = movements(records)
    unjudged = not_judged(records, reference_periods)
    table = record_table(records)
    write_text(output / TABLE, lambda file: table.to_csv(file, index=False, lineterminator="\r\n"))
    page = page_template("monitor.html").render(
        periods=periods,
        moved=moved,
        unjudged=unjudged,
        not_judged=NOT_JUDGED,
        charts={name: control_charts(of_product) for name, of_product in records.items()},
        checkpoint=ckpt_path,
        false_alarm_rate=false_alarm_rate,
        reference_periods=reference_periods,
        made=time_of_page(),
    )
    write_text(output / PAGE, lambda file: file.write(page))
    show(periods, records, moved, unjudged, output)
    return moved


def show(
    periods: Sequence[Period],
    records: dict[str, list[Record]],
    moved: Sequence[Movement],
    unjudged: Sequence[str],
    output: Path,
) -> None:
    """Print the products that have drifted, and counts that no chart shows.

    Args:
        periods: The periods.
        records: Records of every product.
        moved: Products that have moved.
        unjudged: Products without limits.
        output: Folder of the files.
    """
    terminal = console()
    if moved:
        table = Table(title="Products that have moved", title_justify="left")
        for heading in ("product", "is", "from", "until", "seen in"):
            table.add_column(heading, overflow="fold")  # shortened names could be of several products
        for movement in moved:
            charts = [name for name, seen in (("mean", movement.in_mean), ("EWMA", movement.in_ewma)) if seen]
            last = "now" if movement.last is None else movement.last.label
            cells = (movement.product, movement.direction, movement.first.label, last, " and ".join(charts))
            table.add_row(*map(Text, cells))
        terminal.print(table)
    else:
        terminal.print(f"No product has moved: {len(records) - len(unjudged)} products, {len(periods)} periods.")
    if unjudged:
        terminal.print(f"Not judged: {', '.join(unjudged)}. {NOT_JUDGED}")
    for period in periods:
        if period.unknown:
            terminal.print(f"{period.label}: {period.unknown} of {period.images} images are of no known product.")
        for name, images in period.products.items():
            if images.anomalous > images.normal:
                terminal.print(
                    f"{period.label}: {images.anomalous} of {images.count} images of {name} were predicted anomalous."
                )
    terminal.print(f"Charts: {output / PAGE}, table: {output / TABLE}")
