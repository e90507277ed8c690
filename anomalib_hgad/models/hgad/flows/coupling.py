# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Arithmetic of a chain of affine coupling blocks on feature vectors with a position (HGAD, Sec. 3.1; CFLOW-AD).

The results are those of anomalib's :class:`AllInOneBlock` on [x1, p], whose parameters are used, but they are computed
faster:

- With the first layer's weights split by columns, W [x1, p] + b = W_x x1 + (W_p p + b). The position code p is the same
  for every image, so the bracket is a constant of the position: it is computed once per step in training, and only once
  for inference. One half of p depends only on the column, the other only on the row, so W_p p is the sum of a vector of
  the column and one of the row.
- In inference, global scale and offset and the fixed permutation after them are one matrix and one offset. In training
  the scale stays separate: its gradient then needs no matrix product.
- The hidden layer, by far the widest, is not kept for the backward pass but recomputed, unless there are few rows.
- On a CPU the rows go through all blocks in portions that fit into the cache.

Training folds the parameters in every step and differentiates through the folding; inference folds them once. Both run
the same functions.

Dimensions: B images, n = H*W positions, D channels (D1 passive, D2 active), h hidden channels, P length of the code p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from anomalib.models.components.flow import AllInOneBlock
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from anomalib_hgad.common.precision import full_precision, no_autocast
from anomalib_hgad.models.hgad.flows.position import PositionCode

CPU_ROWS = 2048
"""Rows that go through the blocks together on a CPU: their activations in a block fit into its cache."""

SUBNET_FACTOR = 0.1
"""AllInOneBlock's factor on the output of its subnet."""


class CouplingWeights(NamedTuple):
    """Parameters of a block, folded.

    Attributes:
        position_bias: W_p p + b of every position, shape (n, h).
        hidden: W_x, shape (h, D1).
        coefficients: Weights of the second layer, shape (2 D2, h).
        coefficients_bias: Its bias, shape (2 D2,).
        scale: Global scale, shape (D,), or ``None`` if the mixing includes it.
        mixing: Permutation, times the global scale if ``scale`` is ``None``, shape (D, D).
        mixing_bias: Permuted global offset, shape (D,).
        log_det: log |det| of scale and permutation in nats, scalar.
    """

    position_bias: torch.Tensor
    hidden: torch.Tensor
    coefficients: torch.Tensor
    coefficients_bias: torch.Tensor
    scale: torch.Tensor | None
    mixing: torch.Tensor
    mixing_bias: torch.Tensor
    log_det: torch.Tensor


def coupling_weights(block: AllInOneBlock, code: PositionCode) -> CouplingWeights:
    """Fold the parameters of a block, differentiably.

    Args:
        block: Block whose subnet is Linear, ReLU, Linear on [x1, p].
        code: p of the grid's positions.

    Returns:
        The folded parameters.
    """
    first, _, second = cast("tuple[nn.Linear, nn.ReLU, nn.Linear]", tuple(block.subnet))
    halves = [half.shape[1] for half in code]
    hidden, of_column, of_row = first.weight.split((block.splits[0], *halves), dim=1)
    trained = torch.is_grad_enabled()
    with no_autocast(hidden):
        scale = block.global_scale_activation(block.global_scale)
        by_row = F.linear(code.rows, of_row, first.bias).unsqueeze(1)
        return CouplingWeights(
            position_bias=(by_row + F.linear(code.columns, of_column)).flatten(0, 1),
            hidden=hidden,
            coefficients=SUBNET_FACTOR * second.weight,
            coefficients_bias=SUBNET_FACTOR * second.bias,
            scale=scale.squeeze(0) if trained else None,
            mixing=block.w_perm if trained else block.w_perm * scale,
            mixing_bias=F.linear(block.global_offset, block.w_perm).squeeze(0),
            log_det=scale.log().sum(),
        )


def couple(
    rows: torch.Tensor, blocks: Sequence[CouplingWeights], clamp_alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a chain of blocks to rows.

    Args:
        rows: Feature vectors x, shape (B, n, D).
        blocks: Folded parameters of the blocks.
        clamp_alpha: Clamp of the log-scales, alpha * tanh(s).

    Returns:
        Latent vectors, shape (B, n, D), and log |det J| in nats, shape (B, n).
    """
    positions = rows.shape[1]
    # A loop over portions would be unrolled in an exported graph, and accelerators are faster with all rows at once.
    portion = positions if torch.compiler.is_compiling() or rows.device.type != "cpu" else CPU_ROWS // rows.shape[0]
    if portion >= positions:
        # In this order: in an export nothing is trained, and the number of rows is a symbol without a value.
        many = torch.is_grad_enabled() and rows.shape[0] * positions > CPU_ROWS
        return _couple_portion(rows, blocks, clamp_alpha, keep=not many)
    portion = max(portion, 1)
    biases = zip(*(block.position_bias.split(portion) for block in blocks), strict=True)
    outputs = [
        _couple_portion(
            part,
            [block._replace(position_bias=bias) for block, bias in zip(blocks, of_part, strict=True)],
            clamp_alpha,
            keep=False,
        )
        for part, of_part in zip(rows.split(portion, dim=1), biases, strict=True)
    ]
    z, log_det = zip(*outputs, strict=True)
    return torch.cat(z, dim=1), torch.cat(log_det, dim=1)


def _couple_portion(
    rows: torch.Tensor, blocks: Sequence[CouplingWeights], clamp_alpha: float, keep: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    log_dets = []
    for block in blocks:
        passive = block.hidden.shape[1]
        x1, x2 = rows.split((passive, rows.shape[-1] - passive), dim=-1)
        coefficients = _perceptron(x1, block, keep)
        x2, log_det = affine(x2, coefficients, clamp_alpha, dim=-1)
        if block.scale is not None:
            x1, x2 = x1 * block.scale[:passive], x2 * block.scale[passive:]
        rows = F.linear(torch.cat((x1, x2.to(x1)), dim=-1), block.mixing, block.mixing_bias)
        log_dets.append(log_det)
    constant = torch.stack([block.log_det for block in blocks]).sum()
    return rows, torch.stack(log_dets).sum(dim=0) + constant


def affine(
    active: torch.Tensor, coefficients: torch.Tensor, clamp_alpha: float, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Affine coupling, x2 * exp(alpha * tanh(s)) + t.

    Args:
        active: x2, with D2 channels.
        coefficients: s and t, with 2 D2 channels.
        clamp_alpha: alpha.
        dim: Axis of the channels.

    Returns:
        Transformed x2, in float32 or float64, and its contribution to log |det J| in nats, summed over the channels.
    """
    log_scale, shift = coefficients.split(active.shape[dim], dim=dim)
    log_scale = clamp_alpha * full_precision(log_scale).tanh()
    return torch.addcmul(full_precision(shift), full_precision(active), log_scale.exp()), log_scale.sum(dim=dim)


def _perceptron(x1: torch.Tensor, block: CouplingWeights, keep: bool) -> torch.Tensor:
    """Coupling coefficients of the rows, shape (B, n, 2 D2)."""
    arguments: tuple[torch.Tensor, ...] = (
        x1,
        block.position_bias,
        block.hidden,
        block.coefficients,
        block.coefficients_bias,
    )
    if not torch.is_grad_enabled():
        return F.linear(_hidden_layer(*arguments[:3]), *arguments[3:])
    if torch.is_autocast_enabled(x1.device.type):  # autocast does not apply within an autograd function
        dtype = torch.get_autocast_dtype(x1.device.type)
        arguments = tuple(argument.to(dtype) for argument in arguments)
    return cast("torch.Tensor", _Perceptron.apply(*arguments, keep))


def _hidden_layer(x1: torch.Tensor, position_bias: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    return F.linear(x1, hidden).add_(position_bias).relu_()


class _Perceptron(torch.autograd.Function):
    """The two layers; the hidden one is kept for the backward pass or recomputed."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x1: torch.Tensor,
        position_bias: torch.Tensor,
        hidden: torch.Tensor,
        coefficients: torch.Tensor,
        coefficients_bias: torch.Tensor,
        keep: bool,
    ) -> torch.Tensor:
        activations = _hidden_layer(x1, position_bias, hidden)
        kept = [activations] if keep else []
        ctx.save_for_backward(x1, position_bias, hidden, coefficients, *kept)
        return F.linear(activations, coefficients, coefficients_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        x1, position_bias, hidden, coefficients, *kept = ctx.saved_tensors
        activations = kept[0] if kept else _hidden_layer(x1, position_bias, hidden)
        of_activations = gradient @ coefficients
        torch.ops.aten.threshold_backward.grad_input(of_activations, activations, 0, grad_input=of_activations)
        rows = gradient.flatten(0, 1)
        return (
            of_activations @ hidden if ctx.needs_input_grad[0] else None,
            of_activations.sum(dim=0),
            of_activations.flatten(0, 1).T @ x1.flatten(0, 1),
            rows.T @ activations.flatten(0, 1),
            rows.sum(dim=0),
            None,
        )
