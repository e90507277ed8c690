# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Comparison of exports on the terminal and in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd
from rich.table import Table
from rich.text import Text

from anomalib_hgad.common.files import write_json, write_text
from anomalib_hgad.common.terminal import console
from anomalib_hgad.report.parity.differences import ImageDifference, Parity, Tolerances
from anomalib_hgad.report.parity.exports import Export

ENDINGS = (".json", ".csv")
"""Suffixes of files for the results."""

COLUMNS = {
    "form": "form",
    "score, largest": "largest_score_difference",
    "median": "median_score_difference",
    "same label": "same_label",
    "same class": "same_class",
    "same mask": "same_mask",
    "map, largest": "largest_map_difference",
}
"""Headings of the table on the terminal, and the figures below them."""


def show(
    figures: Sequence[Parity],
    differences: Sequence[Sequence[ImageDifference]],
    exports: Sequence[Export],
    without_labels: Sequence[str],
    failed: Sequence[str],
) -> None:
    """Print the results of the exports, with notes.

    Args:
        figures: Results of every export.
        differences: Differences of its images, for every export.
        exports: The exports.
        without_labels: Labels of the checkpoint that mean nothing.
        failed: Differences beyond the tolerances.
    """
    terminal = console()
    table = Table(
        title=f"{figures[0].images} images, differences from the checkpoint",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("file", no_wrap=True)
    for heading in COLUMNS:
        table.add_column(heading, justify="left" if heading == "form" else "right")
    for of_file in figures:
        values = [getattr(of_file, name) for name in COLUMNS.values()]
        table.add_row(Text("/".join(Path(of_file.file).parts[-2:])), *map(_cell, COLUMNS, values))
    terminal.print(table)
    for of_file, of_export, export in zip(figures, differences, exports, strict=True):
        for note in notes(of_file, of_export, export):
            terminal.print(note)
    if without_labels:
        terminal.print(
            f"The checkpoint has no threshold, as no validation was run: {' and '.join(without_labels)} mean nothing."
        )
    for sentence in failed or ["All within the tolerances."]:
        terminal.print(sentence)


def notes(parity: Parity, differences: Sequence[ImageDifference], export: Export) -> list[str]:
    """Notes on the comparison of an export.

    Args:
        parity: Its results.
        differences: Differences of all images.
        export: The export.

    Returns:
        Sentences.
    """
    said = []
    if parity.largest_score_difference:
        said.append(f"{export.path}: the largest difference of a score is that of {parity.worst_image}.")
    if borderline := [one.image for one in differences if one.label is False and one.borderline]:
        said.append(
            f"{export.path}: {len(borderline)} labels differ on images whose score equals the threshold within "
            f"score_tolerance, such as {borderline[0]}."
        )
    if cut := sum(one.expected.pred_score == one.found.pred_score in {0, 1} for one in differences):
        said.append(
            f"{export.path}: {cut} of {len(differences)} scores are cut off at 0 or 1, as anomalib's post-processor "
            "does: their differences cannot be measured."
        )
    if lost := [one.image for one in differences if one.score == 0 and math.isnan(one.expected.pred_score or 0)]:
        said.append(
            f"{export.path}: {len(lost)} of {len(differences)} scores are NaN in the checkpoint too, such as that of "
            f"{lost[0]}. They count as equal, but mean nothing."
        )
    if export.size is not None:
        size = " x ".join(map(str, export.size))
        said.append(f"{export.path} accepts only images of {size}: others were resized first, with antialiasing.")
    if export.form != "FP32":
        said.append(f"{export.path} is in {export.form}, which rounds: choose tolerances for it.")
    return said


def write(
    output: Path, figures: Sequence[Parity], ckpt_path: Path, tolerances: Tolerances, failed: Sequence[str]
) -> None:
    """Write the results.

    Args:
        output: A .json file, or a .csv file with a row for each export.
        figures: Results of every export.
        ckpt_path: The checkpoint.
        tolerances: Largest accepted differences.
        failed: Differences beyond them.
    """
    rows = [asdict(of_file) for of_file in figures]
    if output.suffix == ".json":
        # JSON has no infinite numbers, and null says that there was nothing to compare.
        rows = [{name: "Infinity" if value == math.inf else value for name, value in row.items()} for row in rows]
        named = {f"{field.name}_tolerance": getattr(tolerances, field.name) for field in fields(tolerances)}
        write_json({"checkpoint": str(ckpt_path), **named, "exports": rows, "failures": list(failed)}, output)
        return
    table = pd.DataFrame(rows)
    write_text(output, lambda file: table.to_csv(file, index=False, lineterminator="\r\n"))


def _cell(heading: str, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{100 * value:.4g} %" if heading.startswith("same") else f"{value:.2g}"
