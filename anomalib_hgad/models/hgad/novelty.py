# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether an image shows a product that the model was not trained on.

A defect covers part of an image, another product nearly all of it. The median over the positions therefore separates
them: a defect changes it little, unless it covers half of the image.

Dimensions: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.stats import t as student_t
from torch import nn

from anomalib_hgad.common.precision import no_autocast
from anomalib_hgad.evaluation.class_scale import PRIOR_IMAGES
from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.normal_scores import ClassValues, typicality

NOVELTY_LIMIT = 1.0
"""Novelty above which an image is predicted to show an unknown product."""

FALSE_UNKNOWN_RATE = 1e-4
"""Share of normal images of known products above the limit, if their typicality is normally distributed."""

WIDE_MARGIN = 1e6
"""Margin in nats per dimension if no class has two images to estimate one from: then no image is novel."""

LEAST_DEVIATION = 1e-3
"""Minimum deviation in nats per dimension, for images that are all alike."""


def class_variance(
    counts: torch.Tensor, squared_deviations: torch.Tensor, common: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the variance of every class, shrunk towards that of all, which counts as :data:`PRIOR_IMAGES` values.

    Args:
        counts: Number of values of each class, shape (K,); at least one class has two.
        squared_deviations: Sum of their squared deviations from the class's mean, shape (K,).
        common: Variance to shrink towards. ``None`` takes that of these classes.

    Returns:
        Variances, shape (K,).
    """
    freedom = (counts - 1).clamp(min=0)
    if common is None:
        common = squared_deviations.sum() / freedom.sum()
    return (squared_deviations + PRIOR_IMAGES * common) / (freedom + PRIOR_IMAGES)


def degrees_of_freedom(counts: torch.Tensor, beside: float = 0.0) -> torch.Tensor:
    """Compute the degrees of freedom of Student's t for :func:`class_variance`.

    Args:
        counts: Number of values of each class, shape (K,).
        beside: Degrees of freedom of the variance common to other classes.

    Returns:
        Degrees of freedom, shape (K,), at most those of all values together; 0 if no class has two values.
    """
    freedom = (counts - 1).clamp(min=0)
    return (freedom + PRIOR_IMAGES).clamp(max=freedom.sum() + beside)


class NoveltyScale(nn.Module):
    """Measures how much less typical an image is than normal images of its class.

    Before the first :meth:`update` the scale is neutral.

    Args:
        num_classes: K.

    Attributes:
        location: Mean typicality of a class's normal images, in nats per dimension, shape (K,).
        margin: Distance below the location beyond which only a share of :data:`FALSE_UNKNOWN_RATE` of them lies, in
            nats per dimension, positive, shape (K,).
        deviation: Standard deviation of the typicality of a class's normal images, shrunk towards that of all classes,
            in nats per dimension, shape (K,); 0 if no class has two images to estimate it from.
        images: Number of images that location and deviation of a class come from, shape (K,).
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
        """Compute the novelty of images.

        Args:
            levels: Scores of the levels under their classes.
            class_index: These classes, int64, shape (B,).

        Returns:
            (location - typicality) / margin, higher is more novel, shape (B,).
        """
        with no_autocast(self.location):
            return (self.location[class_index] - typicality(levels)) / self.margin[class_index]

    def update(self, typicalities: ClassValues, others: NoveltyScale | None = None) -> None:
        """Set the scale.

        The distance of a new image from the mean of n images, divided by its deviation, follows Student's t.

        Args:
            typicalities: Typicality of normal images, of held-out ones where there are any. A class without images
                takes the mean of the others.
            others: Scales of other classes; the variances are shrunk towards theirs instead of towards each other's.
        """
        counts, means, squares = typicalities.counts, typicalities.means, typicalities.squared_deviations
        if not counts.sum():
            return
        location = torch.where(counts > 0, means, means[counts > 0].mean())
        self.location.copy_(location)
        self.images.copy_(counts)
        known, common = 0.0, None
        if others is not None and others.deviation.any():
            known = float((others.images.double() - 1).clamp(min=0).sum())
            common = others.deviation.double().square().mean()
        degrees = degrees_of_freedom(counts, known)
        if not degrees.any():
            self.margin.fill_(WIDE_MARGIN)
            self.deviation.zero_()
            return
        variance = class_variance(counts, squares, common)
        self.deviation.copy_(variance.sqrt())
        # A new image differs from the mean of n by its own deviation and by that of the mean.
        deviation = (variance * (1 + 1 / counts.clamp(min=1))).sqrt()
        limits = torch.from_numpy(student_t.isf(FALSE_UNKNOWN_RATE, degrees.cpu().numpy()))
        # Images that are all alike have no deviation.
        self.margin.copy_(limits.to(deviation) * deviation.clamp(min=LEAST_DEVIATION))
