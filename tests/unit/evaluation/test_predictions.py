# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Decisions on images are read as they were written, whatever the files and classes are called."""

from __future__ import annotations

import csv
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

from anomalib_hgad.data.batch import ClassImageBatch
from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.evaluation.predictions import (
    PREDICTIONS_FILE,
    Prediction,
    predictions_of_batch,
    read_predictions,
    write_predictions,
)

NAMES = [
    "NA",
    "nan",
    "None",
    "True",
    "007",
    " a ",
    "a, b",
    '"a"',
    "a\nb",
    "a\rb",
    "a\r\nb",
    "Größe 产品",
    "\udcff\udc80",
]
"""What a reader might take for a missing value, a number, a border or a quote, and bytes that are no text."""


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    rows = [
        Prediction(
            *(name, name, name, name),
            gt_label=True,
            pred_label=False,
            pred_score=0.5,
            raw_score=1.0,
            novelty=0.0,
            scored_class_name=name,
            defect_kind=name,
            pixel_true_positives=0,
            pixel_false_positives=1,
            pixel_false_negatives=2**40,
        ),
        Prediction(name, None, None, None, None, None, None, None, None),
    ]
    write_predictions(rows, tmp_path)
    assert read_predictions(tmp_path) == rows
    with (tmp_path / PREDICTIONS_FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert [row["image_path"] for row in csv.DictReader(file)] == [name, name]


def test_kind_of_a_defect_is_that_of_an_alarm() -> None:
    """The model names one for every image of a class with known defects: before there is a decision."""
    batch = ClassImageBatch(image=torch.zeros(4, 3, 2, 2), image_path=[f"{number}.png" for number in range(4)])
    batch.pred_label = torch.tensor([True, False, True, True])
    batch.update(pred_class_name=["bolt", "bolt", UNKNOWN, "nut"], defect_kind=["crack", "crack", "crack", ""])
    assert [row.defect_kind for row in predictions_of_batch(batch)] == ["crack", None, None, None]
    batch.pred_label = None
    assert {row.defect_kind for row in predictions_of_batch(batch)} == {None}


def test_a_column_of_scores_is_a_score_for_each_image() -> None:
    """As anomalib's Padim and Patchcore give them."""
    batch = ClassImageBatch(image=torch.zeros(2, 3, 2, 2), image_path=["0.png", "1.png"])
    batch.pred_score = torch.tensor([[0.25], [0.75]])
    batch.pred_label = torch.tensor([[False], [True]])
    rows = predictions_of_batch(batch, raw_score=torch.tensor([[1.0], [2.0]]))
    assert [(row.pred_score, row.pred_label, row.raw_score) for row in rows] == [(0.25, False, 1.0), (0.75, True, 2.0)]


@pytest.mark.parametrize("number", [1 / 3, 0.1 + 0.2, 5e-324, -1.7976931348623157e308, 1e22, float("inf")])
def test_numbers_keep_all_their_digits(number: float, tmp_path: Path) -> None:
    rows = [Prediction("a.png", None, None, None, None, None, number, -number, None)]
    write_predictions(rows, tmp_path)
    assert read_predictions(tmp_path) == rows


@pytest.mark.parametrize("labels", [(True, False), (True, None), (None, None)])
def test_labels_are_pythons_own(labels: tuple[bool | None, bool | None], tmp_path: Path) -> None:
    """Callers ask whether one ``is False``, and not known is not false."""
    rows = [Prediction("a.png", None, None, None, label, label, None, None, None) for label in labels]
    write_predictions(rows, tmp_path)
    for row, label in zip(read_predictions(tmp_path), labels, strict=True):
        assert row.gt_label is label
        assert row.pred_label is label
        assert set(astuple(row)[6:]) == {None}


def test_a_test_without_images_has_no_rows(tmp_path: Path) -> None:
    write_predictions([], tmp_path)
    assert read_predictions(tmp_path) == []


def test_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns image_path"):
        read_predictions(tmp_path)
