# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics of a test: means over the classes, a table for the terminal, files for other programs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from rich.table import Table
from rich.text import Text

from anomalib_hgad.common.files import write_json, write_text
from anomalib_hgad.data.reserved_names import MEAN, POOLED

SHOWN_FIRST = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO", "image_F1Score")
"""Metrics that the table on the terminal shows first; others fill the remaining columns."""


@dataclass(frozen=True)
class Results:
    """Metrics by name, of each class and of all images pooled; ``None`` for a metric that is not defined.

    Attributes:
        classes: Metrics of each class.
        pooled: Metrics of all images at once, whatever their class.
    """

    classes: dict[str, dict[str, float | None]]
    pooled: dict[str, float | None]

    @property
    def mean(self) -> dict[str, float | None]:
        """Mean of every metric over the classes that have it."""
        means: dict[str, float | None] = {}
        for name in self.pooled:
            values = [value for metrics in self.classes.values() if (value := metrics.get(name)) is not None]
            means[name] = sum(values) / len(values) if values else None
        return means

    @property
    def rows(self) -> list[tuple[str, dict[str, float | None]]]:
        """The lines of the table: every class, the mean, and all images pooled."""
        return [*self.classes.items(), (MEAN, self.mean), (POOLED, self.pooled)]

    @property
    def columns(self) -> list[str]:
        """Names of the metrics that are defined somewhere."""
        return [name for name in self.pooled if any(metrics.get(name) is not None for _, metrics in self.rows)]


def results_table(results: Results, title: str, images: Mapping[str, int]) -> Table:
    """Lay the most important metrics out for a terminal of 80 characters, in percent.

    Args:
        results: The metrics.
        title: Line above the table.
        images: Number of test images of each class, and of all of them under :data:`~anomalib_hgad.data.POOLED`.

    Returns:
        The table.
    """
    first = [name for name in SHOWN_FIRST if name in results.columns]
    columns = [*first, *(name for name in results.columns if name not in first)][: len(SHOWN_FIRST)]
    caption = "In percent. mean: of classes. pooled: all images."
    if len(columns) < len(results.columns):
        caption += " More: results.csv."
    table = Table(title=title, caption=caption)
    table.add_column("class", overflow="fold")
    for column in columns:
        table.add_column(heading(column), justify="right", overflow="fold")
    table.add_column("images", justify="right", no_wrap=True)
    for name, metrics in results.rows:
        if name == MEAN:
            table.add_section()
        values = (metrics.get(column) for column in columns)
        cells = ("–" if value is None else f"{100 * value:.1f}" for value in values)
        table.add_row(Text(name), *cells, str(images.get(name, "")))
    return table


def heading(metric: str) -> str:
    """Name of a metric in words."""
    for part, words in {"_": " ", "F1Score": "F1", "Class": "class ", "FalseAlarmRate": "false alarms"}.items():
        metric = metric.replace(part, words)
    return metric


def write_results(results: Results, folder: Path, model: str | None = None) -> None:
    """Write ``results.csv`` and ``results.json``; an interrupted write leaves no partial file.

    Args:
        results: The metrics, written as fractions of 1.
        folder: Folder of the run.
        model: Identity of the tested model, see :func:`~anomalib_hgad.evaluation.identity.identity`. Defaults to
            ``None``, not known.
    """

    def write_csv(file: IO[str]) -> None:
        writer = csv.writer(file)
        writer.writerow(["class", *results.columns])
        for name, metrics in results.rows:
            writer.writerow([name, *("" if (value := metrics.get(key)) is None else value for key in results.columns)])

    write_text(folder / "results.csv", write_csv)
    write_json({"mean": results.mean, **asdict(results), "model": model}, folder / "results.json")


def read_results(path: Path) -> dict[str, Any]:
    """Read ``results.json`` that :func:`write_results` wrote.

    Args:
        path: The file.

    Returns:
        Metrics under ``mean`` and ``pooled``, and under ``classes`` those of each class; the identity of the tested
        model under ``model``.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is broken, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # an editor may mark it
        tables = [content["mean"], content["pooled"], *content["classes"].values()]
        figures = [value for table in tables for value in table.values()]
        [math.isnan(value) for value in figures if value is not None]  # raises an error for anything but a number
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{path} is not what a test writes ({type(error).__name__}: {error}). Test the model again."
        raise ValueError(msg) from error
    return content
