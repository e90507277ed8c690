# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Latents and log-likelihoods of a sample of the test images.

Dimensions: K classes, D channels, n positions of the finest level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from anomalib.data.utils import read_image
from sklearn.decomposition import PCA
from torch.nn import functional as F

from anomalib_hgad.data.masks import read_masks, split_masks
from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.models.hgad.lightning_model import Hgad
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture
from anomalib_hgad.report.run_files import RunFiles

IMAGES_OF_KIND = 8
"""Number of normal and of anomalous images sampled from each class."""


@dataclass(frozen=True)
class Sample:
    """Latents and log-likelihoods of some images.

    Attributes:
        predictions: The images.
        latents: Mean of an image's latents on the finest level, a row each, shape (number, D).
        centers: Main class centres of that level, shape (K, D).
        normal: Log-likelihoods of normal positions, in nats per dimension, of all classes.
        anomalous: Those of positions within a mask.
    """

    predictions: list[Prediction]
    latents: np.ndarray
    centers: np.ndarray
    normal: np.ndarray
    anomalous: np.ndarray


@torch.no_grad()
def sample_latents(run: RunFiles) -> Sample:
    """Sample latents of some images of each class, spread evenly over those of the test.

    Args:
        run: The run.

    Returns:
        The sample.
    """
    chosen: list[Prediction] = []
    for name in run.class_names:
        for anomalous in (False, True):
            of_kind = [row for row in run.of_class(name) if row.gt_label == anomalous]
            count = min(len(of_kind), IMAGES_OF_KIND)
            chosen += [of_kind[index * len(of_kind) // count] for index in range(count)]
    latents, normal, anomalous_positions = [], [], []
    for row in chosen:
        z, log_likelihood, grid, centers = finest_level(run.model, row)
        latents.append(z.mean(dim=0).numpy())
        if not row.gt_label:
            normal.append(log_likelihood.numpy())
        elif row.mask_path:
            mask = torch.from_numpy(read_masks(split_masks(row.mask_path))).float()[None, None]
            inside = F.adaptive_avg_pool2d(mask, grid).flatten() > 0.5  # a position is what most of its pixels are
            anomalous_positions.append(log_likelihood[inside].numpy())
    return Sample(
        chosen,
        np.stack(latents),
        centers.numpy(),
        np.concatenate([np.empty(0), *normal]),
        np.concatenate([np.empty(0), *anomalous_positions]),
    )


def finest_level(model: Hgad, row: Prediction) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int], torch.Tensor]:
    """Latents, shape (n, D), and log-likelihoods, shape (n,), of an image under its inferred class; grid; centres."""
    image = read_image(row.image_path, as_tensor=True).unsqueeze(0)
    pre_processor = model.pre_processor
    readings = model.model.read(model.model.encoder(image if pre_processor is None else pre_processor(image)))
    levels = model.model.level_scores(readings, model.model.class_posterior(readings).argmax(dim=-1))
    finest = max(range(len(levels)), key=lambda index: levels[index].log_likelihood.shape[1])
    prior = cast("HierarchicalGaussianMixture", model.model.priors[finest])
    return readings[finest].latents.z[0], levels[finest].log_likelihood[0], levels[finest].grid, prior.class_centers


def project(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Project latents and main class centres onto the plane of largest variance (principal components).

    Args:
        sample: The sample.

    Returns:
        Their positions, shapes (number, 2) and (K, 2).
    """
    plane = PCA(2, svd_solver="full").fit_transform(np.concatenate([sample.latents, sample.centers]))
    return plane[: len(sample.latents)], plane[len(sample.latents) :]
