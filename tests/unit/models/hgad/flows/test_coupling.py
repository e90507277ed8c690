# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the coupling arithmetic against the blocks of FrEIA and anomalib on the concatenated [x1, p]."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from anomalib.models.components.flow import AllInOneBlock
from FrEIA.modules import AllInOneBlock as FreiaBlock
from torch import nn

from anomalib_hgad.models.hgad.flows import coupling
from anomalib_hgad.models.hgad.flows.coupling import couple, coupling_weights
from anomalib_hgad.models.hgad.flows.position import PositionCode

pytestmark = pytest.mark.usefixtures("seeded")

CLAMP = 1.9
CONDITION_DIM = 12
IMAGES, HEIGHT, WIDTH = 3, 2, 4
POSITIONS = HEIGHT * WIDTH

KINDS = pytest.mark.parametrize("kind", [AllInOneBlock, FreiaBlock])
DIMS = pytest.mark.parametrize("dim", [2, 5, 8])
PORTIONS = pytest.mark.parametrize("rows", [1, 2 * IMAGES, 10**6], ids=["one position", "two positions", "all"])


def make_chain(kind: Callable[..., nn.Module], dim: int, blocks: int = 3) -> list[nn.Module]:
    """Blocks in float64, away from their start."""

    def perceptron(c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(c_in, 2 * c_in), nn.ReLU(), nn.Linear(2 * c_in, c_out))

    chain = [
        kind(
            [(dim,)],
            [(CONDITION_DIM,)],
            subnet_constructor=perceptron,
            affine_clamping=CLAMP,
            global_affine_type="SOFTPLUS",
            permute_soft=True,
        ).double()
        for _ in range(blocks)
    ]
    for block in chain:
        for parameter in block.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.3 * torch.randn_like(parameter))
    return chain


def by_reference(chain: list[nn.Module], x: torch.Tensor, code: PositionCode) -> tuple[torch.Tensor, torch.Tensor]:
    """What the blocks themselves make of all rows, with the code repeated for every image."""
    z, log_det = x.flatten(0, 1), torch.zeros(())
    for block in chain:
        (z,), change = block((z,), [code.of_positions().repeat(len(x), 1)])
        log_det = log_det + change
    return z.view_as(x), log_det.view(x.shape[:2])


def by_folding(chain: list[nn.Module], x: torch.Tensor, code: PositionCode) -> tuple[torch.Tensor, torch.Tensor]:
    return couple(x, [coupling_weights(block, code) for block in chain], CLAMP)


def random_code(height: int, width: int) -> PositionCode:
    half = CONDITION_DIM // 2
    return PositionCode(torch.randn(width, half).double(), torch.randn(height, half).double())


def random_rows(dim: int) -> tuple[torch.Tensor, PositionCode]:
    """Feature vectors and the code of the positions."""
    x = torch.randn(IMAGES, POSITIONS, dim, dtype=torch.float64, requires_grad=True)
    return x, random_code(HEIGHT, WIDTH)


@KINDS
@DIMS
@PORTIONS
def test_equals_the_blocks_on_concatenated_codes(
    kind: type, dim: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without gradients."""
    monkeypatch.setattr(coupling, "CPU_ROWS", rows)
    chain, (x, code) = make_chain(kind, dim), random_rows(dim)
    expected = by_reference(chain, x, code)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            actual = by_folding(chain, x, code)
        for own, reference in zip(actual, expected, strict=True):
            assert own.requires_grad == enabled
            torch.testing.assert_close(own, reference, rtol=0, atol=1e-10, check_dtype=False)


@KINDS
@DIMS
@PORTIONS
def test_gradients_equal_those_of_the_blocks(kind: type, dim: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every parameter and of the features, through latents and log-determinant; the permutation has none."""
    monkeypatch.setattr(coupling, "CPU_ROWS", rows)
    chain, (x, code) = make_chain(kind, dim), random_rows(dim)
    parameters = [parameter for block in chain for parameter in block.parameters() if parameter.requires_grad]
    weights = torch.randn(IMAGES, POSITIONS, dim, dtype=torch.float64), torch.randn(IMAGES, POSITIONS).double()

    def gradients(forward: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, ...]:
        loss = sum((w * out.tanh()).sum() for w, out in zip(weights, forward(chain, x, code), strict=True))
        return torch.autograd.grad(loss, [x, *parameters])

    for own, reference in zip(gradients(by_folding), gradients(by_reference), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-9, atol=1e-9)
        assert reference.abs().max() > 1e-6


def test_gradients_are_those_of_finite_differences() -> None:
    chain, (x, code) = make_chain(AllInOneBlock, 4, blocks=2), random_rows(4)
    torch.autograd.gradcheck(lambda rows: by_folding(chain, rows, code), x)


@pytest.mark.parametrize("many", [True, False])
def test_hidden_layer_of_many_rows_is_not_kept_for_the_backward_pass(
    many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is 2 (D1 + P) wide, by far the widest."""
    dim, positions = 8, 50
    monkeypatch.setattr(coupling, "CPU_ROWS", IMAGES * positions - 1 if many else IMAGES * positions)
    chain = make_chain(AllInOneBlock, dim)
    x = torch.randn(IMAGES, positions, dim, dtype=torch.float64, requires_grad=True)
    code = random_code(5, 10)
    weights = [coupling_weights(block, code) for block in chain]
    sizes = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        couple(x, weights, CLAMP)
    hidden = 2 * (dim // 2 + CONDITION_DIM)
    assert (IMAGES * positions * hidden in sizes) != many
    assert max(sizes) <= (1 if many else IMAGES) * positions * hidden  # the positions' bias has one image's


def test_log_scales_and_log_determinants_are_in_full_precision_under_autocast() -> None:
    chain = [block.float() for block in make_chain(AllInOneBlock, 16, blocks=8)]
    x = torch.randn(2, 5, 16, requires_grad=True)
    code = PositionCode(*(half.float() for half in random_code(1, 5)))
    expected = by_folding(chain, x, code)
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = by_folding(chain, x, code)
    assert log_det.dtype == torch.float32
    torch.testing.assert_close(log_det, expected[1], rtol=0.03, atol=0.3)
    assert (z.float() - expected[0]).norm() < 0.1 * expected[0].norm()
    (z.float().square().mean() - log_det.mean()).backward()
    gradients = [parameter.grad for block in chain for parameter in block.parameters() if parameter.requires_grad]
    assert all(gradient.isfinite().all() and gradient.dtype == torch.float32 for gradient in [*gradients, x.grad])
