# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Base of all flow families: the whitening of the features, the sum of log-determinants, and the inverse.

docs/how-to/add_a_flow.md shows how to add a family.

Dimensions: B images, D channels, H x W grid of the features, n vectors of an image whose density the flow models. Where
the whitening keeps d < D directions, latents and whitened vectors have d channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.common.precision import full_precision, no_autocast

RELATIVE_RIDGE = 0.01
"""Variance added to every direction of the features before whitening, relative to their mean variance."""


class Latents(NamedTuple):
    """Output of a flow for the features of some images.

    Attributes:
        z: Latent vectors, shape (B, n, d).
        log_det: Contribution of each vector to log |det J| of an image, in nats, not divided by d, shape (B, n). The
            sum over n is log |det J|.
        grid: Height and width of the grid of the vectors, which are in row-major order.
    """

    z: torch.Tensor
    log_det: torch.Tensor
    grid: tuple[int, int]


class FeatureFlow(nn.Module):
    """Flow of one feature level: a whitening, followed by the transform of a family.

    A family is a subclass with :meth:`transform` and :meth:`inverse_transform`; its constructor takes ``dim`` and, by
    name, the family's options, each with a type and a default. This class does the whitening and its log-determinant.
    Until :meth:`set_whitening` is called, the features enter the flow unchanged.

    A flow of d < D channels models the density of the features within the subspace of the d directions in which the
    training images vary most; components outside of it have no density. See :meth:`reduce`.

    Args:
        dim: D, at least 2; d where the whitening keeps fewer directions.

    Attributes:
        dim: d, the channels of latents and whitened vectors.
        feature_dim: D.
        feature_mean: m, subtracted from the features, shape (D,).
        whitening: W, by which they are then multiplied, shape (d, D), symmetric if d = D.
        whitening_log_det: Sum of the logarithms of W's singular values in nats, its contribution to log |det J| for
            each vector, scalar.
        whitened: Whether the whitening was set, bool scalar.

    Raises:
        ValueError: If ``dim`` is out of range.
    """

    feature_mean: torch.Tensor
    whitening: torch.Tensor
    whitening_log_det: torch.Tensor
    whitened: torch.Tensor

    trained: ClassVar[bool] = True
    """Whether there are parameters to train; without any, whitening and mixture are fitted in closed form."""

    of_tokens: ClassVar[bool] = False
    """Whether the features are the tokens of a Vision Transformer instead of a map."""

    needs_half_precision: ClassVar[bool] = False
    """Whether INT8 exports store the weights in half precision, because 8-bit weights would change labels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 2:  # a coupling needs two halves
            msg = f"A coupling block splits the channels in two: expected dim >= 2, got {dim}."
            raise ValueError(msg)
        self.dim = self.feature_dim = dim
        self.register_buffer("feature_mean", torch.zeros(dim))
        self.register_buffer("whitening", torch.eye(dim))
        self.register_buffer("whitening_log_det", torch.tensor(0.0))
        self.register_buffer("whitened", torch.tensor(False))  # noqa: FBT003

    def reduce(self, feature_dim: int) -> FeatureFlow:
        """Let the whitening reduce D channels to the d of the flow; to be called before the whitening is set.

        Args:
            feature_dim: D, at least d.

        Returns:
            The flow itself.
        """
        self.feature_dim = feature_dim
        self.feature_mean = self.feature_mean.new_zeros(feature_dim)
        self.whitening = torch.eye(self.dim, feature_dim).to(self.whitening)
        return self

    def start_as_rotation(self) -> None:
        """Initialise the flow as the whitening times an orthogonal matrix, so that all Gaussians keep their densities.

        Raises:
            ValueError: If the family does not support this.
        """
        msg = f"{type(self).__name__} has no start_as_rotation, which training with covariance='full' starts from: "
        msg += "expected covariance='identity' with this flow."
        raise ValueError(msg)

    def transform(self, x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Map whitened vectors to latents.

        Args:
            x: Whitened vectors, shape (B, n, d).
            context: Features that the vectors come from, shape (B, D, H, W). The flow is conditioned on what the family
                uses of them besides the vectors, such as their grid.

        Returns:
            Latents z, shape (B, n, d), and the parts of log |det J| in nats, one per block, each of a shape that
            broadcasts to (B, n).
        """
        raise NotImplementedError

    def inverse_transform(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Map latents back to whitened vectors.

        Args:
            z: Latents, shape (B, n, d).
            context: As in :meth:`transform`; its :meth:`vectors` are not used.

        Returns:
            Whitened vectors, shape (B, n, d).
        """
        raise NotImplementedError

    @staticmethod
    def vectors(features: torch.Tensor) -> torch.Tensor:
        """Return the vectors whose density the flow models: those of all positions.

        Args:
            features: Features of a level, shape (B, D, H, W).

        Returns:
            Feature vectors, shape (B, n, D).
        """
        # Without einops: OpenVINO takes ten times as long for a permutation of four axes.
        return features.flatten(2).mT

    @staticmethod
    def with_vectors(features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return features, shape (B, D, H, W), with their :meth:`vectors` replaced by others, shape (B, n, D)."""
        return rearrange(vectors, "b (h w) d -> b d h w", h=features.shape[2], w=features.shape[3])

    @staticmethod
    def grid(features: torch.Tensor) -> tuple[int, int]:
        """Return height and width of the grid of the :meth:`vectors` of features, shape (B, D, H, W)."""
        return features.shape[2], features.shape[3]

    def set_whitening(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        """Set the whitening W = (C + r I)^(-1/2), with r a hundredth of the mean variance.

        The ridge r keeps directions in which the training images hardly vary from dominating. For d < D, as in PCA,
        the rows of W are the d eigenvectors of C with the largest variances, each divided by sqrt(variance + r).

        Args:
            mean: Mean over the :meth:`vectors` of the training images, shape (D,).
            covariance: Their covariance C, shape (D, D).
        """
        variances, directions = torch.linalg.eigh(covariance.double())
        variances = variances.clamp(min=0)
        scales = (variances + RELATIVE_RIDGE * variances.mean().clamp(min=1e-12)).rsqrt()[-self.dim :]
        kept = directions[:, -self.dim :] * scales
        self.feature_mean.copy_(mean)
        self.whitening.copy_(kept @ directions.T if self.dim == self.feature_dim else kept.T)
        self.whitening_log_det.copy_(scales.log().sum())
        self.whitened.fill_(value=True)

    @property
    def whitening_bias(self) -> torch.Tensor:
        """-W m, shape (d,)."""
        with no_autocast(self.whitening):
            return -(self.whitening @ self.feature_mean)

    def whiten(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return W (x - m) of feature vectors x, shape (B, n, D), in float32 or float64."""
        with no_autocast(vectors):  # directions of small variance are small differences of the features
            return F.linear(full_precision(vectors), self.whitening, self.whitening_bias)

    def unwhiten(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return W^-1 x + m of whitened vectors x, shape (..., d); with the pseudo-inverse of W if d < D."""
        return vectors @ torch.linalg.pinv(self.whitening).mT + self.feature_mean

    def total_log_det(self, z: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sum the log-determinants of the whitening and of the transform.

        Args:
            z: Latents, shape (B, n, d).
            parts: The parts that :meth:`transform` returned with them.

        Returns:
            log |det J| in nats, shape (B, n).
        """
        return sum(parts, start=self.whitening_log_det.expand(z.shape[:2]))

    def forward(self, features: torch.Tensor) -> Latents:
        """Map features to latents.

        Args:
            features: Features x, shape (B, D, H, W).

        Returns:
            Latents z and log |det J|.
        """
        z, parts = self.transform(self.whiten(self.vectors(features)), features)
        return Latents(z, self.total_log_det(z, parts), self.grid(features))

    def some_latents(
        self, features: torch.Tensor, share: float, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute latents of some vectors of each image for a training step: here of all, as each depends on the rest.

        Args:
            features: Features x, shape (B, D, H, W).
            share: Share of the n vectors that a :class:`PointwiseFlow` draws, above 0, at most 1.
            generator: CPU generator to draw them with; PyTorch's global one by default.

        Returns:
            z, shape (B, drawn, d), and their contributions to log |det J|, shape (B, drawn).
        """
        del share, generator
        latents = self(features)
        return latents.z, latents.log_det

    def inverse(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Map latents back to features.

        Args:
            z: Latent vectors, shape (B, n, d).
            context: Features of the same images, shape (B, D, H, W), which the flow is conditioned on; their
                :meth:`vectors` are not used.

        Returns:
            The features that the latents belong to, shape (B, D, H, W).
        """
        return self.with_vectors(context, self.unwhiten(self.inverse_transform(z, context)))

    def folded(self, height: int, width: int) -> FeatureFlow:
        """Return the flow for inference on one grid, with everything that does not depend on the image precomputed.

        Args:
            height: H.
            width: W.

        Returns:
            A flow with the same :meth:`forward`; this one if there is nothing to precompute.
        """
        del height, width
        return self


class PointwiseFlow(FeatureFlow):
    """A flow that maps each vector independently, so that a training step can use a part of an image's vectors."""

    def transform(
        self, x: torch.Tensor, context: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Map whitened vectors to latents, as :meth:`FeatureFlow.transform`.

        Args:
            x: Whitened vectors, shape (B, n, d).
            context: Features that the vectors come from, shape (B, D, H, W).
            positions: Indices of the vectors among those of the features, int64, shape (n,); ``None`` for all.

        Returns:
            Latents z, and the parts of log |det J|.
        """
        raise NotImplementedError

    def some_latents(
        self, features: torch.Tensor, share: float, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute latents as :meth:`FeatureFlow.some_latents`; the drawn positions are the same for all images."""
        vectors, positions = self.vectors(features), None
        drawn = max(1, round(share * vectors.shape[1]))
        if drawn < vectors.shape[1]:
            positions = torch.randperm(vectors.shape[1], generator=generator)[:drawn].to(vectors.device)
            vectors = vectors[:, positions]
        z, parts = self.transform(self.whiten(vectors), features, positions)
        return z, self.total_log_det(z, parts)


def zero_layer(layer: nn.Linear | nn.Conv2d) -> None:
    """Set a layer to return zeros: a coupling whose network ends with it then leaves its input unchanged."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
