# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What all flow families have in common: whitened feature vectors in, latents and log-determinants out.

Dimensions: B images, D channels, H x W grid of the features, n vectors of an image whose density the flow models.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.common.precision import full_precision, no_autocast

RELATIVE_RIDGE = 0.01
"""Variance added to every direction of the features before whitening, relative to their mean variance."""


class Latents(NamedTuple):
    """What a flow makes of the features of some images.

    Attributes:
        z: Latent vectors, shape (B, n, D).
        log_det: Part of each of them in log |det J| of the flow of an image in nats, not divided by D, shape (B, n).
            Their sum over n is log |det J|.
        grid: Height and width of the grid that the vectors are on, in reading order.
    """

    z: torch.Tensor
    log_det: torch.Tensor
    grid: tuple[int, int]


def whiten(rows: torch.Tensor, whitening: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """W x + b, with b = -W m.

    Args:
        rows: Feature vectors x, shape (B, n, D).
        whitening: W, shape (D, D).
        bias: b, shape (D,).

    Returns:
        Whitened feature vectors, same shape, float32 or float64.
    """
    with no_autocast(rows):  # directions of small variance are small differences of the features
        return F.linear(full_precision(rows), whitening, bias)


class FeatureFlow(nn.Module):
    """Flow of one feature level. A family of flows is a subclass, and all that is special to it is there.

    Until :meth:`set_whitening` is called, features enter the flow as they are.

    Args:
        dim: D, at least 2.
        coupling_blocks: Number of coupling blocks, which a family makes, at least 1.

    Attributes:
        feature_mean: m, subtracted from the features, shape (D,).
        whitening: Symmetric W, which then multiplies them, shape (D, D).
        whitening_log_det: log det W in nats, a part of log |det J| for each vector, scalar.
        whitened: Whether they were set, bool scalar.

    Raises:
        ValueError: If an argument is out of range.
    """

    feature_mean: torch.Tensor
    whitening: torch.Tensor
    whitening_log_det: torch.Tensor
    whitened: torch.Tensor

    of_tokens: ClassVar[bool] = False
    """Whether the features are the tokens of a Vision Transformer, and no map."""

    def __init__(self, dim: int, coupling_blocks: int) -> None:
        super().__init__()
        if dim < 2:  # a coupling needs two halves
            msg = f"A coupling block splits the channels in two: expected dim >= 2, got {dim}."
            raise ValueError(msg)
        if coupling_blocks < 1:
            msg = f"Expected coupling_blocks >= 1, got {coupling_blocks}."
            raise ValueError(msg)
        self.dim = dim
        self.register_buffer("feature_mean", torch.zeros(dim))
        self.register_buffer("whitening", torch.eye(dim))
        self.register_buffer("whitening_log_det", torch.tensor(0.0))
        self.register_buffer("whitened", torch.tensor(False))  # noqa: FBT003

    @staticmethod
    def vectors(features: torch.Tensor) -> torch.Tensor:
        """The vectors whose density the flow models: those of all positions.

        Args:
            features: Features of a level, shape (B, D, H, W).

        Returns:
            Feature vectors, shape (B, n, D).
        """
        return rearrange(features, "b d h w -> b (h w) d")

    def set_whitening(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        """Whiten the features from now on: W = (C + r I)^(-1/2), r a hundredth of the mean variance.

        The r keeps directions in which the training images hardly vary from outweighing all others.

        Args:
            mean: Mean over the :meth:`vectors` of the training images, shape (D,).
            covariance: Their covariance C, shape (D, D).
        """
        variances, directions = torch.linalg.eigh(covariance.double())
        variances = variances.clamp(min=0)
        scales = (variances + RELATIVE_RIDGE * variances.mean().clamp(min=1e-12)).rsqrt()
        self.feature_mean.copy_(mean)
        self.whitening.copy_((directions * scales) @ directions.T)
        self.whitening_log_det.copy_(scales.log().sum())
        self.whitened.fill_(value=True)

    @property
    def whitening_bias(self) -> torch.Tensor:
        """-W m, shape (D,)."""
        with no_autocast(self.whitening):
            return -(self.whitening @ self.feature_mean)

    def unwhiten(self, rows: torch.Tensor) -> torch.Tensor:
        """W^-1 x + m of whitened vectors x, shape (..., D)."""
        return torch.linalg.solve(self.whitening, rows.mT).mT + self.feature_mean

    def forward(self, features: torch.Tensor) -> Latents:
        """Map features to latents.

        Args:
            features: Features x, shape (B, D, H, W).

        Returns:
            Latents z and log |det J|.
        """
        raise NotImplementedError

    def some_latents(
        self, features: torch.Tensor, share: float, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of some of an image's vectors, for a training step: here all of them, as each depends on the others.

        A family whose flow maps each vector by itself draws them, the same ones of all images.

        Args:
            features: Features x, shape (B, D, H, W).
            share: Share of the n vectors that is drawn, above 0, at most 1.
            generator: Random numbers of a CPU; PyTorch's global ones by default.

        Returns:
            z, shape (B, drawn, D), and their parts of log |det J|, shape (B, drawn).
        """
        del share, generator
        latents = self(features)
        return latents.z, latents.log_det

    def inverse(self, z: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Map latents back to features.

        Args:
            z: Latent vectors, shape (B, n, D).
            features: Features of the same images, shape (B, D, H, W), whose :meth:`vectors` may be any: what else is in
                them is what the flow is conditioned on.

        Returns:
            The features with the vectors that the latents are of, shape (B, D, H, W).
        """
        raise NotImplementedError

    def folded(self, height: int, width: int) -> nn.Module:
        """The flow for inference on one grid, with all that does not depend on the image computed.

        Args:
            height: H.
            width: W.

        Returns:
            A module with the same :meth:`forward`: this flow, where there is nothing to compute ahead.
        """
        del height, width
        return self
