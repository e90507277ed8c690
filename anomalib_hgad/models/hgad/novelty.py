# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether an image shows a product that the model was never trained on.

A defect is somewhere in an image; another product is nearly everywhere in it. So the median over the positions tells
them apart: a defect moves it little, unless it covers half of the image.

Dimensions: B images, n positions of a level, K classes, J of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.stats import t as student_t
from torch import nn

from anomalib_hgad.common.precision import no_autocast
from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.calibration import PRIOR_IMAGES, NormalScores

NOVELTY_LIMIT = 1.0
"""Novelty above which an image is of an unknown product."""

FALSE_UNKNOWN_RATE = 1e-4
"""Share of normal images of known products above the limit, if their typicality is normally distributed."""

WIDE_MARGIN = 1e6
"""Margin in nats per dimension where no class has two images to take one from: no image is novel then."""


def typicality(levels: Sequence[LevelScores]) -> torch.Tensor:
    """How likely most of an image is: median over the positions of a = log p(x|k) / D, mean over the levels.

    Args:
        levels: Scores of the levels under J classes of each image.

    Returns:
        Typicalities in nats per dimension, shape (B, J).
    """
    return torch.stack([level.log_likelihoods.median(dim=1).values for level in levels]).mean(dim=0)


class NoveltyScale(nn.Module):
    """Measures how much less typical an image is than normal images of its class.

    Before the first :meth:`update` the scale is neutral.

    Args:
        num_classes: K.

    Attributes:
        location: Mean typicality of a class's normal images, in nats per dimension, shape (K,).
        margin: How far below it only a share of :data:`FALSE_UNKNOWN_RATE` of them is, in nats per dimension, positive,
            shape (K,).
    """

    location: torch.Tensor
    margin: torch.Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(num_classes))
        self.register_buffer("margin", torch.ones(num_classes))

    def forward(self, levels: Sequence[LevelScores], class_index: torch.Tensor) -> torch.Tensor:
        """Novelty of images under the first of their classes.

        Args:
            levels: Scores of the levels.
            class_index: Classes that these are of, the most probable one first, int64, shape (B, J).

        Returns:
            (location - typicality) / margin, higher is less known, shape (B,).
        """
        with no_autocast(self.location):
            first = class_index[:, 0]
            return (self.location[first] - typicality(levels)[:, 0]) / self.margin[first]

    def update(self, training: NormalScores, held_out: NormalScores) -> None:
        """Set the scale.

        The variance of a class is drawn towards that of all classes, which counts as much as :data:`PRIOR_IMAGES`
        images. How far from the mean of n images a new one is, over that deviation, follows Student's t.

        Args:
            training: Scores of the images that the model was trained on.
            held_out: Scores of normal images that it was not trained on. A class that has none takes its training
                images; one that has none of these either, the mean of the others.
        """
        of_classes = []
        for index in range(len(self.location)):
            batches = held_out.of_class(index) or training.of_class(index)
            of_classes.append(torch.cat([torch.empty(0), *(typicality(levels)[:, 0].float() for levels in batches)]))
        counts = torch.tensor([len(values) for values in of_classes])
        if not counts.sum():
            return
        means = torch.stack([values.sum() for values in of_classes]) / counts.clamp(min=1)
        location = torch.where(counts > 0, means, means[counts > 0].mean())
        squares = torch.stack(
            [(values - mean).square().sum() for values, mean in zip(of_classes, location, strict=True)]
        )
        freedom = (counts - 1).clamp(min=0)
        if not freedom.sum():
            self.location.copy_(location)
            self.margin.fill_(WIDE_MARGIN)
            return
        variance = (squares + PRIOR_IMAGES * squares.sum() / freedom.sum()) / (freedom + PRIOR_IMAGES)
        # A new image differs from the mean of n by its own deviation and by that of the mean.
        deviation = (variance * (1 + 1 / counts.clamp(min=1))).sqrt()
        limits = student_t.isf(FALSE_UNKNOWN_RATE, (freedom + PRIOR_IMAGES).clamp(max=freedom.sum()).numpy())
        self.location.copy_(location)
        # Images that are all alike have no deviation.
        self.margin.copy_(torch.from_numpy(limits) * deviation.clamp(min=1e-3))
