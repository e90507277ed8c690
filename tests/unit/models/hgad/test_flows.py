# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every family of flows: inverse, autograd Jacobian, whitening, independence of the batch."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
from torch import nn

from anomalib_hgad.models.hgad.flows import (
    ConditionalFlow,
    FastFlow,
    FeatureFlow,
    FlowKind,
    SemanticFlow,
    make_flow,
    semantic,
)
from tests.helpers.flows import random_covariance, randomize

pytestmark = pytest.mark.usefixtures("seeded", "few_hidden_channels")

FAMILIES = pytest.mark.parametrize("kind", ["cflow", "fastflow", "semantic"])
BOTH_STATES = pytest.mark.parametrize("whitened", [False, True])


@pytest.fixture
def few_hidden_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights of 1024 hidden channels would make numbers that float64 rounds off."""
    monkeypatch.setattr(semantic, "HIDDEN_DIM", 8)


def new_flow(kind: str, dim: int, whitened: bool) -> FeatureFlow:
    """A flow in float64 with random parameters."""
    flow = make_flow(cast("FlowKind", kind), dim, coupling_blocks=3, condition_dim=8)
    randomize(flow)
    if whitened:
        flow.set_whitening(torch.randn(dim), random_covariance(dim))
    return flow


def new_features(kind: str, images: int, dim: int) -> torch.Tensor:
    """A map, or as many tokens."""
    height, width = (1, 6) if kind == "semantic" else (2, 3)
    return 2 * torch.randn(images, dim, height, width, dtype=torch.float64)


@FAMILIES
@BOTH_STATES
@pytest.mark.parametrize("dim", [2, 5, 8])
def test_inverse_returns_the_features(kind: str, whitened: bool, dim: int) -> None:
    """From the latents, and what the flow is conditioned on, alone."""
    flow = new_flow(kind, dim, whitened)
    features = new_features(kind, 2, dim)
    z = flow(features).z
    condition = features.clone()
    if kind == "semantic":
        condition[:, :, :, 0] = torch.nan
    else:
        condition[:] = torch.nan
    torch.testing.assert_close(flow.inverse(z, condition), features, rtol=0, atol=1e-9)


@FAMILIES
@BOTH_STATES
@pytest.mark.parametrize("dim", [2, 5])
def test_log_det_is_that_of_the_autograd_jacobian(kind: str, whitened: bool, dim: int) -> None:
    """Of the whole image: all its latent vectors by all feature vectors that they are of."""
    flow = new_flow(kind, dim, whitened)
    features = new_features(kind, 1, dim)
    vectors = flow.vectors(features).shape[1]

    def latents(rows: torch.Tensor) -> torch.Tensor:
        changed = features.clone()
        changed[0, :, :, : features.shape[3] if vectors > 1 else 1] = rows.T.reshape(dim, features.shape[2], -1)
        return flow(changed).z[0]

    jacobian = torch.autograd.functional.jacobian(latents, flow.vectors(features)[0])
    expected = torch.linalg.slogdet(jacobian.reshape(vectors * dim, vectors * dim)).logabsdet
    found = flow(features)
    assert found.log_det.shape == (1, vectors)
    assert found.grid[0] * found.grid[1] == vectors
    torch.testing.assert_close(found.log_det.sum(), expected, rtol=0, atol=1e-9)
    assert expected.abs() > 1e-2


@FAMILIES
def test_latents_of_an_image_do_not_depend_on_the_batch(kind: str) -> None:
    flow = new_flow(kind, 6, whitened=True)
    features = new_features(kind, 4, 6)
    together, alone = flow(features), flow(features[2:3])
    torch.testing.assert_close(together.z[2:3], alone.z, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.log_det[2:3], alone.log_det, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["fastflow", "semantic"])
def test_flow_of_vectors_that_depend_on_each_other_takes_all(kind: str) -> None:
    flow = new_flow(kind, 6, whitened=True)
    features = new_features(kind, 2, 6)
    z, log_det = flow.some_latents(features, 0.25)
    assert torch.equal(z, flow(features).z)
    assert torch.equal(log_det, flow(features).log_det)


@FAMILIES
def test_folded_flow_gives_the_same(kind: str) -> None:
    flow = new_flow(kind, 6, whitened=True)
    features = new_features(kind, 2, 6)
    with torch.no_grad():
        expected, found = flow(features), flow.folded(*features.shape[2:])(features)
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.log_det, expected.log_det, rtol=0, atol=1e-9)
    assert found.grid == expected.grid


@FAMILIES
def test_half_precision_keeps_log_det_in_full(kind: str) -> None:
    flow = new_flow(kind, 8, whitened=True).float()
    features = new_features(kind, 2, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        latents = flow(features)
    assert latents.log_det.dtype == torch.float32
    torch.testing.assert_close(latents.log_det, flow(features).log_det, rtol=0.05, atol=0.1)


@FAMILIES
def test_half_precision_leaves_the_whitening_alone(kind: str) -> None:
    """Which subtracts numbers that are much alike; some of the vectors are another layout than all of them."""
    flow = new_flow(kind, 8, whitened=True).float()
    flow.feature_mean.fill_(1000.03)
    bias = flow.whitening_bias
    features = new_features(kind, 2, 8).float() + 1000
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flow.whitening_bias, bias)
        z, log_det = flow.some_latents(features.bfloat16(), 0.5)
    assert z.isfinite().all()
    assert log_det.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "flow_type", "blocks", "clamp_alpha"),
    [("cflow", ConditionalFlow, 12, 1.9), ("fastflow", FastFlow, 8, 2.0), ("semantic", SemanticFlow, 4, 3.0)],
)
def test_settings_of_a_family_are_those_of_its_paper(
    kind: FlowKind, flow_type: type[FeatureFlow], blocks: int, clamp_alpha: float
) -> None:
    flow = make_flow(kind, 4)
    assert type(flow) is flow_type
    parts = flow.semantic_layers if isinstance(flow, SemanticFlow) else flow.blocks.module_list
    assert len(parts) == blocks
    first = parts[0]
    assert (first.of_first.clamp_alpha if isinstance(flow, SemanticFlow) else first.clamp) == clamp_alpha


def test_fastflow_equals_anomalibs() -> None:
    """Its blocks with the same weights, on the map; its log-determinant is the sum of ours over the positions."""
    flow = FastFlow(6)
    randomize(flow)
    reference = create_fast_flow_block([6, 4, 5], conv3x3_only=False, hidden_ratio=1.0, flow_steps=8).double()
    reference.load_state_dict({name: tensor.double() for name, tensor in flow.blocks.state_dict().items()})
    features = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    latents = flow(features)
    z, log_det = reference(features)
    torch.testing.assert_close(latents.z, flow.vectors(z), rtol=0, atol=1e-10)
    torch.testing.assert_close(latents.log_det.sum(dim=1), log_det, rtol=0, atol=1e-9)


def test_fastflow_has_the_convolutions_that_were_asked_for() -> None:
    flow = FastFlow(10, coupling_blocks=3, kernel_sizes=(5, 1), hidden_ratio=0.4)
    convolutions = [layer for layer in flow.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size[0] for layer in convolutions] == [5, 5, 1, 1, 5, 5]
    assert {layer.out_channels for layer in convolutions[::2]} == {2}


def test_semantic_layer_by_numpy() -> None:
    """Shuffle, attention of a half to itself and the patches, perceptron, clamp, both couplings, in turn."""
    dim, tokens = 5, 4
    flow = SemanticFlow(dim, coupling_blocks=1, clamp_alpha=3.0)
    randomize(flow)
    features = torch.randn(1, dim, 1, tokens, dtype=torch.float64)
    layer = flow.semantic_layers[0]
    token, patches = features[0, :, 0, 0].numpy(), features[0, :, 0, 1:].T.numpy()

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def coefficients(half: np.ndarray, active: int) -> tuple[np.ndarray, np.ndarray]:
        answerers = np.vstack([half[None], linear("reduce", patches)])
        into = np.split(weights["attention.in_proj_weight"], 3)
        biases = np.split(weights["attention.in_proj_bias"], 3)
        query, keys, values = (x @ w.T + b for x, w, b in zip((half, answerers, answerers), into, biases, strict=True))
        attention = np.exp(keys @ query / np.sqrt(len(half)))
        answer = linear("attention.out_proj", attention / attention.sum() @ values)
        own = linear("perceptron.2", np.maximum(linear("perceptron.0", half), 0))
        joined = linear("join", np.concatenate([answer, own]))
        return 2 * 3 / np.pi * np.arctan(joined[:active] / 3), joined[active:]

    shuffled = token[layer.order.numpy()]
    first, second = shuffled[:3], shuffled[3:]
    weights = {name: tensor.numpy() for name, tensor in layer.of_second.state_dict().items()}
    scale_of_second, shift = coefficients(first, 2)
    second = second * np.exp(scale_of_second) + shift
    weights = {name: tensor.numpy() for name, tensor in layer.of_first.state_dict().items()}
    scale_of_first, shift = coefficients(second, 3)
    first = first * np.exp(scale_of_first) + shift
    latents = flow(features)
    np.testing.assert_allclose(latents.z[0, 0].detach(), np.concatenate([first, second]), atol=1e-9)
    assert latents.log_det.item() == pytest.approx(scale_of_second.sum() + scale_of_first.sum(), abs=1e-9)


def test_semantic_flow_starts_as_a_shuffle() -> None:
    flow = SemanticFlow(6)
    features = torch.randn(3, 6, 1, 4)
    latents = flow(features)
    assert torch.equal(latents.log_det, torch.zeros(3, 1))
    assert torch.equal(latents.z.sort(dim=-1).values, flow.vectors(features).sort(dim=-1).values)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("cflow", {"coupling_blocks": 0}, "coupling_blocks >= 1, got 0"),
        ("fastflow", {"coupling_blocks": 0}, "coupling_blocks >= 1, got 0"),
        ("semantic", {"coupling_blocks": 0}, "coupling_blocks >= 1, got 0"),
        ("fastflow", {"kernel_sizes": (3, 2)}, r"odd kernel_sizes >= 1, got \[3, 2\]"),
        ("fastflow", {"kernel_sizes": ()}, r"odd kernel_sizes >= 1, got \[\]"),
        ("fastflow", {"hidden_ratio": 0.1}, "hidden_ratio=0.1 leaves .* without a hidden one"),
    ],
)
def test_settings_out_of_range_are_refused(kind: FlowKind, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_flow(kind, 4, **settings)  # type: ignore[arg-type]
