# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Passes over the training images without training, for the constants of the flows and of the scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from anomalib.models import AnomalibModule
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, Dataset

from anomalib_hgad.common.progress import track_within
from anomalib_hgad.data.batch import ClassImageBatch, FeatureBatch
from anomalib_hgad.data.pasted_patches import PastedPatches
from anomalib_hgad.data.synthetic_anomalies import SyntheticAnomalies
from anomalib_hgad.models.hgad.anomaly_map import MAXIMUM_SCORES, LevelScores
from anomalib_hgad.models.hgad.moments import sum_up
from anomalib_hgad.models.hgad.normal_scores import ClassValues, ImageScores, PositionScores
from anomalib_hgad.models.hgad.pixel_limits import LIMIT_IMAGES, PATCHES_OF_IMAGE, PatchedBatch, PatchPixels
from anomalib_hgad.models.hgad.torch_model import HgadModel


def normal_images(
    trainer: Trainer,
    module: AnomalibModule,
    description: str,
    dataset: Dataset[Any] | None = None,
) -> Iterator[ClassImageBatch | FeatureBatch]:
    """Iterate once over all training images, or others, in a fixed order, pre-processed and on the model's device.

    In a distributed run every process gets its share.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.
        description: Description for the progress display.
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
        description=description,
    )


def image_batches(
    trainer: Trainer,
    module: AnomalibModule,
    dataset: SyntheticAnomalies | PastedPatches,
    rows: Sequence[int],
    description: str,
) -> Iterator[ClassImageBatch]:
    """Iterate over images, even if features have replaced the training images; see :func:`ordered_batches`."""
    datamodule = getattr(trainer, "datamodule", None)
    batches = ordered_batches(
        trainer,
        module,
        dataset,
        rows,
        batch_size=getattr(datamodule, "train_batch_size", 1),
        num_workers=getattr(datamodule, "num_workers", 0),
        collate_fn=getattr(datamodule, "external_collate_fn", None) or dataset.collate_fn,
        description=description,
    )
    return cast("Iterator[ClassImageBatch]", batches)


def ordered_batches(
    trainer: Trainer,
    module: AnomalibModule,
    dataset: Dataset[Any],
    rows: Sequence[int],
    batch_size: int,
    num_workers: int,
    collate_fn: Callable[[list[Any]], Any],
    description: str,
) -> Iterator[ClassImageBatch | FeatureBatch]:
    """Iterate over images, pre-processed and on the model's device, without changing the training's random state.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.
        dataset: The dataset.
        rows: Which of its images, in this order.
        batch_size: Images in a batch.
        num_workers: Processes that read them.
        collate_fn: Makes a batch of them.
        description: Description for the progress display.

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
    for batch_idx, cpu_batch in enumerate(track_within(trainer, loader, description, len(loader))):
        batch = trainer.strategy.batch_to_device(module.on_before_batch_transfer(cpu_batch, 0))
        if isinstance(module.pre_processor, Callback):
            module.pre_processor.on_train_batch_start(trainer, module, batch, batch_idx)
        yield batch


@contextmanager
def inference(trainer: Trainer, model: HgadModel) -> Iterator[None]:
    """Put the model into its state in validation, within a training.

    Args:
        trainer: Trainer of the running fit.
        model: The model in training.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad(), trainer.precision_plugin.val_step_context():
        yield
    model.train(was_training)


@torch.no_grad()
def fit_whitening(trainer: Trainer, module: AnomalibModule) -> None:
    """Set the whitening of the flows from the features of the training images, whatever their classes.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.

    Raises:
        ValueError: If features have NaN or infinite values.
    """
    flows = module.model.feature_flows
    batches = (
        ([flow.vectors(level) for flow, level in zip(flows, module.features(batch), strict=True)], batch.batch_size)
        for batch in normal_images(trainer, module, "Whitening the features")
    )
    one_class = ((vectors, torch.zeros(size, dtype=torch.int64, device=module.device)) for vectors, size in batches)
    dims = [flow.feature_dim for flow in flows]
    module.model.set_whitening([level.pooled() for level in sum_up(one_class, 1, dims, module.device)])


def fit_mixtures(trainer: Trainer, module: AnomalibModule) -> None:
    """Fit the Gaussians of the classes to the latents of the training images under the current flows.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.

    Raises:
        ValueError: If latents have NaN or infinite values.
    """
    model = module.model
    with inference(trainer, model):
        batches = (
            (
                [flow(level).z for flow, level in zip(model.feature_flows, module.features(batch), strict=True)],
                model.mixture_class_index(module.class_index(batch)),
            )
            for batch in normal_images(trainer, module, "Fitting the Gaussians")
        )
        dims = [flow.dim for flow in model.feature_flows]
        model.fit_latents(sum_up(batches, model.num_classes, dims, module.device))


def set_constants(trainer: Trainer, module: AnomalibModule) -> None:
    """Set all constants of the scores from normal images.

    Held-out images show how unseen images score; a class without any uses its training images. The largest values that
    some scores are measured against come from the training images; other scores do not need them.

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
    images, pixels = ImageScores(model.num_classes), ClassValues(model.num_classes, module.device)
    for dataset, classes in ((held_out, ~missing), (None, missing)):
        if not classes.any():
            continue
        for levels, class_index in _level_scores(trainer, module, dataset):
            rows = classes[class_index]
            image_scores, maps = model.raw_scores(levels, class_index, model.image_size)
            images.add(image_scores[rows], class_index[rows])
            pixels.add(maps[rows], class_index[rows])
    images.gather()
    pixels.gather()
    model.calibration.set_scale(images.of_classes(), pixels, _pixel_limits(trainer, module))


def _pixel_limits(trainer: Trainer, module: AnomalibModule) -> torch.Tensor:
    """Compute the pixel limits of the classes before any scale, shape (K,); NaN for a class without one."""
    model, kept = module.model, module.training_data.patched
    pixels = PatchPixels(model.num_classes)
    for features, masks, class_index in patched_batches(trainer, module) if kept is None else kept:
        on_device = [level.to(module.device) for level in features]
        classes = model.mixture_class_index(class_index.to(module.device))
        _, maps = model.raw_scores(model.level_scores(model.read(on_device), classes), classes, masks.shape[-2:])
        pixels.add(maps, masks, classes)
    # Rounding may differ from process to process, and all of them must mark alike.
    return torch.tensor(trainer.strategy.broadcast(pixels.limits()), device=module.device)


def patched_batches(trainer: Trainer, module: AnomalibModule) -> Iterator[PatchedBatch]:
    """Compute features of normal images with pasted patches: of held-out images, or if there are none, training images.

    In a distributed run every process has all of them: they are few.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.

    Yields:
        Batches of them; none if the data is not anomalib's.
    """
    data = module.training_data
    images = data.images if data.held_out_images is None else data.held_out_images
    if images is None:
        return
    samples = images.samples
    of_class = samples.groupby("class_index").cumcount() if "class_index" in samples else np.arange(len(samples))
    patched = PastedPatches(images, np.flatnonzero(of_class < LIMIT_IMAGES).tolist(), PATCHES_OF_IMAGE)
    for batch in image_batches(trainer, module, patched, range(len(patched)), "Setting the limits of pixels"):
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            features = module.features(batch)
        yield PatchedBatch(features, cast("torch.Tensor", batch.gt_mask), module.class_index(batch))


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
    """Yield the scores of the levels of normal images under their classes, batch by batch, and these classes."""
    for batch in normal_images(trainer, module, "Calibrating the scores", dataset):
        class_index = module.model.mixture_class_index(module.class_index(batch))
        yield module.model.level_scores(module.model.read(module.features(batch)), class_index), class_index
