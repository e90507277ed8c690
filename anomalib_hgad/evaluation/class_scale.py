# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Location and spread of the scores of each class's normal images, for any model.

Nothing is assumed about the scores except their order: they may be negative and lie around any value. Location and
spread are equivariant under shifts and positive scaling of all scores.

Dimensions: K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

PRIOR_IMAGES = 5
"""Weight, in images, of the spread common to all classes against a class's own."""

OF_GAUSSIAN = math.sqrt(math.pi / 2)
"""Standard deviation of a Gaussian, as a multiple of its mean absolute deviation."""


class ClassScale(NamedTuple):
    """Scale of the scores of K classes; the last element is that of all images together.

    Attributes:
        location: Centre of the scores of normal images, shape (K + 1,).
        spread: Their width, positive, likewise.
    """

    location: torch.Tensor
    spread: torch.Tensor


def scale_of_scores(scores: Sequence[torch.Tensor], together: torch.Tensor) -> ClassScale:
    """Compute the median of every class's scores, and a spread from the mean absolute deviation from the median.

    The spread of a Gaussian is its standard deviation. One outlier among a few images changes neither of them much. The
    spreads of classes with few images are shrunk, see :func:`drawn_together`.

    Args:
        scores: Scores of the normal images of every class, float64, shapes (images of the class,).
        together: Scores of all normal images, at least one, shape (images,).

    Returns:
        The scale; that of all images for a class without any.
    """
    rows = [*(of_class if len(of_class) else together for of_class in scores), together]
    freedom = torch.tensor([max(len(of_class) - 1, 0) for of_class in scores], dtype=torch.float64)
    location = torch.stack([row.quantile(0.5) for row in rows])
    deviations = torch.stack([_deviation(row, middle) for row, middle in zip(rows, location, strict=True)])
    return ClassScale(location, drawn_together(deviations, freedom))


def scale_of_pixels(moments: Sequence[torch.Tensor], together: torch.Tensor) -> ClassScale:
    """Compute mean and standard deviation of the pixels of every class's normal maps.

    Args:
        moments: Mean of the pixels and mean of their squares for every normal image of the classes, float64, shapes
            (images of the class, 2).
        together: Those of all normal images, at least one, shape (images, 2).

    Returns:
        The scale; that of all images for a class without any. See :func:`drawn_together`.
    """
    rows = [*(of_class if len(of_class) else together for of_class in moments), together]
    location, squares = torch.stack([row.mean(dim=0) for row in rows]).unbind(dim=1)
    freedom = torch.tensor([len(of_class) for of_class in moments], dtype=torch.float64)
    return ClassScale(location, drawn_together((squares - location.square()).clamp(min=0).sqrt(), freedom))


def drawn_together(deviations: torch.Tensor, freedom: torch.Tensor) -> torch.Tensor:
    """Shrink the deviations of classes towards a typical one, which counts as :data:`PRIOR_IMAGES` images.

    The typical deviation is the geometric mean of the classes, weighted by their images: some classes of a model may
    have many times the spread of others, and would dominate the arithmetic mean.

    Args:
        deviations: Deviation of every class, and last that of all images together, shape (K + 1,).
        freedom: Degrees of freedom of each class's deviation, shape (K,). A class without any gets the typical
            deviation, and so does a class whose images are all alike.

    Returns:
        Deviations, positive, shape (K + 1,). The last one does not change, but is 1 instead of 0.
    """
    own, of_all = deviations[:-1], torch.where(deviations[-1:] > 0, deviations[-1:], 1.0)
    freedom = torch.where(own > 0, freedom, 0.0)
    logs = torch.where(freedom > 0, own, 1.0).log()
    typical = (freedom * logs).sum() / freedom.sum() if freedom.any() else of_all.log()
    drawn = (freedom * logs + PRIOR_IMAGES * typical) / (freedom + PRIOR_IMAGES)
    return torch.cat([drawn.exp(), of_all])


def _deviation(scores: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """Estimate the standard deviation from the mean absolute one; n / (n - 1) as the middle is of the same n scores."""
    count = len(scores)
    return OF_GAUSSIAN * math.sqrt(count / max(count - 1, 1)) * (scores - middle).abs().mean()
