# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Runs side by side: their metrics, with the best of each marked, and the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalib_hgad.data.reserved_names import MEAN, POOLED
from anomalib_hgad.report.monitor.periods import labels
from anomalib_hgad.report.run_files import RunFiles

MOST_COMPARED = 3
"""Maximum number of runs compared with the reported one: four log-likelihoods can be told apart on a page."""

LOWER_IS_BETTER = frozenset({"FalseAlarmRate"})
"""Metrics of which the lowest value is the best."""

TITLES = {MEAN: "mean over the classes", POOLED: "all images pooled"}
"""Titles of the compared rows of the results."""


@dataclass(frozen=True)
class Cell:
    """A metric of a run.

    Attributes:
        value: Its value; ``None`` if it is not defined.
        best: Whether no other run has a better one, and some run a worse one.
    """

    value: float | None
    best: bool


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        names: Number of every run and what distinguishes it, the reported one first.
        tables: For the mean over the classes and all images pooled, the metrics of every run.
        settings: Settings that differ, with the value of every run.
        same_images: Whether all were tested on the same images.
    """

    names: list[str]
    tables: dict[str, list[dict[str, Cell]]]
    settings: dict[str, list[str]]
    same_images: bool


def check_compared(run: Path, compared: Sequence[Path]) -> None:
    """Check the runs to compare.

    Args:
        run: Folder of the reported run.
        compared: Folders of the others.

    Raises:
        ValueError: If there are too many, or if one occurs twice.
    """
    if len(compared) > MOST_COMPARED:
        msg = f"Expected at most {MOST_COMPARED} runs to compare with; got {len(compared)}."
        raise ValueError(msg)
    places = [path.resolve() for path in (run, *compared)]
    for place in places:
        if places.count(place) > 1:
            msg = f"{place} is given twice. Expected different runs to compare."
            raise ValueError(msg)


def compare_runs(runs: Sequence[RunFiles], columns: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> Comparison:
    """Put runs side by side.

    Args:
        runs: The runs, at least two.
        columns: Names of the metrics.
        settings: Settings of every run.

    Returns:
        The comparison.
    """
    tested = [sorted(str(Path(row.image_path).resolve()) for row in run.predictions) for run in runs]
    names = dict.fromkeys(name for of_run in settings for name in of_run)
    values = {name: [str(of_run.get(name, "–")) for of_run in settings] for name in names}
    return Comparison(
        names=[
            f"{number}: {name}" for number, name in enumerate(labels([run.folder.resolve() for run in runs]), start=1)
        ],
        tables={title: _table([run.results[row] for run in runs], columns) for row, title in TITLES.items()},
        settings={name: of_runs for name, of_runs in values.items() if len(set(of_runs)) > 1},
        same_images=all(images == tested[0] for images in tested),
    )


def _table(metrics: Sequence[Mapping[str, float | None]], columns: Sequence[str]) -> list[dict[str, Cell]]:
    marked: list[dict[str, Cell]] = [{} for _ in metrics]
    for column in columns:
        values = [of_run.get(column) for of_run in metrics]
        # As shown: a mark for an invisible difference would be confusing.
        shown = [None if value is None else round(100 * value, 1) for value in values]
        defined = [value for value in shown if value is not None]
        best = min(defined, default=None) if column in LOWER_IS_BETTER else max(defined, default=None)
        for of_run, value, as_shown in zip(marked, values, shown, strict=True):
            of_run[column] = Cell(value, best=as_shown is not None and as_shown == best and len(set(defined)) > 1)
    return marked
