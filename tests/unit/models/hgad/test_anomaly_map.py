# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the anomaly map against NumPy, SciPy and torch.distributions, and numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from anomalib.models.components.filters.blur import GaussianBlur2d
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from anomalib_hgad.models.hgad.anomaly_map import (
    QUANTITIES,
    AnomalyMapGenerator,
    LevelConstants,
    LevelScores,
    ScoreKind,
    class_contrast,
    class_posterior,
    image_score,
    median,
    normality,
    standardized,
)
from tests.helpers.flows import random_covariance

pytestmark = pytest.mark.usefixtures("seeded")

KINDS = pytest.mark.parametrize("score", ["sum", "product", "log_likelihood", "entropy", "standardized", "contrast"])
GRIDS = [(4, 6), (2, 2)]


def random_levels(images: int) -> list[LevelScores]:
    """Scores of two levels."""
    return [
        LevelScores(
            torch.randn(images, height * width).double() - 1,
            torch.randn(images, height * width).double(),
            -torch.rand(images, height * width).double(),
            (height, width),
        )
        for height, width in GRIDS
    ]


def random_constants(images: int) -> LevelConstants:
    """Maxima above some scores and below others; where the scores lie, and how wide."""
    shape = (images, len(GRIDS), len(QUANTITIES))
    maximum = torch.randn(shape).double()
    maximum[..., 2] = -torch.rand(shape[:2]).double() / 2
    return LevelConstants(maximum, torch.randn(shape).double(), torch.rand(shape).double() + 0.1)


def maxima(log_likelihood: torch.Tensor, negative_entropy: torch.Tensor) -> LevelConstants:
    """Constants of a score that is measured against maxima, of images by levels."""
    nan = torch.full_like(log_likelihood, torch.nan)
    largest = torch.stack((log_likelihood, nan, negative_entropy), dim=-1)
    return LevelConstants(largest, torch.full_like(largest, torch.nan), torch.full_like(largest, torch.nan))


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
    levels, constants = random_levels(2), random_constants(2)
    actual = AnomalyMapGenerator(score, image_size).double()(levels, constants, size)
    for image in range(2):
        maximum, mean, deviation = (of_images[image].numpy() for of_images in constants)
        a, c, e = ([level[index][image].numpy().reshape(level.grid) for level in levels] for index in range(3))
        s_a, s_e = (
            map_by_hand(
                [np.exp(np.minimum(0, values - maximum[level, index])) for level, values in enumerate(of_levels)],
                size,
                image_size,
            )
            for index, of_levels in ((0, a), (2, e))
        )
        d_a, d_c = (
            # Two levels of normality 1 - d turn over to the sum of the d.
            map_by_hand(
                [1 - (mean[level, index] - values) / deviation[level, index] for level, values in enumerate(of_levels)],
                size,
                image_size,
            )
            for index, of_levels in ((0, a), (1, c))
        )
        expected = {
            "sum": s_a + s_e,
            "product": s_a * s_e,
            "log_likelihood": s_a,
            "entropy": s_e,
            "standardized": d_a,
            "contrast": d_a + d_c,
        }[score]
        np.testing.assert_allclose(actual[image, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("score", "expected"), [("sum", 1.25), ("product", 0.375), ("log_likelihood", 0.5), ("entropy", 0.75)]
)
def test_map_of_one_position_by_hand(score: ScoreKind, expected: float) -> None:
    """a lies ln 2 and e lies ln 4 below the largest: the normalities are 1/2 and 1/4."""
    a_max, e_max = torch.tensor([[-1.3]]), torch.tensor([[-0.1]])
    level = LevelScores(a_max - math.log(2), torch.full((1, 1), 7.0), e_max - math.log(4), (1, 1))
    anomaly_map = AnomalyMapGenerator(score, (32, 32))([level], maxima(a_max, e_max), (32, 32))
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 32, 32), expected))


@pytest.mark.parametrize(("score", "expected"), [("standardized", 3.0), ("contrast", 7.0)])
def test_map_in_standard_deviations_of_one_position_by_hand(score: ScoreKind, expected: float) -> None:
    """a lies 3 deviations of 0.5, and c 4 of 0.25, below the mean."""
    level = LevelScores(torch.full((1, 1), -2.5), torch.full((1, 1), 1.0), torch.full((1, 1), -7.0), (1, 1))
    mean, deviation = torch.tensor([[[-1.0, 2.0, 0.0]]]), torch.tensor([[[0.5, 0.25, 1.0]]])
    constants = LevelConstants(torch.full_like(mean, torch.nan), mean, deviation)
    anomaly_map = AnomalyMapGenerator(score, (32, 32))([level], constants, (32, 32))
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 32, 32), expected))


def test_map_of_two_levels_by_hand() -> None:
    """Normalities 1/2 and 1 of 2, 1/4 and 1/5 of 2: S_a = 2 - 1.5, S_e = 2 - 0.45."""
    levels = [
        LevelScores(torch.full((1, 1), a).log(), torch.zeros(1, 1), torch.full((1, 1), e).log(), (1, 1))
        for a, e in ((0.5, 0.25), (1.0, 0.2))
    ]
    zero = torch.zeros(1, 2)
    anomaly_map = AnomalyMapGenerator("product", (16, 16))(levels, maxima(zero, zero), (16, 16))
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 16, 16), 0.5 * 1.55))
    anomaly_map = AnomalyMapGenerator("sum", (16, 16))(levels, maxima(zero, zero), (16, 16))
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 16, 16), 0.5 + 1.55))


def test_values_above_the_largest_of_training_count_as_one() -> None:
    actual = normality(torch.tensor([[2.0, 0.0, -1.0], [2.0, 3.0, 1.0]]), torch.tensor([0.0, 3.0]))
    torch.testing.assert_close(actual, torch.tensor([[1.0, 1.0, math.exp(-1)], [math.exp(-1), 1.0, math.exp(-2)]]))


def test_standardized_by_hand() -> None:
    actual = standardized(torch.tensor([[2.0, 5.0], [2.0, 5.0]]), torch.tensor([3.0, 1.0]), torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(actual, torch.tensor([[2.0, -4.0], [-0.5, -2.0]]))


@pytest.mark.parametrize("others", [1, 2, 5])
def test_contrast_equals_torchs_and_scipys(others: int) -> None:
    """The log-ratio of a density and R times the density of an even mixture of R others."""
    dim = 3
    of_classes = MultivariateNormal(
        torch.randn(others + 1, dim).double(), torch.stack([random_covariance(dim) for _ in range(others + 1)])
    )
    mixture = MixtureSameFamily(
        Categorical(torch.ones(others).double()),
        MultivariateNormal(of_classes.loc[1:], of_classes.covariance_matrix[1:]),
    )
    z = torch.randn(4, 7, dim).double()
    log_densities = of_classes.log_prob(z.unsqueeze(-2))
    actual = class_contrast(log_densities[..., 0], log_densities[..., 1:])
    expected = log_densities[..., 0] - mixture.log_prob(z) - math.log(others)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    by_scipy = log_densities[..., 0].numpy() - logsumexp(log_densities[..., 1:].numpy(), axis=-1)
    np.testing.assert_allclose(actual.numpy(), by_scipy, rtol=1e-12, atol=1e-12)
    assert actual.std() > 0.1


def test_contrast_by_hand() -> None:
    """0.6 beside 0.1 + 0.2: twice as likely; far away, where densities are 0 in floating point, too."""
    a, of_others = torch.tensor([[0.6, 0.6]]).log(), torch.tensor([[[0.1, 0.2], [0.2, 0.4]]]).log()
    torch.testing.assert_close(class_contrast(a, of_others), torch.tensor([[math.log(2), 0.0]]))
    torch.testing.assert_close(
        class_contrast(a - 1e4, of_others - 1e4), torch.tensor([[math.log(2), 0.0]]), atol=2e-3, rtol=0
    )


def test_contrast_of_the_only_class_is_zero() -> None:
    assert torch.equal(class_contrast(torch.randn(2, 5), torch.empty(2, 5, 0)), torch.zeros(2, 5))


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_median_is_torchs(size: int, dim: int) -> None:
    """The lower one of an even number."""
    shape = [3, 4, 5]
    shape[dim] = size
    values = torch.randn(shape).double()
    assert torch.equal(median(values, dim=dim), values.median(dim=dim).values)


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.02, 0.3, 1.0])
def test_image_score_is_the_mean_of_the_largest_pixels(share: float) -> None:
    """Pixels sorted by NumPy."""
    maps = torch.randn(3, 1, 20, 15).double()
    pixels = np.sort(maps.numpy().reshape(3, -1), axis=1)[:, ::-1]
    count = max(1, round(300 * share))
    np.testing.assert_allclose(image_score(maps, share).numpy(), pixels[:, :count].mean(axis=1), rtol=1e-12)


def test_image_score_by_hand() -> None:
    maps = torch.tensor([[4.0, 1.0, 3.0, 2.0], [-1.0, -4.0, -2.0, -8.0]]).view(2, 1, 2, 2)
    assert image_score(maps, 0.0).tolist() == [4, -1]
    assert image_score(maps, 0.5).tolist() == [3.5, -1.5]
    assert image_score(maps, 1.0).tolist() == [2.5, -3.75]


@KINDS
def test_constants_of_one_class_serve_all_images(score: ScoreKind) -> None:
    levels, constants = random_levels(3), random_constants(1)
    generator = AnomalyMapGenerator(score, (64, 64)).double()
    expected = generator(levels, LevelConstants(*(of_class.expand(3, -1, -1) for of_class in constants)), (32, 32))
    torch.testing.assert_close(generator(levels, constants, (32, 32)), expected, rtol=0, atol=1e-12)


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
    levels, constants = random_levels(4), random_constants(4)
    generator = AnomalyMapGenerator(score, (64, 64)).double()
    together = generator(levels, constants, (32, 32))
    for index in range(4):
        rows = slice(index, index + 1)
        alone = [LevelScores(*(tensor[rows] for tensor in level[:3]), level.grid) for level in levels]
        expected = generator(alone, LevelConstants(*(of_images[rows] for of_images in constants)), (32, 32))
        torch.testing.assert_close(together[rows], expected, rtol=0, atol=1e-12)
    assert (together[0] - together[1]).abs().max() > 0.01


@pytest.mark.parametrize(("score", "sign"), [("standardized", 0), ("contrast", -1)])
def test_contrast_counts_where_it_is_asked_for(score: ScoreKind, sign: int) -> None:
    """A position less like its own class, beside the others, is more anomalous."""
    levels, constants = random_levels(1), random_constants(1)
    generator = AnomalyMapGenerator(score, (16, 16)).double()
    higher = [level._replace(contrast=level.contrast + 1) for level in levels]
    change = generator(higher, constants, (8, 8)) - generator(levels, constants, (8, 8))
    expected = sign * (1 / constants.deviation[0, :, 1]).sum()
    torch.testing.assert_close(change, torch.full_like(change, 1) * expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("image_size", [(256, 256), (64, 96), (100, 80), (16, 16)])
def test_two_narrow_blurs_equal_anomalibs_wide_one(image_size: tuple[int, int]) -> None:
    """Sigma is 4 for 256 pixels and grows with the image."""
    image = torch.rand(2, 1, *image_size)
    expected = GaussianBlur2d(sigma=min(image_size) / 64)(image)
    torch.testing.assert_close(AnomalyMapGenerator("product", image_size).blur(image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("score", ["product", "contrast"])
def test_map_is_made_in_full_precision_under_autocast(score: ScoreKind) -> None:
    """One minus a normality near 1, or a small distance, leaves nothing in half precision."""
    levels = [LevelScores(*(values.float() / 100 for values in level[:3]), level.grid) for level in random_levels(2)]
    zero = torch.zeros(2, 2, 3)
    arguments = levels, LevelConstants(zero, zero, zero + 1e-2), (32, 32)
    generator = AnomalyMapGenerator(score, (64, 64))
    expected = generator(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        actual = generator(*arguments)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)
