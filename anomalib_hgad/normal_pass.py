# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Passes over the training images without training: the constants of scores are taken from them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, DistributedSampler

from .batch import ClassImageBatch


def training_images(trainer: Trainer, module: AnomalibModule) -> Iterator[ClassImageBatch]:
    """All training images once, in a fixed order, pre-processed and on the model's device.

    In a distributed run every process gets its share. The random state of the training is left alone, so that a
    training does not depend on how often this is called.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.

    Yields:
        Batches.
    """
    loader: DataLoader[ClassImageBatch] = trainer.train_dataloader
    distributed = trainer.world_size > 1
    ordered: DataLoader[ClassImageBatch] = DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=DistributedSampler(loader.dataset, shuffle=False) if distributed else None,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),
    )
    for batch_idx, cpu_batch in enumerate(ordered):
        batch = trainer.strategy.batch_to_device(module.on_before_batch_transfer(cpu_batch, 0))
        if isinstance(module.pre_processor, Callback):
            module.pre_processor.on_train_batch_start(trainer, module, batch, batch_idx)
        yield batch
