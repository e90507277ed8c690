# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Scores under classes that the model infers, by hand.

With all main centres in one place a latent tells nothing of its class. So e = -ln K at every position, the maps are
flat, and the posterior comes from the class priors alone: all positions of all levels multiply theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from anomalib_hgad.models.hgad.torch_model import HgadModel
from tests.helpers.light import LIGHT

pytestmark = pytest.mark.usefixtures("seeded")

SIZE = (32, 32)
LEVELS = 2
POSITIONS = 4 * 4 + 2 * 2
"""Of layer2 of a resnet18, an eighth of the image, at both scales."""

PROBABILITIES = (0.06, 0.4, 0.1, 0.25, 0.04, 0.15)


def blind_model(probabilities: Sequence[float]) -> HgadModel:
    """A model whose latents tell nothing, with these probabilities of the classes whatever the image."""
    settings = LIGHT | {"image_size": SIZE, "num_classes": len(probabilities), "num_centers": 2, "score": "entropy"}
    model = HgadModel(**settings).eval()
    for prior in model.priors:
        nn.init.zeros_(prior.class_centers)
        prior.class_logits.data.copy_(torch.tensor(probabilities).log() / POSITIONS)
    return model


def test_posterior_is_the_product_over_all_positions_of_all_levels() -> None:
    prediction, _ = blind_model(PROBABILITIES).predict(torch.randn(2, 3, *SIZE))
    torch.testing.assert_close(prediction.class_posterior, torch.tensor([PROBABILITIES] * 2), rtol=1e-4, atol=0)


def test_score_is_that_under_the_five_most_probable_classes_by_their_shares() -> None:
    """Their probabilities sum to 0.96; the class of 0.04 counts for nothing."""
    model = blind_model(PROBABILITIES)
    model.calibration.location.copy_(torch.tensor([5.0, 1.0, 4.0, 2.0, 1000.0, 3.0]))
    model.calibration.spread.copy_(torch.tensor([2.0, 0.5, 2.0, 1.0, 1000.0, 1.0]))
    location = (0.4 * 1 + 0.25 * 2 + 0.15 * 3 + 0.1 * 4 + 0.06 * 5) / 0.96
    spread = (0.4 * 0.5 + 0.25 * 1 + 0.15 * 1 + 0.1 * 2 + 0.06 * 2) / 0.96
    entropy_map = LEVELS * (1 - 1 / 6)
    prediction, _ = model.predict(torch.randn(1, 3, *SIZE))
    assert prediction.pred_score.item() == pytest.approx((entropy_map - location) / spread, rel=1e-4)


def test_entropy_counts_from_the_largest_of_each_class_and_level() -> None:
    """1 - exp(-ln 3 - e_max) at each level; e_max = ln 2/3 makes half of it."""
    model = blind_model((0.5, 0.3, 0.2))
    normalities = torch.tensor([[0.5, 0.75], [0.4, 0.6], [0.9, 0.8]])
    model.calibration.max_negative_entropy.copy_(-math.log(3) - normalities.log())
    inferred, given = model.predict(torch.randn(3, 3, *SIZE), torch.tensor([0, 1, 2]))
    for prediction, expected in ((given, [0.75, 1.0, 0.3]), (inferred, [0.5 * 0.75 + 0.3 * 1.0 + 0.2 * 0.3] * 3)):
        maps = torch.tensor(expected).view(3, 1, 1, 1).expand(3, 1, *SIZE)
        torch.testing.assert_close(prediction.anomaly_map, maps, rtol=1e-4, atol=1e-5)
