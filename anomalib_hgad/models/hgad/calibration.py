# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Constants of the scores, all from normal training images, kept in the checkpoint and in the exported graph.

Two kinds: what positions are measured against (a_max and e_max of every class and level, mean and deviation of a), and
where and how wide the scores of a class's normal images lie, which puts the scores of all classes on one scale for one
threshold.

Dimensions: B images, n positions of a level, K classes, J of them, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from anomalib_hgad.common.precision import no_autocast
from anomalib_hgad.common.processes import gather_objects
from anomalib_hgad.models.hgad.anomaly_map import AnomalyMapGenerator, LevelConstants, LevelScores

PRIOR_IMAGES = 5
"""How many images' worth of trust the spread common to all classes has against a class's own."""

LEAST_SPREAD = 0.05
"""Smallest spread relative to the location, for images that are all alike."""


class ScoreCalibration(nn.Module):
    """Holds the constants, and puts maps on the common scale.

    Before the first :meth:`update` the constants are neutral: scores are finite, but not comparable.

    Args:
        num_classes: K.
        num_levels: L.

    Attributes:
        max_log_likelihood: a_max, in nats per dimension, shape (K, L).
        max_negative_entropy: e_max, in nats, shape (K, L).
        mean_log_likelihood: Mean of a over normal images, in nats per dimension, shape (K, L).
        deviation: Its standard deviation, in nats per dimension, shape (K, L).
        location: Centre of the image scores of a class's normal images, shape (K,).
        spread: Their width, positive, shape (K,).
    """

    max_log_likelihood: torch.Tensor
    max_negative_entropy: torch.Tensor
    mean_log_likelihood: torch.Tensor
    deviation: torch.Tensor
    location: torch.Tensor
    spread: torch.Tensor

    def __init__(self, num_classes: int, num_levels: int) -> None:
        super().__init__()
        self.register_buffer("max_log_likelihood", torch.zeros(num_classes, num_levels))
        self.register_buffer("max_negative_entropy", torch.zeros(num_classes, num_levels))
        self.register_buffer("mean_log_likelihood", torch.zeros(num_classes, num_levels))
        self.register_buffer("deviation", torch.ones(num_classes, num_levels))
        self.register_buffer("location", torch.zeros(num_classes))
        self.register_buffer("spread", torch.ones(num_classes))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.location)

    def constants(self, class_index: torch.Tensor | slice) -> LevelConstants:
        """Constants of the levels of some classes, shapes (..., L)."""
        return LevelConstants(
            self.max_log_likelihood[class_index],
            self.max_negative_entropy[class_index],
            self.mean_log_likelihood[class_index],
            self.deviation[class_index],
        )

    def forward(
        self, anomaly_map: torch.Tensor, class_index: torch.Tensor, class_weights: torch.Tensor
    ) -> torch.Tensor:
        """Put maps on the common scale: (S - location) / spread of the image's class.

        Increasing in S for a given class, so that it does not change the AUROC within a class.

        Args:
            anomaly_map: S, shape (B, 1, height, width).
            class_index: Classes that an image may show, int64, shape (B, J).
            class_weights: Their probabilities, shape (B, J).

        Returns:
            Calibrated maps, same shape.
        """
        with no_autocast(anomaly_map):
            location, spread = (
                (constant[class_index] * class_weights).sum(dim=-1).view(-1, 1, 1, 1)
                for constant in (self.location, self.spread)
            )
            return (anomaly_map - location) / spread

    def update(
        self,
        training: NormalScores,
        held_out: NormalScores | None,
        generator: AnomalyMapGenerator,
    ) -> None:
        """Set the constants from the scores of normal images.

        Args:
            training: Scores of the images that the model was trained on; they give a_max and e_max.
            held_out: Scores of normal images that it was not trained on; they give mean and deviation of a, location
                and spread. A class that has none takes its training images, as do all with ``None``, which leaves the
                maps as they are.
            generator: Makes the maps whose largest value is an image's score.
        """
        self.max_log_likelihood.zero_()
        self.max_negative_entropy.zero_()
        self.mean_log_likelihood.zero_()
        self.deviation.fill_(1)
        for index in range(self.num_classes):
            if batches := training.of_class(index):
                self.max_log_likelihood[index] = _level_maxima(batches, "log_likelihoods")
                self.max_negative_entropy[index] = _level_maxima(batches, "negative_entropy")
                unseen = (held_out.of_class(index) if held_out else []) or batches
                self.mean_log_likelihood[index], self.deviation[index] = _level_moments(unseen)
        self.location.zero_()
        self.spread.fill_(1)
        if held_out is not None:
            image_scores = [
                self._image_scores(index, held_out.of_class(index) or training.of_class(index), generator)
                for index in range(self.num_classes)
            ]
            location, spread = location_and_spread(image_scores)
            self.location.copy_(location)
            self.spread.copy_(spread)

    def _image_scores(
        self, index: int, batches: list[list[LevelScores]], generator: AnomalyMapGenerator
    ) -> torch.Tensor:
        """Uncalibrated scores of a class's images, shape (number of images,)."""
        constants = slice(index, index + 1)
        scores = [
            generator(
                [level.to(self.location.device) for level in levels],
                self.constants(constants),
                self.location.new_ones(len(levels[0].negative_entropy), 1),
                generator.image_size,
            ).amax(dim=(-3, -2, -1))
            for levels in batches
        ]
        return torch.cat([self.location.new_empty(0), *scores])


def _level_moments(batches: list[list[LevelScores]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of a of every level over all batches, shapes (L,)."""
    levels = [
        torch.cat([level.log_likelihoods.flatten() for level in level_batches])
        for level_batches in zip(*batches, strict=True)
    ]
    # Images that are all alike have no deviation.
    return (
        torch.stack([values.mean() for values in levels]),
        torch.stack([values.std(correction=0).clamp(min=1e-3) for values in levels]),
    )


def _level_maxima(batches: list[list[LevelScores]], score: str) -> torch.Tensor:
    """Largest value of a score of every level over all batches, shape (L,)."""
    return torch.stack([torch.stack([getattr(level, score).max() for level in batch]) for batch in batches]).amax(dim=0)


def location_and_spread(scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the image scores of every class's normal images.

    A few images say little of a standard deviation. It is therefore drawn towards the one that the class would have if
    its ratio to the mean were that of all classes, which counts as much as :data:`PRIOR_IMAGES` images. Where no class
    has two images that ratio is 1.

    Args:
        scores: Image scores of every class, shapes (number of images,). A class without any gets 0 and 1.

    Returns:
        Location, shape (K,), and spread, shape (K,), at least :data:`LEAST_SPREAD` of the location.
    """
    counts = torch.tensor([len(of_class) for of_class in scores], device=scores[0].device)
    location = torch.stack([of_class.sum() for of_class in scores]) / counts.clamp(min=1)
    deviations = [of_class - mean for of_class, mean in zip(scores, location, strict=True)]
    squares = torch.stack([deviation.square().sum() for deviation in deviations])
    freedom = (counts - 1).clamp(min=0).sum()
    ratio = squares.div(location.square()).nan_to_num(0, 0, 0).sum() / freedom if freedom else 1.0
    variance = (squares + PRIOR_IMAGES * ratio * location.square()) / (counts + PRIOR_IMAGES)
    spread = variance.sqrt().clamp(min=LEAST_SPREAD * location.abs().clamp(min=1e-3))
    return location, torch.where(counts > 0, spread, torch.ones_like(spread))


class NormalScores:
    """Scores of the positions of normal images under their true class, collected over batches and processes."""

    def __init__(self) -> None:
        self._class_index: list[torch.Tensor] = []
        self._batches: list[list[LevelScores]] = []

    def add(self, levels: list[LevelScores], class_index: torch.Tensor) -> None:
        """Add a batch. What is kept is two numbers a position, in main memory.

        Args:
            levels: Scores of the levels under the true class (J = 1).
            class_index: True classes, int64, shape (B,).
        """
        self._class_index.append(class_index.cpu())
        self._batches.append([level.to(torch.device("cpu")) for level in levels])

    def gather(self) -> None:
        """Share what every process of a distributed run has collected."""
        everyone = gather_objects((self._class_index, self._batches))
        self._class_index = [item for class_index, _ in everyone for item in class_index]
        self._batches = [item for _, batches in everyone for item in batches]

    def of_class(self, index: int) -> list[list[LevelScores]]:
        """Scores of the images of a class, batch by batch."""
        selected = []
        for class_index, batch in zip(self._class_index, self._batches, strict=True):
            rows = class_index == index
            if rows.any():
                selected.append([LevelScores(level[0][rows], level[1][rows], level.grid) for level in batch])
        return selected
