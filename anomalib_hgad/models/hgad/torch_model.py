# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""HGAD as a torch module: images -> features -> flow -> mixture -> losses or scores.

Dimensions: B images, H x W grid of a level, D its channels, n latent vectors of an image (H*W where each position has
one), K classes, J selected classes, R classes that a class is contrasted with, L levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.models.hgad.anomaly_map import (
    ENTROPY_SCORES,
    AnomalyMapGenerator,
    LevelScores,
    ScoreKind,
    class_contrast,
    class_posterior,
    image_score,
    median,
)
from anomalib_hgad.models.hgad.calibration import ScoreCalibration
from anomalib_hgad.models.hgad.flows import FAMILIES, FeatureFlow, Latents, check_flow_arguments, flow_options
from anomalib_hgad.models.hgad.loss import HgadLosses, class_log_likelihood, hgad_losses, negative_entropy
from anomalib_hgad.models.hgad.moments import ClassMoments, Gaussians
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.prior import CovarianceKind, HierarchicalGaussianMixture

PriorKind = Literal["hierarchical", "fixed_centers", "single_gaussian"]

DEFAULT_LEVELS = {"layer2": [1.0], "layer3": [1.0]}
"""Default levels: the stages of resnet18 with strides 8 and 16."""

TRAINED_CENTERS = 10
"""M in the paper."""

CANDIDATE_CLASSES = 5
"""Maximum number of candidate classes of an image: the most probable ones under the shared covariance.

Only the candidates' own densities are compared, so the time per image hardly grows with K.
"""

LEAST_SIDE = 8
"""Minimum side of a grid of which every second row and column is enough to infer the class of an image."""

RIVAL_CLASSES = 2
"""R, the number of classes that a class is contrasted with: those most similar to it."""


class HgadPrediction(NamedTuple):
    """Predictions for a batch of images.

    Attributes:
        pred_score: Image scores, higher is more anomalous, shape (B,).
        anomaly_map: Pixel scores, on a scale of their own, shape (B, 1, height, width).
        class_posterior: Posterior probabilities of the classes, shape (B, K).
        novelty: How much less typical the images are than normal images of their class, shape (B,); above 1 an image
            is predicted to show an unknown product.
    """

    pred_score: torch.Tensor
    anomaly_map: torch.Tensor
    class_posterior: torch.Tensor
    novelty: torch.Tensor


class LevelReading(NamedTuple):
    """Outputs of a level that do not depend on the class of an image.

    Attributes:
        latents: z, shape (B, n, D), log |det J|, shape (B, n), and their grid.
        negative_entropy: e, in nats, at most 0, shape (B, n); zeros if the score does not use it.
        class_logits: Class logits of the image under the main centres, summed over the positions, shape (B, K).
    """

    latents: Latents
    negative_entropy: torch.Tensor
    class_logits: torch.Tensor


class HgadModel(nn.Module):
    """One anomaly detector for many product classes.

    Args:
        backbone: timm model name.
        levels: Layers of the backbone to extract, or groups such as ``"blocks.2+3"``, whose mean is extracted. The
            values are the image sizes of the pyramid for each of them, relative to the input.
        neighborhood: Odd side of the square of positions over which the features of a level are averaged.
        image_size: Height and width of the images.
        pre_trained: Download the weights of the backbone.
        backbone_weights: Local file with the weights of the backbone, instead of a download.
        num_classes: K.
        num_centers: M, centres per class. ``None`` is 10 where centres are trained, else 1, the only value possible.
        flow: Family of the flows: ``"cflow"``, position by position with a position code; ``"fastflow"``, convolutions;
            ``"semantic"``, of the class token of a Vision Transformer; or another one of
            :data:`~anomalib_hgad.models.hgad.flows.FAMILIES`.
        flow_arguments: Options of the family by name, documented in its class. ``None`` uses the defaults.
        feature_dim: Maximum number of directions that the whitening of a level keeps: those with the largest variance.
            The flow then needs the whitening, by :meth:`set_whitening` or :meth:`fit`. ``None`` keeps all channels.
        prior: ``"hierarchical"``; ``"fixed_centers"`` does not train the main centres; ``"single_gaussian"`` is one
            standard Gaussian for all images, as in CFLOW-AD, without classes.
        covariance: Covariance of the classes: ``"identity"``, as in the paper, or ``"full"``, with which a trained
            flow starts as a rotation of the whitened features.
        score: Score of the maps, see :class:`~anomalib_hgad.models.hgad.anomaly_map.AnomalyMapGenerator`. With one
            class the entropy is identically 0, and sum and product are the log-likelihood's map. The contrast
            requires full covariances; without other classes it is the standardized score.
        score_share: Fraction of a map's pixels, the largest ones, whose mean is the score of the image; 0 uses only
            the maximum.

    Attributes:
        settings: Arguments that scores depend on, as plain data in a canonical form.

    Raises:
        ValueError: If an argument is out of range, or if the flow or one of its options does not exist.
        TypeError: If an option of the flow has the wrong type.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        levels: Mapping[str, Sequence[float]] = DEFAULT_LEVELS,
        neighborhood: int = 1,
        image_size: tuple[int, int] = (256, 256),
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        num_classes: int = 1,
        num_centers: int | None = None,
        flow: str = "cflow",
        flow_arguments: dict[str, Any] | None = None,
        feature_dim: int | None = None,
        prior: PriorKind = "hierarchical",
        covariance: CovarianceKind = "identity",
        score: ScoreKind = "sum",
        score_share: float = 0.0,
    ) -> None:
        super().__init__()
        check_range("0 <= {} <= 1", score_share=score_share)
        if score == "contrast" and covariance == "identity":
            msg = "The contrast needs a covariance for each class: expected covariance='full' or another "
            msg += "score than 'contrast', got covariance='identity'."
            raise ValueError(msg)
        options = check_flow_arguments(flow, flow_arguments or {})  # before the backbone is loaded
        family = FAMILIES[flow]
        if feature_dim is not None:
            check_range("2 <= {} < inf", feature_dim=feature_dim)
            if family.of_tokens:
                msg = f"flow={flow!r} attends to patch tokens, whose channels are not reduced: expected "
                msg += f"feature_dim=None, got {feature_dim}."
                raise ValueError(msg)
        self.prior_kind = prior
        self.covariance = covariance
        self.num_centers = _number_of_centers(num_centers, flow, covariance)
        self.score = score
        self.score_share = score_share
        check_range("0 < {} < inf", **{"height of image_size": image_size[0], "width of image_size": image_size[1]})
        self.image_size = image_size
        self.encoder = PyramidEncoder(
            backbone, levels, pre_trained, backbone_weights, neighborhood, tokens=family.of_tokens
        )
        self.encoder.check_image_size(image_size)
        self.flows = nn.ModuleList(
            family(min(dim, feature_dim or dim), **options).reduce(dim) for dim in self.encoder.out_dims
        )
        if self.refitted:
            for feature_flow in self.feature_flows:
                feature_flow.start_as_rotation()
        self.settings: dict[str, object] = {
            **self.encoder.settings,
            "image_size": image_size,
            "num_centers": self.num_centers,
            "flow": flow,
            "flow_arguments": flow_options(flow) | options,
            "feature_dim": feature_dim,
            "prior": prior,
            "covariance": covariance,
            "score": score,
            "score_share": score_share,
        }
        self.priors: nn.ModuleList
        self.calibration: ScoreCalibration
        self.novelty: NoveltyScale
        self.anomaly_map_generator: AnomalyMapGenerator
        self.set_num_classes(num_classes)
        self._moments: list[ClassMoments] = []

    @property
    def num_classes(self) -> int:
        """K."""
        return self.calibration.num_classes

    def set_num_classes(self, num_classes: int, num_added: int = 0, num_backgrounds: int = 0) -> None:
        """Initialise the mixtures and the score constants for another number of classes.

        Args:
            num_classes: K. A single Gaussian always has one.
            num_added: Number of classes, the last ones, added to those that were fitted together.
            num_backgrounds: Number of further Gaussians, of no class, that classes are contrasted with.
        """
        if self.prior_kind == "single_gaussian":
            num_classes, num_added, num_backgrounds = 1, 0, 0
        self.num_added = num_added
        of_levels = ((num_classes - num_added, flow.dim, num_added + num_backgrounds) for flow in self.feature_flows)
        self.priors = nn.ModuleList(self._new_prior(*of_level) for of_level in of_levels)
        self.calibration = ScoreCalibration(num_classes, len(self.flows))
        self.novelty = NoveltyScale(num_classes)
        gaussians = num_classes + num_backgrounds
        count = min(RIVAL_CLASSES, gaussians - 1) if self.covariance == "full" else 0
        # Until the mixtures are fitted, the rivals of a class are those that follow it.
        self.register_buffer("rivals", (torch.arange(num_classes).view(-1, 1) + 1 + torch.arange(count)) % gaussians)
        needs_classes = self.score in {"sum", "product"}
        score: ScoreKind = "log_likelihood" if num_classes == 1 and needs_classes else self.score
        self.anomaly_map_generator = AnomalyMapGenerator(score, self.image_size)

    def mixture_class_index(self, class_index: torch.Tensor) -> torch.Tensor:
        """Return class indices in the mixture; a mixture of one class assigns all images to it."""
        return class_index if self.num_classes > 1 else torch.zeros_like(class_index)

    @property
    def whitened(self) -> bool:
        """Whether the flows whiten the features."""
        return all(bool(flow.whitened) for flow in self.feature_flows)

    def set_whitening(self, statistics: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Set the whitening of the flows.

        Args:
            statistics: Mean, shape (D,), and covariance, shape (D, D), of the feature vectors of each level.
        """
        for flow, (mean, covariance) in zip(self.feature_flows, statistics, strict=True):
            flow.set_whitening(mean, covariance)

    @property
    def trained(self) -> bool:
        """Whether the flows have parameters to train; otherwise whitening and mixture are fitted in closed form."""
        return self.feature_flows[0].trained

    @property
    def refitted(self) -> bool:
        """Whether flows are trained, and :meth:`fit_latents` fits the Gaussians of the classes to their latents."""
        return self.trained and self.covariance == "full"

    def start_moments(self) -> None:
        """Start to accumulate the moments of features, from none."""
        device = self.calibration.location.device
        self._moments = [ClassMoments(self.num_classes, flow.feature_dim, device) for flow in self.feature_flows]

    def add_moments(self, features: Sequence[torch.Tensor], class_index: torch.Tensor) -> None:
        """Add the features of normal images to the moments that :meth:`fit` uses.

        Args:
            features: Feature maps of the levels, shapes (B, D, H, W).
            class_index: Their classes, int64, shape (B,).
        """
        class_index = self.mixture_class_index(class_index)
        for moments, flow, level in zip(self._moments, self.feature_flows, features, strict=True):
            moments.add(flow.vectors(level), class_index)

    def forget_moments(self) -> None:
        """Free the memory of the moments: K (D + 1)^2 numbers of 8 bytes per level."""
        self._moments = []

    def fit(self) -> torch.Tensor:
        """Fit whitening and mixtures in closed form: each class becomes a Gaussian of its whitened features.

        Returns:
            Whether each class had any features, shape (K,).

        Raises:
            ValueError: If no features were added, or if some have NaN or infinite values.
        """
        latents = []
        for flow, level in zip(self.feature_flows, self._moments, strict=True):
            gaussians = level.gaussians()
            flow.set_whitening(*gaussians.pooled())
            latents.append(gaussians.mapped(flow.whitening.double(), flow.whitening_bias.double()))
        self.fit_latents(latents)
        return latents[0].counts > 0

    def fit_latents(self, latents: Sequence[Gaussians]) -> None:
        """Fit the mixtures in closed form, a Gaussian to the latents of each class, and choose its rivals.

        Args:
            latents: Moments of the latents of every level.
        """
        for prior, level in zip(self.level_priors, latents, strict=True):
            prior.set_gaussians(*level)
        if self.class_rivals.shape[1]:
            # A class without vectors is the last choice of a rival, but before the class itself.
            unseen = latents[0].counts == 0
            densities = self.mean_log_densities([(level.means, level.covariances) for level in latents])
            densities = densities.masked_fill(unseen, torch.finfo(densities.dtype).min).fill_diagonal_(-torch.inf)
            self.class_rivals.copy_(densities.topk(self.class_rivals.shape[1], dim=-1).indices)

    def mean_log_densities(self, levels: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Compute the mean log-density of the latents of some classes under each Gaussian.

        Args:
            levels: Means and covariances of the latents of the classes y, for every level, shapes (Y, D) and (Y, D, D).

        Returns:
            Expectations in nats per dimension, summed over the levels, for all N Gaussians, shape (Y, N).
        """
        of_levels = [
            prior.mean_log_densities(means, covariances) / means.shape[1]
            for prior, (means, covariances) in zip(self.level_priors, levels, strict=True)
        ]
        return torch.stack(of_levels).sum(dim=0).to(self.class_rivals.device)

    @property
    def feature_flows(self) -> list[FeatureFlow]:
        """The flows of the levels."""
        return [cast("FeatureFlow", flow) for flow in self.flows]

    @property
    def class_rivals(self) -> torch.Tensor:
        """The Gaussians that each class is contrasted with, int64, shape (K, R)."""
        return cast("torch.Tensor", self.rivals)

    @property
    def level_priors(self) -> list[HierarchicalGaussianMixture]:
        """The mixtures of the levels."""
        return [cast("HierarchicalGaussianMixture", prior) for prior in self.priors]

    def _new_prior(self, num_classes: int, dim: int, num_later: int) -> HierarchicalGaussianMixture:
        if self.prior_kind == "single_gaussian":
            prior = HierarchicalGaussianMixture(1, 1, dim, self.covariance)
            nn.init.zeros_(prior.class_centers)
        else:
            prior = HierarchicalGaussianMixture(num_classes, self.num_centers, dim, self.covariance, num_later)
        prior.class_centers.requires_grad_(self.prior_kind == "hierarchical" and self.covariance == "identity")
        return prior

    def losses(
        self,
        features: Sequence[torch.Tensor],
        class_index: torch.Tensor,
        label_smoothing: float = 0.02,
        position_share: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> HgadLosses:
        """Compute the loss terms, summed over the levels.

        Args:
            features: Feature maps of the levels, as the encoder gives them, shapes (B, D, H, W).
            class_index: True classes, int64, shape (B,).
            label_smoothing: Share of the label spread over all classes in the mutual information.
            position_share: Share of the positions to draw, for flows that map each position independently.
            generator: CPU generator to draw them with; PyTorch's global one by default.

        Returns:
            The terms, unweighted. Levels share no parameters: a step on the sum equals a step per level.
        """
        class_index = self.mixture_class_index(class_index)
        levels = []
        for level, flow, prior in zip(features, self.feature_flows, self.level_priors, strict=True):
            z, log_det = flow.some_latents(level, position_share, generator)
            levels.append(hgad_losses(prior, z, log_det, class_index, label_smoothing))
        return HgadLosses(*(torch.stack(terms).sum() for terms in zip(*levels, strict=True)))

    @torch.no_grad()
    def read(self, features: Sequence[torch.Tensor]) -> list[LevelReading]:
        """Compute what does not depend on the class of an image.

        Args:
            features: Feature maps of the levels, shapes (B, D, H, W).

        Returns:
            The readings of the levels.
        """
        readings = []
        for level, flow, prior in zip(features, self.feature_flows, self.level_priors, strict=True):
            latents = flow(level)
            of_all = self.score in ENTROPY_SCORES or self.covariance == "identity"
            energies = prior.class_energies(latents.z if of_all else deciding_positions(latents))
            class_logits = (energies + prior.class_log_priors()).log_softmax(dim=-1).sum(dim=1)
            entropy = negative_entropy(energies) if of_all else torch.zeros_like(latents.log_det)
            readings.append(LevelReading(latents, entropy, class_logits))
        return readings

    @torch.no_grad()
    def class_posterior(self, readings: Sequence[LevelReading]) -> torch.Tensor:
        """Compute the posterior over the classes of each image.

        With the identity as covariance, the main centres give the posterior. With full covariances, the main centres
        and the shared covariance only choose the candidates; the candidates' own densities at
        :func:`deciding_positions` then give the posterior. Every position counts as the median one, since the
        log-likelihood of a defect may be arbitrarily low even under the right class.

        Args:
            readings: The readings of the levels.

        Returns:
            Probabilities, shape (B, K).
        """
        posterior = class_posterior([reading.class_logits for reading in readings])
        if self.covariance == "identity" or self.num_classes == 1:
            return posterior
        candidates = posterior.topk(min(CANDIDATE_CLASSES, posterior.shape[1]), dim=-1).indices
        logits = self.class_evidence(readings, candidates)
        posterior = torch.zeros_like(posterior).scatter(-1, candidates, logits.softmax(dim=-1))
        if not self.num_added:
            return posterior
        # Classes that were fitted together keep their relative probabilities, whatever share added classes take.
        first = self.num_classes - self.num_added
        added = [
            self.class_evidence(readings, torch.full_like(candidates[:, :1], index))
            for index in range(first, self.num_classes)
        ]
        shares = torch.cat((logits.logsumexp(dim=-1, keepdim=True), *added), dim=-1).softmax(dim=-1)
        return torch.cat((shares[:, :1] * posterior, shares[:, 1:]), dim=-1)

    def class_evidence(self, readings: Sequence[LevelReading], class_index: torch.Tensor) -> torch.Tensor:
        """Compute logits of some classes of each image from their own densities; every position counts as the median.

        Args:
            readings: The readings of the levels.
            class_index: The classes, int64, shape (B, J).

        Returns:
            Logits in nats, shape (B, J).
        """
        logits = []
        for reading, prior in zip(readings, self.level_priors, strict=True):
            log_densities = prior.intra_class_log_density(deciding_positions(reading.latents), class_index)
            typical = median(log_densities.mT, dim=-1) + prior.all_class_log_priors()[class_index]
            logits.append(reading.latents.z.shape[1] * typical)
        return torch.stack(logits).sum(dim=0)

    @torch.no_grad()
    def level_scores(self, readings: Sequence[LevelReading], class_index: torch.Tensor) -> list[LevelScores]:
        """Compute the scores of all positions of all levels under the class of each image.

        Args:
            readings: The readings of the levels.
            class_index: Class indices in the mixture, int64, shape (B,).

        Returns:
            Scores of the levels.
        """
        classes = class_index.unsqueeze(-1)
        rivals = self.class_rivals[class_index] if self.score == "contrast" else classes[:, :0]
        classes = torch.cat((classes, rivals), dim=-1)
        # A class with fewer rivals has itself in the place of the missing ones.
        missing = (rivals == class_index.unsqueeze(-1)).unsqueeze(1)
        levels = []
        for reading, prior in zip(readings, self.level_priors, strict=True):
            z, log_det, grid = reading.latents
            log_densities = prior.intra_class_log_density(z, classes)
            log_likelihoods = class_log_likelihood(log_densities, log_det.unsqueeze(-1), dim=z.shape[-1])
            own, of_others = log_likelihoods[..., 0], log_likelihoods[..., 1:].masked_fill(missing, -torch.inf)
            levels.append(LevelScores(own, class_contrast(own, of_others), reading.negative_entropy, grid))
        return levels

    @torch.no_grad()
    def predict(
        self,
        images: torch.Tensor,
        class_index: torch.Tensor | None = None,
    ) -> tuple[HgadPrediction, HgadPrediction | None]:
        """Predict with the inferred class and, where it is known, with the true one.

        Args:
            images: Normalised images, shape (B, 3, height, width).
            class_index: True classes, int64, shape (B,), or ``None``.

        Returns:
            The prediction with the inferred class, and that with the true one if it is given.
        """
        return self.predict_readings(self.read(self.encoder(images)), images.shape[-2:], class_index)

    @torch.no_grad()
    def predict_readings(
        self, readings: Sequence[LevelReading], size: Sequence[int], class_index: torch.Tensor | None = None
    ) -> tuple[HgadPrediction, HgadPrediction | None]:
        """Predict from the readings of the levels, as :meth:`predict`.

        Args:
            readings: The readings of the levels.
            size: Height and width of the images.
            class_index: True classes, int64, shape (B,), or ``None``.

        Returns:
            The prediction with the inferred class, and that with the true one if it is given.
        """
        posterior = self.class_posterior(readings)
        inferred = self._prediction(readings, posterior.argmax(dim=-1, keepdim=True).squeeze(-1), posterior, size)
        if class_index is None:
            return inferred, None
        return inferred, self._prediction(readings, self.mixture_class_index(class_index), posterior, size)

    def raw_scores(
        self, levels: Sequence[LevelScores], class_index: torch.Tensor, size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the scores before they are put on the common scales.

        Args:
            levels: Scores of the levels under the classes.
            class_index: These classes, int64, shape (B,).
            size: Height and width of the maps.

        Returns:
            Image scores, shape (B,), and maps, shape (B, 1, height, width).
        """
        anomaly_map = self.anomaly_map_generator(levels, self.calibration.constants(class_index), size)
        return image_score(anomaly_map, self.score_share), anomaly_map

    def _prediction(
        self,
        readings: Sequence[LevelReading],
        class_index: torch.Tensor,
        posterior: torch.Tensor,
        size: Sequence[int],
    ) -> HgadPrediction:
        """Predict under the classes, shape (B,)."""
        levels = self.level_scores(readings, class_index)
        pred_score, anomaly_map = self.calibration(*self.raw_scores(levels, class_index, size), class_index)
        return HgadPrediction(pred_score, anomaly_map, posterior, self.novelty(levels, class_index))

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Predict with the inferred class.

        Args:
            images: Normalised images, shape (B, 3, height, width).

        Returns:
            Image scores, NaN where the novelty is NaN, shape (B,), and anomaly maps, shape (B, 1, height, width).
        """
        prediction, _ = self.predict(images)
        novelty = prediction.novelty
        # This makes the score depend on the novelty: an exporter leaves out what no output depends on.
        pred_score = torch.where(novelty.isnan(), novelty, prediction.pred_score)
        return InferenceBatch(pred_score=pred_score, anomaly_map=prediction.anomaly_map)


def deciding_positions(latents: Latents) -> torch.Tensor:
    """Select the latents of every second row and column: neighbours say the same about the class of an image.

    Args:
        latents: Latents of n = H * W positions.

    Returns:
        z, shape (B, ceil(H / 2) * ceil(W / 2), D); all positions if the grid has fewer than :data:`LEAST_SIDE` rows
        or columns.
    """
    if min(latents.grid) < LEAST_SIDE:
        return latents.z
    return latents.z.mT.unflatten(-1, latents.grid)[..., ::2, ::2].flatten(2).mT


def _number_of_centers(given: int | None, flow: str, covariance: CovarianceKind) -> int:
    """Return M for a family of flows; see :class:`HgadModel`."""
    if FAMILIES[flow].trained and covariance == "identity":
        return TRAINED_CENTERS if given is None else given
    if given not in {None, 1}:
        reason = "covariance='full'" if covariance == "full" else f"flow={flow!r}"
        msg = f"With {reason} the mean of a class is its only centre: expected num_centers=1, got {given}."
        raise ValueError(msg)
    return 1
