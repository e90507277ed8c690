# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds from normal images alone."""

import logging
import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

from anomalib_hgad import NormalPostProcessor
from anomalib_hgad.evaluation.threshold import SCALE_REACH, images_needed, normal_threshold


def validate(post_processor, scores, labels, model=None):
    maps = scores.view(-1, 1, 1) * torch.tensor([[0.2, 1.0], [0.5, 0.0]])
    batch = SimpleNamespace(pred_score=scores, gt_label=labels, anomaly_map=maps, gt_mask=None)
    post_processor.on_validation_batch_end(None, model, batch)
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
    assert "rate may be up to 0.100. Take 19 or more" in caplog.text


def test_no_normal_images():
    with pytest.raises(ValueError, match="val_split_mode=from_train"):
        validate(NormalPostProcessor(), torch.ones(3), torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("rate", [0, 1, -0.1])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match="0 < false_positive_rate < 1"):
        NormalPostProcessor(rate)
