# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the model for inference against the model it is made from."""

from __future__ import annotations

import pytest
import torch

from anomalib_hgad.models.hgad.added_classes import ClassGaussians, append_classes
from anomalib_hgad.models.hgad.calibration import ScoreCalibration
from anomalib_hgad.models.hgad.flows.conditional import FoldedFlow
from anomalib_hgad.models.hgad.flows.linear import FoldedLinearFlow, LinearFlow
from anomalib_hgad.models.hgad.folding import fold
from anomalib_hgad.models.hgad.novelty import NoveltyScale
from anomalib_hgad.models.hgad.torch_model import HgadModel

pytestmark = pytest.mark.usefixtures("seeded")

SIZE = (64, 96)


@pytest.fixture
def model() -> HgadModel:
    """Two levels and three classes, whitened, with constants."""
    model = HgadModel(
        "resnet18",
        {"layer2": [1.0, 0.5]},
        image_size=SIZE,
        pre_trained=False,
        num_classes=3,
        num_centers=4,
        flow_arguments={"coupling_blocks": 3, "condition_dim": 8},
    ).eval()
    for parameter in [*model.flows.parameters(), *model.priors.parameters()]:
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.set_whitening([(torch.rand(128), torch.rand(128).add(0.5).diag()) for _ in model.flows])
    model.calibration.location.copy_(torch.rand(3))
    model.calibration.spread.copy_(torch.rand(3) + 0.5)
    model.calibration.pixel_location.copy_(torch.rand(3))
    model.calibration.pixel_spread.copy_(torch.rand(3) + 0.5)
    return model


def test_scores_are_the_same_up_to_rounding(model: HgadModel) -> None:
    images, y = torch.randn(3, 3, *SIZE), torch.tensor([0, 2, 1])
    pairs = zip(model.predict(images, y), fold(model).predict(images, y), strict=True)
    for expected, actual in pairs:
        torch.testing.assert_close(actual.anomaly_map, expected.anomaly_map, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(actual.pred_score, expected.pred_score, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(actual.class_posterior, expected.class_posterior, rtol=1e-4, atol=1e-5)


def test_model_stays_as_it_is(model: HgadModel) -> None:
    """Its tensors, what it trains, and its mode; training goes on, and the folded one does not follow."""
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = [parameter.requires_grad for parameter in model.parameters()]
    images = torch.randn(1, 3, *SIZE)
    folded = fold(model)
    expected = folded(images).pred_score
    assert model.training
    assert not folded.training
    assert trained == [parameter.requires_grad for parameter in model.parameters()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for parameter in [*model.flows.parameters(), *model.priors.parameters()]:
        parameter.data.add_(1)
    assert torch.equal(folded(images).pred_score, expected)


def test_nothing_is_left_to_train(model: HgadModel) -> None:
    folded = fold(model)
    assert all(isinstance(flow, FoldedFlow) for flow in folded.flows)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize(("feature_dim", "family"), [(None, FoldedLinearFlow), (20, LinearFlow)])
@pytest.mark.parametrize("num_added", [0, 1])
def test_gaussians_take_the_whitening(feature_dim: int | None, family: type[LinearFlow], num_added: int) -> None:
    """Unless it drops directions. The closed form's scores, classes and novelties stay, of added classes too."""
    closed_form = {"flow": "linear", "covariance": "full", "score": "contrast", "feature_dim": feature_dim}
    backbone = {"backbone": "resnet18", "levels": {"layer2": [1.0, 0.5]}, "image_size": SIZE, "pre_trained": False}
    model = HgadModel(**backbone, **closed_form, num_classes=3).double().eval()
    images, y = torch.randn(6, 3, *SIZE, dtype=torch.float64), torch.arange(6) % 3
    model.start_moments()
    model.add_moments(model.encoder(images), y)
    model.fit()
    if num_added:
        of_class = [
            ClassGaussians(torch.randn(1, flow.dim).double(), torch.eye(flow.dim).double().unsqueeze(0))
            for flow in model.feature_flows
        ]
        append_classes(model, of_class, ScoreCalibration(1, len(model.flows)), NoveltyScale(1))
    folded = fold(model)
    assert {type(flow) for flow in folded.flows} == {family}
    for expected, actual in zip(model.predict(images, y), folded.predict(images, y), strict=True):
        for of_model, of_folded in zip(expected, actual, strict=True):
            torch.testing.assert_close(of_folded, of_model, rtol=1e-5, atol=1e-6)


def test_images_of_another_size_are_refused(model: HgadModel) -> None:
    with pytest.raises(ValueError, match="Resize the images to the model's size"):
        fold(model)(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("size", [(96, 64), (32, 128)])
def test_model_is_folded_for_the_size_that_is_asked_for(model: HgadModel, size: tuple[int, int]) -> None:
    """Its own size is then another one."""
    images = torch.randn(2, 3, *size)
    expected, _ = model.predict(images)
    folded = fold(model, image_size=size)
    actual, _ = folded.predict(images)
    torch.testing.assert_close(actual.anomaly_map, expected.anomaly_map, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual.class_posterior, expected.class_posterior, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="Resize the images to the model's size"):
        folded(torch.randn(1, 3, *SIZE))
