# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Precision and recall are those of scikit-learn."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.report.precision_recall import PrecisionRecall, precision_and_recall
from tests.helpers.predictions import prediction

NAMES = ["bolt", "nut"]


def run_of(rows: list[Prediction]) -> Any:
    def of_class(name: str) -> list[Prediction]:
        return [row for row in rows if row.class_name == name]

    return SimpleNamespace(class_names=NAMES, predictions=rows, of_class=of_class)


def test_of_images() -> None:
    """An anomaly of none of the classes counts for all images alone."""
    random = np.random.default_rng(0)
    rows = [
        prediction("1.png", name, anomalous=bool(random.random() < 0.4), score=float(random.random()))
        for name in (*NAMES, "spring")
        for _ in range(30)
    ]
    found = precision_and_recall(run_of(rows))
    for name, group in [*((name, [row for row in rows if row.class_name == name]) for name in NAMES), ("pooled", rows)]:
        truth, labels = [row.gt_label for row in group], [row.pred_label for row in group]
        assert found[name]["image"].precision == pytest.approx(precision_score(truth, labels))
        assert found[name]["image"].recall == pytest.approx(recall_score(truth, labels))
    for figure in ("precision", "recall"):
        mean = np.mean([getattr(found[name]["image"], figure) for name in NAMES])
        assert getattr(found["mean"]["image"], figure) == pytest.approx(mean)
    assert all("pixel" not in levels for levels in found.values())


def test_of_pixels() -> None:
    random = np.random.default_rng(0)
    rows, masks = [], []
    for number in range(8):
        true, predicted = random.random((2, 16, 16)) < 0.3
        counts = ((true & predicted).sum(), (~true & predicted).sum(), (true & ~predicted).sum())
        row = prediction("1.png", NAMES[number % 2], anomalous=True, score=1.0)
        names = ("true_positives", "false_positives", "false_negatives")
        rows.append(replace(row, **{f"pixel_{name}": int(count) for name, count in zip(names, counts, strict=True)}))
        masks.append((true.ravel(), predicted.ravel()))
    found = precision_and_recall(run_of(rows))
    for name, chosen in (("bolt", masks[::2]), ("nut", masks[1::2]), ("pooled", masks)):
        true, predicted = map(np.concatenate, zip(*chosen, strict=True))
        assert found[name]["pixel"].precision == pytest.approx(precision_score(true, predicted))
        assert found[name]["pixel"].recall == pytest.approx(recall_score(true, predicted))


@pytest.mark.parametrize(
    ("truth", "labels"),
    [([1, 1, 0], [0, 0, 0]), ([0, 0, 0], [1, 0, 0]), ([0, 0], [0, 0]), ([1, 1], [1, 1])],
)
def test_what_is_not_defined_has_no_value(truth: list[int], labels: list[int]) -> None:
    """Without anomalous images scikit-learn has a precision of 0, which says nothing of the model."""
    pairs = list(zip(truth, labels, strict=True))
    found = PrecisionRecall.of_counts(*(pairs.count(pair) for pair in ((1, 1), (0, 1), (1, 0))))
    recall = recall_score(truth, labels, zero_division=math.nan)
    precision = precision_score(truth, labels, zero_division=math.nan) if any(truth) else math.nan
    assert (found.precision is None) == math.isnan(precision)
    assert (found.recall is None) == math.isnan(recall)


def test_without_thresholds_there_is_nothing() -> None:
    rows = [replace(prediction("1.png", "bolt", anomalous=True, score=1.0), pred_label=None)]
    assert precision_and_recall(run_of(rows)) == {}


def test_mean_leaves_out_classes_without_a_value() -> None:
    values = [PrecisionRecall(0.5, None), PrecisionRecall(1.0, None), PrecisionRecall(None, None)]
    assert PrecisionRecall.mean(values) == PrecisionRecall(0.75, None)
