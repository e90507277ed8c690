# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Table with the decision on every image of a test or a prediction, for reports and other programs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_hgad.common.files import write_text
from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.evaluation.spreadsheets import as_count, as_number, as_truth, read_rows

if TYPE_CHECKING:  # a program on a line writes such tables without PyTorch
    import torch
    from anomalib.data import ImageBatch

PREDICTIONS_FILE = "predictions.csv"
"""File that a test writes."""

PREDICTED_FILE = "predicted.csv"
"""File that a prediction writes: anomalib gives it the same folder as a test on the same datamodule."""


@dataclass(frozen=True)
class Prediction:
    """Prediction of a model for an image; unknown values are ``None``.

    Attributes:
        image_path: Its file.
        mask_path: File of its mask.
        class_name: Its true class.
        pred_class_name: The inferred class.
        gt_label: Whether it is anomalous.
        pred_label: Whether it was predicted anomalous; meaningless for an image predicted unknown.
        pred_score: Post-processed score.
        raw_score: Score before post-processing.
        novelty: How much less typical it is than normal images of its class; above 1 it is predicted unknown.
        scored_class_name: The class whose scale and threshold apply to the score.
        defect_kind: Kind of its defect, if it was predicted anomalous in a class with known defects.
        pixel_true_positives: Pixels in both its mask and the predicted one.
        pixel_false_positives: Pixels in the predicted mask only.
        pixel_false_negatives: Pixels in its mask only.
        model: Identity of the exported file that a watch scored it with.
    """

    image_path: str
    mask_path: str | None
    class_name: str | None
    pred_class_name: str | None
    gt_label: bool | None
    pred_label: bool | None
    pred_score: float | None
    raw_score: float | None
    novelty: float | None
    scored_class_name: str | None = None
    defect_kind: str | None = None
    pixel_true_positives: int | None = None
    pixel_false_positives: int | None = None
    pixel_false_negatives: int | None = None
    model: str | None = None

    @property
    def called_unknown(self) -> bool:
        """Whether it was predicted to show an unknown product: neither good nor a defect of a known one."""
        return self.pred_class_name == UNKNOWN

    @property
    def raises_alarm(self) -> bool:
        """Whether it was predicted to show a defect of a known product."""
        return bool(self.pred_label) and not self.called_unknown


PIXEL_COLUMNS = ["pixel_true_positives", "pixel_false_positives", "pixel_false_negatives"]
"""Additional columns of the table of a test, which need masks."""

WATCH_COLUMNS = ["verdict", "time", "model", "error"]
"""Additional columns of ``anomalib-hgad watch``. An image with an error has no prediction."""

COLUMNS = [field.name for field in fields(Prediction) if field.name not in {*PIXEL_COLUMNS, *WATCH_COLUMNS}]
"""Columns of all tables."""

KINDS: dict[str, Callable[[str], float | None]] = {
    "gt_label": as_truth,
    "pred_label": as_truth,
    "pred_score": as_number,
    "raw_score": as_number,
    "novelty": as_number,
    **dict.fromkeys(PIXEL_COLUMNS, as_count),
}
"""Functions that read the columns that are not text."""


def predictions_of_batch(batch: ImageBatch, raw_score: torch.Tensor | None = None) -> list[Prediction]:
    """Return the predictions for a batch of images whose files are known.

    Args:
        batch: Batch with predictions.
        raw_score: Scores before the post-processing, shape (B,), of a batch without a field for them.
            Defaults to ``None``, not known.

    Returns:
        One for each image; none if the files are not known.
    """
    paths = batch.image_path or []
    columns = {
        # anomalib's batches turn every path into text, even a missing one.
        "mask_path": [None if path in {"", "None"} else path for path in batch.mask_path or [""] * len(paths)],
        "class_name": _column(batch, "class_name", len(paths)),
        "pred_class_name": _column(batch, "pred_class_name", len(paths)),
        "gt_label": _column(batch, "gt_label", len(paths)),
        "pred_label": _column(batch, "pred_label", len(paths)),
        "pred_score": _column(batch, "pred_score", len(paths)),
        "raw_score": _column(batch, "raw_score", len(paths), raw_score),
        "novelty": _column(batch, "novelty", len(paths)),
        "scored_class_name": _column(batch, "scored_class_name", len(paths)),
        "defect_kind": _column(batch, "defect_kind", len(paths)),
    }
    rows = (
        Prediction(str(path), **{name: values[row] for name, values in columns.items()})
        for row, path in enumerate(paths)
    )
    return [row if row.defect_kind and row.raises_alarm else replace(row, defect_kind=None) for row in rows]


def _column(batch: ImageBatch, name: str, length: int, otherwise: torch.Tensor | None = None) -> list[Any]:
    if (values := getattr(batch, name, None)) is None:
        values = otherwise
    if values is None:
        return [None] * length
    # Some models of anomalib give a column of scores, shape (B, 1).
    return list(values) if isinstance(values, list) else values.flatten().tolist()


def write_predictions(predictions: Iterable[Prediction], folder: Path, name: str = PREDICTIONS_FILE) -> None:
    """Write a table of predictions; an interrupted write leaves no partial file.

    Args:
        predictions: Rows of the file.
        folder: Folder of the run.
        name: Name of the file.
    """
    import pandas as pd  # noqa: PLC0415 - takes half a second, which reading tables does not need

    columns = [*COLUMNS, *PIXEL_COLUMNS] if name == PREDICTIONS_FILE else COLUMNS
    table = pd.DataFrame(map(asdict, predictions), columns=columns, dtype=object)
    # With another line terminator, a carriage return in a file name would be written without quotes.
    write_text(folder / name, lambda file: table.to_csv(file, index=False, lineterminator="\r\n"))


def read_predictions(folder: Path) -> list[Prediction]:
    """Read what :func:`write_predictions` wrote.

    Args:
        folder: Folder of the run.

    Returns:
        The rows.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it has other columns.
    """
    path = folder / PREDICTIONS_FILE
    if not path.is_file():
        msg = f"{path} is missing. `anomalib test` and the test after `anomalib train` write it; give the folder of "
        msg += "such a run."
        raise FileNotFoundError(msg)
    return read_table(path)


def read_table(path: Path) -> list[Prediction]:
    """Read a table of predictions of a test, a prediction or a watch, even if a spreadsheet has saved it again.

    Args:
        path: The file.

    Returns:
        The rows, without those of images that a watch could not read.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not such a table, has other columns, or cells that cannot be read.
    """
    try:
        rows = read_rows(path, COLUMNS, list(KINDS), [PIXEL_COLUMNS, WATCH_COLUMNS])
        return [_prediction(number, row) for number, row in enumerate(rows, start=1) if not row.get("error")]
    except (ValueError, csv.Error) as error:
        msg = f"{path} is not a table of predictions: {error}"
        raise ValueError(msg) from error


def _prediction(number: int, row: dict[str, str]) -> Prediction:
    values: dict[str, Any] = {name: row.get(name) or None for name in (*COLUMNS, "model")}
    for name, kind in KINDS.items():
        try:
            values[name] = kind(row.get(name, ""))
        except ValueError as error:
            msg = f"row {number}, {name}: {error}."
            raise ValueError(msg) from error
    if values["image_path"] is None:
        msg = f"row {number} has no image_path."
        raise ValueError(msg)
    return Prediction(**values)
