# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Hierarchical Gaussian mixture, the prior of the latents of one feature level (HGAD, Sec. 3.2 and 3.3).

Every product class y has a main centre mu_y, and around it M centres mu_y + Delta_{y,i} with Delta_{y,1} = 0. All
covariances are the identity. The functions and methods here are the only place where a density is computed: losses,
scores and exported graphs call them.

Log-densities are in nats, not divided by D, and leave out the constant -(D/2) log 2 pi.

Dimensions: B images, n positions of an image, K classes, J of them, M centres of a class, D channels.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.common.precision import full_precision, no_autocast

CENTER_DISTANCE = 5.0
"""Distance between the main centres at the start, in standard deviations of a component."""


def gaussian_energies(z: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Unnormalised log-densities of unit Gaussians, -1/2 ||z - c||^2, as a matrix product.

    Args:
        z: Points, shape (..., n, D).
        centers: Centres c, shape (..., C, D), with the same leading dimensions.

    Returns:
        Energies, shape (..., n, C), at most 0, in float32 or float64 also under autocast.
    """
    with no_autocast(z):
        z = full_precision(z)
        centers = centers.to(z)
        products = z @ centers.mT
        z_norms = z.square().sum(dim=-1, keepdim=True)
        center_norms = centers.square().sum(dim=-1).unsqueeze(-2)
        return (products - 0.5 * (z_norms + center_norms)).clamp(max=0)


def initial_class_centers(num_classes: int, dim: int) -> torch.Tensor:
    """Main centres at the start, about :data:`CENTER_DISTANCE` apart.

    mu_k is s on the channels k, k+K, k+2K, ... (floor(D/K) of them) and 0 elsewhere, s = 5 / sqrt(floor(2D/K)). With
    more classes than channels that rule would put every centre at 0; there the centres are unit vectors that share the
    space as evenly as they can (a unit-norm tight frame, found by alternating projections), scaled to the distance.

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

    Attributes:
        class_centers: Main centres mu, shape (K, D).
        center_offsets: Offsets Delta_{y,2..M} of the other centres of a class, shape (K, M-1, D).
        class_logits: psi, shape (K,); log p(y) = log_softmax(psi).
        center_logits: psi', shape (K, M); log p(i|y) = log_softmax(psi'_y).

    Raises:
        ValueError: If an argument is smaller than 1, or if several classes are to share one channel.
    """

    def __init__(self, num_classes: int, num_centers: int, dim: int) -> None:
        super().__init__()
        for name, value in (("num_classes", num_classes), ("num_centers", num_centers), ("dim", dim)):
            if value < 1:
                msg = f"Expected {name} >= 1, got {value}."
                raise ValueError(msg)
        if dim == 1 < num_classes:
            msg = f"The centres of {num_classes} classes need room: expected dim >= 2, got 1."
            raise ValueError(msg)
        self.class_centers = nn.Parameter(initial_class_centers(num_classes, dim))
        self.center_offsets = nn.Parameter(torch.randn(num_classes, num_centers - 1, dim))
        self.class_logits = nn.Parameter(torch.zeros(num_classes))
        self.center_logits = nn.Parameter(torch.zeros(num_classes, num_centers))

    def class_log_priors(self) -> torch.Tensor:
        """log p(y), shape (K,)."""
        return self.class_logits.log_softmax(dim=-1)

    def centers(self) -> torch.Tensor:
        """All centres SG[mu_y] + Delta_{y,i}, shape (K, M, D). No gradient reaches mu through them."""
        main = self.class_centers.detach().unsqueeze(1)
        return torch.cat((main, main + self.center_offsets), dim=1)

    def class_energies(self, z: torch.Tensor) -> torch.Tensor:
        """l_k = -1/2 ||z - mu_k||^2 for the main centre of every class.

        Args:
            z: Latents, shape (..., D).

        Returns:
            Energies, shape (..., K).
        """
        return gaussian_energies(z.reshape(-1, z.shape[-1]), self.class_centers).unflatten(0, z.shape[:-1])

    def intra_class_log_density(self, z: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
        """Log-density of a class's own mixture, logsumexp_i( -1/2 ||z - (SG[mu_y] + Delta_{y,i})||^2 + log p(i|y) ).

        Args:
            z: Latents of images, shape (B, n, D).
            class_index: Classes y to take for every image, int64, shape (B, J).

        Returns:
            Log-densities, shape (B, n, J).
        """
        centers = self.centers()[class_index].flatten(1, 2)
        energies = gaussian_energies(z, centers).unflatten(-1, (class_index.shape[1], -1))
        log_weights = self.center_logits[class_index].log_softmax(dim=-1).unsqueeze(1)
        return torch.logsumexp(energies + log_weights, dim=-1)
