# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Figures of classes and of all images, against counted pairs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUROC, F1Score, create_anomalib_metric
from anomalib.models.components import AnomalibModule
from torchmetrics.classification import BinaryConfusionMatrix, BinaryROC

from anomalib_hgad.data.batch import NO_CLASS, ClassImageBatch
from anomalib_hgad.evaluation.class_metric import FalseAlarmRate
from anomalib_hgad.evaluation.default_metrics import RETURNED, ClassAccuracy, default_test_metrics
from anomalib_hgad.evaluation.evaluator import ClassEvaluator

NAMES = ["bolt", "nut", "bolt", "gear", "nut", "bolt", "gear", "bolt"]
LABELS = [False, False, True, True, False, True, True, False]
SCORES = [0.3, 0.6, 0.9, 0.7, 0.1, 0.2, 0.4, 0.15]
INFERRED = ["bolt", "bolt", "bolt", "gear", "nut", "nut", "gear", "bolt"]
CLASSES = ["bolt", "gear", "nut"]


def counted_auroc(chosen: list[int]) -> float:
    """Share of the pairs of a normal and an anomalous image of which the anomalous one has the higher score."""
    normal, anomalous = ([SCORES[row] for row in chosen if LABELS[row] == label] for label in (False, True))
    return float(np.mean([high > low for low in normal for high in anomalous]))


def batch_of(rows: list[int], **fields: Any) -> ClassImageBatch:
    return ClassImageBatch(
        image=torch.zeros(len(rows), 3, 2, 2),
        gt_label=torch.tensor([LABELS[row] for row in rows]),
        pred_score=torch.tensor([SCORES[row] for row in rows]),
        class_name=[NAMES[row] for row in rows],
        **{
            "class_index": torch.tensor([CLASSES.index(NAMES[row]) for row in rows]),
            "pred_class_index": torch.tensor([CLASSES.index(INFERRED[row]) for row in rows]),
        }
        | fields,
    )


def run_test(evaluator: ClassEvaluator, *batches: ClassImageBatch) -> tuple[dict[str, float], dict[str, float]]:
    """Test without a model; gives what a test would return, and the other figures that a trainer keeps."""
    returned: dict[str, float] = {}
    evaluator.log = returned.__setitem__
    trainer = SimpleNamespace(
        test_dataloaders=[],
        barebones=False,
        callback_metrics={},
        loggers=[],
        is_global_zero=True,
        progress_bar_callback=None,
    )
    evaluator.on_test_epoch_start(trainer, None)
    for number, batch in enumerate(batches):
        evaluator.on_test_batch_end(trainer, None, None, batch, number)
    evaluator.on_test_epoch_end(trainer, None)
    return returned, {name: float(value) for name, value in trainer.callback_metrics.items()}


def evaluate(*batches: ClassImageBatch) -> tuple[ClassEvaluator, dict[str, float], dict[str, float]]:
    """Test with two metrics."""
    metrics = [AUROC(fields=["pred_score", "gt_label"], prefix="image_"), ClassAccuracy(strict=False)]
    evaluator = ClassEvaluator(test_metrics=metrics)
    return evaluator, *run_test(evaluator, *batches)


def test_figure_is_there_where_it_is_defined() -> None:
    """AUROC needs normal and anomalous images; which classes are inferred right can be said of one class alone."""
    evaluator, returned, others = evaluate(batch_of([0, 1, 2, 3]), batch_of([4, 5, 6, 7]))
    bolts = [0, 2, 5, 7]
    assert evaluator.results.classes == {
        "bolt": {"image_AUROC": pytest.approx(counted_auroc(bolts)), "ClassAccuracy": 0.75},
        "gear": {"image_AUROC": None, "ClassAccuracy": 1.0},
        "nut": {"image_AUROC": None, "ClassAccuracy": 0.5},
    }
    assert counted_auroc(bolts) == 0.75
    assert returned == {
        "image_AUROC": pytest.approx(0.75),
        "ClassAccuracy": pytest.approx((0.75 + 1.0 + 0.5) / 3),
    }
    assert others == {
        "image_AUROC_pooled": pytest.approx(counted_auroc([*range(8)])),
        "ClassAccuracy_pooled": 0.75,
        "image_AUROC_bolt": pytest.approx(0.75),
        "ClassAccuracy_bolt": 0.75,
        "ClassAccuracy_gear": 1.0,
        "ClassAccuracy_nut": 0.5,
    }


@pytest.mark.parametrize("rows", [[0, 1, 4, 7], [2, 3, 5, 6]], ids=["normal", "anomalous"])
def test_images_of_one_kind_have_no_auroc(rows: list[int]) -> None:
    """A test returns nan all the same: its keys are those of any other."""
    evaluator, returned, others = evaluate(batch_of(rows))
    assert evaluator.results.pooled["image_AUROC"] is None
    assert evaluator.results.pooled["ClassAccuracy"] is not None
    assert math.isnan(returned["image_AUROC"])
    assert not [name for name in others if name.startswith("image_AUROC")]


def test_image_of_none_of_the_classes_counts_where_no_class_is_needed() -> None:
    batch = batch_of([0, 1, 2, 3])
    batch.class_index[1] = NO_CLASS
    evaluator, *_ = evaluate(batch)
    assert evaluator.results.classes.keys() == {"bolt", "gear"}
    assert evaluator.results.pooled == {"image_AUROC": pytest.approx(counted_auroc([0, 1, 2, 3])), "ClassAccuracy": 1}


def test_images_without_class_names_are_one_class() -> None:
    batch = batch_of([*range(8)], class_index=None, pred_class_index=None)
    batch.class_name = None
    evaluator, *_ = evaluate(batch)
    expected = pytest.approx(counted_auroc([*range(8)]))
    assert evaluator.results.classes == {"0": {"image_AUROC": expected, "ClassAccuracy": None}}


def test_f1_of_pixels_at_the_limits_of_the_classes_by_hand() -> None:
    """2 TP / (2 TP + FP + FN) of the marked pixels, beside that at the post-processor's threshold."""
    metrics = {metric.name: metric for metric in default_test_metrics()}
    truth, limit, threshold = (
        torch.tensor(rows, dtype=torch.bool).view(2, 2, 2)
        for rows in (
            [1, 1, 0, 0, 0, 1, 0, 0],
            [1, 0, 1, 0, 0, 1, 0, 0],  # 2 of 3 found, 1 wrongly
            [1, 1, 1, 1, 1, 1, 1, 1],
        )
    )
    evaluator = ClassEvaluator(test_metrics=[metrics[name] for name in ("normal_limit_pixel_F1Score", "pixel_F1Score")])
    batch = batch_of([0, 2], gt_mask=truth, limit_mask=limit, pred_mask=threshold)
    returned, _ = run_test(evaluator, batch)
    assert returned["normal_limit_pixel_F1Score"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert returned["pixel_F1Score"] == pytest.approx(2 * 3 / (2 * 3 + 5))


def test_models_without_limits_have_no_figure_of_them() -> None:
    fields = {"gt_mask": torch.tensor([[[0, 1], [1, 0]]] * 4).bool(), "pred_mask": torch.ones(4, 2, 2).bool()}
    maps = {"anomaly_map": torch.rand(4, 2, 2), "pred_label": torch.tensor([True] * 4)}
    returned, others = run_test(ClassEvaluator(), batch_of([0, 2, 5, 7], **fields, **maps))
    assert "pixel_F1Score" in returned
    assert not [name for name in returned | others if name.startswith("normal_limit")]


def test_rate_of_false_alarms_needs_normal_images_alone() -> None:
    """Rows 0 and 7 are normal bolts, 1 and 4 normal nuts; gears are all anomalous."""
    evaluator = ClassEvaluator(test_metrics=[FalseAlarmRate(strict=False)])
    rows = (([0, 1, 2, 3], [1, 0, 1, 1]), ([4, 5, 6, 7], [0, 1, 1, 0]))
    batches = [batch_of(images, pred_label=torch.tensor(alarms).bool()) for images, alarms in rows]
    _, others = run_test(evaluator, *batches)
    assert {name: row["FalseAlarmRate"] for name, row in evaluator.results.classes.items()} == {
        "bolt": 0.5,
        "nut": 0.0,
        "gear": None,
    }
    assert evaluator.results.mean == {"FalseAlarmRate": 0.25}
    assert evaluator.results.pooled == {"FalseAlarmRate": 0.25}
    assert "FalseAlarmRate_gear" not in others


def test_default_test_returns_the_keys_of_anomalibs_own_models() -> None:
    """Its benchmark puts runs of any models into one table."""
    assert {metric.name for metric in AnomalibModule.configure_evaluator().test_metrics} == RETURNED
    masks = torch.tensor([[[0, 1], [1, 0]]] * 4).bool()
    fields = {"anomaly_map": torch.rand(4, 2, 2), "pred_label": torch.tensor([True] * 4), "pred_mask": masks}
    batch = batch_of([0, 1, 2, 3], **fields)
    assert run_test(ClassEvaluator(), batch)[0].keys() == {"image_AUROC", "image_F1Score"}  # without masks as there
    batch = batch_of([0, 1, 2, 3], **fields, gt_mask=masks)
    assert run_test(ClassEvaluator(), batch)[0].keys() == RETURNED


def test_without_a_trainer_the_metrics_themselves_have_the_figures() -> None:
    """As anomalib's tiled ensemble asks them; its scores go beyond 0 and 1, its batches have no classes."""
    evaluator = ClassEvaluator()
    for rows in ([0, 1, 2], [3, 4, 5, 6, 7]):
        batch = ImageBatch(
            image=torch.zeros(len(rows), 3, 2, 2),
            gt_label=torch.tensor([LABELS[row] for row in rows]),
            pred_score=torch.tensor([10 * SCORES[row] - 2 for row in rows]),
            pred_label=torch.tensor([SCORES[row] > 0.25 for row in rows]),
        )
        evaluator.on_test_batch_end(None, None, None, batch=batch, batch_idx=0)
    figures = {metric.name: metric.compute().item() for metric in evaluator.test_metrics}
    assert figures == {
        "image_AUROC": pytest.approx(counted_auroc([*range(8)])),
        "image_F1Score": pytest.approx(2 * 3 / (2 * 3 + 2 + 1)),  # 3 hits, 2 false alarms, 1 miss
        "FalseAlarmRate": 2 / 4,
    }


def test_without_a_trainer_a_field_that_a_metric_insists_on_is_named() -> None:
    evaluator = ClassEvaluator(test_metrics=AUROC(fields=["pred_score", "gt_label"]))
    with pytest.raises(ValueError, match="pred_score"):
        evaluator.on_test_batch_end(None, None, None, ImageBatch(image=torch.zeros(1, 3, 2, 2)), 0)


def test_metrics_of_one_name_are_refused() -> None:
    """One of them would have no value."""
    metrics = [F1Score(fields=["pred_label", "gt_label"]), F1Score(fields=["pred_mask", "gt_mask"])]
    for given in ({"test_metrics": metrics}, {"val_metrics": metrics}):
        with pytest.raises(ValueError, match=r"2 metrics have the name F1Score: .* Give each a prefix"):
            ClassEvaluator(**given)


class Broken(AUROC):
    """A metric that cannot be computed from what it was given."""

    def compute(self) -> torch.Tensor:
        msg = "out of range"
        raise ValueError(msg)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (create_anomalib_metric(BinaryROC), "BinaryROC is no single number, and is left out of the results"),
        (create_anomalib_metric(BinaryConfusionMatrix), "BinaryConfusionMatrix is no single number"),
        (Broken, "Broken has no value: out of range"),
    ],
)
def test_metric_without_a_number_leaves_the_others(metric: Any, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is computed at the end of a test, whose figures would be lost."""
    fields = ["pred_score", "gt_label"]
    evaluator = ClassEvaluator(test_metrics=[metric(fields=fields), AUROC(fields=fields, prefix="image_")])
    returned, _ = run_test(evaluator, batch_of([0, 2, 5, 7]))
    assert returned["image_AUROC"] == counted_auroc([0, 2, 5, 7])
    assert math.isnan(returned[metric(fields=fields).name])
    assert caplog.text.count(message) == 1
