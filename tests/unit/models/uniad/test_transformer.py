# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of UniAD's transformer against loops, NumPy and PyTorch's own attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from anomalib_hgad.models.uniad.transformer import (
    MaskedAttention,
    NeighborMaskedTransformer,
    PositionEmbedding,
    QueryDecoderLayer,
    neighbor_mask,
)

pytestmark = pytest.mark.usefixtures("seeded")

GRID = (4, 5)
TOKENS = 20
HEADS = 2
DIM = 8


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("grid", "neighborhood"), [((14, 14), (7, 7)), ((4, 5), (3, 3)), ((3, 6), (1, 5)), ((2, 2), (1, 1))]
)
def test_mask_leaves_out_the_window_around_each_token(grid: tuple[int, int], neighborhood: tuple[int, int]) -> None:
    mask = neighbor_mask(grid, neighborhood)
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            is_near = (
                abs(row - other_row) <= (neighborhood[0] - 1) / 2
                and abs(column - other_column) <= (neighborhood[1] - 1) / 2
            )
            assert mask[i, j] == (not is_near)
    assert mask.shape == (len(places), len(places))


@pytest.mark.parametrize(
    ("neighborhood", "message"),
    [
        ((4, 3), r"expected odd sizes, got \(4, 3\)"),
        ((3, -1), "expected 0 < width of neighborhood < inf, got -1"),
        ((7, 7), r"\(7, 7\) leaves some tokens of a grid of \(4, 5\) nothing to attend to. Use a smaller"),
    ],
)
def test_windows_that_cannot_be_are_errors(neighborhood: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neighbor_mask(GRID, neighborhood)


def test_attention_is_pytorchs() -> None:
    attention = MaskedAttention(DIM, HEADS, dropout=0.0).double()
    reference = nn.MultiheadAttention(DIM, HEADS, batch_first=True).double()
    parts = (attention.query, attention.key, attention.value)
    reference.in_proj_weight.data = torch.cat([part.weight for part in parts]).detach()
    reference.in_proj_bias.data = torch.cat([part.bias for part in parts]).detach()
    reference.out_proj.load_state_dict(attention.output.state_dict())
    query, key, value = (tokens(3, TOKENS, DIM) for _ in range(3))
    mask = neighbor_mask(GRID, (3, 3))
    expected, _ = reference(query, key, value, attn_mask=~mask)  # there True stands for what is left out
    torch.testing.assert_close(attention(query, key, value, mask), expected)


def test_queries_of_all_images_attend_in_each() -> None:
    attention = MaskedAttention(DIM, HEADS, dropout=0.0).double()
    query, key = tokens(1, TOKENS, DIM), tokens(3, TOKENS, DIM)
    mask = neighbor_mask(GRID, (3, 3))
    expected = attention(query.expand(3, -1, -1), key, key, mask)
    torch.testing.assert_close(attention(query, key, key, mask), expected)


def influence(output: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Whether the token of the row depends on the token of the column that was given, shape (n, n)."""
    rows = [torch.autograd.grad(output[0, i].square().sum(), given, retain_graph=True)[0][0] for i in range(TOKENS)]
    return torch.stack(rows).ne(0).any(dim=-1)


def test_attention_sees_no_neighbour() -> None:
    attention = MaskedAttention(DIM, HEADS, dropout=0.0).double()
    mask = neighbor_mask(GRID, (3, 3))
    memory = tokens(1, TOKENS, DIM).requires_grad_()
    output = attention(tokens(1, TOKENS, DIM), memory, memory, mask)
    assert torch.equal(influence(output, memory), mask)


def test_decoder_layer_sees_no_neighbour_in_either_memory() -> None:
    layer = QueryDecoderLayer(GRID, DIM, HEADS, 16, dropout=0.0).double()
    mask = neighbor_mask(GRID, (3, 3))
    encoded, previous = tokens(1, TOKENS, DIM).requires_grad_(), tokens(1, TOKENS, DIM).requires_grad_()
    output = layer(encoded, previous, tokens(TOKENS, DIM), mask)
    assert torch.equal(influence(output, encoded), mask)
    assert torch.equal(influence(output, previous), mask)


def test_position_says_row_and_column() -> None:
    position = PositionEmbedding(GRID, 6)
    embedding = position().unflatten(0, GRID)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            expected = [*position.rows[row].tolist(), *position.columns[column].tolist()]
            assert embedding[row, column].tolist() == expected


class NumPyTransformer:
    """The forward pass from the weights alone."""

    def __init__(self, model: NeighborMaskedTransformer) -> None:
        self.weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
        self.mask = model.mask.numpy()
        self.position = model.position().detach().numpy()

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def attend(self, name: str, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        query, key, value = (
            self.linear(f"{name}.{part}", x) for part, x in (("query", query), ("key", key), ("value", value))
        )
        heads = []
        for head in np.split(np.arange(DIM), HEADS):
            logits = query[:, head] @ key[:, head].T / np.sqrt(len(head))
            weights = np.where(self.mask, np.exp(logits), 0)
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, head])
        return self.linear(f"{name}.output", np.concatenate(heads, axis=1))

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        return x * self.weights[f"{name}.norm.weight"] + self.weights[f"{name}.norm.bias"]

    def feedforward(self, name: str, x: np.ndarray) -> np.ndarray:
        hidden = np.maximum(self.linear(f"{name}.feedforward.0", x), 0)
        return self.norm(f"{name}.after_feedforward", x + self.linear(f"{name}.feedforward.3", hidden))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        p = self.position
        for name in ("encoder.0", "encoder.1"):
            x = self.norm(f"{name}.after_attention", x + self.attend(f"{name}.attention", x + p, x + p, x))
            x = self.feedforward(name, x)
        encoded = x
        for name in ("decoder.0", "decoder.1", "decoder.2"):
            query = self.weights[f"{name}.queries"]
            seen = self.attend(f"{name}.encoder_attention", query + p, encoded + p, encoded)
            query = self.norm(f"{name}.after_encoder_attention", query + seen)
            seen = self.attend(f"{name}.layer_attention", query + p, x + p, x)
            x = self.feedforward(name, self.norm(f"{name}.after_layer_attention", query + seen))
        return x


def test_transformer_is_that_of_numpy() -> None:
    """Each decoder layer starts from queries of its own and attends to the encoder, then to the layer before it."""
    model = NeighborMaskedTransformer(GRID, DIM, 2, 3, HEADS, 16, neighborhood=(3, 3)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    given = tokens(2, TOKENS, DIM)
    expected = np.stack([NumPyTransformer(model)(image.numpy()) for image in given])
    np.testing.assert_allclose(model(given).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_training_drops_and_inference_does_not() -> None:
    model = NeighborMaskedTransformer(GRID, DIM, 1, 1, HEADS, 16, neighborhood=(3, 3)).double()
    given = tokens(1, TOKENS, DIM)
    assert not torch.equal(model(given), model(given))
    model.eval()
    assert torch.equal(model(given), model(given))
