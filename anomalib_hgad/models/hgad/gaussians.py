# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Formulas of Gaussians. Log-densities are in nats, not divided by D, and leave out the constant -(D/2) log 2 pi."""

from __future__ import annotations

import torch

from anomalib_hgad.common.precision import full_precision, no_autocast

RIDGE = 0.03
"""Variance added to every direction of a full covariance, relative to its mean variance."""


def gaussian_energies(z: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Unnormalised log-densities of unit Gaussians, -1/2 ||z - c||^2, as a matrix product.

    Args:
        z: Points, shape (..., n, D).
        centers: Centres c, shape (..., C, D), with the same leading dimensions.

    Returns:
        Energies, shape (..., n, C), at most 0, in float32 or float64 also under autocast.

    Example:
        The point (3, 4) is at a distance of 5 from the origin, and of 3 from the centre (0, 4).

        >>> gaussian_energies(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]]))
        tensor([[-12.5000,  -4.5000]])
    """
    with no_autocast(z):
        z = full_precision(z)
        centers = centers.to(z)
        products = z @ centers.mT
        z_norms = z.square().sum(dim=-1, keepdim=True)
        center_norms = centers.square().sum(dim=-1).unsqueeze(-2)
        return (products - 0.5 * (z_norms + center_norms)).clamp(max=0)


def inverse_cholesky(covariance: torch.Tensor, ridge: float = RIDGE) -> torch.Tensor:
    """Compute L^-1 of C + r I = L L^T, with r a share of the mean variance of C.

    The ridge r keeps directions in which a class hardly varies from dominating, and makes the covariance of a class
    with fewer vectors than channels invertible.

    Args:
        covariance: C, shape (..., D, D). It may be zero, as of identical vectors: r is at least 1e-6.
        ridge: r relative to the mean variance.

    Returns:
        Lower triangular L^-1, shape (..., D, D), in float64.
    """
    covariance = covariance.double()
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    variance = covariance.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    factor = torch.linalg.cholesky(covariance + (ridge * variance).clamp(min=1e-6) * eye)
    return torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)


def lower_triangular(whitening: torch.Tensor) -> torch.Tensor:
    """Compute the lower triangular L^-1 that gives the same distances as a square whitening A: L^-T L^-1 = A^T A.

    Args:
        whitening: A, shape (..., D, D), of full rank.

    Returns:
        L^-1 with a positive diagonal, shape (..., D, D), in float64.
    """
    factor = torch.linalg.qr(whitening.double().flip(-1)).R.flip(-2, -1)
    return factor * factor.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)


def log_det(whitening: torch.Tensor) -> torch.Tensor:
    """Compute log|L^-1| in nats, shape (...), of lower triangular L^-1, shape (..., D, D).

    Example:
        The covariance diag(4, 9) has the determinant 36, and L^-1 is diag(1/2, 1/3): its determinant is 1/6.

        >>> whitening = inverse_cholesky(torch.tensor([[4.0, 0.0], [0.0, 9.0]]), ridge=0.0)
        >>> round(log_det(whitening).exp().item(), 4)
        0.1667
    """
    return whitening.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)


def whitened_square_norms(whitening: torch.Tensor, class_index: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Compute ||L_y^-1 d||^2 of lower triangular L^-1, without products with its upper right quarter of zeros.

    Args:
        whitening: L^-1 of all classes, shape (K, D, D).
        class_index: Classes y, int64, shape (B, J).
        columns: Differences d from each of them as columns, shape (B, J, D, n).

    Returns:
        Squared norms, shape (B, J, n).
    """
    half = whitening.shape[-1] // 2
    # Split before the classes are selected: the parts are then constants of an exported graph.
    upper = whitening[:, :half, :half][class_index] @ columns[..., :half, :]
    lower = whitening[:, half:][class_index] @ columns
    return upper.square().sum(dim=-2) + lower.square().sum(dim=-2)
