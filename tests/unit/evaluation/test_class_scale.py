# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Scales of classes, against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from anomalib_hgad.evaluation.class_scale import PRIOR_IMAGES, drawn_together, scale_of_pixels, scale_of_scores


def tensors(classes: list[list[float]]) -> list[torch.Tensor]:
    return [torch.tensor(of_class, dtype=torch.float64) for of_class in classes]


def drawn_by_hand(deviations: list[float], freedom: list[int]) -> list[float]:
    typical = np.exp(np.average(np.log(deviations), weights=freedom))
    weight = np.array(freedom) / (np.array(freedom) + PRIOR_IMAGES)
    return (np.array(deviations) ** weight * typical ** (1 - weight)).tolist()


def test_scores_by_hand() -> None:
    classes = [[-3.0, -1.0, -2.0, -2.5], [10.0, 30.0, 20.0]]
    scale = scale_of_scores(tensors(classes), torch.cat(tensors(classes)))
    assert scale.location.tolist() == pytest.approx([-2.25, 20.0, float(np.median(np.concatenate(classes)))])
    deviations = [
        math.sqrt(math.pi / 2) * math.sqrt(len(c) / (len(c) - 1)) * np.mean(np.abs(np.array(c) - np.median(c)))
        for c in classes
    ]
    assert scale.spread[:2].tolist() == pytest.approx(drawn_by_hand(deviations, [3, 2]))


def test_deviation_of_many_gaussian_scores_is_theirs() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(7, 3, 20_000))
    scale = scale_of_scores([scores], scores)
    assert scale.location.tolist() == pytest.approx([7, 7], abs=0.1)
    assert scale.spread.tolist() == pytest.approx([3, 3], rel=0.02)


def test_two_images_spread_on_average_as_many_do() -> None:
    """The expected value for two Gaussian scores is their standard deviation."""
    draws = torch.from_numpy(np.random.default_rng(1).normal(size=(4000, 2)))
    spreads = [float(scale_of_scores([pair], pair).spread[-1]) for pair in draws]
    assert np.mean(spreads) == pytest.approx(1, abs=4 * np.std(spreads) / math.sqrt(4000))


def test_one_odd_image_among_a_few_moves_the_scale_less_than_mean_and_deviation() -> None:
    rng = np.random.default_rng(2)
    others = [rng.normal(0, 1, 20).tolist() for _ in range(4)]
    odd = [-0.5, 0.0, 0.5, 1.0, 50.0]
    scale = scale_of_scores(tensors([odd, *others]), torch.cat(tensors([odd, *others])))
    assert scale.location[0] == 0.5
    assert 1 < scale.spread[0] < 0.5 * np.std(odd)


@pytest.mark.parametrize(("shift", "factor"), [(0.0, 1e3), (-500.0, 1.0), (3.0, 1e-4)])
def test_calibrated_scores_do_not_depend_on_the_units_of_the_model(shift: float, factor: float) -> None:
    classes = tensors([[1.0, 2.0, 4.0], [-10.0, 30.0, 20.0, 21.0], [0.5]])
    moved = [shift + factor * of_class for of_class in classes]
    one, two = (scale_of_scores(scores, torch.cat(scores)) for scores in (classes, moved))
    for before, after in zip(classes, moved, strict=True):
        expected = (before[:, None] - one.location) / one.spread
        assert torch.allclose((after[:, None] - two.location) / two.spread, expected, rtol=1e-9)


def test_pixels_by_hand() -> None:
    rng = np.random.default_rng(3)
    maps = [rng.normal(mean, width, (count, 8, 8)) for mean, width, count in ((5, 1, 3), (-2, 4, 6))]
    moments = [
        torch.from_numpy(np.stack((of_class.mean((1, 2)), (of_class**2).mean((1, 2))), axis=1)) for of_class in maps
    ]
    scale = scale_of_pixels(moments, torch.cat(moments))
    together = np.concatenate(maps)
    assert scale.location.tolist() == pytest.approx([maps[0].mean(), maps[1].mean(), together.mean()])
    assert scale.spread[:2].tolist() == pytest.approx(drawn_by_hand([maps[0].std(), maps[1].std()], [3, 6]))
    assert scale.spread[2] == pytest.approx(together.std())


@pytest.mark.parametrize("alike", [[2.0], [2.0, 2.0, 2.0], []])
def test_a_class_that_does_not_tell_its_spread_has_the_typical_one(alike: list[float]) -> None:
    classes = tensors([[1.0, 2.0, 4.0], alike])
    scale = scale_of_scores(classes, torch.cat(classes))
    assert scale.spread[1] == pytest.approx(float(scale.spread[0]))  # that of the only other class
    assert scale.location[1] == 2.0


def test_a_single_image_has_a_positive_spread() -> None:
    one = torch.tensor([5.0], dtype=torch.float64)
    assert scale_of_scores([one], one).spread.tolist() == [1.0, 1.0]


def test_two_classes_of_one_image_have_the_spread_of_both() -> None:
    classes = tensors([[0.0], [2.0]])
    scale = scale_of_scores(classes, torch.cat(classes))
    assert scale.spread.tolist() == pytest.approx(3 * [math.sqrt(math.pi / 2) * math.sqrt(2)])


def test_trust_grows_with_the_images() -> None:
    deviations = torch.tensor([1.0, 100.0, 10.0], dtype=torch.float64)
    few, many = (drawn_together(deviations, torch.tensor([n, n], dtype=torch.float64)) for n in (1, 1000))
    assert few[:2].tolist() == pytest.approx([10 ** (5 / 6), 10 ** (7 / 6)])
    assert many[:2].tolist() == pytest.approx([1, 100], rel=0.02)
    assert few[2] == many[2] == 10
