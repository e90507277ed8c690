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
from anomalib_hgad.models.hgad.anomaly_map import MAXIMUM_SCORES, LevelScores, exceeded_value
from anomalib_hgad.models.hgad.calibration import LEAST_LIMIT, NORMAL_PIXEL_RATE
from anomalib_hgad.models.hgad.flows import FeatureFlow
from anomalib_hgad.models.hgad.normal_scores import ClassValues, PositionScores
from anomalib_hgad.models.hgad.torch_model import HgadModel


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


def set_constants(trainer: Trainer, module: AnomalibModule) -> None:
    """Set all constants of the scores from normal images.

    Images that were held out of the training tell how unseen ones score; a class that has none takes its training
    images. Of these the largest values come that some scores are measured against; other scores need none of them.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training, in evaluation mode.
    """
    model, held_out = module.model, module.training_data.held_out
    unseen = _position_scores(trainer, module, held_out) if held_out is not None else _no_scores(model)
    missing = unseen.typicality.counts == 0
    training = unseen
    if model.score in MAXIMUM_SCORES or missing.any():
        training = _position_scores(trainer, module, None)
        unseen = unseen.or_else(training)
    model.calibration.set_positions(training, unseen)
    model.novelty.update(unseen.typicality)
    model.calibration.clear_scale()
    if module.calibration_share is None:
        return
    images, pixels, log_limits = (ClassValues(model.num_classes, module.device) for _ in range(3))
    for dataset, classes in ((held_out, ~missing), (None, missing)):
        if not classes.any():
            continue
        for levels, class_index in _level_scores(trainer, module, dataset):
            rows = classes[class_index]
            image_scores, maps = model.raw_scores(levels, class_index, model.image_size)
            images.add(image_scores[rows].unsqueeze(-1), class_index[rows])
            pixels.add(maps[rows], class_index[rows])
            limits = exceeded_value(maps[rows], NORMAL_PIXEL_RATE)
            log_limits.add(limits.clamp(min=LEAST_LIMIT).log(), class_index[rows])
    for sums in (images, pixels, log_limits):
        sums.gather()
    model.calibration.set_scale(images, pixels, log_limits)


def _no_scores(model: HgadModel) -> PositionScores:
    return PositionScores(model.num_classes, len(model.flows), model.calibration.location.device)


def _position_scores(trainer: Trainer, module: AnomalibModule, dataset: Dataset[Any] | None) -> PositionScores:
    scores = _no_scores(module.model)
    for levels, class_index in _level_scores(trainer, module, dataset):
        scores.add(levels, class_index)
    scores.gather()
    return scores


def _level_scores(
    trainer: Trainer, module: AnomalibModule, dataset: Dataset[Any] | None
) -> Iterator[tuple[list[LevelScores], torch.Tensor]]:
    """Scores of the levels of normal images under their classes, batch by batch, and these classes."""
    for batch in normal_images(trainer, module, dataset):
        class_index = module.model.mixture_class_index(module.class_index(batch))
        yield module.model.level_scores(module.model.read(module.features(batch)), class_index), class_index
