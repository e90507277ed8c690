# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Constants of the scores, all from normal training images, saved in the checkpoint and in the exported graph.

There are two kinds: the reference values of the positions, for every class and level; and location and spread of the
image scores and map pixels of a class's normal images, which put all classes on one scale for one threshold.

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
"""Distance above their class's median, in typical deviations, at which scores are clipped: one outlier among a few
images would stretch the scale of its class."""

LEAST_CLASS = 3
"""Minimum number of images of a class for an outlier to be recognised among them."""

LEAST_SPREAD = 0.05
"""Smallest spread relative to the location, for images that are all alike."""

LARGEST_RATIO = 1.0
"""Variance, relative to the square of the location, above which scores lie around 0."""

DEVIATIONS_TO_LIMIT = 3.0
"""Distance from the mean of a class's normal pixels to its limit if no pasted patch sets it, in their standard
deviations; in any case the distance is at least one of them."""

PIXEL_LIMIT = 1.0
"""Limit above which calibrated pixels are marked; it acts as one for each class, since each has its own scale."""


class CommonVariance(NamedTuple):
    """Variance of scores that classes have in common, as an estimate for another class.

    Most scores are far above 0, and a class with scores twice as large also has twice the spread. The locations of
    scores around 0, such as those of constant maps or of means over a whole map, say nothing about the spread: the
    variance relative to their squares is above :data:`LARGEST_RATIO`.

    Attributes:
        relative: Variance, relative to the square of the location.
        absolute: Variance itself.
    """

    relative: float
    absolute: float

    @property
    def around_zero(self) -> bool:
        """Whether the locations say nothing about the spread."""
        return self.relative > LARGEST_RATIO

    def squares(self, location: torch.Tensor) -> torch.Tensor:
        """Return the sums of squared deviations of :data:`PRIOR_IMAGES` images at these locations, same shape."""
        units = torch.ones_like(location) if self.around_zero else location.square()
        return PRIOR_IMAGES * (self.absolute if self.around_zero else self.relative) * units


class ScoreCalibration(nn.Module):
    """Holds the constants, and puts image scores and maps on the common scales.

    Until they are set the constants are neutral: scores are finite, but not comparable.

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
        pixel_spread: Distance from it to the pixel limit of the class, positive, shape (K,).
        class_thresholds: Thresholds of the classes, if each has its own.
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
        """Return the constants of the levels, shapes (B, L, 3), for the images' classes, shape (B,)."""
        return LevelConstants(self.maximum[class_index], self.mean[class_index], self.deviation[class_index])

    def forward(
        self, image_score: torch.Tensor, anomaly_map: torch.Tensor, class_index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put scores on the common scales: (S - location) / spread of the image's class.

        Image scores are then shifted if classes have their own thresholds. For a given class the result increases with
        S, so the AUROC within a class does not change.

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
        """Set the reference values of the positions. A class without images keeps neutral ones.

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
            limits: Values above which pixels are marked, before any scale, shape (K,); NaN for a class without one.
            others: Scales of other classes; the spreads are shrunk towards theirs instead of towards each other's.
        """
        location, spread = location_and_spread(images, None if others is None else others.common_variance())
        self.location.copy_(location)
        self.spread.copy_(spread)
        self.pixel_location.copy_(pixels.means)
        deviations = pixels.deviations.clamp(min=1e-3)
        limits = torch.where(limits.isnan(), pixels.means + DEVIATIONS_TO_LIMIT * deviations, limits.to(deviations))
        self.pixel_spread.copy_(torch.where(pixels.counts > 0, (limits - pixels.means).clamp(min=deviations), 1.0))

    def set_positions_of(self, first: int, others: ScoreCalibration, times: int) -> None:
        """Copy the reference values of other classes, each repeated ``times``, to the classes from ``first`` on."""
        for name in ("maximum", "mean", "deviation"):
            getattr(self, name)[first:] = getattr(others, name).repeat_interleave(times, dim=0)

    def common_variance(self) -> CommonVariance:
        """Compute the mean over the classes of the squared spread."""
        spread = self.spread.double()
        relative = (spread / self.location.double()).square().nan_to_num(1, 1, 1)
        return CommonVariance(float(relative.mean()), float(spread.square().mean()))

    def clear_scale(self) -> None:
        """Reset the scales, so that every class keeps the scale of its own maps."""
        for location, spread in ((self.location, self.spread), (self.pixel_location, self.pixel_spread)):
            location.zero_()
            spread.fill_(1)


def without_odd_ones(scores: Sequence[torch.Tensor], relative: bool = True) -> list[torch.Tensor]:
    """Clip the scores of every class that are far above the others.

    The typical deviation is 1.48 times the median, over the images of all classes with three or more, of the absolute
    deviation from the class's median, relative to that median (the median absolute deviation, scaled to a Gaussian's
    standard deviation).

    Args:
        scores: Scores of every class, shapes (images of the class,).
        relative: Whether deviations are relative to the medians; otherwise they are absolute.

    Returns:
        The scores, at most :data:`ODD_DEVIATIONS` typical deviations above the median of their class.
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
    """Compute mean and standard deviation of the scores of every class's normal images, :func:`without_odd_ones`.

    A few images determine a standard deviation poorly. It is therefore shrunk towards the one at which its ratio to the
    mean is that of all classes, which counts as :data:`PRIOR_IMAGES` images. If no class has two images that ratio is
    1. For scores around 0, it is shrunk towards the deviation of all classes itself.

    Args:
        scores: Scores of every class, shapes (images of the class,). A class without any gets 0 and 1.
        common: Variance common to other classes. ``None`` takes that of these classes.

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
    """Compute the means of the classes, and the sums of the squared deviations from them, shapes (K,)."""
    location = torch.stack([of_class.sum() for of_class in scores]) / counts.clamp(min=1)
    return location, torch.stack([(s - mean).square().sum() for s, mean in zip(scores, location, strict=True)])


def _common_variance(location: torch.Tensor, squares: torch.Tensor, counts: torch.Tensor) -> CommonVariance:
    """Compute the variance common to classes with these means and sums of squares."""
    freedom = (counts - 1).clamp(min=0).sum()
    if not freedom:
        return CommonVariance(1.0, 1.0)
    relative = squares.div(location.square()).nan_to_num(0, math.inf).sum() / freedom
    return CommonVariance(float(relative), float(squares.sum() / freedom))
