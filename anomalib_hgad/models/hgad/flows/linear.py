# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""No flow but the whitening: with full covariances in the prior, a class is a Gaussian of its features."""

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
        """Leave whitened vectors as they are, as :meth:`PointwiseFlow.transform`."""
        del context, positions
        return x, []

    def inverse_transform(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Leave latents as they are, as :meth:`FeatureFlow.inverse_transform`."""
        del context
        return z


class FoldedLinearFlow(LinearFlow):
    """No flow at all, for Gaussians that take the features themselves.

    Args:
        dim: D, at least 2.
    """

    def whiten(self, vectors: torch.Tensor) -> torch.Tensor:
        """Leave feature vectors, shape (B, n, D), as they are."""
        return full_precision(vectors)
