# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the anomaly map against NumPy and SciPy, and numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from anomalib.models.components.filters.blur import GaussianBlur2d
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from anomalib_hgad.models.hgad.anomaly_map import (
    AnomalyMapGenerator,
    LevelConstants,
    LevelScores,
    ScoreKind,
    class_posterior,
    normality,
)

pytestmark = pytest.mark.usefixtures("seeded")

KINDS = pytest.mark.parametrize("score", ["sum", "product", "log_likelihood", "entropy", "standardized"])
CLASSES = 3
GRIDS = [(4, 6), (2, 2)]


def random_levels(images: int) -> list[LevelScores]:
    """Scores of two levels."""
    return [
        LevelScores(
            torch.randn(images, height * width, CLASSES).double() - 1,
            -torch.rand(images, height * width).double(),
            (height, width),
        )
        for height, width in GRIDS
    ]


def random_constants() -> LevelConstants:
    """a_max and e_max, above some scores and below others; where a lies, and how wide."""
    largest = torch.randn(CLASSES, 2).double(), -torch.rand(CLASSES, 2).double() / 2
    return LevelConstants(*largest, torch.randn(CLASSES, 2).double(), torch.rand(CLASSES, 2).double() + 0.1)


def maxima(max_log_likelihood: torch.Tensor, max_negative_entropy: torch.Tensor) -> LevelConstants:
    """Constants of a score that is not standardised."""
    nan = torch.full_like(max_log_likelihood, torch.nan)
    return LevelConstants(max_log_likelihood, max_negative_entropy, nan, nan)


def one_hot(*classes: int) -> torch.Tensor:
    """Weights of known classes."""
    return F.one_hot(torch.tensor(classes), CLASSES).double()


def upsampled(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corners aligned."""
    rows, columns = (np.linspace(0, old - 1, new) for old, new in zip(grid.shape, size, strict=True))
    wide = np.stack([np.interp(columns, np.arange(grid.shape[1]), row) for row in grid])
    return np.stack([np.interp(rows, np.arange(grid.shape[0]), column) for column in wide.T], axis=1)


def map_by_hand(normalities: list[np.ndarray], size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Sum of the levels, turned over and smoothed."""
    turned_over = len(normalities) - sum(upsampled(level, size) for level in normalities)
    return gaussian_filter(turned_over, sigma=4 * min(image_size) / 256, mode="mirror", truncate=4)


@KINDS
@pytest.mark.parametrize(("size", "image_size"), [((32, 48), (64, 96)), ((64, 64), (64, 64)), ((40, 40), (128, 160))])
def test_map_equals_numpy_and_scipy(score: ScoreKind, size: tuple[int, int], image_size: tuple[int, int]) -> None:
    levels, constants = random_levels(2), random_constants()
    max_a, max_e, mean, deviation = constants
    actual = AnomalyMapGenerator(score, image_size).double()(levels, constants, one_hot(2, 0), size)
    for image, y in enumerate((2, 0)):
        a = [
            np.exp(np.minimum(0, level.log_likelihoods[image, :, y].numpy() - max_a[y, index].item()))
            for index, level in enumerate(levels)
        ]
        e = [
            np.exp(np.minimum(0, level.negative_entropy[image].numpy() - max_e[y, index].item()))
            for index, level in enumerate(levels)
        ]
        s_a, s_e = (
            map_by_hand([level.reshape(grid) for level, grid in zip(both, GRIDS, strict=True)], size, image_size)
            for both in (a, e)
        )
        distances = [
            ((mean[y, index] - level.log_likelihoods[image, :, y]) / deviation[y, index]).numpy()
            for index, level in enumerate(levels)
        ]
        # Two levels of normality 1 - d / 2 turn over to the sum of the d.
        halves = [1 - level.reshape(grid) for level, grid in zip(distances, GRIDS, strict=True)]
        expected = {
            "sum": s_a + s_e,
            "product": s_a * s_e,
            "log_likelihood": s_a,
            "entropy": s_e,
            "standardized": map_by_hand(halves, size, image_size),
        }[score]
        np.testing.assert_allclose(actual[image, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("score", "expected"), [("sum", 1.25), ("product", 0.375), ("log_likelihood", 0.5), ("entropy", 0.75)]
)
def test_map_of_one_position_by_hand(score: ScoreKind, expected: float) -> None:
    """a lies ln 2 and e lies ln 4 below the largest: the normalities are 1/2 and 1/4."""
    a_max, e_max = torch.tensor([[-1.3]]), torch.tensor([[-0.1]])
    level = LevelScores(a_max.view(1, 1, 1) - math.log(2), e_max - math.log(4), (1, 1))
    generator = AnomalyMapGenerator(score, (32, 32))
    anomaly_map = generator([level], maxima(a_max, e_max), torch.ones(1, 1), (32, 32))
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 32, 32), expected))


def test_map_of_two_levels_by_hand() -> None:
    """Normalities 1/2 and 1 of 2, 1/4 and 1/5 of 2: S_a = 2 - 1.5, S_e = 2 - 0.45."""
    levels = [
        LevelScores(torch.full((1, 1, 1), a).log(), torch.full((1, 1), e).log(), (1, 1))
        for a, e in ((0.5, 0.25), (1.0, 0.2))
    ]
    zero = torch.zeros(1, 2)
    anomaly_map = AnomalyMapGenerator("product", (16, 16))(levels, maxima(zero, zero), torch.ones(1, 1), (16, 16))
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 16, 16), 0.5 * 1.55))
    anomaly_map = AnomalyMapGenerator("sum", (16, 16))(levels, maxima(zero, zero), torch.ones(1, 1), (16, 16))
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 16, 16), 0.5 + 1.55))


def test_values_above_the_largest_of_training_count_as_one() -> None:
    a = torch.tensor([[[2.0], [0.0], [-1.0]]])
    actual = normality(a, torch.tensor([0.0]), torch.ones(1, 1))
    torch.testing.assert_close(actual, torch.tensor([[1.0, 1.0, math.exp(-1)]]))


def test_uncertain_class_blends_the_normalities() -> None:
    """3/4 of class 0 with 1/2 and 1/4 of class 1 with 1/5."""
    a = torch.tensor([[[0.5, 0.2]]]).log() + torch.tensor([3.0, -2.0])
    actual = normality(a, torch.tensor([3.0, -2.0]), torch.tensor([[0.75, 0.25]]))
    assert actual.item() == pytest.approx(0.425, rel=1e-5)


@KINDS
def test_each_image_may_have_its_own_choice_of_classes(score: ScoreKind) -> None:
    """The classes 2 and 0 of the first image, 1 and 2 of the second, against all three with the rest's weight 0."""
    levels, constants = random_levels(2), random_constants()
    generator = AnomalyMapGenerator(score, (64, 64)).double()
    choice = torch.tensor([[2, 0], [1, 2]])
    weights = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).double()
    chosen = [
        level._replace(log_likelihoods=torch.stack([a[:, index] for a, index in zip(level[0], choice, strict=True)]))
        for level in levels
    ]
    actual = generator(chosen, LevelConstants(*(of_all[choice] for of_all in constants)), weights, (32, 32))
    expected = generator(levels, constants, torch.zeros(2, 3).double().scatter(1, choice, weights), (32, 32))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("score", ["log_likelihood", "entropy", "standardized"])
def test_map_is_linear_in_the_class_weights(score: ScoreKind) -> None:
    levels, constants = random_levels(1), random_constants()
    generator = AnomalyMapGenerator(score, (64, 64)).double()
    weights = torch.tensor([[0.5, 0.2, 0.3]], dtype=torch.float64)
    of_classes = [generator(levels, constants, one_hot(y), (32, 32)) for y in range(CLASSES)]
    expected = sum(weight * of_class for weight, of_class in zip(weights[0], of_classes, strict=True))
    torch.testing.assert_close(generator(levels, constants, weights, (32, 32)), expected, rtol=0, atol=1e-12)
    assert (of_classes[0] - of_classes[1]).abs().max() > 0.01


def test_posterior_by_hand() -> None:
    """Logits of the levels add up."""
    of_levels = [[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[1.0, 0.5, 0.0], [-1.0, 2.0, 0.0]]]
    logits = np.array([[2.0, 0.5, 0.0], [-1.0, 2.0, 0.0]])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        class_posterior([torch.tensor(of_level) for of_level in of_levels]).numpy(), expected, rtol=1e-6
    )


@KINDS
def test_map_of_an_image_does_not_depend_on_the_batch(score: ScoreKind) -> None:
    levels, constants = random_levels(4), random_constants()
    generator = AnomalyMapGenerator(score, (64, 64)).double()
    weights = torch.rand(4, CLASSES).double().softmax(dim=-1)
    together = generator(levels, constants, weights, (32, 32))
    for index in range(4):
        rows = slice(index, index + 1)
        alone = [LevelScores(*(tensor[rows] for tensor in level[:2]), level.grid) for level in levels]
        expected = generator(alone, constants, weights[rows], (32, 32))
        torch.testing.assert_close(together[rows], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("image_size", [(256, 256), (64, 96), (100, 80), (16, 16)])
def test_two_narrow_blurs_equal_anomalibs_wide_one(image_size: tuple[int, int]) -> None:
    """Sigma is 4 for 256 pixels and grows with the image."""
    image = torch.rand(2, 1, *image_size)
    expected = GaussianBlur2d(sigma=min(image_size) / 64)(image)
    torch.testing.assert_close(AnomalyMapGenerator("product", image_size).blur(image), expected, rtol=0, atol=1e-5)


def test_map_is_made_in_full_precision_under_autocast() -> None:
    """One minus a normality near 1 leaves nothing in half precision."""
    levels = [
        level._replace(log_likelihoods=level.log_likelihoods.float() / 100, negative_entropy=level[1].float() / 100)
        for level in random_levels(2)
    ]
    zero = torch.zeros(CLASSES, 2)
    arguments = levels, maxima(zero, zero), one_hot(2, 0).float(), (32, 32)
    generator = AnomalyMapGenerator("product", (64, 64))
    expected = generator(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        actual = generator(*arguments)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)
