# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""One scale for the classes of any model, against NumPy and scikit-learn; with an engine in tests/integration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.models import Padim
from sklearn.metrics import roc_auc_score

from anomalib_hgad import MultiClassCalibration, NormalPostProcessor
from anomalib_hgad.data.batch import NO_CLASS, ClassImageBatch
from anomalib_hgad.evaluation.post_processing import RawScores

SCALES = {"bolt": (100.0, 10.0), "nut": (-1.0, 0.1), "gear": (0.0, 3.0)}
"""Mean and deviation of the normal scores of each class."""

SHIFT = 4.0
"""How many deviations anomalous images are above normal ones."""

CLASSES = sorted(SCALES)


def images(count: int, seed: int, anomalous: bool = True, **fields: Any) -> ClassImageBatch:
    """Images of all classes; in the map of an anomalous one a pixel is where its score is."""
    rng = np.random.default_rng(seed)
    names = rng.choice(CLASSES, count)
    labels = rng.random(count) < 0.5 if anomalous else np.zeros(count, dtype=bool)
    mean, width = np.array([SCALES[name] for name in names]).T
    scores = mean + width * (rng.normal(size=count) + SHIFT * labels)
    maps = mean[:, None, None] + width[:, None, None] * (rng.normal(size=(count, 4, 4)))
    maps[:, 0, 0] = scores
    return ClassImageBatch(
        image=torch.zeros(count, 3, 4, 4),
        gt_label=torch.from_numpy(labels),
        class_name=names.tolist(),
        class_index=torch.tensor([CLASSES.index(name) for name in names]),
        pred_score=torch.from_numpy(scores).float(),
        anomaly_map=torch.from_numpy(maps).float().unsqueeze(1),
        **fields,
    )


def validated(*batches: ImageBatch, **settings: Any) -> MultiClassCalibration:
    post_processor = MultiClassCalibration(**settings)
    for batch in batches:
        post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(None, None)
    return post_processor


def as_tested(post_processor: MultiClassCalibration, batch: ImageBatch) -> dict[str, torch.Tensor]:
    """What metrics of the order of the scores get of a batch, which is post-processed."""
    raw = RawScores()
    trainer: Any = SimpleNamespace(callbacks=[raw, post_processor])
    raw.on_test_batch_end(trainer, None, None, batch)
    post_processor.on_test_batch_end(trainer, None, batch)
    return raw.take(batch)


def of_class(batch: ClassImageBatch, name: str) -> np.ndarray:
    return np.array(batch.class_name) == name


def test_pooled_auroc_is_that_of_the_classes() -> None:
    """Raw scores of nuts are all below those of bolts; on their own scales all classes are alike."""
    post_processor = validated(images(60, 0, anomalous=False), images(60, 1, anomalous=False))
    batch = images(2000, 2)
    before, labels = batch.pred_score.numpy().copy(), batch.gt_label.numpy()
    after = as_tested(post_processor, batch)["pred_score"].numpy()
    for name in CLASSES:
        own = of_class(batch, name)
        assert roc_auc_score(labels[own], after[own]) == roc_auc_score(labels[own], before[own])
    assert roc_auc_score(labels, before) < 0.75
    # That of a normal distribution and one that is 4 deviations above it.
    assert roc_auc_score(labels, after) == pytest.approx(0.9977, abs=0.004)


def test_scores_and_maps_by_hand() -> None:
    """(S - median) / spread, where 2000 images of a class tell its spread alone; pixels by mean and deviation."""
    normal, batch = images(6000, 0, anomalous=False), images(30, 1)
    post_processor = validated(normal)
    raw_scores, raw_maps = batch.pred_score.clone(), batch.anomaly_map.clone()
    after = as_tested(post_processor, batch)
    for name in CLASSES:
        rows, own = of_class(normal, name), of_class(batch, name)
        scores, maps = normal.pred_score.numpy()[rows], normal.anomaly_map.numpy()[rows]
        expected = (raw_scores.numpy()[own] - np.median(scores)) / scores.std()
        np.testing.assert_allclose(after["pred_score"].numpy()[own], expected, rtol=0.05, atol=0.05)
        expected = (raw_maps.numpy()[own] - maps.mean()) / maps.std()
        np.testing.assert_allclose(after["anomaly_map"].numpy()[own], expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("batch_size", [1, 7, 120])
def test_thresholds_are_those_of_the_calibrated_scores(batch_size: int) -> None:
    """NormalPostProcessor on scores that were calibrated before has the same, whatever the batches."""
    whole = images(120, 0)
    batches = [
        ClassImageBatch(
            image=whole.image[rows],
            gt_label=whole.gt_label[rows],
            class_name=whole.class_name[rows],
            pred_score=whole.pred_score[rows],
            anomaly_map=whole.anomaly_map[rows],
        )
        for start in range(0, 120, batch_size)
        for rows in [slice(start, start + batch_size)]
    ]
    post_processor = validated(*batches, false_positive_rate=0.1)
    by_hand = NormalPostProcessor(0.1)
    post_processor.calibrate(whole)
    by_hand.on_validation_batch_end(None, None, whole)
    by_hand.on_validation_epoch_end(None, None)
    for name, value in by_hand.named_buffers():
        assert getattr(post_processor, name) == pytest.approx(float(value), rel=1e-5), name
    assert (whole.pred_score > post_processor.image_threshold)[~whole.gt_label].float().mean() <= 0.1


def test_anomalous_images_set_no_scale() -> None:
    normal, mixed = images(50, 0, anomalous=False), images(50, 0, anomalous=False)
    odd = images(50, 3)
    odd.gt_label = torch.ones(50, dtype=torch.bool)
    alone, both = validated(normal), validated(mixed, odd)
    assert torch.equal(alone._class_scale, both._class_scale)


def test_images_of_no_class_or_of_a_new_one_have_the_scale_of_all() -> None:
    normal = images(200, 0, anomalous=False)
    post_processor = validated(normal)
    batch = images(3, 1)
    batch.class_name = ["other", "washer", "bolt"]
    batch.class_index = torch.tensor([NO_CLASS, 7, 0])
    raw = batch.pred_score.numpy().copy()
    after = as_tested(post_processor, batch)["pred_score"].numpy()
    scores = normal.pred_score.numpy().astype(float)
    middle = np.median(scores)
    deviation = np.sqrt(np.pi / 2 * 200 / 199) * np.abs(scores - middle).mean()
    np.testing.assert_allclose(after[:2], (raw[:2] - middle) / deviation, rtol=1e-5)
    assert batch.scored_class_name == ["", "", "bolt"]


def test_before_a_validation_nothing_changes() -> None:
    post_processor = MultiClassCalibration(enable_normalization=False, enable_thresholding=False)
    batch = images(20, 0)
    scores, maps = batch.pred_score.clone(), batch.anomaly_map.clone()
    after = as_tested(post_processor, batch)
    assert torch.equal(after["pred_score"], scores)
    assert torch.equal(after["anomaly_map"], maps)


def test_raw_score_is_the_one_that_is_compared() -> None:
    post_processor = validated(images(100, 0, anomalous=False))
    batch = images(20, 1)
    after = as_tested(post_processor, batch)
    assert torch.equal(batch.raw_score, after["pred_score"])
    assert batch.pred_score.min() >= 0  # post-processed
    assert batch.pred_score.max() <= 1
    assert after["pred_score"].max() > 1
    assert torch.equal(batch.pred_label, after["pred_score"] > post_processor.image_threshold)


def test_without_classes_of_the_images_there_is_an_explanation() -> None:
    post_processor = validated(images(50, 0, anomalous=False))
    batch = ImageBatch(image=torch.zeros(2, 3, 4, 4), pred_score=torch.rand(2), anomaly_map=torch.rand(2, 4, 4))
    with pytest.raises(ValueError, match="scales of 3 classes, but these images have no class"):
        post_processor.on_predict_batch_end(None, None, batch)


def test_inferred_class_counts_where_there_is_a_classifier() -> None:
    """Not the one that the batch gives: at the line nobody gives it."""
    post_processor = validated(images(100, 0, anomalous=False))
    one, two = images(6, 1), images(6, 1)
    post_processor._inference = SimpleNamespace(names=["nut"] * 6, class_names=CLASSES)
    two.class_name = ["nut"] * 6
    two.class_index = torch.full((6,), CLASSES.index("nut"))
    after = as_tested(post_processor, one)["pred_score"]
    post_processor._inference = None
    assert torch.equal(after, as_tested(post_processor, two)["pred_score"])


def test_a_classifier_of_other_classes_is_refused() -> None:
    post_processor = validated(images(100, 0, anomalous=False))
    post_processor._inference = SimpleNamespace(names=["bolt"] * 6, class_names=["bolt", "washer"])
    with pytest.raises(ValueError, match="knows bolt, washer, but not gear, nut of the calibration"):
        as_tested(post_processor, images(6, 1))


def test_one_class_needs_no_name() -> None:
    """As of anomalib's datamodules; it can be exported, too."""
    scores = torch.from_numpy(np.random.default_rng(0).normal(5, 2, 400)).float()
    batch = ImageBatch(image=torch.zeros(400, 3, 2, 2), pred_score=scores, gt_label=torch.zeros(400, dtype=torch.bool))
    post_processor = validated(batch)
    new = torch.tensor([5.0, 7.0, 30.0])
    predictions = post_processor(InferenceBatch(pred_score=new, anomaly_map=torch.rand(3, 1, 2, 2)))
    assert predictions.pred_label.tolist() == [False, False, True]
    plain = ImageBatch(image=torch.zeros(3, 3, 2, 2), pred_score=new)
    post_processor.on_predict_batch_end(None, None, plain)
    assert torch.equal(plain.pred_score, predictions.pred_score)


def test_a_model_without_maps_has_no_pixel_threshold() -> None:
    batch = images(50, 0, anomalous=False)
    batch.anomaly_map = None
    post_processor = validated(batch)
    assert not post_processor.image_threshold.isnan()
    assert post_processor._pixel_threshold.isnan()


def test_export_of_several_classes_is_refused() -> None:
    post_processor = validated(images(50, 0, anomalous=False))
    with pytest.raises(ValueError, match="an exported graph gets no class"):
        post_processor(InferenceBatch(pred_score=torch.rand(2), anomaly_map=torch.rand(2, 1, 2, 2)))


def test_normal_images_are_needed() -> None:
    batch = images(20, 0)
    batch.gt_label = torch.ones(20, dtype=torch.bool)
    with pytest.raises(ValueError, match="val_split_mode=from_train"):
        validated(batch)


def test_settings_and_constants_come_back() -> None:
    post_processor = validated(images(100, 0, anomalous=False), image_sensitivity=0.4)
    other = MultiClassCalibration()
    other.load_checkpoint_config(post_processor.checkpoint_config())
    other.load_state_dict(post_processor.state_dict())
    assert other.class_names == CLASSES
    one, two = images(30, 1), images(30, 1)
    post_processor.on_predict_batch_end(None, None, one)
    other.on_predict_batch_end(None, None, two)
    assert torch.equal(one.pred_score, two.pred_score)
    assert torch.equal(one.pred_label, two.pred_label)


def test_a_model_that_calibrates_itself_is_refused() -> None:
    model: Any = SimpleNamespace(threshold_names=[], set_class_thresholds=print)
    with pytest.raises(TypeError, match="calibrates the scores of its classes itself"):
        MultiClassCalibration().setup(SimpleNamespace(callbacks=[]), model, "fit")


def test_models_of_anomalib_take_it() -> None:
    model = Padim(pre_trained=False, post_processor=MultiClassCalibration())
    assert isinstance(model.configure_callbacks()[1], MultiClassCalibration)
