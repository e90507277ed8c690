# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Sums over normal images against NumPy on all of their values at once."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from anomalib_hgad.models.hgad.anomaly_map import QUANTITIES, LevelScores
from anomalib_hgad.models.hgad.normal_scores import ClassValues, ImageScores, PositionScores, typicality

CPU = torch.device("cpu")
CLASSES = 4
"""Of which the last but one has no image."""


def drawn(images: int, values: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Values of images, with a place and width of each class, and the classes in no order."""
    rng = np.random.default_rng(0)
    class_index = rng.permutation(np.array([0, 1, 3])[np.arange(images) % 3])
    place, width = np.array([3.0, -40.0, 0.0, 1e3])[class_index], np.array([1.0, 7.0, 0.0, 0.1])[class_index]
    return place[:, None] + width[:, None] * rng.normal(size=(images, values)), class_index


def summed(values: np.ndarray, class_index: np.ndarray, batch: int) -> ClassValues:
    """The values, added batch by batch."""
    sums = ClassValues(CLASSES, CPU)
    for start in range(0, len(values), batch):
        rows = slice(start, start + batch)
        sums.add(torch.from_numpy(values[rows]), torch.from_numpy(class_index[rows]))
    return sums


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_moments_equal_numpy(batch: int) -> None:
    values, class_index = drawn(200)
    sums = summed(values, class_index, batch)
    for index in (0, 1, 3):
        of_class = values[class_index == index]
        assert sums.counts[index].item() == of_class.size
        assert sums.means[index].item() == pytest.approx(of_class.mean(), rel=1e-12)
        assert sums.deviations[index].item() == pytest.approx(of_class.std(), rel=1e-4)
        assert sums.squared_deviations[index].item() == pytest.approx(of_class.var() * of_class.size, rel=1e-4)
        assert sums.largest[index].item() == of_class.max()


def test_summing_up_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    """As PyTorch does, once, of operations whose interface may change."""
    torch.set_warn_always(True)
    try:
        summed(*drawn(20), batch=8)
    finally:
        torch.set_warn_always(False)
    assert not recwarn.list


def test_class_of_no_values() -> None:
    sums = summed(*drawn(200), batch=50)
    numbers = (sums.counts, sums.means, sums.squared_deviations, sums.deviations, sums.largest)
    assert [of_all[2].item() for of_all in numbers] == [0, 0, 0, 0, -np.inf]


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 5)])
def test_values_of_any_shape_and_a_batch_of_none(shape: tuple[int, ...]) -> None:
    """Maps, vectors, or one number of an image."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(5, *shape, 1)).astype(np.float32)
    sums = ClassValues(2, CPU)
    sums.add(torch.from_numpy(values), torch.tensor([1, 0, 1, 1, 0]))
    sums.add(torch.empty(0, *shape, 1), torch.empty(0, dtype=torch.int64))
    rows = values[[1, 4]].astype(np.float64)
    assert (sums.counts[0].item(), sums.means[0].item()) == (rows.size, pytest.approx(rows.mean(), rel=1e-12))


@pytest.mark.parametrize("value", [-1e6, 0.0, 1e-30, 1e6])
def test_values_that_are_all_alike_deviate_by_rounding_at_most(value: float) -> None:
    sums = summed(np.full((300, 4), value), np.zeros(300, dtype=np.int64), batch=16)
    assert sums.means[0].item() == pytest.approx(value, rel=1e-12)
    assert sums.deviations[0].item() <= 1e-7 * abs(value)


def test_classes_of_no_values_take_those_of_another() -> None:
    values, class_index = drawn(60)
    few = class_index == 0
    mine, other = summed(values[few], class_index[few], 8), summed(values + 1, class_index, 8)
    both = mine.or_else(other)
    for name in ("counts", "means", "deviations", "largest"):
        expected = [getattr(mine, name)[0].item(), *getattr(other, name)[1:].tolist()]
        assert getattr(both, name).tolist() == expected, name
    assert mine.counts[1:].tolist() == [0, 0, 0], "which stay as they are"


def random_levels(rng: np.random.Generator, images: int) -> list[LevelScores]:
    """Two levels, of 6 and of 2 positions."""
    return [
        LevelScores(*(torch.from_numpy(rng.normal(size=(images, positions))) for _ in QUANTITIES), (1, positions))
        for positions in (6, 2)
    ]


def test_position_scores_are_those_of_every_level_and_quantity() -> None:
    rng = np.random.default_rng(4)
    batches = [random_levels(rng, images) for images in (3, 1, 4)]
    class_index = [torch.tensor(rows) for rows in ([0, 2, 0], [2], [0, 0, 2, 2])]
    scores = PositionScores(3, 2, CPU)
    for levels, rows in zip(batches, class_index, strict=True):
        scores.add(levels, rows)
    all_rows = torch.cat(class_index).numpy()
    for level, of_quantities in enumerate(scores.levels):
        for quantity, moments in enumerate(of_quantities):
            values = np.concatenate([levels[level][quantity].numpy() for levels in batches])
            for index in (0, 2):
                of_class = values[all_rows == index]
                assert moments.means[index].item() == pytest.approx(of_class.mean(), rel=1e-10)
                assert moments.deviations[index].item() == pytest.approx(of_class.std(), rel=1e-10)
                assert moments.largest[index].item() == of_class.max()
    by_image = np.concatenate([typicality(levels).numpy() for levels in batches])
    assert scores.typicality.means[2].item() == pytest.approx(by_image[all_rows == 2].mean(), rel=1e-10)
    assert scores.typicality.counts.tolist() == [4, 0, 4]


def test_position_scores_of_a_class_of_no_images_come_from_another() -> None:
    rng = np.random.default_rng(5)
    first, second = PositionScores(2, 2, CPU), PositionScores(2, 2, CPU)
    first.add(random_levels(rng, 3), torch.zeros(3, dtype=torch.int64))
    second.add(random_levels(rng, 4), torch.tensor([0, 1, 1, 0]))
    both = first.or_else(second)
    for mine, its, made in zip(
        (*chain(*first.levels), first.typicality),
        (*chain(*second.levels), second.typicality),
        (*chain(*both.levels), both.typicality),
        strict=True,
    ):
        assert made.means.tolist() == [mine.means[0].item(), its.means[1].item()]
        assert made.largest.tolist() == [mine.largest[0].item(), its.largest[1].item()]


@pytest.mark.parametrize("positions", [(9, 5), (8, 5), (6, 2)])
def test_typicality_is_the_median_of_numpy(positions: tuple[int, int]) -> None:
    """The lower one of an even number of positions; the mean over the levels."""
    rng = np.random.default_rng(6)
    values = [rng.normal(size=(2, count)) for count in positions]
    zeros = [torch.zeros(2, count).double() for count in positions]
    levels = [
        LevelScores(torch.from_numpy(level), zero, zero, (1, level.shape[1]))
        for level, zero in zip(values, zeros, strict=True)
    ]
    expected = np.mean([np.quantile(level, 0.5, axis=1, method="inverted_cdf") for level in values], axis=0)
    np.testing.assert_allclose(typicality(levels).numpy(), expected, rtol=1e-12)


def test_a_defect_moves_typicality_less_than_another_product() -> None:
    rng = np.random.default_rng(7)
    normal = rng.normal(size=(1, 101))
    defect, other = normal.copy(), normal - 3
    defect[:, :20] -= 100
    zero = torch.zeros(1, 101)
    typical, of_defect, of_other = (
        typicality([LevelScores(torch.from_numpy(values), zero, zero, (1, 101))]).item()
        for values in (normal, defect, other)
    )
    assert typical - of_defect < 1
    assert typical - of_other == pytest.approx(3)


def test_scores_of_images_are_kept_by_class() -> None:
    scores = ImageScores(3)
    assert [len(of_class) for of_class in scores.of_classes()] == [0, 0, 0]
    scores.add(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 0, 2]))
    scores.add(torch.tensor([4.0]), torch.tensor([0]))
    assert [of_class.tolist() for of_class in scores.of_classes()] == [[2, 4], [], [1, 3]]
