# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Conditional normalizing flow f: features x to latents z = f(x; p), position by position (HGAD, Sec. 3.1; CFLOW-AD).

The flow is a stack of affine coupling blocks. Each block is conditioned on the position of a feature vector in the
image, given by the sine/cosine code p.

Dimensions: B images, H x W grid, n vectors of an image, D feature channels, P length of the position code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from anomalib.models.components.flow import AllInOneBlock
from FrEIA.framework import SequenceINN
from torch import nn

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.models.hgad.flows.base import FeatureFlow, PointwiseFlow, zero_layer
from anomalib_hgad.models.hgad.flows.coupling import CouplingWeights, couple, coupling_weights
from anomalib_hgad.models.hgad.flows.position import position_code


class ConditionalFlow(PointwiseFlow):
    """Position-wise conditional flow of one feature level.

    Args:
        dim: D, at least 2.
        coupling_blocks: Number of coupling blocks, at least 1.
        condition_dim: P, a positive multiple of 4.
        clamp_alpha: Clamp of the log-scales, alpha * tanh(s), above 0.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, dim: int, coupling_blocks: int = 12, condition_dim: int = 256, clamp_alpha: float = 1.9) -> None:
        super().__init__(dim)
        check_range("0 < {} < inf", coupling_blocks=coupling_blocks, clamp_alpha=clamp_alpha)
        if condition_dim < 4 or condition_dim % 4:  # sine and cosine of two axes
            msg = "The position code has a sine and a cosine for two axes: expected condition_dim to be a positive "
            msg += f"multiple of 4, got {condition_dim}."
            raise ValueError(msg)
        self.condition_dim = condition_dim
        self.clamp_alpha = clamp_alpha
        self.blocks = SequenceINN(dim)
        for _ in range(coupling_blocks):
            self.blocks.append(
                AllInOneBlock,
                cond=0,
                cond_shape=(condition_dim,),
                subnet_constructor=_subnet,
                affine_clamping=clamp_alpha,
                global_affine_type="SOFTPLUS",
                permute_soft=True,
            )

    def start_as_rotation(self) -> None:
        """Initialise every block as its fixed permutation."""
        for block in self.blocks.module_list:
            zero_layer(block.subnet[-1])

    def folded_weights(self, height: int, width: int) -> list[CouplingWeights]:
        """Fold the parameters of the blocks for a grid, differentiably.

        Args:
            height: H.
            width: W.

        Returns:
            The folded parameters, block after block.
        """
        code = position_code(self.condition_dim, height, width, like=self.feature_mean)
        return [coupling_weights(block, code) for block in self.blocks.module_list]

    def transform(
        self, x: torch.Tensor, context: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Map whitened vectors to latents, as :meth:`PointwiseFlow.transform`, given the grid of the context."""
        weights = self.folded_weights(*self.grid(context))
        if positions is not None:
            weights = [block._replace(position_bias=block.position_bias[positions]) for block in weights]
        z, log_det = couple(x, weights, self.clamp_alpha)
        return z, [log_det]

    def inverse_transform(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Map latents back, as :meth:`FeatureFlow.inverse_transform`, given the grid of the context."""
        code = position_code(self.condition_dim, *self.grid(context), like=z).of_positions().repeat(z.shape[0], 1)
        x, _ = self.blocks(z.flatten(0, 1), [code], rev=True)
        return x.unflatten(0, z.shape[:2])

    def folded(self, height: int, width: int) -> FoldedFlow:
        """Return the flow for inference on one grid.

        Args:
            height: H.
            width: W.

        Returns:
            Its folded form.
        """
        return FoldedFlow(self, height, width)


def _subnet(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, 2 * in_channels), nn.ReLU(), nn.Linear(2 * in_channels, out_channels))


class FoldedFlow(FeatureFlow):
    """A :class:`ConditionalFlow` for inference on one grid, with all that does not depend on the image precomputed.

    It gives the same latents up to rounding. Its parameters are buffers: it cannot be trained, and has no inverse.

    Args:
        flow: The flow.
        height: H.
        width: W.
    """

    folded_bias: torch.Tensor

    @torch.no_grad()
    def __init__(self, flow: ConditionalFlow, height: int, width: int) -> None:
        super().__init__(flow.dim)
        self.reduce(flow.feature_dim)
        self.folded_grid = (height, width)
        self.clamp_alpha = flow.clamp_alpha
        for name, tensor in flow.named_buffers(recurse=False):  # the whitening
            self.register_buffer(name, tensor.clone())
        self.register_buffer("folded_bias", flow.whitening_bias)
        self.blocks = nn.ModuleList(FoldedBlock(weights) for weights in flow.folded_weights(height, width))

    @property
    def whitening_bias(self) -> torch.Tensor:
        """-W m, shape (D,), precomputed."""
        return self.folded_bias

    def transform(self, x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Map whitened vectors to latents, as :meth:`FeatureFlow.transform`.

        Args:
            x: Whitened vectors, shape (B, n, D).
            context: Features that the vectors come from, shape (B, D, H, W).

        Returns:
            Latents z, and log |det J|.

        Raises:
            ValueError: If the features have another grid.
        """
        if self.grid(context) != self.folded_grid:
            msg = f"This flow was folded for features of {self.folded_grid[0]} x {self.folded_grid[1]} positions, got "
            msg += f"{context.shape[2]} x {context.shape[3]}. Resize the images to the model's size."
            raise ValueError(msg)
        weights = [cast("FoldedBlock", block).weights for block in self.blocks]
        z, log_det = couple(x, weights, self.clamp_alpha)
        return z, [log_det]


class FoldedBlock(nn.Module):
    """Folded parameters of a coupling block, as buffers with the names of :class:`CouplingWeights`.

    Args:
        weights: The parameters.
    """

    def __init__(self, weights: CouplingWeights) -> None:
        super().__init__()
        for name, tensor in weights._asdict().items():
            self.register_buffer(name, None if tensor is None else tensor.clone())

    @property
    def weights(self) -> CouplingWeights:
        """The parameters."""
        return CouplingWeights(**{name: getattr(self, name) for name in CouplingWeights._fields})
