# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Passes over the training images without training: constants of the flows and of the scores come from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from anomalib.data import ImageItem
from anomalib.models import AnomalibModule
from einops import rearrange
from lightning.pytorch import Callback, Trainer
from torch import distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from .batch import ClassImageBatch


def normal_images(
    trainer: Trainer,
    module: AnomalibModule,
    dataset: Dataset[ImageItem] | None = None,
) -> Iterator[ClassImageBatch]:
    """All training images, or others, once, in a fixed order, pre-processed and on the model's device.

    In a distributed run every process gets its share. The random state of the training is left alone, so that a
    training does not depend on how often this is called.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.
        dataset: Normal images to take instead of the training images.

    Yields:
        Batches.
    """
    loader = cast("DataLoader[ImageItem]", trainer.train_dataloader)
    dataset = dataset or loader.dataset
    ordered: DataLoader[ImageItem] = DataLoader(
        dataset,
        batch_size=loader.batch_size,
        sampler=DistributedSampler(dataset, shuffle=False) if trainer.world_size > 1 else None,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),
    )
    for batch_idx, cpu_batch in enumerate(ordered):
        batch = trainer.strategy.batch_to_device(module.on_before_batch_transfer(cpu_batch, 0))
        if isinstance(module.pre_processor, Callback):
            module.pre_processor.on_train_batch_start(trainer, module, batch, batch_idx)
        yield batch


def feature_statistics(levels_of_batches: Iterable[list[torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and covariance of the channels of every level, over the batches of all processes.

    Args:
        levels_of_batches: For every batch the feature maps of the levels, shapes (B, D, H, W).

    Returns:
        Mean, shape (D,), and covariance, shape (D, D), of every level, in float64.
    """
    sums: list[torch.Tensor] = []
    for levels in levels_of_batches:
        moments = []
        for level in levels:
            rows = rearrange(level.double(), "b d h w -> (b h w) d")
            rows = torch.cat((torch.ones_like(rows[:, :1]), rows), dim=1)
            moments.append(rows.T @ rows)  # count and sums in the first row, products below
        sums = [total + moment for total, moment in zip(sums, moments, strict=True)] if sums else moments
    statistics = []
    for total in sums:
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        mean = total[0, 1:] / total[0, 0]
        statistics.append((mean, total[1:, 1:] / total[0, 0] - torch.outer(mean, mean)))
    return statistics
