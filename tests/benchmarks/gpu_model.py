# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What the benchmark of a GPU measures: a model with made images, its training steps, and a simpler density."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from anomalib_hgad import Hgad, HgadModel
from tests.benchmarks.measure import device
from tests.helpers.light import TRAINED

RIDGE = 0.01
"""Variance added to every direction, relative to the mean one: what the package adds before it whitens."""


def autocast(precision: str) -> torch.autocast:
    """Context of a precision, as Lightning's ``32-true`` and ``bf16-mixed``."""
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bfloat16")


class Bench:
    """A model on the device, whitened, and Gaussians of its classes.

    Args:
        settings: Arguments of :class:`~anomalib_hgad.Hgad`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        # The Lightning module has the weights of the losses, and makes the ONNX graph.
        self.module = Hgad(**TRAINED | settings, pre_trained=False, evaluator=False, visualizer=False, seed=0)
        self.module.to(device())
        self.model: HgadModel = self.module.model
        images, class_index = self.images(2 * self.model.num_classes)
        self.gaussians = []
        statistics = []
        for flow, level in zip(self.model.feature_flows, self.features(images), strict=True):
            vectors = flow.vectors(level).double()
            rows = vectors.flatten(0, 1)
            statistics.append((rows.mean(dim=0), rows.T.cov()))
            self.gaussians.append(class_gaussians(vectors, class_index))
        self.model.set_whitening(statistics)

    def images(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images, noise on the pattern of their class, and the classes in turn."""
        classes = self.model.num_classes
        patterns = torch.randn(classes, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        class_index = torch.arange(count) % classes
        smooth = F.interpolate(patterns, size=self.model.image_size, mode="bilinear")[class_index]
        return (smooth + 0.5 * torch.randn(smooth.shape)).to(device()), class_index.to(device())

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of many images."""
        parts = [self.model.encoder(part) for part in images.split(8)]
        return [torch.cat(levels) for levels in zip(*parts, strict=True)]


def class_gaussians(vectors: torch.Tensor, class_index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means, shape (K, D), and inverse Cholesky factors of the covariances, shape (K, D, D), of a level."""
    of_classes = [vectors[class_index == index].flatten(0, 1) for index in range(int(class_index.max()) + 1)]
    covariances = torch.stack([rows.T.cov() for rows in of_classes])
    identity = torch.eye(vectors.shape[-1]).to(vectors)
    covariances += RIDGE * covariances.diagonal(dim1=1, dim2=2).mean(dim=1).view(-1, 1, 1) * identity
    inverses = torch.linalg.solve_triangular(torch.linalg.cholesky(covariances), identity, upper=False)
    return torch.stack([rows.mean(dim=0) for rows in of_classes]).float(), inverses.float()


@torch.no_grad()
def closed_form(bench: Bench, features: list[torch.Tensor], class_index: torch.Tensor) -> list[torch.Tensor]:
    """The simplest density of the same features: squared Mahalanobis distances to one class, shapes (B, n)."""
    distances = []
    for flow, level, (means, inverses) in zip(bench.model.feature_flows, features, bench.gaussians, strict=True):
        rows = flow.vectors(level) - means[class_index].unsqueeze(1)
        distances.append((rows @ inverses[class_index].mT).square().sum(dim=-1))
    return distances


def flow_and_mixture(bench: Bench, features: list[torch.Tensor]) -> None:
    """What inference computes between the encoder and the map."""
    readings = bench.model.read(features)
    bench.model.level_scores(readings, bench.model.class_posterior(readings).argmax(dim=-1))


class Training:
    """Training steps as Hgad's in the second stage, without Lightning around them.

    Args:
        module: What is trained.
        share: Share of the positions that a step takes.
        precision: One of those of :func:`autocast`.
    """

    def __init__(self, module: Hgad, share: float, precision: str) -> None:
        self.module, self.share, self.precision, self.count = module, share, precision, 0
        groups = [
            {"params": [parameter for parameter in part.parameters() if parameter.requires_grad], "weight_decay": decay}
            for part, decay in (
                (module.model.flows, module.training_arguments["weight_decay"]),
                (module.model.priors, 0.0),
            )
        ]
        self.optimizer = torch.optim.Adam(groups, lr=module.lr, betas=(0.95, 0.99), fused=True)

    def from_images(self, images: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """A step whose features are computed in it; gives the loss."""
        with autocast(self.precision):
            features = self.module.model.encoder(images)
        return self.from_features(features, class_index)

    def from_features(self, features: list[torch.Tensor], class_index: torch.Tensor) -> torch.Tensor:
        """A step on features that are there, as those of the cache; gives the loss."""
        smoothing = self.module.training_arguments["label_smoothing"]
        generator = torch.Generator().manual_seed(self.count)
        with autocast(self.precision):
            losses = self.module.model.losses(features, class_index, smoothing, self.share, generator)._asdict()
            loss = torch.stack([self.module.loss_weights[name] * value for name, value in losses.items()]).sum()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.count += 1
        return loss.detach()
