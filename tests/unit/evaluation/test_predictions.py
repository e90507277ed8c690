# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the table of the decisions of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_hgad.evaluation.predictions import Prediction, read_predictions, write_predictions


def test_decisions_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        Prediction(
            image_path="a, b.png",
            mask_path=None,
            class_name=None,
            pred_class_name=None,
            gt_label=True,
            pred_label=None,
            pred_score=0.1 + 0.2,
            raw_score=None,
            novelty=None,
        ),
        Prediction(
            image_path='"c".png',
            mask_path="c_mask.png",
            class_name="bolt\nnut",
            pred_class_name="nut",
            gt_label=False,
            pred_label=True,
            pred_score=1.0,
            raw_score=-3.5,
            novelty=0.25,
        ),
    ]
    write_predictions(rows, tmp_path)
    assert read_predictions(tmp_path) == rows


def test_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns image_path"):
        read_predictions(tmp_path)
