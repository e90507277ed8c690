# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of a whitening that keeps fewer directions than there are channels, against scikit-learn and NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.distributions import MultivariateNormal

from anomalib_hgad import Hgad
from anomalib_hgad.models.hgad.flows import FAMILIES, LinearFlow, PointwiseFlow
from anomalib_hgad.models.hgad.folding import fold
from anomalib_hgad.models.hgad.torch_model import HgadModel
from tests.helpers.flows import random_covariance, randomize
from tests.helpers.light import LIGHT, LIGHT_FLOW_ARGUMENTS, LIGHT_VIT

pytestmark = pytest.mark.usefixtures("seeded")

RIDGE = 0.01


def skewed_rows(number: int, dim: int) -> torch.Tensor:
    """Vectors that vary in each direction by another variance, float64, shape (number, dim)."""
    return torch.randn(number, dim, dtype=torch.float64) @ random_covariance(dim) + torch.randn(dim)


def reduced(kept: int, rows: torch.Tensor) -> LinearFlow:
    """The whitening of some vectors."""
    flow = LinearFlow(kept).reduce(rows.shape[1]).double()
    flow.set_whitening(rows.mean(dim=0), torch.cov(rows.T, correction=0))
    return flow


@pytest.mark.parametrize("kept", [2, 3, 5])
def test_whitened_vectors_are_scikit_learns_principal_components(kept: int) -> None:
    """Up to sign, and to the ridge: variances, which scikit-learn divides by n - 1, are larger by it."""
    rows = skewed_rows(200, 6)
    pca = PCA(n_components=kept, whiten=True, svd_solver="full").fit(rows.numpy())
    variances = pca.explained_variance_ * 199 / 200
    ridge = RIDGE * np.cov(rows.numpy().T, bias=True).trace() / 6
    expected = pca.transform(rows.numpy()) * np.sqrt(pca.explained_variance_ / (variances + ridge))
    flow = reduced(kept, rows)
    found = flow.whiten(rows.unsqueeze(0))[0].numpy()[:, ::-1]  # the direction of largest variance first
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(flow.whitening_log_det, -0.5 * np.log(variances + ridge).sum(), rtol=1e-12)


def test_all_directions_are_a_symmetric_whitening() -> None:
    flow = reduced(6, skewed_rows(200, 6))
    torch.testing.assert_close(flow.whitening, flow.whitening.T)


def test_unwhitening_is_the_nearest_vector_of_the_subspace() -> None:
    rows = skewed_rows(50, 6)
    flow = reduced(3, rows)
    pca = PCA(n_components=3, svd_solver="full").fit(rows.numpy())
    expected = pca.inverse_transform(pca.transform(rows.numpy()))
    np.testing.assert_allclose(flow.unwhiten(flow.whiten(rows.unsqueeze(0)))[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["cflow", "fastflow", "linear"])
def test_log_det_is_that_of_the_jacobian_within_the_subspace(name: str) -> None:
    """Half of log det J J^T of one position, where J has less rows than columns."""
    flow = FAMILIES[name](4, **LIGHT_FLOW_ARGUMENTS[name]).reduce(6)
    randomize(flow)
    rows = skewed_rows(50, 6)
    flow.set_whitening(rows.mean(dim=0), torch.cov(rows.T, correction=0))
    features = torch.randn(1, 6, 1, 1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x).z, features).reshape(4, 6)
    within = jacobian @ jacobian.T
    # The kept directions are orthogonal: the flow's part times the product of their scales.
    torch.testing.assert_close(flow(features).log_det.flatten()[0], torch.linalg.slogdet(within).logabsdet / 2)


def test_closed_form_is_a_gaussian_of_the_principal_components() -> None:
    """log p of every position in the subspace, per kept direction, as PyTorch's multivariate normal has it."""
    model = HgadModel(
        "resnet18",
        {"layer1": [1.0]},
        image_size=(32, 32),
        pre_trained=False,
        flow="linear",
        feature_dim=5,
        covariance="full",
    ).double()
    features = [torch.einsum("de,behw->bdhw", random_covariance(64), torch.randn(40, 64, 8, 8).double())]
    model.start_moments()
    model.add_moments(features, torch.zeros(40, dtype=torch.int64))
    model.fit()
    rows = features[0].permute(0, 2, 3, 1).flatten(0, 2)
    covariance = torch.cov(rows.T, correction=0)
    variances, directions = torch.linalg.eigh(covariance)
    kept = directions[:, -5:]
    scales = (variances[-5:] + RIDGE * variances.mean()).rsqrt()
    latent = (variances[-5:] * scales**2).diag()
    latent += 0.03 * latent.trace() / 5 * torch.eye(5)  # that of the classes' covariances
    inverse_scales = scales.reciprocal().diag()
    normal = MultivariateNormal(torch.zeros(5).double(), inverse_scales @ latent @ inverse_scales)
    expected = normal.log_prob((rows - rows.mean(dim=0)) @ kept) / 5
    scores = model.level_scores(model.read(features), torch.zeros(40, dtype=torch.int64))
    torch.testing.assert_close(scores[0].log_likelihood.flatten(), expected)
    assert expected.std() > 0.1 / math.sqrt(5)


@pytest.mark.parametrize("flow", ["cflow", "fastflow", "linear"])
def test_levels_of_fewer_channels_keep_all(flow: str) -> None:
    """And a model for inference gives the same scores."""
    levels = {"layer1": [1.0], "layer2": [1.0]}
    setting = LIGHT | {
        "backbone": "resnet18",
        "levels": levels,
        "flow": flow,
        "flow_arguments": LIGHT_FLOW_ARGUMENTS[flow],
    }
    model = Hgad(**setting, feature_dim=100).model.eval()
    assert [flow.whitening.shape for flow in model.feature_flows] == [(64, 64), (100, 128)]
    model.set_whitening([(torch.rand(dim), random_covariance(dim)) for dim in (64, 128)])
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(fold(model)(images).anomaly_map, model(images).anomaly_map, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LIGHT | {"feature_dim": 1}, "expected 2 <= feature_dim < inf, got 1"),
        (LIGHT | {"feature_dim": 8, "whiten": False}, "expected whiten=True with feature_dim=8"),
        (LIGHT_VIT | {"feature_dim": 8, "flow": "semantic"}, "patch tokens, .* expected feature_dim=None, got 8"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hgad(**settings)


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if family.trained])
def test_start_as_rotation_keeps_lengths_angles_and_volumes(kind: str) -> None:
    """Whatever the weights were: z z^T = x x^T of the whitened vectors x, and log |det J| is the whitening's."""
    flow = FAMILIES[kind](6, **LIGHT_FLOW_ARGUMENTS[kind]).double()
    for block in flow.layers if kind == "semantic" else flow.blocks.module_list:
        for name, parameter in block.named_parameters():
            if parameter.requires_grad and "global" not in name:
                nn.init.normal_(parameter)
    flow.set_whitening(torch.randn(6), random_covariance(6))
    features = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    x = flow.whiten(flow.vectors(features))
    assert not torch.allclose(flow(features).z @ flow(features).z.mT, x @ x.mT)
    flow.start_as_rotation()
    z, log_det, _ = flow(features)
    torch.testing.assert_close(z @ z.mT, x @ x.mT, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_det, flow.whitening_log_det.expand_as(log_det), rtol=1e-5, atol=1e-6)


def test_family_without_that_start_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"PointwiseFlow has no start_as_rotation.*expected covariance='identity'"):
        PointwiseFlow(4).start_as_rotation()
