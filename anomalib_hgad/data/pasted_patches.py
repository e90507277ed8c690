# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Normal images with one of their own patches pasted elsewhere: anomalies that look like the product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataset, ImageItem
from torch.utils.data import Dataset
from torchvision.tv_tensors import Image, Mask

AREA = (0.005, 0.08)
"""Range of a patch's share of the image area."""

ASPECT_RATIO = (0.3, 3.3)
BRIGHTNESS = 0.15
"""Maximum relative change of a patch's brightness; an absolute change of at most a third of it is added."""

LEAST_CHANGE = 0.03
"""Minimum change of a pixel, for values in [0, 1], to count as anomalous."""

LEAST_AREA = 1e-3
"""Minimum share of the image that has to change."""

ATTEMPTS = 20


class PastedPatches(Dataset[ImageItem]):
    """Several copies of normal images, each with another patch (after CutPaste, Li et al., CVPR 2021).

    Every copy has the same patch whenever it is read.

    Args:
        images: Normal images.
        rows: The n rows to use.
        copies: Number of copies of each image.
    """

    def __init__(self, images: AnomalibDataset, rows: list[int], copies: int) -> None:
        super().__init__()
        self.images = images
        self.rows = rows
        self.copies = copies

    def __len__(self) -> int:
        """N times the copies."""
        return self.copies * len(self.rows)

    def __getitem__(self, index: int) -> ImageItem:
        """Read an image.

        Args:
            index: Index of the copy; the copies of an image follow one another.

        Returns:
            The image with its mask, which is empty where a patch changes nothing.
        """
        row = self.rows[index // self.copies]
        item = self.images[row]
        image, mask = paste(torch.as_tensor(item.image), np.random.default_rng([row, index % self.copies]))
        return item.update(in_place=False, image=Image(image), gt_mask=Mask(mask), gt_label=mask.any())

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any]:
        """Batches items."""
        return self.images.collate_fn


def paste(image: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Copy a rectangle of an image, randomly flipped, brightened or darkened, with soft edges, to another place.

    Args:
        image: Values in [0, 1], shape (3, height, width).
        rng: Random numbers.

    Returns:
        The image, and where it has changed, shape (height, width); unchanged if it looks the same everywhere.
    """
    size = np.array(image.shape[-2:])
    for _ in range(ATTEMPTS):
        area, ratio = size.prod() * rng.uniform(*AREA), np.exp(rng.uniform(*np.log(ASPECT_RATIO)))
        sides = np.sqrt([area * ratio, area / ratio]).astype(int).clip(2, size - 1)
        source, target = (
            (..., slice(top, top + sides[0]), slice(left, left + sides[1]))
            for top, left in rng.integers(size - sides, size=(2, 2))
        )
        patch = image[source] * (1 + rng.uniform(-BRIGHTNESS, BRIGHTNESS))
        patch = (patch + rng.uniform(-BRIGHTNESS, BRIGHTNESS) / 3).clamp(0, 1)
        patch = patch.flip([axis for axis in (-2, -1) if rng.random() < 0.5])
        opacity = torch.as_tensor(_opacity(*sides)).to(image)
        changed = image.clone()
        changed[target] = opacity * patch + (1 - opacity) * changed[target]
        mask = (changed - image).abs().amax(dim=0) > LEAST_CHANGE
        if mask.sum() >= LEAST_AREA * mask.numel():
            return changed, mask
    return image, torch.zeros(image.shape[-2:], dtype=torch.bool)


def _opacity(height: int, width: int) -> np.ndarray:
    """1 within a rectangle, falling to 0 over the last sixth of the way to its edges."""
    rows, columns = (np.abs((2 * np.arange(side) + 1) / side - 1) for side in (height, width))
    return np.clip(6 * (1 - np.maximum(rows[:, None], columns[None])), 0, 1)
