# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Figures of a test and of a validation are those of scores that nobody has cut off, against scikit-learn."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.metrics import AUPR, AUPRO, AUROC, AnomalibMetric, F1Max, F1Score, MinMax, PGn, create_anomalib_metric
from anomalib.post_processing import PostProcessor
from lightning.pytorch.trainer.states import TrainerFn
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve
from torchmetrics.classification import BinaryAveragePrecision

from anomalib_hgad.evaluation.evaluator import ClassEvaluator
from anomalib_hgad.evaluation.post_processing import labelled_above

LABELS = np.array([0, 0, 0, 1, 1, 1])
SCORES = np.array([900.0, 300.0, 100.0, 1000.0, 200.0, 950.0], dtype=np.float32)
"""Four of them are above the scale of the validation."""

RNG = np.random.default_rng(0)
MASKS = np.zeros((6, 8, 8), dtype=bool)
MASKS[3:, 1:4, 1:5] = True
MAPS = (RNG.normal(size=MASKS.shape) * 60 + 60 * MASKS + 1e5).astype(np.float32)
"""All of them too, and so large that between 0 and 1 single precision does not tell them apart."""


def post_processor() -> PostProcessor:
    """As a validation leaves it whose scores were between 0 and 200, and normal ones below 150."""
    made = PostProcessor()
    for level in ("image", "pixel"):
        getattr(made, f"{level}_min").fill_(0.0)
        getattr(made, f"{level}_max").fill_(200.0)
        getattr(made, f"_{level}_threshold").fill_(150.0)
    return made


@pytest.mark.parametrize("sensitivity", [0.2, 0.5, 0.7, 1.0])
def test_images_are_labelled_above_what_the_sensitivity_makes_of_the_threshold(sensitivity: float) -> None:
    """By hand with 0.7: 150 - 0.2 * 200 = 110."""
    made = post_processor()
    made.image_sensitivity = sensitivity
    limit = labelled_above(made)
    assert limit == pytest.approx(150 + (0.5 - sensitivity) * 200)
    scores = torch.tensor([limit - 1, limit + 1])
    labels = made(InferenceBatch(pred_score=scores, anomaly_map=scores.view(2, 1, 1, 1))).pred_label
    assert labels.tolist() == [False, True]
    assert math.isnan(labelled_above(PostProcessor()))
    assert math.isnan(labelled_above(None))


class Run:
    """Hands batches to the callbacks of a trainer, as Lightning does."""

    def __init__(self, evaluator: ClassEvaluator, processor: PostProcessor | None) -> None:
        self.evaluator, self.logged = evaluator, {}
        evaluator.log = self.logged.__setitem__
        self.module = SimpleNamespace(post_processor=processor)
        self.trainer = SimpleNamespace(
            is_global_zero=True,
            progress_bar_callback=None,
            test_dataloaders=[],
            val_dataloaders=[],
            num_devices=1,
            barebones=False,
            loggers=[],
            callback_metrics={},
            callbacks=[*([processor] if processor else []), evaluator],
        )

    def figures(self, stage: str, size: int = 2) -> dict[str, float]:
        self.evaluator.setup(self.trainer, self.module, stage)
        getattr(self.evaluator, f"on_{stage}_epoch_start")(self.trainer, self.module)
        for rows in np.split(np.arange(len(LABELS)), len(LABELS) // size):
            batch = ImageBatch(
                image=torch.zeros(len(rows), 3, 8, 8),
                gt_label=torch.from_numpy(LABELS[rows]).bool(),
                pred_score=torch.from_numpy(SCORES[rows]),
                gt_mask=torch.from_numpy(MASKS[rows]),
                anomaly_map=torch.from_numpy(MAPS[rows]),
            )
            for callback in self.trainer.callbacks:
                getattr(callback, f"on_{stage}_batch_end")(self.trainer, self.module, batch, batch, 0)
        getattr(self.evaluator, f"on_{stage}_epoch_end")(self.trainer, self.module)
        return self.logged


def region_overlap(limit: float = 0.3) -> float:
    """AUPRO of regions of equal size: the area under the ROC curve of the pixels up to a false-positive rate."""
    false, true, _ = roc_curve(MASKS.ravel(), MAPS.ravel(), drop_intermediate=False)
    inside = false <= limit
    false, true = (
        np.append(false[inside], limit),
        np.append(true[inside], np.interp(limit, false, true)),
    )
    return float(np.trapezoid(true, false) / limit)


IMAGE, PIXEL = ["pred_score", "gt_label"], ["anomaly_map", "gt_mask"]
AveragePrecision = create_anomalib_metric(BinaryAveragePrecision)
METRICS: dict[str, tuple[AnomalibMetric, float]] = {
    "AUROC": (AUROC(IMAGE), roc_auc_score(LABELS, SCORES)),
    "AUPR": (AUPR(IMAGE), average_precision_score(LABELS, SCORES)),
    "torchmetrics' own": (AveragePrecision(IMAGE), average_precision_score(LABELS, SCORES)),
    "F1Max": (F1Max(IMAGE), max(f1_score(LABELS, score <= SCORES) for score in SCORES)),
    "PGn": (PGn(IMAGE, fnr=0.4), float((SCORES[LABELS == 0] < np.quantile(SCORES[LABELS == 1], 0.4)).mean())),
    "pixel AUROC": (AUROC(PIXEL), roc_auc_score(MASKS.ravel(), MAPS.ravel())),
    "AUPRO": (AUPRO(PIXEL), region_overlap()),
}


def test_examples_are_cut_off() -> None:
    """Else the figures below would be right in any case."""
    cut = SCORES.clip(0, 200)
    assert roc_auc_score(LABELS, cut) != pytest.approx(roc_auc_score(LABELS, SCORES), abs=0.05)
    # torchmetrics' sigmoid, which a validation went through.
    squeezed = 1 / (1 + np.exp(-SCORES))
    assert roc_auc_score(LABELS, squeezed) != pytest.approx(roc_auc_score(LABELS, SCORES), abs=0.05)


@pytest.mark.parametrize("stage", ["test", "validation"])
@pytest.mark.parametrize("name", METRICS)
def test_order_of_scores_is_that_of_raw_ones(name: str, stage: str) -> None:
    metric, expected = METRICS[name]
    evaluator = ClassEvaluator(**{"val_metrics" if stage == "validation" else "test_metrics": [metric]})
    figures = Run(evaluator, post_processor()).figures(stage)
    assert figures == {metric.name: pytest.approx(expected, abs=1e-6)}


def test_metrics_of_labels_and_of_values_see_post_processed_ones() -> None:
    """F1 at 0.5, which is the threshold there; and minima and maxima between 0 and 1."""

    class Largest(MinMax):
        def compute(self) -> torch.Tensor:
            return super().compute()[1]

    metrics = [F1Score(["pred_label", "gt_label"], prefix="label_"), F1Score(IMAGE, prefix="score_"), Largest(IMAGE)]
    figures = Run(ClassEvaluator(test_metrics=metrics), post_processor()).figures("test")
    expected = f1_score(LABELS, SCORES > 150)
    assert figures == {"label_F1Score": expected, "score_F1Score": expected, "Largest": 1.0}


@pytest.mark.parametrize("processor", [PostProcessor(), PostProcessor(enable_normalization=False)])
def test_without_a_scale_figures_are_right_and_labels_absent(
    processor: PostProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    """anomalib would call all images anomalous that are above 0.5."""
    run = Run(ClassEvaluator(), processor)
    with caplog.at_level(logging.WARNING):
        figures = run.figures("test")
    assert figures["image_AUROC"] == pytest.approx(roc_auc_score(LABELS, SCORES))
    assert figures["pixel_AUROC"] == pytest.approx(roc_auc_score(MASKS.ravel(), MAPS.ravel()))
    assert math.isnan(figures["image_F1Score"])
    assert math.isnan(figures["pixel_F1Score"])
    assert run.evaluator.results.pooled["FalseAlarmRate"] is None
    assert "image_F1Score has no value: no image has pred_label" in caplog.text


@pytest.mark.parametrize(
    "metric",
    [
        F1Score(["pred_label", "gt_label"], prefix="val_image_"),
        F1Score(["pred_mask", "gt_mask"], strict=False),
        F1Score(IMAGE),
    ],
    ids=["labels", "masks", "scores"],
)
def test_metric_of_a_validation_that_needs_a_threshold_is_refused(metric: Any) -> None:
    run = Run(ClassEvaluator(val_metrics=[metric]), post_processor())
    with pytest.raises(ValueError, match=rf"val_metrics: {metric.name} of .* with a threshold, .* F1Max\("):
        run.evaluator.setup(run.trainer, run.module, TrainerFn.FITTING)
