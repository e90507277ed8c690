# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Normal images beside the same ones with synthetic anomalies, to judge a model where no real anomaly is known."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataset, ImageItem
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import Dataset
from torchvision.tv_tensors import Image, Mask


class SyntheticAnomalies(Dataset[ImageItem]):
    """Some normal images, and then each of them again with anomalies of Perlin noise, as anomalib makes them.

    An image has the same anomaly whenever it is read, and reading it leaves the random numbers of others alone.

    Args:
        images: Normal images.
        rows: Which of them, n.
        copies: How often each of them has an anomaly, another one every time.
    """

    def __init__(self, images: AnomalibDataset, rows: list[int], copies: int = 1) -> None:
        super().__init__()
        self.images = images
        self.rows = rows
        self.copies = copies
        with isolate_rng(include_cuda=False):
            _seed(0)
            self._add_anomaly = PerlinAnomalyGenerator(probability=1)

    def __len__(self) -> int:
        """N times one and the copies."""
        return (1 + self.copies) * len(self.rows)

    def __getitem__(self, index: int) -> ImageItem:
        """Read an image.

        Args:
            index: From n on it is one with an anomaly.

        Returns:
            The image with label and mask, which is not empty where there is an anomaly.
        """
        copy, number = divmod(index, len(self.rows))
        row = self.rows[number]
        item = self.images[row]
        image, mask = item.image, torch.zeros(item.image.shape[-2:])
        if copy:
            with isolate_rng(include_cuda=False):  # worker processes must not touch an accelerator
                _seed(row + (copy - 1) * len(self.images))
                while not mask.any():  # some noise stays below its threshold everywhere
                    image, mask = self._add_anomaly(torch.as_tensor(item.image).as_subclass(torch.Tensor))
        label = torch.tensor(copy > 0)
        return item.update(in_place=False, image=Image(image), gt_mask=Mask(mask.squeeze(0) > 0), gt_label=label)

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any]:
        """Batches items."""
        return self.images.collate_fn


def _seed(number: int) -> None:
    """Seed what the anomalies are drawn by, on the CPU alone."""
    torch.default_generator.manual_seed(number)
    np.random.seed(number)
    random.seed(number)
