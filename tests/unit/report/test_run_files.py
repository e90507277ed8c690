# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of what is read of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from anomalib_hgad import Hgad
from anomalib_hgad.common.files import write_json
from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.evaluation.predictions import Prediction, read_predictions, write_predictions
from anomalib_hgad.models.hgad.novelty import NOVELTY_LIMIT
from anomalib_hgad.report.run_files import CHECKPOINT, read_run

pytestmark = pytest.mark.slow


def test_decisions_of_a_test(run: Path, data: Path) -> None:
    rows = read_predictions(run)
    classes = {folder.name for folder in data.iterdir()}
    assert len(classes) == 3
    assert len(rows) == 12
    assert {row.class_name for row in rows} == classes
    for row in rows:
        assert Path(row.image_path).is_file()
        assert row.gt_label == ("/crack/" in row.image_path)
        assert (row.mask_path is not None) == (row.gt_label and row.class_name != "washer")
        assert row.pred_class_name in {*classes, UNKNOWN}
        assert (row.pred_class_name == UNKNOWN) == (row.novelty > NOVELTY_LIMIT)
        assert 0 <= row.pred_score <= 1
        assert row.pred_label == (row.pred_score > 0.5)
    model = Hgad.load_from_checkpoint(run / CHECKPOINT)
    threshold = float(model.post_processor.image_threshold)
    assert [row.raw_score > threshold for row in rows] == [row.pred_label for row in rows]


def test_threshold_is_where_labels_change_with_a_sensitivity(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    content = torch.load(run / CHECKPOINT, weights_only=True)
    content["anomalib_post_processor_config"]["image_sensitivity"] = 0.8
    torch.save(content, tmp_path / "run" / CHECKPOINT)
    processor = read_run(tmp_path / "run").model.post_processor
    width = processor.image_max - processor.image_min
    expected = read_run(run).threshold - 0.3 * float(width)
    assert read_run(tmp_path / "run").threshold == pytest.approx(expected)


def test_images_that_are_gone(run: Path, tmp_path: Path) -> None:
    rows = read_predictions(run)
    shutil.copytree(run, tmp_path / "run")
    lost = [Prediction(**(vars(row) | {"image_path": f"/nowhere/{index}.png"})) for index, row in enumerate(rows)]
    write_predictions(lost, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"12 of 12 tested images do not exist, such as /nowhere/0\.png"):
        read_run(tmp_path / "run")


def test_test_of_another_checkpoint_is_told(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where only a threshold differs; that of the training itself is of the checkpoint."""
    assert not read_run(run).tested_another
    assert "used another model" not in caplog.text
    shutil.copytree(run, tmp_path / "run")
    content = torch.load(run / CHECKPOINT, weights_only=True)
    content["state_dict"]["post_processor._image_threshold"] += 0.1
    torch.save(content, tmp_path / "run" / CHECKPOINT)
    assert read_run(tmp_path / "run").tested_another
    assert "the last test in this folder used another model than" in caplog.text


def test_test_of_an_earlier_version_says_nothing(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    del results["model"]
    write_json(results, tmp_path / "run/results.json")
    assert not read_run(tmp_path / "run").tested_another
