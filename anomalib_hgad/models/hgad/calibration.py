# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Constants of the scores, all from normal training images, kept in the checkpoint and in the exported graph.

Two kinds: what positions are measured against, for every class and level; and where and how wide the image scores and
the maps' pixels of a class's normal images lie, which puts the scores of all classes on one scale for one threshold.

Dimensions: B images, K classes, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from anomalib_hgad.common.precision import no_autocast
from anomalib_hgad.evaluation.class_scale import PRIOR_IMAGES
from anomalib_hgad.models.hgad.anomaly_map import QUANTITIES, LevelConstants
from anomalib_hgad.models.hgad.class_thresholds import ClassThresholds
from anomalib_hgad.models.hgad.normal_scores import ClassValues, PositionScores

ODD_DEVIATIONS = 4.0
"""Scores count as at most so far above their class's median, in typical deviations: one odd image among a few would
stretch the scale of its class."""

LEAST_CLASS = 3
"""Images of a class from which on one of them can be told to be odd."""

LEAST_SPREAD = 0.05
"""Smallest spread relative to the location, for images that are all alike."""

LARGEST_RATIO = 1.0
"""Variance, relative to the square of the location, above which scores lie around 0."""

DEVIATIONS_TO_LIMIT = 3.0
"""Distance from the mean of a class's normal pixels to its limit where nothing else tells it, in their standard
deviations; it is at least one of them in any case."""

PIXEL_LIMIT = 1.0
"""Calibrated pixels above it are marked: a limit for each class, since each has its own scale."""


class CommonVariance(NamedTuple):
    """What classes tell of the variance of another one's scores.

    Most scores are far above 0, and a class whose scores are twice as large also spreads twice as wide. Those around 0,
    as of maps of one value or of means over a whole map, have locations that tell nothing: their variance relative to
    these is above :data:`LARGEST_RATIO`.

    Attributes:
        relative: Variance, relative to the square of the location.
        absolute: Variance as it is.
    """

    relative: float
    absolute: float

    @property
    def around_zero(self) -> bool:
        """Whether the locations tell nothing."""
        return self.relative > LARGEST_RATIO

    def squares(self, location: torch.Tensor) -> torch.Tensor:
        """Sums of squared deviations of :data:`PRIOR_IMAGES` images of classes of these locations, same shape."""
        units = torch.ones_like(location) if self.around_zero else location.square()
        return PRIOR_IMAGES * (self.absolute if self.around_zero else self.relative) * units


class ScoreCalibration(nn.Module):
    """Holds the constants, and puts image scores and maps on the common scales.

    Before they are set the constants are neutral: scores are finite, but not comparable.

    Args:
        num_classes: K.
        num_levels: L.

    Attributes:
        maximum: Largest values of the quantities of the positions, see
            :class:`~anomalib_hgad.models.hgad.anomaly_map.LevelConstants`, shape (K, L, 3).
        mean: Their means, likewise.
        deviation: Their standard deviations, likewise.
        location: Centre of the image scores of a class's normal images, shape (K,).
        spread: Their width, positive, shape (K,).
        pixel_location: Mean of the pixels of their maps, shape (K,).
        pixel_spread: How far above that the limit of the class's masks is, positive, shape (K,).
        class_thresholds: Thresholds of the classes, where each has one of its own.
    """

    maximum: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor
    location: torch.Tensor
    spread: torch.Tensor
    pixel_location: torch.Tensor
    pixel_spread: torch.Tensor

    def __init__(self, num_classes: int, num_levels: int) -> None:
        super().__init__()
        shape = (num_classes, num_levels, len(QUANTITIES))
        self.register_buffer("maximum", torch.zeros(shape))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))
        for name in ("location", "pixel_location"):
            self.register_buffer(name, torch.zeros(num_classes))
        for name in ("spread", "pixel_spread"):
            self.register_buffer(name, torch.ones(num_classes))
        self.class_thresholds = ClassThresholds(num_classes)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.location)

    def constants(self, class_index: torch.Tensor) -> LevelConstants:
        """Constants of the levels of the images' classes, shape (B,): shapes (B, L, 3)."""
        return LevelConstants(self.maximum[class_index], self.mean[class_index], self.deviation[class_index])

    def forward(
        self, image_score: torch.Tensor, anomaly_map: torch.Tensor, class_index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put scores on the common scales: (S - location) / spread of the image's class.

        Image scores are shifted from there where classes have thresholds of their own. Increasing in S for a given
        class, so that it does not change the AUROC within a class.

        Args:
            image_score: S of the images, shape (B,).
            anomaly_map: S of the pixels, shape (B, 1, height, width).
            class_index: Classes, int64, shape (B,).

        Returns:
            Calibrated image scores and maps, same shapes.
        """
        with no_autocast(anomaly_map):
            location, spread = (
                constant[class_index].view(-1, 1, 1, 1) for constant in (self.pixel_location, self.pixel_spread)
            )
            image_score = (image_score - self.location[class_index]) / self.spread[class_index]
            return self.class_thresholds(image_score, class_index), (anomaly_map - location) / spread

    def set_positions(self, training: PositionScores, unseen: PositionScores) -> None:
        """Set what positions are measured against. A class of no images keeps neutral constants.

        Args:
            training: Scores of the images that give the largest values.
            unseen: Scores of those that give means and deviations.
        """
        for level, (of_training, of_unseen) in enumerate(zip(training.levels, unseen.levels, strict=True)):
            for quantity, (largest, moments) in enumerate(zip(of_training, of_unseen, strict=True)):
                seen = moments.counts > 0
                maximum = largest.largest.nan_to_num(neginf=0)
                # Images that are all alike have no deviation.
                deviation = torch.where(seen, moments.deviations.clamp(min=1e-3), 1.0)
                for constant, values in (
                    (self.maximum, maximum),
                    (self.mean, moments.means),
                    (self.deviation, deviation),
                ):
                    constant[:, level, quantity] = values.to(constant)

    def set_scale(
        self,
        images: Sequence[torch.Tensor],
        pixels: ClassValues,
        limits: torch.Tensor,
        others: ScoreCalibration | None = None,
    ) -> None:
        """Set the common scales.

        Args:
            images: Image scores of every class's normal images, before any scale, shapes (images of the class,).
            pixels: Pixels of their maps, likewise.
            limits: Values above which pixels are marked, likewise, shape (K,); NaN for a class where nothing tells it.
            others: Scales of other classes, which the spreads are drawn towards, in place of each other's.
        """
        location, spread = location_and_spread(images, None if others is None else others.common_variance())
        self.location.copy_(location)
        self.spread.copy_(spread)
        self.pixel_location.copy_(pixels.means)
        deviations = pixels.deviations.clamp(min=1e-3)
        limits = torch.where(limits.isnan(), pixels.means + DEVIATIONS_TO_LIMIT * deviations, limits.to(deviations))
        self.pixel_spread.copy_(torch.where(pixels.counts > 0, (limits - pixels.means).clamp(min=deviations), 1.0))

    def set_positions_of(self, first: int, others: ScoreCalibration, times: int) -> None:
        """Set what positions are measured against, in the classes from one on, to that of others, each some times."""
        for name in ("maximum", "mean", "deviation"):
            getattr(self, name)[first:] = getattr(others, name).repeat_interleave(times, dim=0)

    def common_variance(self) -> CommonVariance:
        """Means over the classes of the squared spread."""
        spread = self.spread.double()
        relative = (spread / self.location.double()).square().nan_to_num(1, 1, 1)
        return CommonVariance(float(relative.mean()), float(spread.square().mean()))

    def clear_scale(self) -> None:
        """Leave every class the scale of its own maps."""
        for location, spread in ((self.location, self.spread), (self.pixel_location, self.pixel_spread)):
            location.zero_()
            spread.fill_(1)


def without_odd_ones(scores: Sequence[torch.Tensor], relative: bool = True) -> list[torch.Tensor]:
    """Scores of every class, none of them far above the others.

    The typical deviation is 1.48 times the median, over the images of all classes of three and more, of how far a score
    is from its class's median, relative to that (the median absolute deviation, as large as a Gaussian's standard one).

    Args:
        scores: Scores of every class, shapes (images of the class,).
        relative: Whether deviations are relative to the medians; else they count as they are.

    Returns:
        The same, at most :data:`ODD_DEVIATIONS` above the median of their class.
    """
    medians = [of_class.quantile(0.5) if len(of_class) else of_class.new_zeros(()) for of_class in scores]
    units = [median.abs().clamp(min=1e-3) if relative else torch.ones_like(median) for median in medians]
    measured = [(s, m, unit) for s, m, unit in zip(scores, medians, units, strict=True) if len(s) >= LEAST_CLASS]
    if not measured:
        return list(scores)
    typical = 1.48 * torch.cat([(s - median).abs() / unit for s, median, unit in measured]).quantile(0.5)
    if not typical:  # most images are alike
        return list(scores)
    return [s.minimum(m + ODD_DEVIATIONS * typical * unit) for s, m, unit in zip(scores, medians, units, strict=True)]


def location_and_spread(
    scores: Sequence[torch.Tensor], common: CommonVariance | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the scores of every class's normal images, :func:`without_odd_ones`.

    A few images say little of a standard deviation. It is therefore drawn towards the one that the class would have if
    its ratio to the mean were that of all classes, which counts as much as :data:`PRIOR_IMAGES` images. Where no class
    has two images that ratio is 1. Scores around 0 are drawn towards the deviation of all classes itself.

    Args:
        scores: Scores of every class, shapes (images of the class,). A class without any gets 0 and 1.
        common: What other classes tell. ``None`` takes it from these.

    Returns:
        Location, shape (K,), and spread, shape (K,), at least :data:`LEAST_SPREAD` of the location.
    """
    counts = torch.tensor([len(of_class) for of_class in scores], dtype=torch.float64)
    location, squares = _sums(without_odd_ones(scores), counts)
    found = common or _common_variance(location, squares, counts)
    if found.around_zero:
        location, squares = _sums(without_odd_ones(scores, relative=False), counts)
        found = common or found._replace(absolute=_common_variance(location, squares, counts).absolute)
    variance = (squares + found.squares(location)) / (counts + PRIOR_IMAGES)
    spread = variance.sqrt().clamp(min=LEAST_SPREAD * location.abs().clamp(min=1e-3))
    return location, torch.where(counts > 0, spread, torch.ones_like(spread))


def _sums(scores: Sequence[torch.Tensor], counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of the classes, and sums of the squared deviations from them, shapes (K,)."""
    location = torch.stack([of_class.sum() for of_class in scores]) / counts.clamp(min=1)
    return location, torch.stack([(s - mean).square().sum() for s, mean in zip(scores, location, strict=True)])


def _common_variance(location: torch.Tensor, squares: torch.Tensor, counts: torch.Tensor) -> CommonVariance:
    """What classes of these means and sums of squares tell of each other."""
    freedom = (counts - 1).clamp(min=0).sum()
    if not freedom:
        return CommonVariance(1.0, 1.0)
    relative = squares.div(location.square()).nan_to_num(0, math.inf).sum() / freedom
    return CommonVariance(float(relative), float(squares.sum() / freedom))
