# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Values as metrics take them, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_hgad.evaluation.values import between_0_and_1, rows_of, scaled_down

RNG = np.random.default_rng(0)


def test_large_maps_become_the_means_of_their_blocks() -> None:
    maps = RNG.random((2, 512, 1024))
    expected = maps.reshape(2, 128, 4, 256, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(scaled_down(torch.from_numpy(maps)).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_large_masks_become_the_pixels_in_the_middle_of_their_blocks(dtype: torch.dtype) -> None:
    """They stay masks: no pixel between normal and anomalous."""
    masks = RNG.integers(0, 2, (2, 770, 1280))
    actual = scaled_down(torch.from_numpy(masks).to(dtype))
    assert actual.dtype == dtype
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in ((154, 770), (256, 1280)))
    np.testing.assert_array_equal(actual.numpy(), masks[:, rows.astype(int)[:, None], columns.astype(int)])


@pytest.mark.parametrize(
    ("size", "expected"), [((1000, 333), (256, 85)), ((334, 1000), (86, 256)), ((257, 3), (256, 3))]
)
def test_longer_side_is_brought_to_256_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """The shorter one keeps its share: 85.2 and 85.5 pixels."""
    assert scaled_down(torch.zeros(1, *size)).shape == (1, *expected)
    assert scaled_down(torch.zeros(1, *size, dtype=torch.bool)).shape == (1, *expected)


@pytest.mark.parametrize("shape", [(2, 256, 256), (2, 1, 256), (1000,), (1000, 2)])
def test_what_is_small_enough_or_no_map_stays(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape)
    assert torch.equal(scaled_down(values), values)


def test_channel_of_a_map_is_dropped_as_metrics_take_none() -> None:
    maps = torch.rand(2, 1, 512, 512)
    expected = maps.numpy().reshape(2, 256, 2, 256, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(scaled_down(maps).numpy(), expected, rtol=1e-5)


def test_scores_come_between_0_and_1_in_their_order() -> None:
    """0.5 + 0.5 s / (1 + |s|): 0, 1, 3 and -3 become 1/2, 3/4, 7/8 and 1/8."""
    assert between_0_and_1(torch.tensor([0.0, 1.0, 3.0, -3.0])).tolist() == [0.5, 0.75, 0.875, 0.125]
    close = torch.tensor([1e4, np.nextafter(np.float32(1e4), np.float32(2e4)), -1e30, 1e30])
    values = between_0_and_1(close)
    assert values[0] < values[1]
    assert ((values >= 0) & (values <= 1)).all()


def test_rows_of_chosen_images() -> None:
    values = {"score": torch.tensor([1.0, 2.0, 3.0]), "map": torch.arange(6).view(3, 2)}
    chosen = rows_of(values, [True, False, True])
    assert chosen["score"].tolist() == [1.0, 3.0]
    assert chosen["map"].tolist() == [[0, 1], [4, 5]]
    assert rows_of(values, [False] * 3) == {}
