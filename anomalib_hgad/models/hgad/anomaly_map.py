# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Scores of positions to an anomaly map (HGAD, Sec. 3.4).

A level gives every position a log-likelihood a and a negative entropy e. Against the largest value that normal training
images of the class reach, each becomes a normality in (0, 1]; the normalities of the levels are upsampled, summed,
turned over and smoothed, to S_a and S_e. The constants come from training data, so the score of an image never depends
on the images beside it.

Dimensions: B images, n = H*W positions, K classes, J of them, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from anomalib.models.components.filters.blur import GaussianBlur2d, compute_kernel_size
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.common.precision import no_autocast

ScoreKind = Literal["sum", "product", "log_likelihood", "entropy", "standardized"]

SIGMA_AT_256 = 4.0
"""Smoothing of the maps of a 256-pixel image; it grows with the image."""


class LevelScores(NamedTuple):
    """What a level says about every position.

    Attributes:
        log_likelihoods: a = log p(x|k) / D for each of J classes k, in nats per dimension, shape (B, n, J).
        negative_entropy: e, in nats, at most 0, shape (B, n).
        grid: (H, W).
    """

    log_likelihoods: torch.Tensor
    negative_entropy: torch.Tensor
    grid: tuple[int, int]

    def to(self, device: torch.device) -> LevelScores:
        """The same scores on a device."""
        return LevelScores(self.log_likelihoods.to(device), self.negative_entropy.to(device), self.grid)


def class_posterior(class_logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Posterior over an image's class.

    Args:
        class_logits: Logits of the image's class of every level, those of the positions summed, shapes (B, K).

    Returns:
        Probabilities, shape (B, K).
    """
    return torch.stack(list(class_logits)).sum(dim=0).softmax(dim=-1)


def normality(log_score: torch.Tensor, maximum: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    """exp(a - a_max), weighted over the classes that an image may show.

    Args:
        log_score: a for each of J classes, shape (B, n, J), or one value for all of them, shape (B, n, 1).
        maximum: a_max of the classes, shape (J,), or (B, J) where each image has its own choice of classes.
        class_weights: Probabilities of the classes, shape (B, J).

    Returns:
        Normalities in [0, 1], shape (B, n). Values above the maximum of the training data count as 1.
    """
    return ((log_score - maximum.unsqueeze(-2)).clamp(max=0).exp() @ class_weights.unsqueeze(-1)).squeeze(-1)


class LevelConstants(NamedTuple):
    """What the scores of a level's positions are measured against, for every class or for the J of every image.

    Attributes:
        max_log_likelihood: a_max, largest a of normal training images, in nats per dimension, shape (..., L).
        max_negative_entropy: e_max, in nats, likewise.
        mean_log_likelihood: Mean of a over normal images that were not trained on, in nats per dimension, likewise.
        deviation: Standard deviation of a over them, in nats per dimension, positive, likewise.
    """

    max_log_likelihood: torch.Tensor
    max_negative_entropy: torch.Tensor
    mean_log_likelihood: torch.Tensor
    deviation: torch.Tensor


def standardized(
    log_score: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor, class_weights: torch.Tensor
) -> torch.Tensor:
    """(mean - a) / deviation, weighted over the classes that an image may show.

    Args:
        log_score: a for each of J classes, shape (B, n, J).
        mean: Mean of a over normal images of the classes, shape (J,), or (B, J).
        deviation: Its standard deviation, likewise.
        class_weights: Probabilities of the classes, shape (B, J).

    Returns:
        How much less likely than normal each position is, in standard deviations, shape (B, n).
    """
    distances = (mean.unsqueeze(-2) - log_score) / deviation.unsqueeze(-2)
    return (distances @ class_weights.unsqueeze(-1)).squeeze(-1)


class AnomalyMapGenerator(nn.Module):
    """Levels' scores to one anomaly map S.

    Args:
        score: ``"sum"`` S_a + S_e, ``"product"`` S_a * S_e as in the paper, ``"log_likelihood"`` S_a alone, or
            ``"entropy"`` S_e alone.
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

    def forward(
        self,
        levels: Sequence[LevelScores],
        constants: LevelConstants,
        class_weights: torch.Tensor,
        size: Sequence[int],
    ) -> torch.Tensor:
        """Make the anomaly map.

        Args:
            levels: Scores of the levels.
            constants: Of the classes that the levels' scores are of, shapes (J, L) or (B, J, L).
            class_weights: Probabilities of these classes, shape (B, J).
            size: Height and width of the map.

        Returns:
            S, at least 0, higher is more anomalous, shape (B, 1, height, width).
        """
        with no_autocast(class_weights):
            grids = [level.grid for level in levels]
            if self.score == "standardized":
                distances = [
                    standardized(level.log_likelihoods, mean, deviation, class_weights)
                    for level, mean, deviation in zip(
                        levels, constants.mean_log_likelihood.unbind(-1), constants.deviation.unbind(-1), strict=True
                    )
                ]
                return self.blur(_upsampled(distances, grids, size).sum(dim=0))
            likelihood = [
                normality(level.log_likelihoods, maximum, class_weights)
                for level, maximum in zip(levels, constants.max_log_likelihood.unbind(-1), strict=True)
            ]
            entropy = [
                normality(level.negative_entropy.unsqueeze(-1), maximum, class_weights)
                for level, maximum in zip(levels, constants.max_negative_entropy.unbind(-1), strict=True)
            ]
            if self.score == "log_likelihood":
                return self._turned_over(likelihood, grids, size)
            entropy_map = self._turned_over(entropy, grids, size)
            if self.score == "entropy":
                return entropy_map
            likelihood_map = self._turned_over(likelihood, grids, size)
            return likelihood_map + entropy_map if self.score == "sum" else likelihood_map * entropy_map

    def _turned_over(
        self,
        normalities: Sequence[torch.Tensor],
        grids: Sequence[tuple[int, int]],
        size: Sequence[int],
    ) -> torch.Tensor:
        """Largest possible sum over the levels minus the sum, smoothed, shape (B, 1, height, width)."""
        return self.blur(len(normalities) - _upsampled(normalities, grids, size).sum(dim=0))


def _upsampled(values: Sequence[torch.Tensor], grids: Sequence[tuple[int, int]], size: Sequence[int]) -> torch.Tensor:
    """Values of the levels' positions, shapes (B, n), as maps of one size, shape (L, B, 1, height, width)."""
    return torch.stack(
        [
            F.interpolate(level.unflatten(-1, grid).unsqueeze(1), size=size, mode="bilinear", align_corners=True)
            for level, grid in zip(values, grids, strict=True)
        ]
    )
