# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the flow against the autograd Jacobian, anomalib's coupling blocks and Cflow, and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from anomalib.models.image.cflow.torch_model import CflowModel
from torch import nn

from anomalib_hgad import HgadModel
from anomalib_hgad.models.hgad.flows.conditional import ConditionalFlow, FoldedFlow
from anomalib_hgad.models.hgad.flows.position import position_code
from tests.helpers.flows import random_covariance, randomize

pytestmark = pytest.mark.usefixtures("seeded")

BOTH_STATES = pytest.mark.parametrize("whitened", [False, True])
CLAMP = 1.9


def make_flow(dim: int, whitened: bool, blocks: int = 3, condition_dim: int = 8) -> ConditionalFlow:
    """A flow in float64 with random parameters."""
    flow = ConditionalFlow(dim, blocks, condition_dim, CLAMP)
    randomize(flow)
    if whitened:
        flow.set_whitening(torch.randn(dim), random_covariance(dim))
    return flow


def code_by_hand(length: int, height: int, width: int) -> np.ndarray:
    """First half: sine and cosine in turn of the column; second half: of the row; frequencies 10000^(-2j / half)."""
    half = length // 2
    code = np.empty((height * width, length))
    for row in range(height):
        for column in range(width):
            for j in range(half // 2):
                frequency = 10000.0 ** (-2 * j / half)
                position = row * width + column
                code[position, 2 * j : 2 * j + 2] = np.sin(column * frequency), np.cos(column * frequency)
                code[position, half + 2 * j : half + 2 * j + 2] = np.sin(row * frequency), np.cos(row * frequency)
    return code


@pytest.mark.parametrize(("length", "height", "width"), [(4, 2, 3), (16, 5, 4), (256, 3, 64)])
def test_position_code_is_the_sine_cosine_code(length: int, height: int, width: int) -> None:
    """Rows of the code are positions in reading order."""
    code = position_code(length, height, width, like=torch.zeros(1, dtype=torch.float64))
    np.testing.assert_allclose(code.of_positions().numpy(), code_by_hand(length, height, width), atol=1e-5)


@BOTH_STATES
@pytest.mark.parametrize("dim", [2, 5, 8])
def test_inverse_returns_the_features(dim: int, whitened: bool) -> None:
    flow = make_flow(dim, whitened, blocks=6)
    features = 2 * torch.randn(2, dim, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(flow.inverse(flow(features).z, torch.zeros_like(features)), features, rtol=0, atol=1e-9)


@BOTH_STATES
@pytest.mark.parametrize("dim", [2, 5, 6])
def test_log_det_is_that_of_the_autograd_jacobian(dim: int, whitened: bool) -> None:
    """At every position; the positions do not touch each other."""
    flow = make_flow(dim, whitened)
    features = torch.randn(1, dim, 2, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x).z[0], features)  # (6, D, 1, D, 2, 3)
    jacobian = jacobian[:, :, 0].flatten(-2).permute(0, 3, 1, 2)  # latent position, feature position, D, D
    positions = torch.arange(6)
    expected = torch.linalg.slogdet(jacobian[positions, positions]).logabsdet
    torch.testing.assert_close(flow(features).log_det[0], expected, rtol=0, atol=1e-9)
    assert expected.std() > 1e-3
    jacobian[positions, positions] = 0
    assert (jacobian == 0).all()


@BOTH_STATES
def test_flow_equals_a_chain_of_reference_blocks(whitened: bool) -> None:
    """Position by position, with the code by hand and the whitening by hand."""
    dim, height, width, condition_dim = 6, 2, 3, 8
    flow = make_flow(dim, whitened, condition_dim=condition_dim)
    features = torch.randn(2, dim, height, width, dtype=torch.float64)
    latents = flow(features)
    code = torch.from_numpy(code_by_hand(condition_dim, height, width))
    for image in range(2):
        for row in range(height):
            for column in range(width):
                position = row * width + column
                z = (features[image : image + 1, :, row, column] - flow.feature_mean) @ flow.whitening
                log_det = torch.linalg.slogdet(flow.whitening).logabsdet
                for block in flow.blocks.module_list:
                    (z,), change = block((z,), [code[position : position + 1]])
                    log_det = log_det + change
                torch.testing.assert_close(latents.z[image, position], z[0], rtol=0, atol=1e-6)
                torch.testing.assert_close(latents.log_det[image, position], log_det[0], rtol=0, atol=1e-6)


def test_latents_of_an_image_do_not_depend_on_the_batch() -> None:
    flow = make_flow(6, whitened=True)
    features = torch.randn(5, 6, 3, 4, dtype=torch.float64)
    together = flow(features)
    for index in range(5):
        alone = flow(features[index : index + 1])
        torch.testing.assert_close(alone.z[0], together.z[index], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.log_det[0], together.log_det[index], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("share", "count"), [(1.0, 12), (0.5, 6), (0.25, 3), (0.01, 1)])
def test_some_latents_are_those_of_the_whole_map(share: float, count: int) -> None:
    """Each is found among them, at the same position for all images; the generator decides which."""
    flow = make_flow(6, whitened=True)
    features = torch.randn(5, 6, 3, 4, dtype=torch.float64)
    whole = flow(features)
    drawn = []
    for seed in (0, 0, *range(1, 99)):
        z, log_det = flow.some_latents(features, share, torch.Generator().manual_seed(seed))
        assert z.shape == (5, count, 6)
        distances = (z.unsqueeze(2) - whole.z.unsqueeze(1)).abs().amax(dim=-1)
        positions = distances.argmin(dim=-1)
        assert (positions == positions[0]).all()
        assert len(positions[0].unique()) == count
        torch.testing.assert_close(z, whole.z[:, positions[0]], rtol=0, atol=1e-12)
        torch.testing.assert_close(log_det, whole.log_det[:, positions[0]], rtol=0, atol=1e-12)
        drawn.append(set(positions[0].tolist()))
    assert drawn[0] == drawn[1]
    assert set.union(*drawn) == set(range(12))


def test_latent_of_a_feature_depends_on_its_position() -> None:
    flow = make_flow(6, whitened=False)
    z = flow(torch.ones(1, 6, 2, 2, dtype=torch.float64)).z[0]
    assert torch.pdist(z).min() > 1e-3


def test_whitening_against_scipy() -> None:
    """Seen through a block that is the identity: W = (C + r I)^(-1/2) with r a hundredth of the mean variance."""
    flow = ConditionalFlow(4, 1, 4).double()
    block = flow.blocks.module_list[0]
    nn.init.zeros_(block.subnet[2].weight)
    nn.init.zeros_(block.subnet[2].bias)
    block.w_perm.data = torch.eye(4).double()
    features = torch.einsum("ij,bjhw->bihw", random_covariance(4), torch.randn(3, 4, 5, 5).double()) + 7
    rows = features.permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    covariance = np.cov(rows.T, bias=True)
    assert not flow.whitened
    flow.set_whitening(features.mean(dim=(0, 2, 3)), torch.from_numpy(covariance))
    assert flow.whitened
    ridge = 0.01 * np.trace(covariance) / 4 * np.eye(4)
    expected = (rows - rows.mean(axis=0)) @ np.linalg.inv(scipy.linalg.sqrtm(covariance + ridge))
    np.testing.assert_allclose(flow(features).z.flatten(0, 1).detach().numpy(), expected, atol=1e-5)


def test_whitening_of_a_channel_that_never_varies_is_bounded() -> None:
    flow = ConditionalFlow(2, 1, 4).double()
    flow.set_whitening(torch.zeros(2), torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    expected = torch.tensor([2.01, 0.01]).double().rsqrt().diag()
    torch.testing.assert_close(flow.whitening, expected, rtol=1e-6, atol=1e-9)


def test_permutations_are_orthogonal_differ_and_are_not_trained() -> None:
    flow = ConditionalFlow(7, 3, 4)
    permutations = [block.w_perm for block in flow.blocks.module_list]
    for block, permutation in zip(flow.blocks.module_list, permutations, strict=True):
        torch.testing.assert_close(permutation @ permutation.T, torch.eye(7), rtol=0, atol=1e-5)
        torch.testing.assert_close(permutation @ block.w_perm_inv, torch.eye(7), rtol=0, atol=1e-5)
        assert (permutation.abs() > 1e-3).sum() > 7  # soft: more than one channel in each
        assert not permutation.requires_grad
        assert not block.w_perm_inv.requires_grad
    assert (permutations[0] - permutations[1]).abs().max() > 0.1


def test_all_other_parameters_are_trained() -> None:
    flow = make_flow(6, whitened=False)
    latents = flow(torch.randn(2, 6, 2, 2, dtype=torch.float64))
    (latents.z.square().sum() - latents.log_det.sum()).backward()
    for name, parameter in flow.named_parameters():
        if "w_perm" in name:
            assert parameter.grad is None, name
        else:
            assert parameter.grad.abs().max() > 0, name


@BOTH_STATES
@pytest.mark.parametrize("dim", [5, 8])
def test_folded_flow_gives_the_same_latents(dim: int, whitened: bool) -> None:
    flow = make_flow(dim, whitened)
    features = torch.randn(3, dim, 2, 3, dtype=torch.float64)
    expected = flow(features)
    folded = FoldedFlow(flow, 2, 3)
    for actual, latents in zip(folded(features)[:2], expected[:2], strict=True):
        assert not actual.requires_grad
        torch.testing.assert_close(actual, latents, rtol=0, atol=1e-12)


def test_folded_flow_has_nothing_to_train_and_does_not_follow_the_training() -> None:
    flow = make_flow(6, whitened=True)
    features = torch.randn(1, 6, 2, 2, dtype=torch.float64)
    folded = FoldedFlow(flow, 2, 2)
    before = folded(features).z
    assert not list(folded.parameters())
    for parameter in flow.parameters():
        parameter.data.add_(1)
    assert torch.equal(folded(features).z, before)


def test_folded_flow_refuses_another_grid() -> None:
    folded = FoldedFlow(make_flow(6, whitened=False), 2, 3)
    with pytest.raises(ValueError, match="folded for features of 2 x 3 positions, got 3 x 2"):
        folded(torch.randn(1, 6, 3, 2, dtype=torch.float64))


class Distributions(torch.nn.Module):
    """Takes the place of Cflow's anomaly maps, which are made of its likelihoods."""

    def forward(self, distribution: list[torch.Tensor], **sizes: object) -> torch.Tensor:
        self.levels = distribution
        del sizes
        return torch.zeros(2, 1, 4, 4)


def test_likelihood_is_that_of_cflow() -> None:
    """With one standard Gaussian for all classes and the same weights.

    Per dimension, in nats, at every position of both levels; images of any class.
    """
    theirs = CflowModel("resnet18", ["layer2", "layer3"], pre_trained=False, condition_vector=16, coupling_blocks=3)
    randomize(theirs.decoders)
    theirs.double()
    theirs.anomaly_map_generator = Distributions()
    ours = HgadModel(
        "resnet18",
        {"layer2": [1.0], "layer3": [1.0]},
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
    class_index = ours.mixture_class_index(torch.tensor([2, 0]))
    levels = ours.level_scores(ours.read(ours.encoder(images)), class_index)
    for level, expected in zip(levels, theirs.anomaly_map_generator.levels, strict=True):
        torch.testing.assert_close(level.log_likelihood.flatten(), expected.double(), rtol=1e-5, atol=1e-5)
        assert expected.std() > 1e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 1}, "splits the channels in two: expected dim >= 2, got 1"),
        ({"coupling_blocks": 0}, "expected 0 < coupling_blocks < inf, got 0"),
        ({"condition_dim": 0}, "positive multiple of 4, got 0"),
        ({"condition_dim": -4}, "positive multiple of 4, got -4"),
        ({"condition_dim": 6}, "positive multiple of 4, got 6"),
    ],
)
def test_bad_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConditionalFlow(**{"dim": 4, **arguments})
