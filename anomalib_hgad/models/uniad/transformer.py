# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The transformer of UniAD: neighbour-masked attention and a decoder with queries in every layer (Sec. 3.2 and 3.3).

An unmasked transformer may copy its input, including anomalies. Here no token attends to itself or its neighbours, and
the queries that the decoder starts from are learned and do not depend on the image.

Layers are those of DETR (https://arxiv.org/abs/2005.12872): normalised after each residual sum, position embeddings
added to queries and keys, ReLU.

Dimensions: B images, H x W grid of tokens, n = H*W, E embedding of a token.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.common.checks import check_range


def neighbor_mask(grid: tuple[int, int], neighborhood: tuple[int, int]) -> torch.Tensor:
    """Compute which tokens may attend to which: none to itself or to a token of the window around it.

    Args:
        grid: (H, W).
        neighborhood: Height and width of the window in tokens, odd.

    Returns:
        Mask, ``True`` where the token of the row may attend to that of the column, bool, shape (n, n).

    Raises:
        ValueError: If the window has no middle, or leaves a token nothing to attend to.
    """
    check_range(
        "0 < {} < inf",
        **{f"{what} of neighborhood": size for what, size in zip(("height", "width"), neighborhood, strict=True)},
    )
    if not all(size % 2 for size in neighborhood):
        msg = f"The neighborhood is a window with a token in its middle: expected odd sizes, got {neighborhood}."
        raise ValueError(msg)
    rows, columns = (torch.arange(length) for length in grid)
    is_near_row = (rows.unsqueeze(1) - rows).abs() <= neighborhood[0] // 2
    is_near_column = (columns.unsqueeze(1) - columns).abs() <= neighborhood[1] // 2
    is_near = is_near_row[:, None, :, None] & is_near_column[None, :, None, :]
    mask = ~is_near.flatten(2).flatten(0, 1)
    if not mask.any(dim=1).all():
        msg = f"A neighborhood of {neighborhood} leaves some tokens of a grid of {grid} nothing to attend to. Use a "
        msg += "smaller neighborhood or a larger grid."
        raise ValueError(msg)
    return mask


class PositionEmbedding(nn.Module):
    """Learned position embedding: the first half encodes the row of a token, the second half its column.

    Args:
        grid: (H, W).
        dim: E, even.

    Raises:
        ValueError: If ``dim`` is odd.
    """

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        if dim % 2:
            msg = f"Half of the embedding encodes the row, half the column: expected an even size, got {dim}."
            raise ValueError(msg)
        self.rows = nn.Parameter(torch.rand(grid[0], dim // 2))
        self.columns = nn.Parameter(torch.rand(grid[1], dim // 2))

    def forward(self) -> torch.Tensor:
        """Return the embeddings of all tokens, row by row, shape (n, E)."""
        height, width = len(self.rows), len(self.columns)
        rows, columns = self.rows.unsqueeze(1), self.columns.unsqueeze(0)
        return torch.cat((rows.expand(-1, width, -1), columns.expand(height, -1, -1)), dim=-1).flatten(0, 1)


class MaskedAttention(nn.Module):
    """Multi-head attention.

    Args:
        dim: E.
        num_heads: Number of heads, a divisor of E.
        dropout: Dropout rate of the attention weights in training.

    Raises:
        ValueError: If E cannot be divided among the heads.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            msg = f"Expected an embedding that can be divided among the heads, got {dim} for {num_heads} heads."
            raise ValueError(msg)
        self.num_heads = num_heads
        self.dropout = dropout
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            query: Shape (B, n, E), or (1, n, E) where it is the same for all images.
            key: Shape (B, n, E).
            value: Shape (B, n, E).
            mask: ``True`` where the token of the row may attend to that of the column, bool, shape (n, n).

        Returns:
            Shape (B, n, E).
        """
        queries, keys, values = (
            linear(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for linear, tokens in ((self.query, query), (self.key, key), (self.value, value))
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(queries.expand_as(keys), keys, values, mask, dropout)
        return self.output(attended.transpose(1, 2).flatten(2))


class Residual(nn.Module):
    """Adds the output of a sub-layer to its input, and normalises.

    Args:
        dim: E.
        dropout: Dropout rate of the output in training.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Return the normalised sum of input and output of the sub-layer, shapes (B, n, E)."""
        return self.norm(tokens + self.dropout(output))


def _feedforward(dim: int, hidden_dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_dim, dim))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network.

    Args:
        dim: E.
        num_heads: Number of heads of the attention.
        feedforward_dim: Hidden size of the feed-forward network.
        dropout: Dropout rate in training.
    """

    def __init__(self, dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = MaskedAttention(dim, num_heads, dropout)
        self.feedforward = _feedforward(dim, feedforward_dim, dropout)
        self.after_attention, self.after_feedforward = Residual(dim, dropout), Residual(dim, dropout)

    def forward(self, tokens: torch.Tensor, position: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Encode.

        Args:
            tokens: Shape (B, n, E).
            position: Position embedding, shape (n, E).
            mask: See :func:`neighbor_mask`.

        Returns:
            Shape (B, n, E).
        """
        where = tokens + position
        tokens = self.after_attention(tokens, self.attention(where, where, tokens, mask))
        return self.after_feedforward(tokens, self.feedforward(tokens))


class QueryDecoderLayer(nn.Module):
    """Layer of the layer-wise query decoder (Sec. 3.2): its own queries attend to two memories in turn.

    Args:
        grid: (H, W).
        dim: E.
        num_heads: Number of heads of the attentions.
        feedforward_dim: Hidden size of the feed-forward network.
        dropout: Dropout rate in training.
    """

    def __init__(self, grid: tuple[int, int], dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(grid[0] * grid[1], dim))
        self.encoder_attention = MaskedAttention(dim, num_heads, dropout)
        self.layer_attention = MaskedAttention(dim, num_heads, dropout)
        self.feedforward = _feedforward(dim, feedforward_dim, dropout)
        self.after_encoder_attention, self.after_layer_attention, self.after_feedforward = (
            Residual(dim, dropout) for _ in range(3)
        )

    def forward(
        self, encoded: torch.Tensor, previous: torch.Tensor, position: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Decode.

        Args:
            encoded: Output of the encoder, shape (B, n, E).
            previous: Output of the previous decoder layer, or of the encoder for the first one, shape (B, n, E).
            position: Position embedding, shape (n, E).
            mask: See :func:`neighbor_mask`.

        Returns:
            Shape (B, n, E).
        """
        queries = self.queries.unsqueeze(0)
        output = self.encoder_attention(queries + position, encoded + position, encoded, mask)
        tokens = self.after_encoder_attention(queries, output)
        output = self.layer_attention(tokens + position, previous + position, previous, mask)
        tokens = self.after_layer_attention(tokens, output)
        return self.after_feedforward(tokens, self.feedforward(tokens))


class NeighborMaskedTransformer(nn.Module):
    """Reconstructs tokens from those that are not near them.

    Args:
        grid: (H, W).
        dim: E.
        encoder_layers: Number of layers of the encoder.
        decoder_layers: Number of layers of the decoder.
        num_heads: Number of heads of every attention.
        feedforward_dim: Hidden size of the feed-forward networks.
        dropout: Dropout rate in training.
        neighborhood: Height and width of the window that no token attends to, in tokens.

    Raises:
        ValueError: If an argument is out of range.
    """

    mask: torch.Tensor

    def __init__(
        self,
        grid: tuple[int, int] = (14, 14),
        dim: int = 256,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        num_heads: int = 8,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        neighborhood: tuple[int, int] = (7, 7),
    ) -> None:
        super().__init__()
        check_range("0 < {} < inf", encoder_layers=encoder_layers, decoder_layers=decoder_layers, num_heads=num_heads)
        check_range("0 < {} < inf", hidden_dim=dim, feedforward_dim=feedforward_dim)
        check_range("0 <= {} < 1", dropout=dropout)
        # It follows from the arguments, so no checkpoint needs it.
        self.register_buffer("mask", neighbor_mask(grid, neighborhood), persistent=False)
        self.position = PositionEmbedding(grid, dim)
        self.encoder = nn.ModuleList(
            EncoderLayer(dim, num_heads, feedforward_dim, dropout) for _ in range(encoder_layers)
        )
        self.decoder = nn.ModuleList(
            QueryDecoderLayer(grid, dim, num_heads, feedforward_dim, dropout) for _ in range(decoder_layers)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reconstruct.

        Args:
            tokens: Shape (B, n, E).

        Returns:
            Shape (B, n, E).
        """
        position = self.position()
        for layer in self.encoder:
            tokens = layer(tokens, position, self.mask)
        encoded = tokens
        for layer in self.decoder:
            tokens = layer(encoded, tokens, position, self.mask)
        return tokens
