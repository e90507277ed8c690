# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Counts of each product in tables of predictions: a table is a period, such as a day or a shift."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.evaluation.predictions import PREDICTED_FILE, PREDICTIONS_FILE, Prediction, read_table

logger = logging.getLogger(__name__)


@dataclass
class ProductImages:
    """Images of a product in a period.

    Attributes:
        normal: Number of images predicted normal.
        anomalous: Number of images predicted anomalous.
        novelty: Sum of the novelty of all of them: a defect hardly changes it, and after a large drift every image of
            the product is predicted anomalous.
    """

    normal: int = 0
    anomalous: int = 0
    novelty: float = 0.0

    @property
    def count(self) -> int:
        """Number of images."""
        return self.normal + self.anomalous


@dataclass
class Period:
    """A table of predictions.

    Attributes:
        table: The table, or the folder it is in, as given.
        label: Short name that distinguishes it from the other tables.
        images: Number of images.
        unknown: How many of them are of no known product.
        products: Images of each product that was seen, by its name.
        models: Identities of the exported files that a watch scored its images with.
    """

    table: Path
    label: str
    images: int = 0
    unknown: int = 0
    products: dict[str, ProductImages] = field(default_factory=lambda: defaultdict(ProductImages))
    models: set[str] = field(default_factory=set)


def read_periods(paths: Sequence[Path], names: Sequence[str]) -> list[Period]:
    """Read tables of predictions one by one: only one is in memory at a time.

    Warn if they are of different models, or if images are in several of them or several times in one.

    Args:
        paths: Tables, or folders of runs that contain one each, in chronological order.
        names: Names of the products that the model knows.

    Returns:
        The periods, in the same order.

    Raises:
        FileNotFoundError: If a table does not exist.
        ValueError: If two are the same file, or if one is not a table of a model that knows these products.
    """
    files = [table_file(path) for path in paths]
    places: dict[Path, Path] = {}
    for path, file in zip(paths, files, strict=True):
        first = places.setdefault(file.resolve(), path)
        if first is not path:
            msg = f"{first} and {path} are the same table. Give a separate table for every period."
            raise ValueError(msg)
    periods = []
    seen: dict[int, Path] = {}
    for path, file, label in zip(paths, files, labels(paths), strict=True):
        rows = read_table(file)
        check_rows(file, rows, names)
        warn_of_copies(path, rows, seen)
        periods.append(summed_up(Period(path, label), rows))
    if len(set().union(*(period.models for period in periods))) > 1:
        logger.warning(
            "The images were scored by different exported files: %s. Novelty is on the scale of its checkpoint: if the "
            "files are of different checkpoints, only tables of the given one can be compared.",
            "; ".join(f"{period.table} by {', '.join(sorted(period.models))}" for period in periods if period.models),
        )
    return periods


def table_file(path: Path) -> Path:
    """The table of a path.

    Args:
        path: The table, or the folder that it is in.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the folder contains two.
    """
    if path.is_file():
        return path
    found = [file for name in (PREDICTED_FILE, PREDICTIONS_FILE) if (file := path / name).is_file()]
    if not found:
        msg = f"{path} is not a table of predictions and contains none: expected {PREDICTED_FILE} of "
        msg += f"`anomalib predict`, or {PREDICTIONS_FILE} of `anomalib test`."
        raise FileNotFoundError(msg)
    if len(found) > 1:
        msg = f"{path} contains two tables, of a prediction and of a test: name one of {PREDICTED_FILE} and "
        msg += f"{PREDICTIONS_FILE} in it."
        raise ValueError(msg)
    return found[0]


def check_rows(file: Path, rows: Sequence[Prediction], names: Sequence[str]) -> None:
    """Check that a table has the required values for every image.

    Args:
        file: The table.
        rows: Its rows.
        names: Names of the products that the model knows.

    Raises:
        ValueError: If it has no rows, lacks values, or names another product.
    """
    if not rows:
        msg = f"{file} has no images. Leave it out."
        raise ValueError(msg)
    faults: dict[str, Callable[[Prediction], bool]] = {
        "have no novelty, which only Hgad computes": lambda row: row.novelty is None,
        "have an infinite novelty": lambda row: row.novelty is not None and math.isinf(row.novelty),
        "have no inferred class, as of a single Gaussian for all products": lambda row: row.pred_class_name is None,
        "have no predicted label, as without a post-processor": lambda row: row.pred_label is None,
    }
    for fault, is_wrong in faults.items():
        if count := sum(map(is_wrong, rows)):
            msg = f"{file}: {count} of {len(rows)} images {fault}. Expected a table of Hgad with decisions."
            raise ValueError(msg)
    if others := sorted({str(row.pred_class_name) for row in rows} - {*names, UNKNOWN}):
        msg = f"{file}: the checkpoint does not know {', '.join(others)}, only {', '.join(names)}. Give the checkpoint "
        msg += "that made the table."
        raise ValueError(msg)


def warn_of_copies(path: Path, rows: Sequence[Prediction], seen: dict[int, Path]) -> None:
    """Warn if images of a table are in an earlier one or in itself too, as in a copy or a table that has grown.

    Args:
        path: The table, as given.
        rows: Its rows.
        seen: First table of every image of the earlier tables, by a hash of the file, score and novelty: an image that
            was taken anew has others, even if its file has the same name. Those of this table are added.
    """
    again: Counter[Path] = Counter()
    for row in rows:
        image = hash((row.image_path, row.pred_class_name, row.raw_score, row.novelty))
        if image in seen:
            again[seen[image]] += 1
        else:
            seen[image] = path
    for first, count in again.items():
        if count > 1:  # one may be equal by chance, as on a line at rest
            logger.warning(
                "%d of %d images of %s are already in %s, with the same score and novelty, and count twice. If the "
                "table is a copy, leave it out; if it has grown, keep only its new images.",
                count,
                len(rows),
                path,
                "it" if first is path else first,
            )


def summed_up(period: Period, rows: Sequence[Prediction]) -> Period:
    """Count the images of a table.

    Args:
        period: The period, without images.
        rows: Rows of the table, with all required values.

    Returns:
        The same period, with the images.
    """
    period.images = len(rows)
    period.models = {row.model for row in rows if row.model}
    for row in rows:
        if row.pred_class_name == UNKNOWN:
            period.unknown += 1
            continue
        product = period.products[str(row.pred_class_name)]
        if row.pred_label:
            product.anomalous += 1
        else:
            product.normal += 1
        product.novelty += row.novelty or 0.0
    return period


def labels(paths: Sequence[Path]) -> list[str]:
    """Short labels of paths: without the leading and trailing folders that all share.

    Args:
        paths: The paths, all different.

    Returns:
        The rest of each.
    """
    parts = [path.parts for path in paths]
    if len(parts) == 1:
        return [str(paths[0])]
    while all(len(rest) > 1 for rest in parts) and len({rest[0] for rest in parts}) == 1:
        parts = [rest[1:] for rest in parts]
    while all(len(rest) > 1 for rest in parts) and len({rest[-1] for rest in parts}) == 1:
        parts = [rest[:-1] for rest in parts]
    return ["/".join(rest) for rest in parts]
