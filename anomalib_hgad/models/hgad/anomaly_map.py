# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly map from the scores of the positions (HGAD, Sec. 3.4).

A level gives every position a log-likelihood a under the image's class, its contrast c to other classes and a negative
entropy e. The paper's maps compare a and e with the largest value on normal training images of the class, which gives
normalities in (0, 1]. The normalities of the levels are upsampled, summed, subtracted from the largest possible sum and
smoothed, to S_a and S_e. The other maps measure a and c in standard deviations of normal images, so that all levels
have the same weight.

The constants come from normal images, so the score of an image never depends on other images in its batch.

Dimensions: B images, n = H*W positions, K classes, R other classes, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from anomalib.models.components.filters.blur import GaussianBlur2d, compute_kernel_size
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.common.precision import no_autocast

ScoreKind = Literal["contrast", "standardized", "sum", "product", "log_likelihood", "entropy"]

MAXIMUM_SCORES = frozenset({"sum", "product", "log_likelihood", "entropy"})
"""Scores that are measured against the largest value of normal training images."""

ENTROPY_SCORES = frozenset({"sum", "product", "entropy"})
"""Scores that use the entropy of the classes at a position."""

SIGMA_AT_256 = 4.0
"""Standard deviation, in pixels, that smooths the maps of a 256-pixel image; it scales with the image size."""


class LevelScores(NamedTuple):
    """Scores of a level at every position under the class of its image.

    Attributes:
        log_likelihood: a = log p(x|y) / D, in nats per dimension, shape (B, n).
        contrast: c, see :func:`class_contrast`, in nats per dimension, shape (B, n).
        negative_entropy: e, in nats, at most 0, shape (B, n).
        grid: (H, W).
    """

    log_likelihood: torch.Tensor
    contrast: torch.Tensor
    negative_entropy: torch.Tensor
    grid: tuple[int, int]


QUANTITIES = LevelScores._fields[:3]
"""Names of a level's scores of each position, in the order of the last axis of :class:`LevelConstants`."""


class LevelConstants(NamedTuple):
    """Reference values of the scores of the positions, from normal images of a class, for every level and quantity.

    Attributes:
        maximum: Largest values over training images, in the units of :data:`QUANTITIES`, shape (..., L, 3).
        mean: Means over held-out images, likewise.
        deviation: Standard deviations over held-out images, positive, likewise.
    """

    maximum: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor


def class_contrast(log_likelihood: torch.Tensor, of_others: torch.Tensor) -> torch.Tensor:
    """Compute how much more likely a position is under its image's class than under the most similar classes.

    c = a - log sum_r exp(a_r), a log-likelihood ratio: what is usual in other products, or raises or lowers the
    likelihood under all classes, cancels out (likelihood ratios against a background: Ren et al., NeurIPS 2019).

    Args:
        log_likelihood: a, in nats per dimension, shape (B, n).
        of_others: a_r under R other classes, likewise, shape (B, n, R); -inf for a missing one.

    Returns:
        Contrasts in nats per dimension, shape (B, n); 0 where there is no other class.
    """
    if of_others.shape[-1] == 0:
        return torch.zeros_like(log_likelihood)
    contrast = log_likelihood - of_others.logsumexp(dim=-1)
    return contrast.masked_fill(contrast == torch.inf, 0)


def median(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Compute the lower median along a dimension, with an operation that ONNX has."""
    size = values.shape[dim]
    return values.topk(size // 2 + 1, dim=dim).values.select(dim, -1)


def class_posterior(class_logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Compute the posterior over the classes of an image.

    Args:
        class_logits: Class logits of the image from every level, summed over the positions, shapes (B, K).

    Returns:
        Probabilities, shape (B, K).
    """
    return torch.stack(list(class_logits)).sum(dim=0).softmax(dim=-1)


def normality(log_score: torch.Tensor, maximum: torch.Tensor) -> torch.Tensor:
    """Compute exp(s - s_max).

    Args:
        log_score: s, shape (B, n).
        maximum: s_max, shape (B,) or (1,).

    Returns:
        Normalities in [0, 1], shape (B, n). Values above the maximum of the training data count as 1.
    """
    return (log_score - maximum.unsqueeze(-1)).clamp(max=0).exp()


def standardized(log_score: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Compute (mean - s) / deviation.

    Args:
        log_score: s, shape (B, n).
        mean: Mean of s over normal images, shape (B,) or (1,).
        deviation: Its standard deviation, likewise.

    Returns:
        How far below normal each position is, in standard deviations, shape (B, n).
    """
    return (mean.unsqueeze(-1) - log_score) / deviation.unsqueeze(-1)


def image_score(anomaly_map: torch.Tensor, share: float) -> torch.Tensor:
    """Compute the mean of a share of a map's pixels, the largest ones.

    Args:
        anomaly_map: Maps, shape (B, 1, height, width).
        share: The share. At least one pixel is used, so 0 gives the maximum.

    Returns:
        Scores, shape (B,).
    """
    pixels = anomaly_map.flatten(1)
    return pixels.topk(max(1, round(share * pixels.shape[1])), dim=1).values.mean(dim=1)


class AnomalyMapGenerator(nn.Module):
    """Combines the scores of the levels into one anomaly map S.

    Args:
        score: ``"contrast"``, the sum of a and c in standard deviations of normal images; ``"standardized"``, only a
            in these; ``"sum"`` S_a + S_e; ``"product"`` S_a * S_e, as in the paper; ``"log_likelihood"`` S_a; or
            ``"entropy"`` S_e.
        image_size: Height and width of the images, which set the width of the smoothing.
    """

    def __init__(self, score: ScoreKind, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.score = score
        self.image_size = image_size
        sigma = SIGMA_AT_256 * min(image_size) / 256
        width = compute_kernel_size(sigma)
        # A Gaussian is separable: two narrow convolutions instead of a wide one.
        self.blur = nn.Sequential(
            GaussianBlur2d(sigma=(sigma, 1.0), kernel_size=(width, 1)),
            GaussianBlur2d(sigma=(1.0, sigma), kernel_size=(1, width)),
        )

    def forward(self, levels: Sequence[LevelScores], constants: LevelConstants, size: Sequence[int]) -> torch.Tensor:
        """Make the anomaly map.

        Args:
            levels: Scores of the levels.
            constants: Constants of the images' classes, shapes (B, L, 3), or (1, L, 3) for one class of all images.
            size: Height and width of the map.

        Returns:
            S, higher is more anomalous, shape (B, 1, height, width). At least 0, except for the scores in standard
            deviations.
        """
        with no_autocast(constants.maximum):
            if self.score not in MAXIMUM_SCORES:
                return self._smooth_sum(self._distances(levels, constants), levels, size)
            if self.score == "log_likelihood":
                return self._turned_over(0, levels, constants, size)
            if self.score == "entropy":
                return self._turned_over(2, levels, constants, size)
            likelihood_map, entropy_map = (self._turned_over(index, levels, constants, size) for index in (0, 2))
            return likelihood_map + entropy_map if self.score == "sum" else likelihood_map * entropy_map

    def _distances(self, levels: Sequence[LevelScores], constants: LevelConstants) -> list[torch.Tensor]:
        """Compute how far below normal the positions of the levels are, shapes (B, n)."""
        means, deviations = constants.mean.unbind(-2), constants.deviation.unbind(-2)
        distances = []
        for level, mean, deviation in zip(levels, means, deviations, strict=True):
            distance = standardized(level.log_likelihood, mean[..., 0], deviation[..., 0])
            if self.score == "contrast":
                distance = distance + standardized(level.contrast, mean[..., 1], deviation[..., 1])
            distances.append(distance)
        return distances

    def _turned_over(
        self, quantity: int, levels: Sequence[LevelScores], constants: LevelConstants, size: Sequence[int]
    ) -> torch.Tensor:
        """Subtract the sum of the levels' normalities from its largest possible value, smoothed.

        Returns:
            Map, shape (B, 1, height, width).
        """
        normalities = [
            normality(cast("torch.Tensor", level[quantity]), maximum[..., quantity])
            for level, maximum in zip(levels, constants.maximum.unbind(-2), strict=True)
        ]
        return len(normalities) - self._smooth_sum(normalities, levels, size)

    def _smooth_sum(
        self, values: Sequence[torch.Tensor], levels: Sequence[LevelScores], size: Sequence[int]
    ) -> torch.Tensor:
        """Sum values of the levels' positions, shapes (B, n), to a smooth map, shape (B, 1, height, width)."""
        maps = []
        for value, level in zip(values, levels, strict=True):
            by_row, by_column = self._weights(level.grid, size, value)
            maps.append(by_row @ value.unflatten(-1, level.grid).unsqueeze(1) @ by_column)
        return torch.stack(maps).sum(dim=0)

    def _weights(
        self, grid: tuple[int, int], size: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the weights of the rows and columns of a grid in its smooth map, which is a product with both.

        Upsampling and smoothing are linear and separable: two narrow products replace work on all pixels of a level.

        Returns:
            Weights, shapes (1, 1, height, H) and (1, 1, W, width).
        """
        units = [torch.eye(side, dtype=like.dtype, device=like.device)[None, None] for side in grid]
        shapes = (size[0], grid[0]), (grid[1], size[1])
        by_row, by_column = (
            F.interpolate(unit, size=shape, mode="bilinear", align_corners=True)
            for unit, shape in zip(units, shapes, strict=True)
        )
        return self.blur[0](by_row), self.blur[1](by_column)
