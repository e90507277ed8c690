# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Hierarchical Gaussian mixture, the prior of the latents of one feature level (HGAD, Sec. 3.2 and 3.3).

Every product class y has a main centre mu_y, and around it M centres mu_y + Delta_{y,i} with Delta_{y,1} = 0, all with
the class's covariance Sigma_y: the identity, as in the paper, or a full one. The functions and methods here are the
only place where a density is computed: losses, scores and exported graphs call them.

Log-densities are in nats, not divided by D, and leave out the constant -(D/2) log 2 pi.

Dimensions: B images, n positions of an image, K classes that were fitted together, N classes with those added later, J
selected ones, M centres of a class, D channels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.common.precision import full_precision, no_autocast
from anomalib_hgad.models.hgad.gaussians import (
    RIDGE,
    gaussian_energies,
    inverse_cholesky,
    log_det,
    lower_triangular,
    whitened_square_norms,
)
from anomalib_hgad.models.hgad.rows import append_rows, keep_rows

logger = logging.getLogger(__name__)

CovarianceKind = Literal["identity", "full"]
"""Covariances of the classes."""

NAMED_CLASSES = 10
"""Maximum number of classes that a warning lists."""

CENTER_DISTANCE = 5.0
"""Distance between the main centres at the start, in standard deviations of a component."""


def initial_class_centers(num_classes: int, dim: int) -> torch.Tensor:
    """Return initial main centres, about :data:`CENTER_DISTANCE` apart.

    mu_k is s on the channels k, k+K, k+2K, ... (floor(D/K) of them) and 0 elsewhere, s = 5 / sqrt(floor(2D/K)). With
    more classes than channels this rule would put every centre at 0. The centres are then unit vectors that share the
    space as evenly as possible (a unit-norm tight frame, found by alternating projections), scaled to the distance.

    Args:
        num_classes: K.
        dim: D.

    Returns:
        Centres, shape (K, D).
    """
    if num_classes <= dim:
        scale = CENTER_DISTANCE / math.sqrt(2 * dim // num_classes)
        channel = torch.arange(dim)
        used = channel < dim // num_classes * num_classes
        return scale * (F.one_hot(channel % num_classes, num_classes) * used.unsqueeze(1)).T.float()
    frame = torch.randn(num_classes, dim, dtype=torch.float64)
    for _ in range(100):
        left, _, right = torch.linalg.svd(frame, full_matrices=False)
        frame = F.normalize(left @ right, dim=1)
    return (frame * CENTER_DISTANCE / torch.pdist(frame).mean()).float()


class HierarchicalGaussianMixture(nn.Module):
    """Mixture over classes (Eq. 6) of mixtures over the centres of a class (Eq. 10).

    Args:
        num_classes: K.
        num_centers: M.
        dim: D.
        covariance: ``"identity"``, as in the paper; ``"full"`` has a covariance for each class, which
            :meth:`set_gaussians` sets. Until then it is the identity.
        num_later: N - K, the number of classes added by :meth:`append`. They do not change what the K classes share.

    Attributes:
        class_centers: Main centres mu, shape (N, D).
        center_offsets: Offsets Delta_{y,2..M} of the other centres of a class, shape (N, M-1, D).
        class_logits: psi, shape (N,); log p(y) = log_softmax(psi) over the K.
        center_logits: psi', shape (N, M); log p(i|y) = log_softmax(psi'_y).
        class_whitening: L_y^-1 with Sigma_y = L_y L_y^T, shape (N, D, D); ``None`` for the identity.
        shared_whitening: L^-1 of the mean covariance of the K classes, shape (D, D); ``None`` likewise.
        num_classes: K.

    Raises:
        ValueError: If an argument is smaller than 1, or if several classes have only one channel.
    """

    class_whitening: torch.Tensor | None
    shared_whitening: torch.Tensor | None

    def __init__(
        self,
        num_classes: int,
        num_centers: int,
        dim: int,
        covariance: CovarianceKind = "identity",
        num_later: int = 0,
    ) -> None:
        super().__init__()
        check_range("1 <= {} < inf", num_classes=num_classes, num_centers=num_centers, dim=dim)
        if dim == 1 < num_classes:
            msg = f"The centres of {num_classes} classes need two dimensions: expected dim >= 2, got 1."
            raise ValueError(msg)
        self.num_classes = num_classes
        rows = num_classes + num_later
        self.class_centers = nn.Parameter(initial_class_centers(rows, dim))
        several = num_centers > 1  # else no loss depends on the two, and DDP would wait for their gradients
        self.center_offsets = nn.Parameter(torch.randn(rows, num_centers - 1, dim), requires_grad=several)
        self.class_logits = nn.Parameter(torch.zeros(rows))
        self.center_logits = nn.Parameter(torch.zeros(rows, num_centers), requires_grad=several)
        self._told_of_few_vectors = False
        full = covariance == "full"
        self.register_buffer("class_whitening", torch.eye(dim).repeat(rows, 1, 1) if full else None)
        self.register_buffer("shared_whitening", torch.eye(dim) if full else None)

    @torch.no_grad()
    def set_gaussians(self, counts: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor) -> None:
        """Set a Gaussian for each class: its mean is the main centre, its covariance, if full, that of all its centres.

        Args:
            counts: Number of vectors of each class, shape (K,). A class without vectors keeps its centre, and gets the
                mean covariance of the others.
            means: Their means, shape (K, D).
            covariances: Their covariances, shape (K, D, D).

        Raises:
            ValueError: If no class has vectors.
        """
        seen = counts > 0
        if not seen.any():
            msg = "Expected vectors of at least one class, got none."
            raise ValueError(msg)
        self.class_centers[seen] = means[seen].to(self.class_centers)
        if self.class_whitening is None or self.shared_whitening is None:
            return
        weights = (counts.to(covariances) / counts.sum()).view(-1, 1, 1)
        shared = (weights[seen] * covariances[seen]).sum(dim=0)
        few = [f"{index} ({int(count)})" for index, count in enumerate(counts) if 0 < count <= means.shape[-1]]
        if few and not self._told_of_few_vectors:  # a training fits them repeatedly
            self._told_of_few_vectors = True
            logger.warning(
                "%d classes have fewer vectors than channels (%d): %s%s. Their covariances are mostly the ridge. Use "
                "more images of these classes.",
                len(few),
                means.shape[-1],
                ", ".join(few[:NAMED_CLASSES]),
                ", ..." if len(few) > NAMED_CLASSES else "",
            )
        every = torch.where(seen.view(-1, 1, 1), covariances, shared)
        self.class_whitening.copy_(inverse_cholesky(every))
        self.shared_whitening.copy_(inverse_cholesky(shared))

    @torch.no_grad()
    def append(self, means: torch.Tensor, covariances: torch.Tensor, ridge: float = RIDGE) -> None:
        """Append classes to the fitted ones: Gaussians with full covariances, as likely as the fitted ones on average.

        Args:
            means: Their means, shape (classes, D).
            covariances: Their covariances, shape (classes, D, D).
            ridge: As in :func:`~anomalib_hgad.models.hgad.gaussians.inverse_cholesky`.
        """
        rows = len(means)
        append_rows(
            self,
            {
                "class_centers": means,
                "center_offsets": self.center_offsets.new_zeros(rows, *self.center_offsets.shape[1:]),
                "class_logits": self.class_logits.new_zeros(rows),
                "center_logits": self.center_logits.new_zeros(rows, *self.center_logits.shape[1:]),
                "class_whitening": inverse_cholesky(covariances, ridge),
            },
        )

    def keep(self, rows: Sequence[int], num_classes: int) -> None:
        """Drop classes.

        Args:
            rows: Rows to keep, in this order.
            num_classes: Number of them, the first ones, that count as fitted together.
        """
        self.num_classes = num_classes
        names = ("class_centers", "center_offsets", "class_logits", "center_logits", "class_whitening")
        keep_rows(self, rows, *names)

    @torch.no_grad()
    def move_to_features(self, whitening: torch.Tensor, mean: torch.Tensor) -> None:
        """Map the Gaussians from latents z = W (x - m) to features x; log-densities grow by log |det W|.

        Args:
            whitening: W, shape (D, D).
            mean: m, shape (D,).
        """
        inverse = torch.linalg.inv(whitening.double())
        self.class_centers.copy_(self.class_centers.double() @ inverse.mT + mean)
        self.center_offsets.copy_(self.center_offsets.double() @ inverse.mT)
        for factor in (cast("torch.Tensor", self.class_whitening), cast("torch.Tensor", self.shared_whitening)):
            factor.copy_(lower_triangular(factor.double() @ whitening.double()))

    def covariances(self) -> torch.Tensor:
        """Return Sigma_y of the classes, including the ridge, in float64, shape (N, D, D)."""
        factors = torch.linalg.inv(cast("torch.Tensor", self.class_whitening).double())
        return factors @ factors.mT

    @torch.no_grad()
    def mean_log_densities(self, means: torch.Tensor, covariances: torch.Tensor) -> torch.Tensor:
        """Compute the mean log-density of vectors of some classes under each class; similar classes have high ones.

        E log p(z|k) = -1/2 (tr(Sigma_k^-1 C_y) + ||L_k^-1 (m_y - mu_k)||^2) + log|L_k^-1| for full covariances with a
        class's mean as its only centre.

        Args:
            means: Means m_y of the vectors of some classes y, shape (Y, D).
            covariances: Their covariances C_y, shape (Y, D, D).

        Returns:
            Expectations in nats, shape (Y, N).
        """
        whitening = cast("torch.Tensor", self.class_whitening).to(means)
        precisions = whitening.mT @ whitening
        traces = covariances.flatten(1) @ precisions.flatten(1).mT
        differences = means.unsqueeze(0) - self.class_centers.to(means).unsqueeze(1)
        distances = (differences @ whitening.mT).square().sum(dim=-1).mT
        return log_det(whitening) - 0.5 * (traces + distances)

    @property
    def _fitted_centers(self) -> torch.Tensor:
        """Main centres of the classes that were fitted together, shape (K, D)."""
        return self.class_centers[: self.num_classes]

    @property
    def _whitened_centers(self) -> torch.Tensor:
        """L^-1 (mu_k - their mean), shape (K, D): centred, since only the differences matter."""
        shared = cast("torch.Tensor", self.shared_whitening)
        return (self._fitted_centers - self._fitted_centers.mean(dim=0)) @ shared.mT

    def class_log_priors(self) -> torch.Tensor:
        """log p(y) of the classes that were fitted together, shape (K,)."""
        return self.class_logits[: self.num_classes].log_softmax(dim=-1)

    def all_class_log_priors(self) -> torch.Tensor:
        """log p(y) of all classes; those added later are as likely as the others on average, shape (N,)."""
        fitted = self.class_log_priors()
        later = len(self.class_logits) - self.num_classes
        return torch.cat((fitted, fitted.new_full((later,), -math.log(self.num_classes)))) if later else fitted

    def centers(self) -> torch.Tensor:
        """All centres SG[mu_y] + Delta_{y,i}, shape (N, M, D). No gradient reaches mu through them."""
        main = self.class_centers.detach().unsqueeze(1)
        return torch.cat((main, main + self.center_offsets), dim=1)

    def class_energies(self, z: torch.Tensor) -> torch.Tensor:
        """Energies of the K main centres: l_k = -1/2 ||z - mu_k||^2 with the identity as covariance.

        With full covariances all classes share their mean covariance here, which makes the energies of all classes one
        matrix product: l_k = -1/2 ||L^-1 (z - mu_k)||^2 + log|L^-1|.

        Args:
            z: Latents, shape (..., D).

        Returns:
            Energies, shape (..., K).
        """
        rows = z.reshape(-1, z.shape[-1])
        if self.shared_whitening is None:
            return gaussian_energies(rows, self._fitted_centers).unflatten(0, z.shape[:-1])
        with no_autocast(rows):
            rows = (full_precision(rows) - self._fitted_centers.mean(dim=0)) @ self.shared_whitening.mT
            energies = gaussian_energies(rows, self._whitened_centers) + log_det(self.shared_whitening)
        return energies.unflatten(0, z.shape[:-1])

    def intra_class_log_density(self, z: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """Log-density of a class's own mixture.

        With the identity as covariance logsumexp_i( -1/2 ||z - (SG[mu_y] + Delta_{y,i})||^2 + log p(i|y) ); with full
        ones logsumexp_i( -1/2 ||L_y^-1 (z - SG[mu_y] - Delta_{y,i})||^2 + log p(i|y) ) + log|L_y^-1|.

        Args:
            z: Latents of images, shape (B, n, D).
            class_index: Classes y for each image, int64, shape (B, J).

        Returns:
            Log-densities, shape (B, n, J).
        """
        log_weights = self.center_logits[class_index].log_softmax(dim=-1)
        if self.class_whitening is None:
            centers = self.centers()[class_index].flatten(1, 2)
            energies = gaussian_energies(z, centers).unflatten(-1, (class_index.shape[1], -1))
            return torch.logsumexp(energies + log_weights.unsqueeze(1), dim=-1)
        with no_autocast(z):
            constants = log_det(self.class_whitening)[class_index].unsqueeze(-1)
            # The difference comes before the product, after which half precision would lose it. With one memory layout,
            # the products with a class are bit-identical whichever other classes there are.
            columns = full_precision(z).mT.contiguous().unsqueeze(1) - self.class_centers.detach()[
                class_index
            ].unsqueeze(-1)
            if self.center_offsets.shape[1] == 0:  # one centre: saves a product with zeros
                return (constants - 0.5 * whitened_square_norms(self.class_whitening, class_index, columns)).mT
            whitening = self.class_whitening[class_index]
            offsets = torch.cat((torch.zeros_like(self.class_centers).unsqueeze(1), self.center_offsets), dim=1)
            energies = gaussian_energies((whitening @ columns).mT, offsets[class_index] @ whitening.mT)
            return (torch.logsumexp(energies + log_weights.unsqueeze(2), dim=-1) + constants).mT
