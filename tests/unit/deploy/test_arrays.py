# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Numbers of an array, as an exported model gets them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from anomalib_hgad.deploy.arrays import as_input


def test_rounding_beyond_the_range_is_cut_off() -> None:
    given = np.array([[-5e-4, 0.0, 0.25], [0.75, 1.0, 1.0 + 5e-4]])
    expected = np.array([[0, 0, 0.25], [0.75, 1, 1]], dtype=np.float32)
    np.testing.assert_array_equal(as_input(given), np.stack([expected] * 3)[None])


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_numbers_beyond_rounding_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1, .* got float64 of shape \(4, 4\) from"):
        as_input(np.pad(np.full((2, 2), value), 1, constant_values=0.5))


def test_resized_white_image_is_taken() -> None:
    """Antialiasing sums weights, whose rounding makes numbers above 1."""
    image = resize(torch.ones(3, 900, 1234), [256, 256], antialias=True)
    assert image.max() > 1
    assert as_input(image.numpy()).max() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_number_that_is_not_finite_stays(value: float) -> None:
    np.testing.assert_array_equal(as_input(np.full((4, 4), value)), np.full((1, 3, 4, 4), value))
