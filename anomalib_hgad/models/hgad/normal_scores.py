# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Moments of the scores of normal images, class by class, accumulated batch by batch.

The memory for positions and pixels does not depend on the number of images: a few numbers for each class, level and
quantity. Of each image only the score is kept.

Dimensions: B images, n positions of an image, K classes, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed

from anomalib_hgad.common.processes import gather_objects
from anomalib_hgad.models.hgad.anomaly_map import QUANTITIES, LevelScores, median


class ClassValues:
    """Counts, sums, sums of squares and largest values of some numbers of every class.

    Args:
        num_classes: K.
        device: Device of the sums, on which the processes of a distributed run exchange them.

    Attributes:
        counts: Number of values of each class, float64, shape (K,).
        largest: Largest of them, likewise; -inf for a class without values.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._sums = torch.zeros(3, num_classes, dtype=torch.float64, device=device)
        self.largest = torch.full((num_classes,), -torch.inf, dtype=torch.float64, device=device)

    @property
    def counts(self) -> torch.Tensor:  # noqa: D102 - see the class
        return self._sums[0]

    @property
    def means(self) -> torch.Tensor:
        """Mean of each class's values, shape (K,); 0 for a class without values."""
        return self._sums[1] / self.counts.clamp(min=1)

    @property
    def squared_deviations(self) -> torch.Tensor:
        """Sum of the squared deviations from that mean, shape (K,)."""
        return (self._sums[2] - self.counts * self.means.square()).clamp(min=0)

    @property
    def deviations(self) -> torch.Tensor:
        """Standard deviation of each class's values, shape (K,)."""
        return (self.squared_deviations / self.counts.clamp(min=1)).sqrt()

    def add(self, values: torch.Tensor, class_index: torch.Tensor) -> None:
        """Add values of some images.

        Args:
            values: The values, shape (B, ...).
            class_index: Classes of the images, int64, shape (B,).
        """
        rows = values.double().flatten(1)
        count = torch.full((len(rows),), rows.shape[1], dtype=rows.dtype, device=rows.device)
        self._sums.index_add_(1, class_index, torch.stack((count, rows.sum(dim=1), rows.square().sum(dim=1))))
        self.largest.scatter_reduce_(0, class_index, rows.amax(dim=1), "amax")

    def gather(self) -> None:
        """Combine the values of all processes of a distributed run; all of them must call this together."""
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self._sums)
            distributed.all_reduce(self.largest, op=distributed.ReduceOp.MAX)

    def or_else(self, other: ClassValues) -> ClassValues:
        """Return these values, and the other's for classes that have none here."""
        result = ClassValues(self._sums.shape[1], self._sums.device)
        missing = self.counts == 0
        result._sums = torch.where(missing, other._sums, self._sums)
        result.largest = torch.where(missing, other.largest, self.largest)
        return result


class ImageScores:
    """Scores of some images, class by class.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, scores: torch.Tensor, class_index: torch.Tensor) -> None:
        """Add a batch.

        Args:
            scores: The scores, shape (B,).
            class_index: Classes of the images, int64, shape (B,).
        """
        self._batches.append((scores.double().cpu(), class_index.cpu()))

    def gather(self) -> None:
        """Combine the values of all processes of a distributed run; all of them must call this together."""
        self._batches = [batch for batches in gather_objects(self._batches) for batch in batches]

    def of_classes(self) -> list[torch.Tensor]:
        """Return the scores of every class, float64, shapes (images of the class,)."""
        scores, classes = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
        if self._batches:
            scores, classes = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        return [scores[classes == index] for index in range(self.num_classes)]


class PositionScores:
    """Moments of the scores of the positions of normal images, and of the images' typicality.

    Args:
        num_classes: K.
        num_levels: L.
        device: Device of the sums.

    Attributes:
        levels: For every level the moments of each of :data:`~anomalib_hgad.models.hgad.anomaly_map.QUANTITIES`.
        typicality: Moments of :func:`typicality`.
    """

    def __init__(self, num_classes: int, num_levels: int, device: torch.device) -> None:
        self.levels = [[ClassValues(num_classes, device) for _ in QUANTITIES] for _ in range(num_levels)]
        self.typicality = ClassValues(num_classes, device)

    def add(self, levels: Sequence[LevelScores], class_index: torch.Tensor) -> None:
        """Add a batch.

        Args:
            levels: Scores of the levels under the true class.
            class_index: True classes, int64, shape (B,).
        """
        for moments, level in zip(self.levels, levels, strict=True):
            quantities = (level.log_likelihood, level.contrast, level.negative_entropy)
            for of_quantity, values in zip(moments, quantities, strict=True):
                of_quantity.add(values, class_index)
        self.typicality.add(typicality(levels).unsqueeze(-1), class_index)

    def gather(self) -> None:
        """Combine the values of all processes of a distributed run; all of them must call this together."""
        for values in (*(of_quantity for level in self.levels for of_quantity in level), self.typicality):
            values.gather()

    def or_else(self, other: PositionScores) -> PositionScores:
        """Return these scores, and the other's for classes that have none here."""
        result = PositionScores(0, 0, self.typicality.counts.device)
        result.levels = [
            [mine.or_else(its) for mine, its in zip(*level, strict=True)]
            for level in zip(self.levels, other.levels, strict=True)
        ]
        result.typicality = self.typicality.or_else(other.typicality)
        return result


def typicality(levels: Sequence[LevelScores]) -> torch.Tensor:
    """Compute how likely most of an image is: median of a = log p(x|y) / D over the positions, mean over the levels.

    Args:
        levels: Scores of the levels.

    Returns:
        Typicalities in nats per dimension, shape (B,).
    """
    return torch.stack([median(level.log_likelihood, dim=1) for level in levels]).mean(dim=0)
