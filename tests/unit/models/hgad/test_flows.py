# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every family of flows: inverse, autograd Jacobian, whitening, independence of the batch, options."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
from torch import nn

from anomalib_hgad import HgadModel
from anomalib_hgad.models.hgad.flows import (
    FAMILIES,
    ConditionalFlow,
    FastFlow,
    FeatureFlow,
    PointwiseFlow,
    SemanticFlow,
    check_flow_arguments,
    semantic,
)
from tests.helpers.flows import random_covariance, randomize
from tests.helpers.light import LIGHT_FLOW_ARGUMENTS

pytestmark = pytest.mark.usefixtures("seeded", "few_hidden_channels")

of_every_family = pytest.mark.parametrize("kind", FAMILIES)
BOTH_STATES = pytest.mark.parametrize("whitened", [False, True])


@pytest.fixture
def few_hidden_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights of 1024 hidden channels would make numbers that float64 rounds off."""
    monkeypatch.setattr(semantic, "HIDDEN_DIM", 8)


def new_flow(kind: str, dim: int, whitened: bool) -> FeatureFlow:
    """A flow in float64 with random parameters."""
    flow = FAMILIES[kind](dim, **LIGHT_FLOW_ARGUMENTS.get(kind, {}))
    randomize(flow)
    if whitened:
        flow.set_whitening(torch.randn(dim), random_covariance(dim))
    return flow


def new_features(kind: str, images: int, dim: int) -> torch.Tensor:
    """A map, or as many tokens."""
    height, width = (1, 6) if FAMILIES[kind].of_tokens else (2, 3)
    return 2 * torch.randn(images, dim, height, width, dtype=torch.float64)


@of_every_family
@BOTH_STATES
@pytest.mark.parametrize("dim", [2, 5, 8])
def test_inverse_returns_the_features(kind: str, whitened: bool, dim: int) -> None:
    """From the latents, and what the flow is conditioned on, alone."""
    flow = new_flow(kind, dim, whitened)
    features = new_features(kind, 2, dim)
    z = flow(features).z
    condition = features.clone()
    if flow.of_tokens:
        condition[:, :, :, 0] = torch.nan
    else:
        condition[:] = torch.nan
    torch.testing.assert_close(flow.inverse(z, condition), features, rtol=0, atol=1e-9)


def log_det_by_autograd(flow: FeatureFlow, features: torch.Tensor) -> torch.Tensor:
    """log |det J| of one image: all its latent vectors by all feature vectors that they are of."""
    vectors = flow.vectors(features)

    def latents(changed: torch.Tensor) -> torch.Tensor:
        return flow(flow.with_vectors(features, changed)).z

    jacobian = torch.autograd.functional.jacobian(latents, vectors)
    return torch.linalg.slogdet(jacobian.reshape(vectors.numel(), vectors.numel())).logabsdet


@of_every_family
@BOTH_STATES
@pytest.mark.parametrize("dim", [2, 5])
def test_log_det_is_that_of_the_autograd_jacobian(kind: str, whitened: bool, dim: int) -> None:
    flow = new_flow(kind, dim, whitened)
    features = new_features(kind, 1, dim)
    found, expected = flow(features), log_det_by_autograd(flow, features)
    vectors = flow.vectors(features).shape[1]
    assert found.log_det.shape == (1, vectors)
    assert found.grid[0] * found.grid[1] == vectors
    torch.testing.assert_close(found.log_det.sum(), expected, rtol=0, atol=1e-9)
    assert (expected.abs() > 1e-2) == (whitened or flow.trained)


@of_every_family
def test_other_vectors_take_the_place_of_the_features_own(kind: str) -> None:
    """And nothing else does."""
    flow = new_flow(kind, 5, whitened=False)
    features, others = new_features(kind, 2, 5), new_features(kind, 2, 5)
    changed = flow.with_vectors(features, flow.vectors(others))
    assert torch.equal(flow.vectors(changed), flow.vectors(others))
    assert torch.equal(flow.with_vectors(changed, flow.vectors(features)), features)


class Scaling(PointwiseFlow):
    """A family that a user might write: each channel times a number of its own, then an offset that knows the place."""

    def __init__(self, dim: int, start: float = 0.5, place: bool = True) -> None:
        super().__init__(dim)
        self.log_scale = nn.Parameter(torch.linspace(-start, 2 * start, dim))
        self.place = place

    def offsets(self, context: torch.Tensor) -> torch.Tensor:
        count = context.shape[2] * context.shape[3]
        return torch.arange(count).to(context).view(1, -1, 1) * self.place

    def transform(
        self, x: torch.Tensor, context: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        offsets = self.offsets(context)
        if positions is not None:
            offsets = offsets[:, positions]
        return x * self.log_scale.exp() + offsets, [self.log_scale.sum()]

    def inverse_transform(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return (z - self.offsets(context)) / self.log_scale.exp()


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> Scaling:
    """A new family with a line in the table, whitened; it knows nothing of that."""
    monkeypatch.setitem(FAMILIES, "scaling", Scaling)
    flow = FAMILIES["scaling"](3, **check_flow_arguments("scaling", {"start": 1})).double()
    flow.set_whitening(torch.randn(3), random_covariance(3))
    return flow


def test_new_family_has_the_log_det_of_the_whitening_too(scaling: Scaling) -> None:
    features = torch.randn(1, 3, 2, 3, dtype=torch.float64)
    found = scaling(features)
    assert found.log_det.shape == (1, 6)
    assert found.grid == (2, 3)
    torch.testing.assert_close(found.log_det.sum(), log_det_by_autograd(scaling, features), rtol=0, atol=1e-9)
    own = 6 * scaling.log_scale.sum()
    assert (found.log_det.sum() - own).abs() > 1e-2


def test_new_family_is_inverted_through_the_whitening(scaling: Scaling) -> None:
    features = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    found = scaling.inverse(scaling(features).z, torch.full_like(features, torch.nan))
    torch.testing.assert_close(found, features, rtol=0, atol=1e-9)


def test_new_family_learns_where_drawn_vectors_are_from(scaling: Scaling) -> None:
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    z, log_det = scaling.some_latents(features, 0.25, torch.Generator().manual_seed(7))
    positions = torch.randperm(20, generator=torch.Generator().manual_seed(7))[:5]
    torch.testing.assert_close(z, scaling(features).z[:, positions], rtol=0, atol=1e-12)
    assert log_det.shape == (2, 5)


@pytest.mark.usefixtures("scaling")
def test_new_family_is_in_the_model() -> None:
    model = HgadModel("resnet18", {"layer1": [1.0]}, image_size=(32, 32), pre_trained=False, flow="scaling")
    assert isinstance(model.flows[0], Scaling)


@of_every_family
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


@of_every_family
def test_folded_flow_gives_the_same(kind: str) -> None:
    flow = new_flow(kind, 6, whitened=True)
    features = new_features(kind, 2, 6)
    with torch.no_grad():
        expected, found = flow(features), flow.folded(*features.shape[2:])(features)
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.log_det, expected.log_det, rtol=0, atol=1e-9)
    assert found.grid == expected.grid


@of_every_family
def test_half_precision_keeps_log_det_in_full(kind: str) -> None:
    flow = new_flow(kind, 8, whitened=True).float()
    features = new_features(kind, 2, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        latents = flow(features)
    assert latents.log_det.dtype == torch.float32
    torch.testing.assert_close(latents.log_det, flow(features).log_det, rtol=0.05, atol=0.1)


@of_every_family
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
    kind: str, flow_type: type[FeatureFlow], blocks: int, clamp_alpha: float
) -> None:
    flow = FAMILIES[kind](4)
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
    ("kind", "options", "message"),
    [
        ("cflow", {"coupling_blocks": 0}, "0 < coupling_blocks < inf, got 0"),
        ("fastflow", {"coupling_blocks": 0}, "0 < coupling_blocks < inf, got 0"),
        ("semantic", {"coupling_blocks": 0}, "0 < coupling_blocks < inf, got 0"),
        ("cflow", {"clamp_alpha": 0.0}, "0 < clamp_alpha < inf, got 0.0"),
        ("fastflow", {"clamp_alpha": -1}, "0 < clamp_alpha < inf, got -1"),
        ("semantic", {"clamp_alpha": float("inf")}, "0 < clamp_alpha < inf, got inf"),
        ("fastflow", {"kernel_sizes": (3, 2)}, r"odd kernel_sizes >= 1, got \[3, 2\]"),
        ("fastflow", {"kernel_sizes": ()}, r"odd kernel_sizes >= 1, got \[\]"),
        ("fastflow", {"hidden_ratio": 0.1}, "hidden_ratio=0.1 leaves .* without hidden channels"),
    ],
)
def test_options_out_of_range_are_refused(kind: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FAMILIES[kind](4, **check_flow_arguments(kind, options))


@pytest.mark.parametrize(
    ("flow", "options", "error", "message"),
    [
        ("glow", {}, ValueError, "flow to be one of 'cflow', 'fastflow', 'semantic', 'linear'; got 'glow'"),
        (
            "semantic",
            {"condition_dim": 4},
            ValueError,
            "'semantic' has no option condition_dim. It has: coupling_blocks, clamp_alpha",
        ),
        ("cflow", {"dim": 4}, ValueError, "'cflow' has no option dim"),
        ("fastflow", {"hidden_ratio": "much"}, TypeError, "of 'fastflow': .*hidden_ratio.* 'float'>. Got value: much"),
        ("fastflow", {"kernel_sizes": 3}, TypeError, "kernel_sizes.*Sequence'>. Got value: 3"),
        ("cflow", {"coupling_blocks": 2.5}, TypeError, "coupling_blocks.* 'int'>. Got value: 2.5"),
        ("cflow", {"coupling_blocks": None}, TypeError, "expected a value for coupling_blocks, got None"),
    ],
)
def test_options_that_a_family_does_not_have_are_refused(
    flow: str, options: dict[str, object], error: type[Exception], message: str
) -> None:
    """Before the backbone, of which there is none here, is asked for."""
    with pytest.raises(error, match=message):
        HgadModel("no such backbone", flow=flow, flow_arguments=options)
