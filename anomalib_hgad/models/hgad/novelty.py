# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether an image shows a product that the model was never trained on.

A defect is somewhere in an image; another product is nearly everywhere in it. So the median over the positions tells
them apart: a defect moves it little, unless it covers half of the image.

Dimensions: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.stats import t as student_t
from torch import nn

from anomalib_hgad.common.precision import no_autocast
from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.calibration import PRIOR_IMAGES
from anomalib_hgad.models.hgad.normal_scores import ClassValues, typicality

NOVELTY_LIMIT = 1.0
"""Novelty above which an image is of an unknown product."""

FALSE_UNKNOWN_RATE = 1e-4
"""Share of normal images of known products above the limit, if their typicality is normally distributed."""

WIDE_MARGIN = 1e6
"""Margin in nats per dimension where no class has two images to take one from: no image is novel then."""


class NoveltyScale(nn.Module):
    """Measures how much less typical an image is than normal images of its class.

    Before the first :meth:`update` the scale is neutral.

    Args:
        num_classes: K.

    Attributes:
        location: Mean typicality of a class's normal images, in nats per dimension, shape (K,).
        margin: How far below it only a share of :data:`FALSE_UNKNOWN_RATE` of them is, in nats per dimension, positive,
            shape (K,).
        deviation: Standard deviation of the typicality of a class's normal images, drawn towards that of all classes,
            in nats per dimension, shape (K,); 0 where no class has two images to take one from.
        images: How many images location and deviation of a class come from, shape (K,).
    """

    location: torch.Tensor
    margin: torch.Tensor
    deviation: torch.Tensor
    images: torch.Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(num_classes))
        self.register_buffer("margin", torch.ones(num_classes))
        self.register_buffer("deviation", torch.zeros(num_classes))
        self.register_buffer("images", torch.zeros(num_classes))

    def forward(self, levels: Sequence[LevelScores], class_index: torch.Tensor) -> torch.Tensor:
        """Novelty of images.

        Args:
            levels: Scores of the levels under their classes.
            class_index: These classes, int64, shape (B,).

        Returns:
            (location - typicality) / margin, higher is less known, shape (B,).
        """
        with no_autocast(self.location):
            return (self.location[class_index] - typicality(levels)) / self.margin[class_index]

    def update(self, typicalities: ClassValues, others: NoveltyScale | None = None) -> None:
        """Set the scale.

        The variance of a class is drawn towards that of all classes, which counts as much as :data:`PRIOR_IMAGES`
        images. How far from the mean of n images a new one is, over that deviation, follows Student's t.

        Args:
            typicalities: Typicality of normal images, of images that the model was not trained on where there are
                any. A class of no images takes the mean of the others.
            others: Scales of other classes, whose variance these are drawn towards, in place of each other's.
        """
        counts, means, squares = typicalities.counts, typicalities.means, typicalities.squared_deviations
        if not counts.sum():
            return
        location = torch.where(counts > 0, means, means[counts > 0].mean())
        self.location.copy_(location)
        self.images.copy_(counts)
        freedom = (counts - 1).clamp(min=0)
        known = freedom.sum()
        variance_of_all = squares.sum() / known
        if others is not None and others.deviation.any():
            known = known + (others.images.double() - 1).clamp(min=0).sum()
            variance_of_all = others.deviation.double().square().mean()
        if not known:
            self.margin.fill_(WIDE_MARGIN)
            self.deviation.zero_()
            return
        variance = (squares + PRIOR_IMAGES * variance_of_all) / (freedom + PRIOR_IMAGES)
        self.deviation.copy_(variance.sqrt())
        # A new image differs from the mean of n by its own deviation and by that of the mean.
        deviation = (variance * (1 + 1 / counts.clamp(min=1))).sqrt()
        degrees = (freedom + PRIOR_IMAGES).clamp(max=known)
        limits = torch.from_numpy(student_t.isf(FALSE_UNKNOWN_RATE, degrees.cpu().numpy()))
        # Images that are all alike have no deviation.
        self.margin.copy_(limits.to(deviation) * deviation.clamp(min=1e-3))
