# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""How well a model in training separates normal images from synthetic anomalies: a criterion without real anomalies.

The likelihood of normal images rises with training whether or not detection improves, so it cannot be the criterion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from anomalib.data import AnomalibDataset
from anomalib.models import AnomalibModule
from lightning.pytorch import Trainer
from sklearn.metrics import roc_auc_score

from anomalib_hgad.data.synthetic_anomalies import SyntheticAnomalies
from anomalib_hgad.models.hgad.anomaly_map import LevelScores
from anomalib_hgad.models.hgad.normal_pass import image_batches, inference
from anomalib_hgad.models.hgad.normal_scores import PositionScores
from anomalib_hgad.models.hgad.pixel_limits import on_grid

MOST_IMAGES = 200
"""Maximum number of normal images to compare, spread over the classes."""


class StateFigures(NamedTuple):
    """Metrics of a training state.

    Attributes:
        epoch: Epochs trained until then, with a fraction within an epoch; 0 is the closed form.
        image_auroc: AUROC of the image scores, mean over the classes.
        pixel_auroc: AUROC of the pixels, likewise; NaN if no anomaly covers a pixel of the grid.
        log_likelihood: Mean log-likelihood of the normal images, in nats per dimension.
        kept: Whether the state was the best so far.
    """

    epoch: float
    image_auroc: float
    pixel_auroc: float
    log_likelihood: float
    kept: bool = False

    @property
    def criterion(self) -> float:
        """Mean of both AUROCs, in [0, 1]."""
        return self.image_auroc if math.isnan(self.pixel_auroc) else (self.image_auroc + self.pixel_auroc) / 2


def kept_state(course: Sequence[StateFigures]) -> StateFigures:
    """The state that a training has kept: the last of those that were the best so far."""
    return next(figures for figures in reversed(course) if figures.kept)


class _Batch(NamedTuple):
    """Features of a batch in main memory, and the ground truth."""

    features: list[torch.Tensor]
    class_index: torch.Tensor
    masks: torch.Tensor
    size: tuple[int, int]


class _Scores(NamedTuple):
    """Classes and scores of some images, and their maps and masks on a grid of pixels."""

    classes: np.ndarray
    images: np.ndarray
    maps: np.ndarray
    masks: np.ndarray


class SyntheticCriterion:
    """Compares held-out normal images with copies that have synthetic anomalies, on features that are computed once.

    Args:
        trainer: Trainer of the running fit.
        module: The model in training.
        images: Normal images that are not trained on. Their ``samples`` have a column ``class_index``.
    """

    def __init__(self, trainer: Trainer, module: AnomalibModule, images: AnomalibDataset) -> None:
        dataset = SyntheticAnomalies(images, spread_rows(images, MOST_IMAGES))
        # In a distributed run every process has all of them: they are few.
        rows = range(len(dataset))
        self._normal = _encode(trainer, module, dataset, rows[: len(rows) // 2])
        self._anomalous = _encode(trainer, module, dataset, rows[len(rows) // 2 :])

    def figures(self, trainer: Trainer, module: AnomalibModule, epoch: float) -> StateFigures:
        """Evaluate the current model; this sets its position constants from the normal images.

        Args:
            trainer: Trainer of the running fit.
            module: The model in training.
            epoch: Epochs trained until now.

        Returns:
            The metrics, the same in all processes.
        """
        with inference(trainer, module.model):
            log_likelihood = self._set_positions(module)
            normal, anomalous = (_scores(module, batches) for batches in (self._normal, self._anomalous))
        image_aurocs, pixel_aurocs = [], []
        for index in np.unique(normal.classes):
            of_normal, of_anomalous = normal.classes == index, anomalous.classes == index
            image_scores = [normal.images[of_normal], anomalous.images[of_anomalous]]
            truth = np.repeat([False, True], [len(scores) for scores in image_scores])
            image_aurocs.append(_auroc(truth, np.concatenate(image_scores)))
            masks = np.concatenate([normal.masks[of_normal], anomalous.masks[of_anomalous]])
            maps = np.concatenate([normal.maps[of_normal], anomalous.maps[of_anomalous]])
            pixel_aurocs.append(_auroc(masks.ravel(), maps.ravel()))
        defined = [auroc for auroc in pixel_aurocs if not math.isnan(auroc)]
        pixel_auroc = float(np.mean(defined)) if defined else math.nan
        figures = (epoch, float(np.mean(image_aurocs)), pixel_auroc, log_likelihood)
        # Rounding may differ from process to process, and all of them must keep the same state.
        return StateFigures(*trainer.strategy.broadcast(figures))

    def _set_positions(self, module: AnomalibModule) -> float:
        """Set the position constants, and return the mean log-likelihood of the normal images."""
        model = module.model
        positions = PositionScores(model.num_classes, len(model.flows), module.device)
        log_likelihoods = []
        for batch in self._normal:
            levels, class_index = _level_scores(module, batch)
            positions.add(levels, class_index)
            log_likelihoods += torch.stack([level.log_likelihood.mean(dim=1) for level in levels]).mean(dim=0).tolist()
        model.calibration.set_positions(positions, positions)
        return float(np.mean(log_likelihoods))


def _encode(trainer: Trainer, module: AnomalibModule, dataset: SyntheticAnomalies, rows: range) -> list[_Batch]:
    """Features of some images of the dataset."""
    encoded = []
    with inference(trainer, module.model):
        for batch in image_batches(trainer, module, dataset, rows, "Making synthetic anomalies"):
            images, masks = cast("torch.Tensor", batch.image), cast("torch.Tensor", batch.gt_mask)
            features = [level.cpu() for level in module.model.encoder(images)]
            class_index = module.model.mixture_class_index(module.class_index(batch)).cpu()
            encoded.append(_Batch(features, class_index, masks.cpu(), (images.shape[-2], images.shape[-1])))
    return encoded


def _level_scores(module: AnomalibModule, batch: _Batch) -> tuple[list[LevelScores], torch.Tensor]:
    """Scores of the levels of a batch under the true classes, and these classes."""
    class_index = batch.class_index.to(module.device)
    readings = module.model.read([level.to(module.device) for level in batch.features])
    return module.model.level_scores(readings, class_index), class_index


def _scores(module: AnomalibModule, batches: list[_Batch]) -> _Scores:
    """Scores of all images under their true classes."""
    scores = []
    for batch in batches:
        levels, class_index = _level_scores(module, batch)
        images, maps = module.model.raw_scores(levels, class_index, batch.size)
        parts = (batch.class_index, images.float().cpu(), on_grid(maps.squeeze(1)).float().cpu())
        scores.append((*parts, on_grid(batch.masks).bool()))
    return _Scores(*(torch.cat(parts).numpy() for parts in zip(*scores, strict=True)))


def spread_rows(images: AnomalibDataset, most: int) -> list[int]:
    """Choose images, spread evenly over the classes as far as there are enough.

    Args:
        images: The images. Their ``samples`` have a column ``class_index``.
        most: Maximum number of images.

    Returns:
        Rows of ``samples``, in their order; the first ones of every class.
    """
    numbers = images.samples.groupby("class_index").cumcount().to_numpy()
    return sorted(np.argsort(numbers, kind="stable")[:most].tolist())


def _auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Compute the AUROC; NaN if nothing is anomalous, and 0 if the model gives NaN or infinite scores."""
    if not truth.any():
        return math.nan
    return float(roc_auc_score(truth, scores)) if np.isfinite(scores).all() else 0.0
