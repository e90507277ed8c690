# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Turns a trained model into an inference-only one, with everything that does not depend on the image precomputed."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from anomalib_hgad.models.hgad.flows.base import FeatureFlow
from anomalib_hgad.models.hgad.flows.linear import FoldedLinearFlow, LinearFlow
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture
from anomalib_hgad.models.hgad.torch_model import HgadModel


@torch.no_grad()
def fold(model: HgadModel, image_size: tuple[int, int] | None = None) -> HgadModel:
    """Fold the flows of a model.

    Args:
        model: The model, which does not change.
        image_size: Height and width of the images. Defaults to ``None``, for ``model.image_size``.

    Returns:
        A copy for images of this size, in eval mode. It gives the same scores up to rounding, faster, and
        cannot be trained.
    """
    folded = deepcopy(model).eval().requires_grad_(requires_grad=False)
    image = model.calibration.location.new_zeros(1, 3, *(image_size or model.image_size))
    grids = [level.shape[2:] for level in folded.encoder(image)]
    levels = zip(folded.feature_flows, folded.level_priors, grids, strict=True)
    folded.flows = nn.ModuleList(_folded(flow, prior, grid) for flow, prior, grid in levels)
    return folded


def _folded(flow: FeatureFlow, prior: HierarchicalGaussianMixture, grid: Sequence[int]) -> FeatureFlow:
    """Fold a flow; one that only whitens is merged into the Gaussians."""
    if type(flow) is not LinearFlow or prior.class_whitening is None or flow.dim < flow.feature_dim:
        return flow.folded(*grid)
    prior.move_to_features(flow.whitening, flow.feature_mean)
    return FoldedLinearFlow(flow.dim).to(flow.whitening)
