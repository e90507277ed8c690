# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Normalizing flow of the class token of a Vision Transformer (SANF-AD), for anomalies of what an image shows.

Every layer shuffles the channels of the class token, splits them into two halves, and couples each half to the other.
The coefficients of a coupling come from one half and from the patch tokens that it attends to. The flow is conditioned
on the patch tokens and models only the density of the class token. An image has one latent vector, and so no map.

Dimensions: B images, D channels of a token, T tokens, of which the first is the class token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.common.precision import full_precision
from anomalib_hgad.models.hgad.flows.base import FeatureFlow, zero_layer

HIDDEN_DIM = 1024
"""Hidden channels of the network on a half of the class token."""


class SemanticFlow(FeatureFlow):
    """SANF's flow of one level of tokens.

    The features of a level have the shape (B, D, 1, T), the class token first.

    Args:
        dim: D, at least 2.
        coupling_blocks: Number of layers, at least 1.
        clamp_alpha: Soft clamp of the log-scales, (2 alpha / pi) * arctan(s / alpha), above 0.

    Raises:
        ValueError: If an argument is out of range.
    """

    of_tokens = True

    def __init__(self, dim: int, coupling_blocks: int = 4, clamp_alpha: float = 3.0) -> None:
        super().__init__(dim)
        check_range("0 < {} < inf", coupling_blocks=coupling_blocks, clamp_alpha=clamp_alpha)
        self.layers = nn.ModuleList(SemanticLayer(dim, clamp_alpha) for _ in range(coupling_blocks))

    def start_as_rotation(self) -> None:
        """Initialise the flow as a shuffle, as a new flow is."""
        for layer in self.semantic_layers:
            zero_layer(layer.of_second.join)
            zero_layer(layer.of_first.join)

    @property
    def semantic_layers(self) -> list[SemanticLayer]:
        """The layers, first to last."""
        return [cast("SemanticLayer", layer) for layer in self.layers]

    @staticmethod
    def vectors(features: torch.Tensor) -> torch.Tensor:
        """Return the class tokens.

        Args:
            features: Tokens, shape (B, D, 1, T).

        Returns:
            Class tokens, shape (B, 1, D).
        """
        return features[:, :, 0, :1].mT

    @staticmethod
    def with_vectors(features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return tokens, shape (B, D, 1, T), with their class tokens replaced by others, shape (B, 1, D)."""
        return torch.cat((vectors.mT.unsqueeze(2), features[..., 1:]), dim=-1)

    @staticmethod
    def grid(features: torch.Tensor) -> tuple[int, int]:
        """Return the grid of a single position, whatever the tokens."""
        del features
        return 1, 1

    @staticmethod
    def patches(features: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens, shape (B, T - 1, D)."""
        return features[:, :, 0, 1:].mT

    def transform(self, x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Map whitened class tokens to latents, as :meth:`FeatureFlow.transform`, given the patch tokens."""
        patches, parts = self.patches(context), []
        for layer in self.semantic_layers:
            x, log_det = layer(x, patches)
            parts.append(log_det)
        return x, parts

    def inverse_transform(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Map latents back, as :meth:`FeatureFlow.inverse_transform`, given the patch tokens."""
        patches = self.patches(context)
        for layer in reversed(self.semantic_layers):
            z = layer.inverse(z, patches)
        return z


class SemanticLayer(nn.Module):
    """Shuffle, then both halves coupled in turn.

    Args:
        dim: D.
        clamp_alpha: Soft clamp of the log-scales.
    """

    order: torch.Tensor

    def __init__(self, dim: int, clamp_alpha: float) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(dim))
        self.halves = (dim - dim // 2, dim // 2)
        first, second = self.halves
        self.of_second = ClassAttentionCoupling(first, second, dim, clamp_alpha)
        self.of_first = ClassAttentionCoupling(second, first, dim, clamp_alpha)

    def forward(self, z: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shuffle the channels and couple both halves.

        Args:
            z: Class tokens, shape (B, 1, D).
            patches: Patch tokens, shape (B, T - 1, D).

        Returns:
            Class tokens, and log |det J| in nats, shape (B, 1).
        """
        first, second = z[..., self.order].split(self.halves, dim=-1)
        log_scale_of_second, shift = self.of_second(first, patches)
        second = second * log_scale_of_second.exp() + shift
        log_scale_of_first, shift = self.of_first(second, patches)
        first = first * log_scale_of_first.exp() + shift
        log_det = log_scale_of_second.sum(dim=-1) + log_scale_of_first.sum(dim=-1)
        return torch.cat((first, second), dim=-1), log_det

    def inverse(self, z: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`forward` of class tokens z, shape (B, 1, D), with the same patch tokens."""
        first, second = z.split(self.halves, dim=-1)
        log_scale, shift = self.of_first(second, patches)
        first = (first - shift) * (-log_scale).exp()
        log_scale, shift = self.of_second(first, patches)
        second = (second - shift) * (-log_scale).exp()
        return torch.cat((first, second), dim=-1)[..., self.order.argsort()]


class ClassAttentionCoupling(nn.Module):
    """Scale and shift from a half of the class token and the patch tokens.

    The half is the query; the half itself and the patch tokens, projected to its length, are keys and values. A linear
    layer joins the attention's output with the output of a network on the half. It starts at 0, so that the flow starts
    as a shuffle.

    Args:
        passive: Channels of the half that the coefficients come from.
        active: Channels of the half that is transformed.
        dim: D, channels of a patch token.
        clamp_alpha: Soft clamp of the log-scales.
    """

    def __init__(self, passive: int, active: int, dim: int, clamp_alpha: float) -> None:
        super().__init__()
        self.clamp_alpha = clamp_alpha
        self.reduce = nn.Linear(dim, passive)
        self.attention = nn.MultiheadAttention(passive, num_heads=1, batch_first=True)
        self.perceptron = nn.Sequential(nn.Linear(passive, HIDDEN_DIM), nn.ReLU(), nn.Linear(HIDDEN_DIM, passive))
        self.join = nn.Linear(2 * passive, 2 * active)
        zero_layer(self.join)

    def forward(self, half: torch.Tensor, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the coefficients of the coupling.

        Args:
            half: Half of the class tokens, shape (B, 1, passive).
            patches: Patch tokens, shape (B, T - 1, D).

        Returns:
            Clamped log-scales and shifts, shapes (B, 1, active), float32 or float64.
        """
        tokens = torch.cat((half, self.reduce(patches).to(half)), dim=1)
        answer, _ = self.attention(half, tokens, tokens, need_weights=False)
        coefficients = full_precision(self.join(torch.cat((answer, self.perceptron(half)), dim=-1)))
        log_scale, shift = coefficients.chunk(2, dim=-1)
        return (2 * self.clamp_alpha / math.pi) * (log_scale / self.clamp_alpha).atan(), shift
