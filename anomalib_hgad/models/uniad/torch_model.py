# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""UniAD as a torch module: images -> features -> transformer -> reconstruction -> loss or scores (Sec. 3).

Dimensions: B images, C channels of all layers, H x W grid of tokens, n = H*W.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.common.precision import full_precision
from anomalib_hgad.models.uniad.transformer import NeighborMaskedTransformer


class FeatureJitter(nn.Module):
    """Noise on the tokens in training, so that the model learns to remove it (Sec. 3.4).

    A token f of C channels gets Gaussian noise of standard deviation scale * ||f|| / C in every channel.

    Args:
        scale: alpha; 0 adds none.
        probability: Probability that an image gets noise.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, scale: float = 20.0, probability: float = 1.0) -> None:
        super().__init__()
        check_range("0 <= {} < inf", jitter_scale=scale)
        check_range("0 <= {} <= 1", jitter_probability=probability)
        self.scale = scale
        self.probability = probability

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Add noise in training; otherwise return the tokens unchanged.

        Args:
            tokens: Shape (B, n, C).

        Returns:
            Shape (B, n, C).
        """
        if not self.training:
            return tokens
        deviation = self.scale * tokens.norm(dim=-1, keepdim=True) / tokens.shape[-1]
        chosen = torch.rand(len(tokens), 1, 1, device=tokens.device) < self.probability
        return tokens + chosen * deviation * torch.randn_like(tokens)


class UniAdModel(nn.Module):
    """One anomaly detector for many product classes: what it cannot reconstruct is an anomaly.

    Args:
        backbone: timm model name.
        layers: Layers of the backbone to extract, all resized to one grid.
        image_size: Height and width of the images.
        pre_trained: Download the weights of the backbone.
        backbone_weights: Local file with the weights of the backbone, instead of a download.
        grid_size: (H, W), which the features are resized to.
        hidden_dim: Size of the embedding of a token in the transformer.
        encoder_layers: Number of layers of the encoder.
        decoder_layers: Number of layers of the decoder.
        num_heads: Number of heads of every attention.
        feedforward_dim: Hidden size of the feed-forward networks.
        dropout: Dropout rate in training.
        neighborhood: Height and width of the window around a token that it does not attend to, in tokens.
        jitter_scale: See :class:`FeatureJitter`.
        jitter_probability: See :class:`FeatureJitter`.

    Attributes:
        settings: Arguments that scores depend on, as plain data in a canonical form.

    Raises:
        ValueError: If an argument is out of range, or if there is no such backbone or layer.
        FileNotFoundError: If the weights file does not exist.
        RuntimeError: If the weights cannot be downloaded.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnet_b4",
        layers: Sequence[str] = ("blocks.0", "blocks.1", "blocks.2", "blocks.4"),
        image_size: tuple[int, int] = (224, 224),
        pre_trained: bool = True,
        backbone_weights: str | Path | None = None,
        grid_size: tuple[int, int] = (14, 14),
        hidden_dim: int = 256,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        num_heads: int = 8,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        neighborhood: tuple[int, int] = (7, 7),
        jitter_scale: float = 20.0,
        jitter_probability: float = 1.0,
    ) -> None:
        super().__init__()
        check_range("0 < {} < inf", **{"height of image_size": image_size[0], "width of image_size": image_size[1]})
        check_range("0 < {} < inf", **{"height of grid_size": grid_size[0], "width of grid_size": grid_size[1]})
        if not layers or len(set(layers)) != len(layers):
            msg = f"Expected at least one layer, and every layer once; got layers={list(layers)}."
            raise ValueError(msg)
        self.image_size = image_size
        self.grid_size = grid_size
        self.jitter = FeatureJitter(jitter_scale, jitter_probability)
        self.transformer = NeighborMaskedTransformer(
            grid_size, hidden_dim, encoder_layers, decoder_layers, num_heads, feedforward_dim, dropout, neighborhood
        )
        self.encoder = PyramidEncoder(backbone, {layer: [1.0] for layer in layers}, pre_trained, backbone_weights)
        self.encoder.check_image_size(image_size)
        self.settings: dict[str, object] = {
            **self.encoder.settings,
            "image_size": image_size,
            "grid_size": grid_size,
            "hidden_dim": hidden_dim,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "num_heads": num_heads,
            "feedforward_dim": feedforward_dim,
            "neighborhood": neighborhood,
        }
        dim = sum(self.encoder.out_dims)
        self.input_projection = nn.Linear(dim, hidden_dim)
        self.output_projection = nn.Linear(hidden_dim, dim)

    @property
    def score_window(self) -> tuple[int, int]:
        """Height and width of the window that image scores are averaged over: a token's share of the image.

        At the paper's 224 pixels and 14 x 14 tokens it is the paper's 16 x 16.
        """
        height, width = (
            max(1, round(size / tokens)) for size, tokens in zip(self.image_size, self.grid_size, strict=True)
        )
        return height, width

    def tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the features of all layers on one grid, the target of the reconstruction.

        Args:
            images: Normalised images, shape (B, 3, height, width).

        Returns:
            Shape (B, n, C).
        """
        levels = [
            F.interpolate(full_precision(level), size=self.grid_size, mode="bilinear", align_corners=True)
            for level in self.encoder(images)
        ]
        return torch.cat(levels, dim=1).flatten(2).transpose(1, 2)

    def reconstruct(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reconstruct the features of normal images, in training from noisy ones.

        Args:
            tokens: Shape (B, n, C).

        Returns:
            Shape (B, n, C).
        """
        return self.output_projection(self.transformer(self.input_projection(self.jitter(tokens))))

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the mean squared error between reconstruction and noise-free features (Eq. 1).

        Args:
            images: Normalised images of normal products, shape (B, 3, height, width).

        Returns:
            The loss, scalar.
        """
        tokens = self.tokens(images)
        return F.mse_loss(self.reconstruct(tokens), tokens)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Predict.

        Args:
            images: Normalised images, shape (B, 3, height, width).

        Returns:
            Anomaly maps, the norms of the differences between features and reconstruction, shape (B, 1, height, width),
            and image scores, the largest mean of a window of the map, shape (B,). Higher is more anomalous.
        """
        tokens = self.tokens(images)
        distances = (self.reconstruct(tokens) - tokens).norm(dim=-1).unflatten(-1, self.grid_size).unsqueeze(1)
        # With aligned corners, as in resizing the features to the grid: each token keeps its place in the image.
        anomaly_map = F.interpolate(distances, size=images.shape[-2:], mode="bilinear", align_corners=True)
        pred_score = F.avg_pool2d(anomaly_map, self.score_window, stride=1).amax(dim=(-3, -2, -1))
        return InferenceBatch(pred_score=pred_score, anomaly_map=anomaly_map)
