# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A flow that only whitens: with full covariances in the prior, a class is a Gaussian of its features."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from anomalib_hgad.common.precision import full_precision
from anomalib_hgad.models.hgad.flows.base import PointwiseFlow


class LinearFlow(PointwiseFlow):
    """Whitening alone. It has no parameter to train: mixture and whitening follow from the features in closed form.

    Args:
        dim: D, at least 2.
    """

    trained = False

    def transform(
        self, x: torch.Tensor, context: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Return whitened vectors unchanged; see :meth:`PointwiseFlow.transform`."""
        del context, positions
        return x, []

    def inverse_transform(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return latents unchanged; see :meth:`FeatureFlow.inverse_transform`."""
        del context
        return z


class FoldedLinearFlow(LinearFlow):
    """The identity, for Gaussians of the features themselves.

    Args:
        dim: D, at least 2.
    """

    def whiten(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return feature vectors, shape (B, n, D), unchanged."""
        return full_precision(vectors)
