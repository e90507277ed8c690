# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Moments summed up batch by batch against NumPy's of all vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_hgad.models.hgad.moments import ClassMoments, sum_up

pytestmark = pytest.mark.usefixtures("seeded")

CLASSES = torch.tensor([0, 2, 2, 0, 2])
"""Of five images; no image is of class 1."""


def vectors(shift: float = 0.0) -> torch.Tensor:
    return torch.randn(5, 6, 3) * torch.tensor([1.0, 5.0, 0.1]) + shift


def summed_up(images: torch.Tensor, batch: int) -> ClassMoments:
    moments = ClassMoments(3, 3, torch.device("cpu"))
    for rows in torch.arange(len(images)).split(batch):
        moments.add(images[rows], CLASSES[rows])
    return moments


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_moments_of_every_class_are_numpys(batch: int, shift: float) -> None:
    """However the images are batched, far from zero too."""
    images = vectors(shift)
    counts, means, covariances = summed_up(images, batch).gaussians()
    assert counts.tolist() == [12, 0, 18]
    for index in (0, 2):
        rows = images[index == CLASSES].flatten(0, 1).double().numpy()
        np.testing.assert_allclose(means[index].numpy(), rows.mean(axis=0), rtol=1e-10)
        np.testing.assert_allclose(covariances[index].numpy(), np.cov(rows.T, bias=True), rtol=1e-6, atol=1e-9)


def test_pooled_moments_are_those_of_all_vectors() -> None:
    images = vectors()
    mean, covariance = summed_up(images, 2).gaussians().pooled()
    rows = images.flatten(0, 1).double().numpy()
    np.testing.assert_allclose(mean.numpy(), rows.mean(axis=0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(covariance.numpy(), np.cov(rows.T, bias=True), rtol=1e-10)


def test_mapped_moments_are_those_of_mapped_vectors() -> None:
    images, matrix, shift = vectors().double(), torch.randn(3, 3).double(), torch.randn(3).double()
    mapped = summed_up(images, 5).gaussians().mapped(matrix, shift)
    expected = summed_up(images @ matrix.mT + shift, 5).gaussians()
    for one, other in zip(mapped, expected, strict=True):
        torch.testing.assert_close(one[[0, 2]], other[[0, 2]])


def test_features_that_no_gaussian_can_be_fitted_to() -> None:
    with pytest.raises(ValueError, match="Expected features of at least one image, got none"):
        ClassMoments(3, 3, torch.device("cpu")).gaussians()
    images = vectors()
    images[1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match="Features have NaN or infinite values"):
        summed_up(images, 5).gaussians()


def test_levels_are_summed_up_each_by_itself() -> None:
    batches = [
        ([torch.randn(b, 20, 3) + 2, torch.randn(b, 4, 2)], torch.zeros(b, dtype=torch.int64)) for b in (2, 3, 1)
    ]
    levels = sum_up(iter(batches), 1, (3, 2), torch.device("cpu"))
    for level, gaussians in enumerate(levels):
        mean, covariance = gaussians.pooled()
        rows = np.concatenate([vectors[level].flatten(0, 1).numpy() for vectors, _ in batches]).astype(np.float64)
        np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-10)
        np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-8, atol=1e-10)
