# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""With one standard Gaussian for all classes, Hgad's likelihood is that of anomalib's Cflow on the same weights."""

from __future__ import annotations

import pytest
import torch
from anomalib.models.image.cflow.torch_model import CflowModel

from anomalib_hgad import HgadModel
from tests.unit.models.hgad.flows.test_conditional import randomize

pytestmark = pytest.mark.usefixtures("seeded")

LAYERS = ["layer2", "layer3"]


class Distributions(torch.nn.Module):
    """Takes the place of Cflow's anomaly maps, which are made of its likelihoods."""

    def forward(self, distribution: list[torch.Tensor], **sizes: object) -> torch.Tensor:
        self.levels = distribution
        del sizes
        return torch.zeros(2, 1, 4, 4)


def test_likelihood_is_that_of_cflow() -> None:
    """Per dimension, in nats, at every position of both levels; images of any class."""
    theirs = CflowModel("resnet18", LAYERS, pre_trained=False, condition_vector=16, coupling_blocks=3)
    randomize(theirs.decoders)
    theirs.double()
    theirs.anomaly_map_generator = Distributions()
    ours = HgadModel(
        "resnet18",
        LAYERS,
        scales=[1.0],
        image_size=(64, 64),
        pre_trained=False,
        num_classes=3,
        flow_arguments={"coupling_blocks": 3, "condition_dim": 16},
        prior="single_gaussian",
    ).double()
    ours.encoder.extractor.load_state_dict(theirs.encoder.state_dict())
    for flow, decoder in zip(ours.feature_flows, theirs.decoders, strict=True):
        flow.blocks.load_state_dict(decoder.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    theirs(images)
    class_index = ours.mixture_class_index(torch.tensor([[2], [0]]))
    levels = ours.level_scores(ours.read(ours.encoder(images)), class_index)
    for level, expected in zip(levels, theirs.anomaly_map_generator.levels, strict=True):
        torch.testing.assert_close(level.log_likelihoods.flatten(), expected.double(), rtol=1e-5, atol=1e-5)
        assert expected.std() > 1e-2
