# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Passes over the training images without training: constants of the flows and of the scores come from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, cast

import torch
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from torch import distributed
from torch.utils.data import DataLoader, Dataset

from anomalib_hgad.data.batch import ClassImageBatch, FeatureBatch
from anomalib_hgad.models.hgad.flows import FeatureFlow


def normal_images(
    trainer: Trainer,
    module: AnomalibModule,
    dataset: Dataset[Any] | None = None,
) -> Iterator[ClassImageBatch | FeatureBatch]:
    """All training images, or others, once, in a fixed order, pre-processed and on the model's device.

    In a distributed run every process gets its share.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.
        dataset: Normal images to take instead of the training images.

    Returns:
        Batches.
    """
    loader = cast("DataLoader[Any]", trainer.train_dataloader)
    dataset = dataset or loader.dataset
    return ordered_batches(
        trainer,
        module,
        dataset,
        # A DistributedSampler would repeat images until all processes have as many: they would count twice.
        range(trainer.global_rank, len(cast("Sized", dataset)), trainer.world_size),
        batch_size=loader.batch_size or 1,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def ordered_batches(
    trainer: Trainer,
    module: AnomalibModule,
    dataset: Dataset[Any],
    rows: Sequence[int],
    batch_size: int,
    num_workers: int,
    collate_fn: Callable[[list[Any]], Any],
) -> Iterator[ClassImageBatch | FeatureBatch]:
    """Images of a dataset, pre-processed and on the model's device, leaving the random state of the training alone.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.
        dataset: The dataset.
        rows: Which of its images, in this order.
        batch_size: Images in a batch.
        num_workers: Processes that read them.
        collate_fn: Makes a batch of them.

    Yields:
        Batches.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=rows,
        num_workers=num_workers,
        collate_fn=collate_fn,
        generator=torch.Generator(),
    )
    for batch_idx, cpu_batch in enumerate(loader):
        batch = trainer.strategy.batch_to_device(module.on_before_batch_transfer(cpu_batch, 0))
        if isinstance(module.pre_processor, Callback):
            module.pre_processor.on_train_batch_start(trainer, module, batch, batch_idx)
        yield batch


def feature_statistics(
    levels_of_batches: Iterable[list[torch.Tensor]], flows: Sequence[FeatureFlow], device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and covariance of the vectors that the flows model, over the batches of all processes.

    Args:
        levels_of_batches: For every batch of this process the features of the levels, shapes (B, D, H, W).
        flows: The flow of every level.
        device: Where the processes exchange tensors.

    Returns:
        Mean, shape (D,), and covariance, shape (D, D), of every level, in float64.
    """
    # A process may have no images: it takes part in the sums all the same.
    sums = [
        torch.zeros(flow.feature_dim + 1, flow.feature_dim + 1, dtype=torch.float64, device=device) for flow in flows
    ]
    for levels in levels_of_batches:
        for moment, flow, level in zip(sums, flows, levels, strict=True):
            rows = flow.vectors(level).flatten(0, 1).double()
            rows = torch.cat((torch.ones_like(rows[:, :1]), rows), dim=1)
            moment.add_(rows.T @ rows)  # count and sums in the first row, products below
    statistics = []
    for total in sums:
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        mean = total[0, 1:] / total[0, 0]
        statistics.append((mean, total[1:, 1:] / total[0, 0] - torch.outer(mean, mean)))
    return statistics
