# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""From a trained model to one for inference alone, with all that does not depend on the image computed once."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from anomalib_hgad.models.hgad.torch_model import HgadModel


@torch.no_grad()
def fold(model: HgadModel, image_size: tuple[int, int] | None = None) -> HgadModel:
    """Fold the flows of a model.

    Args:
        model: The model, which stays as it is.
        image_size: Height and width of the images. Defaults to ``None``, for ``model.image_size``.

    Returns:
        A copy for images of this size, in eval mode. It gives the same scores up to rounding, faster, and
        cannot be trained.
    """
    folded = deepcopy(model).eval().requires_grad_(requires_grad=False)
    image = torch.zeros(1, 3, *(image_size or model.image_size), device=model.calibration.location.device)
    grids = [level.shape[2:] for level in folded.encoder(image)]
    flows = zip(folded.feature_flows, grids, strict=True)
    folded.flows = nn.ModuleList(flow.folded(*grid) for flow, grid in flows)
    return folded
