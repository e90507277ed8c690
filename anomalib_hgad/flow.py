# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Conditional normalizing flow f: features x to latents z = f(x; p), position by position (HGAD, Sec. 3.1; CFLOW-AD).

Features are whitened by constants from the training images; then comes a stack of affine coupling blocks. What a block
does to a feature vector depends on where in the image the vector comes from, told by the sine/cosine code p of its
position. The code is the same for every image, so a block multiplies it with its weights once per position and not once
per position and image.

Dimensions: B images, H x W grid, N = B*H*W rows, D feature channels, P length of the position code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from anomalib.models.components.flow import AllInOneBlock
from einops import rearrange
from FrEIA.framework import SequenceINN
from torch import nn
from torch.nn import functional as F

RELATIVE_RIDGE = 0.01
"""Variance added to every direction of the features before whitening, relative to their mean variance."""


class Latents(NamedTuple):
    """What the flow makes of a feature map.

    Attributes:
        z: Latent vectors, shape (B, H*W, D).
        log_det: log |det J| of the flow at each position in nats, not divided by D, shape (B, H*W).
    """

    z: torch.Tensor
    log_det: torch.Tensor


def position_code(condition_dim: int, height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Sine/cosine code p of the grid positions (CFLOW-AD): the column's in the first half, the row's in the second.

    anomalib's ``positional_encoding_2d`` gives the same numbers, but its exported graph multiplies integers with
    floating-point numbers, which ONNX does not allow.

    Args:
        condition_dim: P.
        height: H.
        width: W.
        like: Tensor whose device and dtype the code takes.

    Returns:
        Code, shape (H*W, P).
    """
    half = condition_dim // 2
    frequencies = torch.exp(torch.arange(0, half, 2, device=like.device, dtype=torch.float32) * -(math.log(1e4) / half))

    def code(length: int) -> torch.Tensor:
        angles = torch.arange(length, device=like.device).to(torch.float32).unsqueeze(1) * frequencies
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)

    columns, rows = code(width).unsqueeze(0), code(height).unsqueeze(1)
    grid = torch.cat((columns.expand(height, -1, -1), rows.expand(-1, width, -1)), dim=-1)
    return grid.flatten(0, 1).to(like)


class PositionConditionedSubnet(nn.Module):
    """Two-layer perceptron of a coupling block on [x1, p], with the part of p computed once per position.

    With the first layer's weights split by columns, W [x1, p] + b = W_x x1 + (W_p p + b): the bracket does not depend
    on the image.

    Args:
        in_channels: Channels of [x1, p].
        out_channels: Predicted coefficients (log-scale and shift).
        condition_dim: P.
    """

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int) -> None:
        super().__init__()
        self.split = (in_channels - condition_dim, condition_dim)
        self.first = nn.Linear(in_channels, 2 * in_channels)
        self.second = nn.Linear(2 * in_channels, out_channels)

    def forward(self, x1: torch.Tensor, position_code: torch.Tensor) -> torch.Tensor:
        """Predict the coupling coefficients.

        Args:
            x1: Passive half of the features, shape (B*H*W, D/2), images outermost.
            position_code: Code of one image's positions, shape (H*W, P).

        Returns:
            Coefficients, shape (B*H*W, out_channels).
        """
        weight_x, weight_p = self.first.weight.split(self.split, dim=1)
        position_bias = F.linear(position_code, weight_p, self.first.bias)
        hidden = rearrange(F.linear(x1, weight_x), "(b n) c -> b n c", n=position_code.shape[0]) + position_bias
        return self.second(F.relu(hidden).flatten(0, 1))


class PositionConditionedBlock(AllInOneBlock):
    """anomalib's :class:`AllInOneBlock` with the position code shared by all images.

    Same parameters and arithmetic; only how the condition reaches the subnet differs. The rank of the inputs is that of
    fully connected blocks.

    Args:
        dims_in: ``[(D,)]``.
        dims_c: ``[(P,)]``.
        clamp_alpha: Clamp of the log-scale, alpha * tanh(0.1 * s).
    """

    def __init__(self, dims_in: list[tuple[int]], dims_c: list[tuple[int]], clamp_alpha: float) -> None:
        condition_dim = dims_c[0][0]
        super().__init__(
            dims_in,
            dims_c,
            subnet_constructor=lambda c_in, c_out: PositionConditionedSubnet(c_in, c_out, condition_dim),
            affine_clamping=clamp_alpha,
            global_affine_type="SOFTPLUS",
            permute_soft=True,
        )

    def forward(
        self,
        x: tuple[torch.Tensor],
        c: list[torch.Tensor],
        rev: bool = False,
        jac: bool = True,  # noqa: ARG002 - FrEIA's signature; the log-determinant costs nothing here
    ) -> tuple[tuple[torch.Tensor], torch.Tensor]:
        """Apply the block, or its inverse.

        Args:
            x: Features (or latents), one tensor of shape (B*H*W, D).
            c: Position code, one tensor of shape (H*W, P).
            rev: Apply the inverse.
            jac: Ignored.

        Returns:
            Latents (or features), shape (B*H*W, D), and the log-determinant of the applied direction in nats,
            shape (B*H*W,).
        """
        if rev:
            permuted, log_scale = self._permute(x[0], rev=True)
            x1, x2 = permuted.split(self.splits, dim=1)
            x2, log_det = self._affine(x2, self.subnet(x1, c[0]), rev=True)
            return (torch.cat((x1, x2), dim=1),), log_det - log_scale
        x1, x2 = x[0].split(self.splits, dim=1)
        x2, log_det = self._affine(x2, self.subnet(x1, c[0]))
        permuted, log_scale = self._permute(torch.cat((x1, x2), dim=1))
        return (permuted,), log_det + log_scale


class ConditionalFlow(nn.Module):
    """Flow of one feature level.

    Until :meth:`set_whitening` is called, features enter the coupling blocks as they are.

    Args:
        dim: D, at least 2.
        coupling_blocks: Number of coupling blocks.
        condition_dim: P, a positive multiple of 4.
        clamp_alpha: Clamp of the log-scales.

    Attributes:
        feature_mean: m, subtracted from the features, shape (D,).
        whitening: Symmetric W, which then multiplies them, shape (D, D).
        whitening_log_det: log det W in nats, a part of log |det J|, scalar.
        whitened: Whether they were set, bool scalar.

    Raises:
        ValueError: If an argument is out of range.
    """

    feature_mean: torch.Tensor
    whitening: torch.Tensor
    whitening_log_det: torch.Tensor
    whitened: torch.Tensor

    def __init__(self, dim: int, coupling_blocks: int = 12, condition_dim: int = 256, clamp_alpha: float = 1.9) -> None:
        super().__init__()
        if dim < 2:  # a coupling needs two halves
            msg = f"A coupling block splits the channels in two: expected dim >= 2, got {dim}."
            raise ValueError(msg)
        if coupling_blocks < 1:
            msg = f"Expected coupling_blocks >= 1, got {coupling_blocks}."
            raise ValueError(msg)
        if condition_dim < 4 or condition_dim % 4:  # sine and cosine of two axes
            msg = "The position code has a sine and a cosine of two axes: expected condition_dim to be a positive "
            msg += f"multiple of 4, got {condition_dim}."
            raise ValueError(msg)
        self.condition_dim = condition_dim
        self.register_buffer("feature_mean", torch.zeros(dim))
        self.register_buffer("whitening", torch.eye(dim))
        self.register_buffer("whitening_log_det", torch.tensor(0.0))
        self.register_buffer("whitened", torch.tensor(False))  # noqa: FBT003
        self.blocks = SequenceINN(dim)
        for _ in range(coupling_blocks):
            self.blocks.append(
                PositionConditionedBlock,
                cond=0,
                cond_shape=(condition_dim,),
                clamp_alpha=clamp_alpha,
            )

    def set_whitening(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        """Whiten the features from now on: W = (C + r I)^(-1/2), r a hundredth of the mean variance.

        The r keeps directions in which the training images hardly vary from outweighing all others.

        Args:
            mean: Mean of the channels over the training images, shape (D,).
            covariance: Their covariance C, shape (D, D).
        """
        variances, directions = torch.linalg.eigh(covariance.double())
        variances = variances.clamp(min=0)
        scales = (variances + RELATIVE_RIDGE * variances.mean().clamp(min=1e-12)).rsqrt()
        self.feature_mean.copy_(mean)
        self.whitening.copy_((directions * scales) @ directions.T)
        self.whitening_log_det.copy_(scales.log().sum())
        self.whitened.fill_(value=True)

    def forward(self, features: torch.Tensor) -> Latents:
        """Map features to latents.

        Args:
            features: Feature map x, shape (B, D, H, W).

        Returns:
            Latents z and log |det J|.
        """
        batch, _, height, width = features.shape
        rows = (rearrange(features, "b d h w -> (b h w) d") - self.feature_mean) @ self.whitening
        z, log_det = self.blocks(rows, [position_code(self.condition_dim, height, width, like=rows)])
        log_det = log_det + self.whitening_log_det
        return Latents(rearrange(z, "(b n) d -> b n d", b=batch), rearrange(log_det, "(b n) -> b n", b=batch))

    def inverse(self, z: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Map latents back to features.

        Args:
            z: Latent vectors, shape (B, H*W, D).
            height: H.
            width: W.

        Returns:
            Feature map, shape (B, D, H, W).
        """
        rows, _ = self.blocks(z.flatten(0, 1), [position_code(self.condition_dim, height, width, like=z)], rev=True)
        features = torch.linalg.solve(self.whitening, rows.T).T + self.feature_mean
        return rearrange(features, "(b h w) d -> b d h w", h=height, w=width)
