# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Constants of the scores, all from normal training images, kept in the checkpoint and in the exported graph.

Two kinds: what the normalities are measured against (a_max and e_max of every class and level), and where and how wide
the scores of a class's normal images lie, which puts the scores of all classes on one scale for one threshold.

Dimensions: B images, n positions of a level, K classes, L levels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn

from .anomaly_map import AnomalyMapGenerator, LevelScores


class ScoreCalibration(nn.Module):
    """Holds the constants, and puts maps on the common scale.

    Before the first :meth:`update` the constants are neutral: scores are finite, but not comparable.

    Args:
        num_classes: K.
        num_levels: L.

    Attributes:
        max_log_likelihood: a_max, in nats per dimension, shape (K, L).
        max_negative_entropy: e_max, in nats, shape (K, L).
        location: Centre of the image scores of a class's normal images, shape (K,).
        spread: Their width, positive, shape (K,).
    """

    max_log_likelihood: torch.Tensor
    max_negative_entropy: torch.Tensor
    location: torch.Tensor
    spread: torch.Tensor

    def __init__(self, num_classes: int, num_levels: int) -> None:
        super().__init__()
        self.register_buffer("max_log_likelihood", torch.zeros(num_classes, num_levels))
        self.register_buffer("max_negative_entropy", torch.zeros(num_classes, num_levels))
        self.register_buffer("location", torch.zeros(num_classes))
        self.register_buffer("spread", torch.ones(num_classes))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.location)

    def forward(self, anomaly_map: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
        """Put maps on the common scale: (S - location) / spread of the image's class.

        Increasing in S for a given class, so that it does not change the AUROC within a class.

        Args:
            anomaly_map: S, shape (B, 1, height, width).
            class_weights: Probabilities of the classes, shape (B, K).

        Returns:
            Calibrated maps, same shape.
        """
        location, spread = ((class_weights @ constant).view(-1, 1, 1, 1) for constant in (self.location, self.spread))
        return (anomaly_map - location) / spread

    def update(self, scores: NormalScores, generator: AnomalyMapGenerator, calibrate: bool) -> None:
        """Set the constants from the scores of normal images.

        Args:
            scores: Scores of normal images of every class.
            generator: Makes the maps whose largest value is an image's score.
            calibrate: Also set location and spread; otherwise they are 0 and 1, and scores are S itself.
        """
        self.location.zero_()
        self.spread.fill_(1)
        for index in range(self.num_classes):
            batches = scores.of_class(index)
            if not batches:
                continue
            self.max_log_likelihood[index] = _level_maxima([[level.log_likelihoods for level in b] for b in batches])
            self.max_negative_entropy[index] = _level_maxima([[level.negative_entropy for level in b] for b in batches])
            if calibrate:
                constants = slice(index, index + 1)
                image_scores = [
                    generator(
                        [level.to(self.location.device) for level in levels],
                        self.max_log_likelihood[constants],
                        self.max_negative_entropy[constants],
                        torch.ones(len(levels[0].negative_entropy), 1, device=self.location.device),
                        scores.image_size,
                    ).amax(dim=(-3, -2, -1))
                    for levels in batches
                ]
                self.location[index], self.spread[index] = location_and_spread(torch.cat(image_scores))


def _level_maxima(batches: list[list[torch.Tensor]]) -> torch.Tensor:
    """Largest value of every level over all batches, shape (L,)."""
    return torch.stack([torch.stack([scores.max() for scores in levels]) for levels in batches]).amax(dim=0)


def location_and_spread(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the scores of normal images.

    Args:
        scores: Image scores of one class, shape (B,).

    Returns:
        Location and spread, scalars. The spread is at least a thousandth of the location, also for a single image or
        identical ones.
    """
    location = scores.mean()
    return location, scores.std(correction=0).clamp(min=1e-3 * location.abs().clamp(min=1e-3))


class NormalScores:
    """Scores of the positions of normal images under their true class, collected over batches and processes."""

    def __init__(self) -> None:
        self._class_index: list[torch.Tensor] = []
        self._batches: list[list[LevelScores]] = []
        self.image_size: tuple[int, int] = (0, 0)

    def add(self, levels: list[LevelScores], class_index: torch.Tensor, image_size: tuple[int, int]) -> None:
        """Add a batch. What is kept is a few numbers a position, in main memory.

        Args:
            levels: Scores of the levels.
            class_index: True classes, int64, shape (B,).
            image_size: Height and width of the images.
        """
        self.image_size = image_size
        self._class_index.append(class_index.cpu())
        batch = []
        for level in levels:
            of_class = class_index.view(-1, 1, 1).expand(-1, level.log_likelihoods.shape[1], 1)
            batch.append(
                level._replace(
                    log_likelihoods=level.log_likelihoods.gather(-1, of_class).cpu(),
                    negative_entropy=level.negative_entropy.cpu(),
                    class_logits=level.class_logits.gather(-1, class_index.unsqueeze(-1)).cpu(),
                ),
            )
        self._batches.append(batch)

    def gather(self) -> None:
        """Share what every process of a distributed run has collected."""
        if distributed.is_available() and distributed.is_initialized():
            everyone: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(everyone, (self._class_index, self._batches))
            self._class_index = [item for class_index, _ in everyone for item in class_index]
            self._batches = [item for _, batches in everyone for item in batches]

    def of_class(self, index: int) -> list[list[LevelScores]]:
        """Scores of the images of a class, batch by batch, as those of a model that knows only this class (K = 1)."""
        selected = []
        for class_index, batch in zip(self._class_index, self._batches, strict=True):
            rows = class_index == index
            if rows.any():
                selected.append(
                    [LevelScores(level[0][rows], level[1][rows], level[2][rows], level.grid) for level in batch],
                )
        return selected
