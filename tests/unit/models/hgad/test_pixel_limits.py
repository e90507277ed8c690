# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the limits of masks against scikit-learn's F1 at every possible limit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from anomalib_hgad.models.hgad.pixel_limits import PIXEL_GRID, PatchPixels, best_f1_limit, on_grid


@pytest.mark.parametrize("seed", range(5))
def test_no_limit_has_a_larger_f1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.3
    scores = np.round(rng.normal(size=60) + 1.5 * truth, 1)  # with ties
    values = np.unique(scores)
    possible = [values[0] - 1, *(values[:-1] + values[1:]) / 2]
    f1 = [f1_score(truth, scores > limit) for limit in possible]
    limit = best_f1_limit(scores, truth)
    assert f1_score(truth, scores > limit) == pytest.approx(max(f1))


def test_limit_is_half_way_between_both_sides() -> None:
    assert best_f1_limit(np.array([1.0, 2.0, 6.0, 9.0]), np.array([False, False, True, True])) == 4
    assert best_f1_limit(np.array([5.0, 5.0]), np.array([True, True])) == 5


def test_classes_have_limits_of_their_own() -> None:
    """Class 0 in ones, class 2 in hundreds, of two sizes; class 1 has images with no patch, class 3 no image."""
    pixels = PatchPixels(4)
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[:, 2:4, 3:6] = True
    maps = torch.rand(2, 1, 8, 8) + 4 * mask.unsqueeze(1)
    pixels.add(maps * torch.tensor([1, 100]).view(2, 1, 1, 1), mask, torch.tensor([0, 2]))
    pixels.add(torch.rand(1, 1, 5, 70), torch.zeros(1, 5, 70), torch.tensor([1]))
    pixels.add(torch.rand(1, 1, 5, 70), torch.zeros(1, 5, 70), torch.tensor([0]))
    limits = pixels.limits()
    assert 1 < limits[0] < 4
    assert 100 < limits[2] < 400
    assert all(math.isnan(limits[index]) for index in (1, 3))


def test_without_images_there_are_no_limits() -> None:
    assert all(math.isnan(limit) for limit in PatchPixels(2).limits())


@pytest.mark.parametrize("size", [(64, 64), (65, 30), (256, 200), (1024, 1024), (1, 7)])
def test_grid_has_at_most_its_rows_and_columns(size: tuple[int, int]) -> None:
    rows = torch.arange(size[0]).view(1, -1, 1).expand(1, *size)
    grid = on_grid(rows)
    assert max(grid.shape[1:]) <= PIXEL_GRID
    assert grid.shape[1] >= min(size[0], PIXEL_GRID // 2)
    assert (grid[0, :, 0].diff() == math.ceil(max(size) / PIXEL_GRID)).all()
