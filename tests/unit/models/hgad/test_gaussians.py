# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Formulas of Gaussians against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_hgad.models.hgad.gaussians import whitened_square_norms

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
def test_whitened_square_norms_are_those_of_whole_products(dim: int) -> None:
    """Of two images, three classes of four each, and six columns."""
    whitening = torch.randn(4, dim, dim, dtype=torch.float64).tril()
    class_index = torch.tensor([[0, 3, 1], [2, 2, 0]])
    columns = torch.randn(2, 3, dim, 6, dtype=torch.float64)
    expected = [
        [(whitening[index].numpy() @ of_class.numpy()) ** 2 for index, of_class in zip(classes, of_image, strict=True)]
        for classes, of_image in zip(class_index, columns, strict=True)
    ]
    actual = whitened_square_norms(whitening, class_index, columns)
    np.testing.assert_allclose(actual.numpy(), np.sum(expected, axis=2), atol=1e-12)
