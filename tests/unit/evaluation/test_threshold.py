# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds from normal images alone."""

import logging
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anomalib_hgad import NormalPostProcessor
from anomalib_hgad.evaluation.threshold import SCALE_REACH, class_thresholds, images_needed, normal_threshold


def validate(post_processor, scores, labels, model=None):
    maps = scores.view(-1, 1, 1) * torch.tensor([[0.2, 1.0], [0.5, 0.0]])
    batch = SimpleNamespace(pred_score=scores, gt_label=labels, anomaly_map=maps, gt_mask=None)
    post_processor.on_validation_batch_end(None, model, batch)
    post_processor.on_validation_epoch_end(None, model)


class Shifted:
    """A model of classes that keeps what it is told."""

    def __init__(self, *names):
        self.threshold_names = list(names)

    def set_class_thresholds(self, thresholds, common, images, rate):
        self.told = thresholds.tolist(), float(common), images.tolist(), rate


def validate_classes(post_processor, model, scores, labels, classes, batch=16):
    for start in range(0, len(scores), batch):
        rows = slice(start, start + batch)
        values = {"pred_score": scores[rows], "gt_label": labels[rows], "scored_class_index": classes[rows]}
        of_batch = SimpleNamespace(**values, anomaly_map=scores[rows].view(-1, 1, 1), gt_mask=None)
        post_processor.on_validation_batch_end(None, model, of_batch)
    post_processor.on_validation_epoch_end(None, model)


def test_threshold_by_hand():
    scores = torch.arange(1.0, 20.0)[torch.randperm(19)]  # 1 ... 19
    assert normal_threshold(scores, 0.05) == 19  # the 19th of 19: ceil(20 * 0.95)
    assert normal_threshold(scores, 0.1) == 18
    assert normal_threshold(scores, 0.5) == 10
    assert normal_threshold(scores, 0.001) == 19  # too few: the largest


def test_rank_is_that_of_exact_arithmetic() -> None:
    """k = ceil((n + 1)(1 - rate)) in whole numbers of thousandths; in floating point it is one too high at times."""
    wrong = 0
    for n in range(1, 500, 2):
        scores = torch.arange(1.0, n + 1)
        for thousandths in range(5, 1000, 5):
            rank = -(-(n + 1) * (1000 - thousandths) // 1000)
            assert normal_threshold(scores, thousandths / 1000) == min(rank, n), (n, thousandths)
            wrong += math.ceil((n + 1) * (1 - thousandths / 1000)) != rank
    assert wrong > 100


def test_images_that_a_rate_needs_are_those_of_exact_arithmetic() -> None:
    """The fewest n with (n + 1) rate >= 1, which are those whose rank is no more than n."""
    for thousandths in range(1, 1000):
        needed = images_needed(thousandths / 1000)
        assert (needed + 1) * thousandths >= 1000 > needed * thousandths


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_false_positive_rate_of_new_images_is_kept(rate):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, 60, generator=generator).exp()  # skewed, as scores are
    thresholds = torch.stack([normal_threshold(draw[:-1], rate) for draw in draws])
    measured = (draws[:, -1] > thresholds).double().mean()
    deviation = (rate * (1 - rate) / 4000) ** 0.5
    assert measured < rate + 3 * deviation
    assert measured > rate - 1 / 60 - 3 * deviation


@pytest.mark.parametrize("rate", [Fraction(1, 20), Fraction(1, 10), Fraction(1, 5), Fraction(1, 2)], ids=str)
def test_of_all_orders_of_n_images_and_a_new_one_as_many_exceed_as_the_rate_allows(rate):
    """Images of one source come in any order, so that each of n + 1 is the new one equally often."""
    for n in range(1, 61):
        scores = torch.arange(n + 1.0)
        exceeding = sum(
            bool(scores[new] > normal_threshold(torch.cat([scores[:new], scores[new + 1 :]]), float(rate)))
            for new in range(n + 1)
        )
        # No threshold that is one of the scores lets all images pass.
        assert exceeding == max(1, math.floor(rate * (n + 1))), n


def test_anomalies_of_the_validation_move_no_threshold():
    normal = torch.linspace(1, 2, 39)
    alone, mixed = NormalPostProcessor(0.1), NormalPostProcessor(0.1)
    validate(alone, normal, torch.zeros(39, dtype=torch.bool))
    validate(mixed, torch.cat([normal, torch.tensor([50.0, 60.0])]), torch.tensor([False] * 39 + [True] * 2))
    assert alone.image_threshold == mixed.image_threshold == normal[35]  # the 36th of 39: 40 * 0.9
    assert alone.pixel_threshold == mixed.pixel_threshold == alone.image_threshold
    assert mixed.image_max == 60


def test_scores_of_anomalies_are_not_all_one():
    post_processor = NormalPostProcessor(0.1)
    validate(post_processor, torch.linspace(1, 2, 39), torch.zeros(39, dtype=torch.bool))
    threshold = post_processor.image_threshold
    assert post_processor.image_max == pytest.approx(float(threshold + SCALE_REACH * (threshold - 1)))
    batch = SimpleNamespace(
        pred_score=torch.tensor([1.5, 3.0, 4.0]), anomaly_map=torch.zeros(3, 1, 1), pred_label=None, pred_mask=None
    )
    post_processor.post_process_batch(batch)
    assert batch.pred_label.tolist() == [False, True, True]
    assert batch.pred_score[0] < 0.5 < batch.pred_score[1] < batch.pred_score[2] < 1


@pytest.mark.parametrize("score", [20.0, 0.02, -3.0, 0.0])
@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_equal_validation_images_leave_scores_apart(score, images, jitter):
    """Scores half as large again, or a unit larger where they are 0, are neither all 1 nor all as high as one."""
    scores = torch.full((images,), score) * (1 + jitter * torch.arange(images))
    post_processor = NormalPostProcessor(0.1)
    validate(post_processor, scores, torch.zeros(images, dtype=torch.bool))
    larger = torch.tensor([0.5, 1.0, 2.0]) * (abs(score) or 1.0)
    new = torch.cat([scores[-1:] - larger.flip(0), scores[-1:], scores[-1:] + larger])
    batch = SimpleNamespace(pred_score=new, anomaly_map=new.view(-1, 1, 1), pred_label=None, pred_mask=None)
    post_processor.post_process_batch(batch)
    for normalized in (batch.pred_score, batch.anomaly_map.flatten()):
        assert ((normalized > 0) & (normalized < 1)).all()
        assert (normalized.diff() > 0.05).all()
    assert batch.pred_label.tolist() == [False] * 4 + [True] * 3


@pytest.mark.parametrize("limit", [1.0, -2.0, 1000.0])
def test_a_models_own_limit_of_pixels_is_the_threshold_of_the_maps(limit):
    """Whatever the normal maps reach; the threshold of the images stays theirs."""
    scores, labels = torch.linspace(1, 2, 39), torch.zeros(39, dtype=torch.bool)
    alone, limited = NormalPostProcessor(0.1), NormalPostProcessor(0.1)
    validate(alone, scores, labels)
    validate(limited, scores, labels, SimpleNamespace(pixel_limit=limit))
    assert limited.pixel_threshold == limit != alone.pixel_threshold
    assert limited.image_threshold == alone.image_threshold
    assert limited.pixel_max >= limit + SCALE_REACH * (limit - limited.pixel_min)
    batch = SimpleNamespace(
        pred_score=torch.tensor([1.5]),
        anomaly_map=torch.tensor([[[limit - 0.1, limit + 0.1]]]),
        pred_label=None,
        pred_mask=None,
    )
    limited.post_process_batch(batch)
    assert batch.pred_mask.tolist() == [[[False, True]]]
    assert torch.isfinite(batch.anomaly_map).all()


def test_too_few_images_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        validate(NormalPostProcessor(0.05), torch.linspace(1, 2, 9), torch.zeros(9, dtype=torch.bool))
    assert "rate may be up to 0.100. Use 19 or more" in caplog.text


def test_no_normal_images():
    with pytest.raises(ValueError, match="val_split_mode=from_train"):
        validate(NormalPostProcessor(), torch.ones(3), torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("rate", [0, 1, -0.1])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="0 < false_positive_rate < 1"):
        NormalPostProcessor(rate)


RATE = 0.1
DRAWS = (np.random.Generator.standard_normal, np.random.Generator.standard_exponential)
"""Scores of the first class and of the second one, of different tails."""


def numpy_threshold(scores, rate=RATE):
    """The k-th smallest, k = ceil((n + 1)(1 - rate))."""
    return np.sort(scores)[math.ceil(round((len(scores) + 1) * (1 - rate), 9)) - 1]


@pytest.mark.parametrize("each_class", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_rate_of_false_alarms_of_each_class_is_kept(each_class):
    """Averaged over validations; the one threshold of both classes keeps it for neither."""
    rng = np.random.default_rng(0)
    new, rounds = 40, 300
    alarms = np.zeros(2)
    for _ in range(rounds):
        of_classes = [draw(rng, 39).astype(np.float32) for draw in DRAWS]
        order = rng.permutation(78)
        scores, classes = np.concatenate(of_classes)[order], np.repeat([0, 1], 39)[order]
        model, post_processor = Shifted("bolt", "nut"), NormalPostProcessor(RATE, each_class=each_class)
        labels = torch.zeros(78, dtype=torch.bool)
        validate_classes(post_processor, model, torch.tensor(scores), labels, torch.tensor(classes))
        thresholds, common, images, rate = model.told
        assert common == post_processor.image_threshold == numpy_threshold(scores)
        expected = [numpy_threshold(s) for s in of_classes] if each_class else [common, common]
        assert thresholds == expected
        assert (images, rate) == ([39, 39], RATE)
        alarms += [np.sum(draw(rng, new) > t) for draw, t in zip(DRAWS, thresholds, strict=True)]
    # 39 images of which the 36th is the threshold: exactly a tenth, on average, with the spread of the thresholds too.
    deviation = np.sqrt(rounds * new * RATE * (1 - RATE) * (1 + new / 40))
    far = np.abs(alarms - RATE * rounds * new) > 3 * deviation
    assert far.tolist() == ([False, False] if each_class else [True, True])


def test_thresholds_of_few_images_are_no_looser_than_that_of_all():
    few = [torch.tensor([0.5, 0.1]), torch.tensor([3.0]), torch.empty(0), torch.arange(9.0)]
    assert class_thresholds(few, torch.tensor(2.0), 0.1).tolist() == [2.0, 3.0, 2.0, 8.0]


def test_classes_of_too_few_images_are_named_once(caplog):
    model, post_processor = Shifted("bolt", "nut", "gear"), NormalPostProcessor(0.05, each_class=True)
    scores = torch.linspace(1, 2, 25)
    classes = torch.tensor([0] * 19 + [1] * 6)
    with caplog.at_level(logging.WARNING):
        validate_classes(post_processor, model, scores, torch.zeros(25).bool(), classes)
    (message,) = [record.getMessage() for record in caplog.records if "in these classes" in record.getMessage()]
    assert "rate of 0.05 in these classes: nut (6, for 0.143 at the least), gear (0, for 1 at the least)." in message
    assert "Use 19 or more of each" in message
    common = float(post_processor.image_threshold)
    assert model.told[0] == [float(scores[18]), 2.0, common]
    assert model.told[2] == [19, 6, 0]


def test_anomalies_and_their_classes_move_no_threshold_of_a_class():
    scores, classes = torch.linspace(1, 2, 40), torch.arange(40) % 2
    told = []
    for high in ([], [50.0, 60.0]):
        model = Shifted("bolt", "nut")
        labels = torch.tensor([False] * 40 + [True] * len(high))
        with_high = torch.cat([scores, torch.tensor(high)]), torch.cat([classes, torch.zeros(len(high)).long()])
        validate_classes(NormalPostProcessor(0.1, each_class=True), model, with_high[0], labels, with_high[1])
        told.append(model.told)
    assert told[0] == told[1]
    assert told[0][0] == [numpy_threshold(scores[classes == k].numpy()) for k in (0, 1)]


def test_scale_is_that_of_the_shifted_scores():
    """The lowest score of the second class, shifted by as much as its threshold is above that of all."""
    model, post_processor = Shifted("bolt", "nut"), NormalPostProcessor(0.1, each_class=True)
    scores = torch.cat([torch.linspace(0, 1, 19), torch.linspace(-1, 99, 19)])
    classes = torch.arange(38) // 19
    validate_classes(post_processor, model, scores, torch.zeros(38).bool(), classes)
    thresholds, common, *_ = model.told
    shifted = scores.numpy() + (common - np.array(thresholds))[classes]
    assert post_processor.image_min == pytest.approx(shifted.min())
    assert shifted.min() == pytest.approx(-1 + common - thresholds[1])
    assert post_processor.image_max == pytest.approx(common + SCALE_REACH * (common - shifted.min()))


def test_second_validation_forgets_the_first():
    model, post_processor = Shifted("bolt", "nut"), NormalPostProcessor(0.1, each_class=True)
    labels, classes = torch.zeros(40).bool(), torch.arange(40) % 2
    validate_classes(post_processor, model, torch.linspace(5, 6, 40), labels, classes)
    validate_classes(post_processor, model, torch.linspace(1, 2, 40), labels, classes)
    assert model.told[0] == [numpy_threshold(np.linspace(1, 2, 40, dtype=np.float32)[k::2]) for k in (0, 1)]
    assert model.told[2] == [20, 20]


def test_thresholds_of_classes_are_of_the_images_of_all_processes():
    """With what another process would give put behind what this one has."""
    model, post_processor = Shifted("bolt", "nut"), NormalPostProcessor(0.1, each_class=True)
    own, other = torch.linspace(1, 2, 30), torch.linspace(3, 5, 21)
    classes = torch.arange(30) % 2
    theirs = iter([other, torch.zeros(21).long(), torch.ones(21).long()])  # all of the second class
    metric = post_processor._class_scores_metric
    metric.distributed_available_fn = lambda: True
    metric.dist_sync_fn = lambda mine, group: [mine, next(theirs)]
    validate_classes(post_processor, model, own, torch.zeros(30).bool(), classes)
    of_nut = np.concatenate([own[1::2].numpy(), other.numpy()])
    assert model.told[0] == [numpy_threshold(own[::2].numpy()), numpy_threshold(of_nut)]
    assert model.told[2] == [15, 36]


@pytest.mark.parametrize("kind", ["UniAd", "Padim"])
def test_model_that_cannot_give_classes_thresholds_is_refused(kind):
    model = type(kind, (), {})()
    NormalPostProcessor().setup(None, model, "fit")
    NormalPostProcessor(each_class=True).setup(None, Shifted("bolt"), "fit")
    with pytest.raises(ValueError, match=f"expected Hgad, or each_class=False, got {kind}"):
        NormalPostProcessor(each_class=True).setup(None, model, "fit")


def test_sensitivity_that_a_rate_does_not_hold_with_is_told(caplog: pytest.LogCaptureFixture) -> None:
    NormalPostProcessor(false_positive_rate=0.1)
    assert not caplog.text
    NormalPostProcessor(false_positive_rate=0.1, image_sensitivity=0.8)
    assert (
        "image_sensitivity=0.8 moves labels away from the threshold that keeps false_positive_rate=0.1" in caplog.text
    )
