# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds of the classes, within a model whose scores are compared with one threshold.

anomalib's post-processor and exported graphs know one threshold t for the images of all classes. A class y has one of
its own, t_y, by a shift of its scores: S + (t - t_y) is above t where S is above t_y.

Dimensions: B images, K classes.
"""

from __future__ import annotations

import torch
from torch import nn


class ClassThresholds(nn.Module):
    """Shifts image scores, so that one threshold acts as one for each class.

    Before the first :meth:`update` nothing is shifted.

    Args:
        num_classes: K.

    Attributes:
        shift: t - t_y of every class, shape (K,).
        images: Number of normal validation images that the threshold of a class was chosen on, int64, shape (K,).
        rate: Share of a class's normal images that was allowed above its threshold, shape (K,); 0 if the thresholds
            were not chosen by such a share.
    """

    shift: torch.Tensor
    images: torch.Tensor
    rate: torch.Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(num_classes))
        self.register_buffer("images", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("rate", torch.zeros(num_classes))

    def forward(self, image_score: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """Shift scores.

        Args:
            image_score: Scores on the scale of all classes, shape (B,).
            class_index: Classes that the images were scored under, int64, shape (B,).

        Returns:
            Scores to compare with the threshold of all classes, shape (B,).
        """
        return image_score + self.shift[class_index]

    def update(self, thresholds: torch.Tensor, common: torch.Tensor, images: torch.Tensor, rate: float) -> None:
        """Set the thresholds of the classes.

        Args:
            thresholds: t_y, of scores that are not shifted, shape (K,).
            common: t, scalar.
            images: Number of normal validation images of every class, shape (K,).
            rate: Share of normal images that was allowed above a threshold.
        """
        self.shift.copy_(common - thresholds)
        # Rounding must not lift a score that equals the threshold of its class above the common threshold.
        while (too_high := thresholds + self.shift > common).any():
            lower = self.shift.nextafter(torch.full_like(self.shift, -torch.inf))
            self.shift.copy_(torch.where(too_high, lower, self.shift))
        self.images.copy_(images)
        self.rate.fill_(rate)

    @property
    def rates(self) -> list[float]:
        """The rates of the classes as they were given, without the rounding to single precision."""
        return [float(f"{rate:.6g}") for rate in self.rate.tolist()]

    def clear(self) -> None:
        """Let the common threshold apply to all classes."""
        for buffer in self.buffers():
            buffer.zero_()
