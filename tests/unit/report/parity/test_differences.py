# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Differences of outputs, by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomalib_hgad.report.parity.differences import ImageDifference, Tolerances, compare, failures, summarise
from anomalib_hgad.report.parity.exports import Export
from anomalib_hgad.report.parity.outputs import Outputs
from anomalib_hgad.report.parity.results import notes, write

TOLERANCES = Tolerances(score=1e-3, map=1e-3, mask=0.1, label=0.0)
EXPORT = Export(Path("model.onnx"), "onnxruntime", "FP32", None, {}, lambda _: ({}, None))
HERE = Outputs(
    pred_score=0.25,
    pred_label=False,
    anomaly_map=np.array([[0.0, 0.5], [2.0, 100.0]]),
    pred_mask=np.array([[False, False], [True, True]]),
    class_name="bolt",
)


def difference(found: Outputs, expected: Outputs = HERE, name: str = "0.png") -> ImageDifference:
    return compare(Path(name), expected, found, 0.5, TOLERANCES)


def said(*differences: ImageDifference, tolerances: Tolerances = TOLERANCES) -> list[str]:
    return failures(summarise(EXPORT, differences), differences, tolerances)


def test_tensors_of_any_shape_are_of_one_image() -> None:
    taken = Outputs.of(
        {
            "pred_score": np.array([[0.25]], np.float32),
            "pred_label": np.array([0.0]),
            "anomaly_map": np.zeros((1, 1, 2, 3)),
            "pred_mask": np.ones((1, 2, 3)),
        },
        ["bolt"],
    )
    assert (taken.pred_score, taken.pred_label, taken.class_name) == (0.25, False, "bolt")
    assert taken.anomaly_map.shape == taken.pred_mask.shape == (2, 3)
    assert taken.pred_mask.dtype == bool
    assert Outputs.of({}) == Outputs(None, None, None, None, None)


def test_equal_outputs_do_not_differ() -> None:
    same = difference(HERE)
    assert (same.score, same.map, same.mask, same.label, same.class_name) == (0, 0, 0, True, True)
    assert said(same) == []


@pytest.mark.parametrize(
    ("expected", "found", "apart"),
    [
        (0.25, 0.75, 0.5),
        (-200.0, -100.0, 0.5),  # relative above 1
        (math.nan, math.nan, 0),
        (math.inf, math.inf, 0),
        (math.nan, 0.5, math.inf),
        (0.5, math.nan, math.inf),
        (0.5, math.inf, math.inf),
        (0.5, None, math.inf),
        (None, 0.5, None),
    ],
)
def test_difference_of_scores(expected: float | None, found: float | None, apart: float | None) -> None:
    here, there = replace(HERE, pred_score=expected), replace(HERE, pred_score=found)
    assert difference(there, here).score == apart


def test_difference_of_maps_is_that_of_the_worst_pixel() -> None:
    found = replace(HERE, anomaly_map=np.array([[0.25, 0.5], [1.0, 99.0]]), pred_mask=~HERE.pred_mask)
    assert difference(found).map == 0.5  # of 2.0 and 1.0, half of it
    assert difference(found).mask == 1
    one = HERE.pred_mask.copy()
    one[0, 0] = True
    assert difference(replace(HERE, pred_mask=one)).mask == 0.25
    smaller = replace(HERE, anomaly_map=np.zeros((1, 2)), pred_mask=None)
    assert difference(smaller).map == math.inf
    assert difference(smaller).mask == 1


def test_class_that_a_form_does_not_tell_is_not_compared() -> None:
    assert difference(replace(HERE, class_name=None)).class_name is None
    assert difference(replace(HERE, class_name="nut")).class_name is False
    assert difference(replace(HERE, pred_label=None)).label is False


def test_figures_of_several_images() -> None:
    images = [
        difference(replace(HERE, pred_score=0.25 + apart), name=f"{apart}.png") for apart in (0.0, 0.125, 0.5, 0.0625)
    ]
    figures = summarise(EXPORT, [*images, difference(replace(HERE, pred_label=True), name="label.png")])
    assert figures.images == 5
    assert figures.largest_score_difference == 0.5
    assert figures.median_score_difference == 0.0625
    assert figures.worst_image == "0.5.png"
    assert figures.same_label == 0.8
    assert figures.same_class == figures.same_mask == 1


def test_sentence_names_file_figure_and_image() -> None:
    (score,) = said(difference(HERE), difference(replace(HERE, pred_score=0.75), name="bad.png"))
    assert score == (
        "model.onnx (onnxruntime, FP32): pred_score of bad.png is 0.75, and 0.25 in the checkpoint: 0.5 apart, where "
        "score_tolerance=0.001; beyond it are 1 of 2 images."
    )
    (label,) = said(difference(HERE), difference(replace(HERE, pred_label=True), name="bad.png"))
    assert "pred_label of bad.png is True, and False in the checkpoint; it differs for 1 of 2 images" in label
    (kind,) = said(difference(HERE), difference(replace(HERE, class_name="nut"), name="bad.png"))
    assert "class of bad.png is nut, and bolt in the checkpoint" in kind
    (of_map,) = said(difference(HERE), difference(replace(HERE, anomaly_map=HERE.anomaly_map + 1), name="bad.png"))
    assert "anomaly_map of bad.png differs from the checkpoint's by 1, where map_tolerance=0.001" in of_map
    (mask,) = said(difference(HERE), difference(replace(HERE, pred_mask=~HERE.pred_mask), name="bad.png"))
    assert "pred_mask of bad.png differs from the checkpoint's by a share of its pixels of 1" in mask


def test_all_images_may_be_of_another_checkpoint() -> None:
    other = difference(replace(HERE, pred_score=0.75))
    assert "another checkpoint" in said(other, other)[0]
    assert "another checkpoint" not in said(other)[0]  # of one image
    assert "another checkpoint" not in said(other, difference(HERE))[0]
    figures = replace(summarise(EXPORT, [other, other]), form="INT8")
    assert "another checkpoint" not in failures(figures, [other, other], TOLERANCES)[0]


@pytest.mark.parametrize(("score", "fails"), [(0.5 + 5e-4, False), (0.5 + 5e-3, True)])
def test_label_of_a_score_at_the_threshold_is_no_other(score: float, fails: bool) -> None:
    expected = replace(HERE, pred_score=0.5)
    one = difference(replace(HERE, pred_score=score, pred_label=True), expected)
    assert one.label is False
    assert any("pred_label" in sentence for sentence in said(one)) is fails


def test_share_of_other_labels_may_be_let_pass() -> None:
    images = [difference(HERE), difference(HERE), difference(HERE), difference(replace(HERE, pred_label=True))]
    assert said(*images, tolerances=replace(TOLERANCES, label=0.25)) == []
    assert len(said(*images, tolerances=replace(TOLERANCES, label=0.24))) == 1


def test_difference_without_bound_is_valid_json(tmp_path: Path) -> None:
    """As of an output that is missing; null says that there is nothing to compare."""
    lacking = [difference(replace(HERE, pred_score=math.nan, anomaly_map=None))]
    figures = summarise(EXPORT, lacking)
    write(tmp_path / "a.json", [figures], Path("model.ckpt"), TOLERANCES, failures(figures, lacking, TOLERANCES))

    def refuse(constant: str) -> None:
        pytest.fail(constant)

    content = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    (row,) = content["exports"]
    assert row["largest_score_difference"] == row["largest_map_difference"] == "Infinity"
    assert len(content["failures"]) == 2


def test_scores_that_are_nan_in_both_are_counted() -> None:
    """They are equal, but nothing is right about them."""
    lost = replace(HERE, pred_score=math.nan)
    differences = [difference(HERE), difference(lost, lost, name="1.png"), difference(lost)]
    (note,) = [note for note in notes(summarise(EXPORT, differences), differences, EXPORT) if "NaN" in note]
    assert note.startswith("model.onnx: 1 of 3 scores are NaN in the checkpoint too, such as that of 1.png.")
