# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images whose features are computed once, for benchmarks that train one model in many ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from anomalib.data import AnomalibDataset, ImageItem
from torchvision.transforms.v2 import Transform

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.data.hold_out import hold_out
from anomalib_hgad.models.hgad.torch_model import HgadModel
from tests.benchmarks.accuracy import aurocs_of_classes
from tests.helpers.constants import set_positions

BATCH = 8
HELD_OUT = 0.2


class Items(Protocol):
    """Some images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageItem: ...


@dataclass
class Images:
    """Features of all images of a set, and what is known of the images."""

    features: list[torch.Tensor]
    class_index: torch.Tensor
    anomalous: np.ndarray
    masks: list[np.ndarray | None]

    def and_those_of(self, other: Images) -> Images:
        """These images and others."""
        return Images(
            [torch.cat(levels) for levels in zip(self.features, other.features, strict=True)],
            torch.cat((self.class_index, other.class_index)),
            np.concatenate((self.anomalous, other.anomalous)),
            self.masks + other.masks,
        )

    def batch(self, rows: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [level[rows] for level in self.features], self.class_index[rows]


@torch.no_grad()
def encode(model: HgadModel, items: Items, transform: Transform) -> Images:
    """Features of all images."""
    levels, classes, anomalous, masks = [], [], [], []
    for item in (items[index] for index in range(len(items))):
        levels.append(model.encoder(transform(item.image).unsqueeze(0)))
        classes.append(int(item.class_index))
        anomalous.append(bool(item.gt_label))
        masks.append(None if item.gt_mask is None else item.gt_mask.numpy().astype(bool))
    features = [torch.cat(of_level) for of_level in zip(*levels, strict=True)]
    return Images(features, torch.tensor(classes), np.array(anomalous), masks)


def split_data(data: Path, size: tuple[int, int]) -> tuple[MultiClass, AnomalibDataset, Transform]:
    """Images of the given size, a fifth of each class's normal training images held out, and the normalisation."""
    resize, normalise = Hgad.configure_pre_processor(size).transform.transforms
    augmentations = dict.fromkeys(("train_augmentations", "val_augmentations", "test_augmentations"), resize)
    datamodule = MultiClass(root=data, **augmentations)
    datamodule.setup()
    datamodule.train_data, held_out = hold_out(datamodule.train_data, HELD_OUT)
    return datamodule, held_out, normalise


@torch.no_grad()
def aurocs(model: HgadModel, train: Images, test: Images, size: tuple[int, int]) -> list[tuple[float, float | None]]:
    """Image and pixel AUROC of the classes in percent, class inferred; positions are measured against training images.

    There is no pixel AUROC of a class with images that have no mask.
    """
    set_positions(model, train.features, train.class_index)
    scores, maps = [], []
    for rows in torch.arange(len(test.class_index)).split(BATCH):
        readings = model.read(test.batch(rows)[0])
        inferred = model.class_posterior(readings).argmax(dim=-1)
        image_scores, anomaly_maps = model.raw_scores(model.level_scores(readings, inferred), inferred, size)
        scores.append(image_scores)
        maps.append(anomaly_maps.squeeze(1))
    scores_of_all, maps_of_all = torch.cat(scores).numpy(), torch.cat(maps).numpy()
    return aurocs_of_classes(scores_of_all, maps_of_all, test.anomalous, test.class_index.numpy(), test.masks)
