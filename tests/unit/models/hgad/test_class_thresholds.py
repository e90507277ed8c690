# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""One threshold that stands for one of each class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_hgad.models.hgad.calibration import ScoreCalibration
from anomalib_hgad.models.hgad.class_thresholds import ClassThresholds


def test_nothing_is_shifted_at_first() -> None:
    scores = torch.randn(1000) * torch.logspace(-8, 8, 1000)
    assert torch.equal(ClassThresholds(2)(scores, torch.arange(1000) % 2), scores)


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_decision_is_that_of_the_class(size: float) -> None:
    """In NumPy's float64. The score that is the threshold is not above it, whatever the rounding."""
    rng = np.random.default_rng(0)
    classes = 500
    own = torch.tensor(rng.normal(size=classes) * size, dtype=torch.float32)
    common = torch.tensor(rng.normal() * size, dtype=torch.float32)
    thresholds = ClassThresholds(classes)
    thresholds.update(own, common, torch.arange(classes), 0.05)
    index = torch.arange(classes)
    assert not (thresholds(own, index) > common).any()
    scores = own.double().numpy() + size * rng.choice([-1, 1], classes) * rng.uniform(1e-5, 3, classes)
    above = thresholds(torch.tensor(scores, dtype=torch.float32), index) > common
    np.testing.assert_array_equal(above.numpy(), scores > own.double().numpy())
    assert 100 < above.sum() < 400
    assert torch.equal(thresholds.images, index)


def test_rounding_would_lift_some_thresholds_above_that_of_all() -> None:
    """The reason for the search in update."""
    rng = np.random.default_rng(0)
    own, common = torch.tensor(rng.normal(size=500), dtype=torch.float32), torch.tensor(0.3)
    assert (own + (common - own) > common).any()


def test_same_thresholds_shift_nothing() -> None:
    thresholds = ClassThresholds(3)
    thresholds.update(torch.full((3,), 1.7), torch.tensor(1.7), torch.ones(3), 0.1)
    assert not thresholds.shift.any()
    assert thresholds.rate.tolist() == pytest.approx([0.1] * 3)


def test_maps_are_not_shifted() -> None:
    calibration = ScoreCalibration(2, 1)
    scores, maps, classes = torch.tensor([1.0, 2.0]), torch.rand(2, 1, 4, 4), torch.tensor([1, 0])
    before = calibration(scores, maps, classes)
    calibration.class_thresholds.update(torch.tensor([3.0, 5.0]), torch.tensor(4.0), torch.ones(2), 0.1)
    image_scores, shifted_maps = calibration(scores, maps, classes)
    assert torch.equal(shifted_maps, before[1])
    assert image_scores.tolist() == [0.0, 3.0]
    calibration.class_thresholds.clear()
    assert torch.equal(calibration(scores, maps, classes)[0], before[0])
    assert not any(buffer.any() for buffer in calibration.class_thresholds.buffers())
