# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Constants of a model's scores from features, without a trainer around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.normal_scores import ClassValues, ImageScores, PositionScores
from anomalib_hgad.models.hgad.torch_model import HgadModel

BATCH = 8


def set_positions(model: HgadModel, features: Sequence[torch.Tensor], class_index: torch.Tensor) -> None:
    """Set what positions are measured against.

    Args:
        model: The model.
        features: Features of the levels of normal images, shapes (number of images, D, H, W).
        class_index: Classes of the images, int64, shape (number of images,).
    """
    scores = PositionScores(model.num_classes, len(model.flows), class_index.device)
    for levels, classes in _batches(model, features, class_index):
        scores.add(levels, classes)
    model.calibration.set_positions(scores, scores)
    model.novelty.update(scores.typicality)


def set_constants(model: HgadModel, features: Sequence[torch.Tensor], class_index: torch.Tensor) -> None:
    """Set all constants, the scales of image scores and maps too; arguments as of :func:`set_positions`.

    The limits of masks are those of a class into whose images no patch can be pasted.
    """
    set_positions(model, features, class_index)
    images, pixels = ImageScores(model.num_classes), ClassValues(model.num_classes, class_index.device)
    for levels, classes in _batches(model, features, class_index):
        image_scores, maps = model.raw_scores(levels, classes, model.image_size)
        images.add(image_scores, classes)
        pixels.add(maps, classes)
    model.calibration.set_scale(images.of_classes(), pixels, torch.full((model.num_classes,), torch.nan))


def _batches(
    model: HgadModel, features: Sequence[torch.Tensor], class_index: torch.Tensor
) -> Iterator[tuple[list[LevelScores], torch.Tensor]]:
    for rows in torch.arange(len(class_index), device=class_index.device).split(BATCH):
        classes = model.mixture_class_index(class_index[rows])
        yield model.level_scores(model.read([level[rows] for level in features]), classes), classes
