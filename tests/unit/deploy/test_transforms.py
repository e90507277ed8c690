# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the exportable resizing against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Normalize, Resize, Transform

from anomalib_hgad.deploy.transforms import AntialiasedResize, ResizeOperator, exportable, last_size

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("size", [(32, 48), (288, 384), (550, 380), (1, 1), (3000, 2), (7, 100), (33, 47)])
def test_antialiased_resize_is_pytorchs(size: tuple[int, int]) -> None:
    """Smaller, larger, and one side each."""
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = F.interpolate(images, size=(32, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(AntialiasedResize((32, 48))(images), expected, rtol=0, atol=1e-12)
    assert torch.equal(ResizeOperator((32, 48))(images), expected)


@pytest.mark.parametrize("resize", [AntialiasedResize, ResizeOperator])
def test_exportable_transform_gives_the_images_of_the_transform(resize: type[Transform]) -> None:
    transform = Compose([Resize((40, 50)), Compose([CenterCrop(32), Normalize([0.5] * 3, [0.2] * 3)])])
    images = torch.rand(2, 3, 99, 123, dtype=torch.float64)
    torch.testing.assert_close(exportable(transform, resize)(images), transform(images), rtol=0, atol=1e-12)
    assert last_size(exportable(transform, resize)) == last_size(transform) == (32, 32)


@pytest.mark.parametrize(
    "resize",
    [Resize((8, 9), antialias=False), Resize((8, 9), interpolation=InterpolationMode.NEAREST), Resize(8)],
    ids=["not antialiased", "nearest", "one side"],
)
def test_other_resizes_are_exported_as_anomalib_does(resize: Resize) -> None:
    (step,) = exportable(resize).transforms
    assert type(step) is Resize
    assert exportable(None) is None
