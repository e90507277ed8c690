# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Means and covariances of the vectors of every class, accumulated batch by batch.

The memory does not depend on the number of images: K (D + 1)^2 numbers of 8 bytes per level.

Dimensions: B images, n vectors of an image, K classes, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import distributed


class Gaussians(NamedTuple):
    """Moments of the vectors of a level.

    Attributes:
        counts: Number of vectors of each class, shape (K,).
        means: Their means, shape (K, D); zeros for a class without vectors.
        covariances: Their covariances, shape (K, D, D), likewise.
    """

    counts: torch.Tensor
    means: torch.Tensor
    covariances: torch.Tensor

    def of_classes(self, classes: Sequence[int]) -> Gaussians:
        """Return the moments of some of the classes."""
        return Gaussians(*(moments[list(classes)] for moments in self))

    def pooled(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean, shape (D,), and covariance, shape (D, D), of the vectors of all classes together."""
        weights = self.counts / self.counts.sum()
        mean = weights @ self.means
        spread = self.means - mean
        within = torch.einsum("k,kde->de", weights, self.covariances)
        return mean, within + torch.einsum("k,kd,ke->de", weights, spread, spread)

    def mapped(self, matrix: torch.Tensor, shift: torch.Tensor) -> Gaussians:
        """Return the moments of the vectors W x + b.

        Args:
            matrix: W, shape (d, D).
            shift: b, shape (d,).

        Returns:
            The moments.
        """
        return Gaussians(self.counts, self.means @ matrix.mT + shift, matrix @ self.covariances @ matrix.mT)


class ClassMoments:
    """Accumulates the moments of the vectors of a level.

    Args:
        num_classes: K.
        dim: D.
        device: Device of the sums, on which the processes of a distributed run exchange them.
    """

    def __init__(self, num_classes: int, dim: int, device: torch.device) -> None:
        # The first row of a class holds count and sums, the others the products.
        self._sums = torch.zeros(num_classes, dim + 1, dim + 1, dtype=torch.float64, device=device)

    def add(self, vectors: torch.Tensor, class_index: torch.Tensor) -> None:
        """Add the vectors of some images.

        Args:
            vectors: Feature vectors, shape (B, n, D).
            class_index: Classes of the images, int64, shape (B,).
        """
        rows = vectors.double()
        rows = torch.cat((torch.ones_like(rows[..., :1]), rows), dim=-1)
        self._sums.index_add_(0, class_index, rows.mT @ rows)

    def gaussians(self) -> Gaussians:
        """Return the moments over the vectors of all processes; all of them must call this together.

        Raises:
            ValueError: If there are no vectors, or if some have NaN or infinite values.
        """
        sums = self._sums.clone()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        counts = sums[:, 0, 0]
        if not counts.sum():
            msg = "Expected features of at least one image, got none. Add normal images to the training data."
            raise ValueError(msg)
        if not sums.isfinite().all():
            msg = "Features have NaN or infinite values. Correct the images or the backbone's weights."
            raise ValueError(msg)
        sums = sums / counts.clamp(min=1).view(-1, 1, 1)
        means = sums[:, 0, 1:]
        covariances = sums[:, 1:, 1:] - means.unsqueeze(2) * means.unsqueeze(1)
        return Gaussians(counts, means, covariances)


def sum_up(
    batches: Iterable[tuple[Sequence[torch.Tensor], torch.Tensor]],
    num_classes: int,
    dims: Sequence[int],
    device: torch.device,
) -> list[Gaussians]:
    """Compute the moments of the vectors of all levels, over the batches of all processes.

    Args:
        batches: Batches of this process, possibly none: vectors of each level, shapes (B, n, D), and the classes of
            the images, int64, shape (B,).
        num_classes: K.
        dims: D of every level.
        device: Device of the sums.

    Returns:
        The moments of every level.

    Raises:
        ValueError: If there are no vectors, or if some have NaN or infinite values.
    """
    levels = [ClassMoments(num_classes, dim, device) for dim in dims]
    for vectors, class_index in batches:
        for level, of_level in zip(levels, vectors, strict=True):
            level.add(of_level, class_index)
    return [level.gaussians() for level in levels]
