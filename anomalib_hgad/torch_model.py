# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""HGAD as a torch module: images -> features -> flow -> mixture -> losses or scores.

Dimensions: B images, H x W grid of a level, n = H*W, D its channels, K classes, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F

from .anomaly_map import AnomalyMapGenerator, LevelScores, ScoreKind, class_posterior
from .calibration import ScoreCalibration
from .encoder import PyramidEncoder
from .flow import ConditionalFlow
from .loss import HgadLosses, class_log_likelihood, hgad_losses, negative_entropy
from .prior import HierarchicalGaussianMixture

PriorKind = Literal["hierarchical", "fixed_centers", "single_gaussian"]


class HgadPrediction(NamedTuple):
    """Predictions for a batch of images.

    Attributes:
        pred_score: Image scores, higher is more anomalous, shape (B,).
        anomaly_map: Scores of the pixels on the same scale, shape (B, 1, height, width). The image score is their
            largest.
        class_posterior: Probabilities of the classes as the model infers them, shape (B, K).
    """

    pred_score: torch.Tensor
    anomaly_map: torch.Tensor
    class_posterior: torch.Tensor


class HgadModel(nn.Module):
    """One anomaly detector for many product classes.

    Args:
        backbone: timm model name.
        layers: Layers of the backbone whose features are taken.
        scales: Sizes of the image pyramid relative to the input.
        image_size: Height and width of the images.
        pre_trained: Download the weights of the backbone.
        backbone_weights: Local file with the weights of the backbone, instead of a download.
        num_classes: K.
        num_centers: M, centres of a class.
        coupling_blocks: Coupling blocks of a level's flow.
        condition_dim: P, length of the position code.
        clamp_alpha: Clamp of the log-scales of the coupling.
        prior: ``"hierarchical"``; ``"fixed_centers"`` keeps the main centres where they start; ``"single_gaussian"``
            is one standard Gaussian for all classes, as in CFLOW-AD, and knows no classes.
        score: What the map is made of, see :class:`~anomalib_hgad.anomaly_map.AnomalyMapGenerator`. With one class the
            entropy is identically 0, and the product is the log-likelihood's map.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_b6",
        layers: Sequence[str] = ("blocks.4",),
        scales: Sequence[float] = (1.0, 0.5, 0.25),
        image_size: tuple[int, int] = (1024, 1024),
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        num_classes: int = 1,
        num_centers: int = 10,
        coupling_blocks: int = 12,
        condition_dim: int = 256,
        clamp_alpha: float = 1.9,
        prior: PriorKind = "hierarchical",
        score: ScoreKind = "product",
    ) -> None:
        super().__init__()
        self.prior_kind = prior
        self.num_centers = num_centers
        self.score = score
        self.image_size = image_size
        self.encoder = PyramidEncoder(backbone, layers, scales, pre_trained, backbone_weights)
        self.flows = nn.ModuleList(
            ConditionalFlow(dim, coupling_blocks, condition_dim, clamp_alpha) for dim in self.encoder.out_dims
        )
        self.priors: nn.ModuleList
        self.calibration: ScoreCalibration
        self.anomaly_map_generator: AnomalyMapGenerator
        self.set_num_classes(num_classes)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.calibration.num_classes

    def set_num_classes(self, num_classes: int) -> None:
        """Start the mixtures and the score constants anew for another number of classes.

        Args:
            num_classes: K. A single Gaussian knows only one.
        """
        if self.prior_kind == "single_gaussian":
            num_classes = 1
        self.priors = nn.ModuleList(self._new_prior(num_classes, dim) for dim in self.encoder.out_dims)
        self.calibration = ScoreCalibration(num_classes, len(self.flows))
        score: ScoreKind = "log_likelihood" if num_classes == 1 and self.score == "product" else self.score
        self.anomaly_map_generator = AnomalyMapGenerator(score, self.image_size)

    def mixture_class_index(self, class_index: torch.Tensor) -> torch.Tensor:
        """Classes as the mixture counts them: one that knows a single class takes all images for that one."""
        return class_index if self.num_classes > 1 else torch.zeros_like(class_index)

    @property
    def whitened(self) -> bool:
        """Whether the flows whiten the features."""
        return all(bool(flow.whitened) for flow in self._flows)

    def set_whitening(self, statistics: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Let the flows whiten the features.

        Args:
            statistics: Mean of the channels of every level, shape (D,), and their covariance, shape (D, D).
        """
        for flow, (mean, covariance) in zip(self._flows, statistics, strict=True):
            flow.set_whitening(mean, covariance)

    @property
    def _flows(self) -> list[ConditionalFlow]:
        return [cast("ConditionalFlow", flow) for flow in self.flows]

    @property
    def _priors(self) -> list[HierarchicalGaussianMixture]:
        return [cast("HierarchicalGaussianMixture", prior) for prior in self.priors]

    def _new_prior(self, num_classes: int, dim: int) -> HierarchicalGaussianMixture:
        if self.prior_kind == "single_gaussian":
            prior = HierarchicalGaussianMixture(1, 1, dim)
            nn.init.zeros_(prior.class_centers)
        else:
            prior = HierarchicalGaussianMixture(num_classes, self.num_centers, dim)
        prior.class_centers.requires_grad_(self.prior_kind == "hierarchical")
        return prior

    def losses(self, images: torch.Tensor, class_index: torch.Tensor, label_smoothing: float = 0.02) -> HgadLosses:
        """Loss terms summed over the levels.

        Args:
            images: Normalised images, shape (B, 3, height, width).
            class_index: True classes, int64, shape (B,).
            label_smoothing: Share of the label spread over all classes in the mutual information.

        Returns:
            The terms, unweighted. Levels share no parameters: a step on the sum equals a step per level.
        """
        class_index = self.mixture_class_index(class_index)
        levels = []
        for features, flow, prior in zip(self.encoder(images), self._flows, self._priors, strict=True):
            latents = flow(features)
            levels.append(hgad_losses(prior, latents.z, latents.log_det, class_index, label_smoothing))
        return HgadLosses(*(torch.stack(terms).sum() for terms in zip(*levels, strict=True)))

    @torch.no_grad()
    def level_scores(self, images: torch.Tensor) -> list[LevelScores]:
        """Scores of all positions of all levels.

        Args:
            images: Normalised images, shape (B, 3, height, width).

        Returns:
            Scores of the levels.
        """
        levels = []
        for features, flow, prior in zip(self.encoder(images), self._flows, self._priors, strict=True):
            latents = flow(features)
            log_densities = prior.intra_class_log_densities(latents.z)
            energies = prior.class_energies(latents.z)
            levels.append(
                LevelScores(
                    class_log_likelihood(log_densities, latents.log_det.unsqueeze(-1), dim=features.shape[1]),
                    negative_entropy(energies),
                    (energies + prior.class_log_priors()).log_softmax(dim=-1).sum(dim=1),
                    (features.shape[2], features.shape[3]),
                ),
            )
        return levels

    @torch.no_grad()
    def predict(
        self,
        images: torch.Tensor,
        class_index: torch.Tensor | None = None,
    ) -> tuple[HgadPrediction, HgadPrediction | None]:
        """Predict with the inferred and, where it is known, with the true class.

        Args:
            images: Normalised images, shape (B, 3, height, width).
            class_index: True classes, int64, shape (B,), or ``None``.

        Returns:
            The prediction with the inferred class, and that with the true one if it is given.
        """
        levels = self.level_scores(images)
        posterior = class_posterior(levels)
        inferred = HgadPrediction(*self._scores(levels, posterior, images.shape[-2:]), posterior)
        if class_index is None:
            return inferred, None
        one_hot = F.one_hot(self.mixture_class_index(class_index), self.num_classes).to(posterior)
        return inferred, HgadPrediction(*self._scores(levels, one_hot, images.shape[-2:]), posterior)

    def _scores(
        self,
        levels: Sequence[LevelScores],
        class_weights: torch.Tensor,
        size: Sequence[int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image scores, shape (B,), and anomaly maps, shape (B, 1, height, width), on the common scale."""
        anomaly_map = self.anomaly_map_generator(
            levels,
            self.calibration.max_log_likelihood,
            self.calibration.max_negative_entropy,
            class_weights,
            size,
        )
        anomaly_map = self.calibration(anomaly_map, class_weights)
        return anomaly_map.amax(dim=(-3, -2, -1)), anomaly_map

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Predict with the inferred class.

        Args:
            images: Normalised images, shape (B, 3, height, width).

        Returns:
            Image scores, shape (B,), and anomaly maps, shape (B, 1, height, width).
        """
        prediction, _ = self.predict(images)
        return InferenceBatch(pred_score=prediction.pred_score, anomaly_map=prediction.anomaly_map)
