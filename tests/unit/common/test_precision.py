# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Half precision stays out, and nothing is made coarser."""

from __future__ import annotations

import pytest
import torch

from anomalib_hgad.common.precision import full_precision, no_autocast


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_numbers_are_of_full_precision(given: torch.dtype, expected: torch.dtype) -> None:
    values = full_precision(torch.tensor([0.5, -3.0], dtype=given))
    assert values.dtype == expected
    assert values.tolist() == [0.5, -3.0]


def test_autocast_leaves_products_alone() -> None:
    """1 + 1/512 needs 9 bits of fraction, bfloat16 has 7."""
    value = torch.tensor([[1 + 1 / 512]])
    with torch.autocast("cpu", torch.bfloat16):
        assert (value @ torch.ones(1, 1)).item() == 1
        with no_autocast(value):
            assert (value @ torch.ones(1, 1)).item() == 1 + 1 / 512
        assert (value @ torch.ones(1, 1)).item() == 1
