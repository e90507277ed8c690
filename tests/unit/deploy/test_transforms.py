# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the exportable form of a transform against the transform itself."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Normalize, Resize, Transform

from anomalib_hgad.deploy.transforms import exportable, last_size, takes_any_size

pytestmark = pytest.mark.usefixtures("seeded")


def test_exportable_transform_gives_the_images_of_the_transform() -> None:
    transform = Compose([Resize((40, 50)), Compose([CenterCrop(32), Normalize([0.5] * 3, [0.2] * 3)])])
    images = torch.rand(2, 3, 99, 123, dtype=torch.float64)
    torch.testing.assert_close(exportable(transform)(images), transform(images), rtol=0, atol=1e-12)
    assert last_size(exportable(transform)) == last_size(transform) == (32, 32)


@pytest.mark.parametrize(
    "resize",
    [Resize((8, 9), antialias=False), Resize((8, 9), interpolation=InterpolationMode.NEAREST), Resize(8)],
    ids=["not antialiased", "nearest", "one side"],
)
def test_other_resizes_are_exported_as_anomalib_does(resize: Resize) -> None:
    (step,) = exportable(resize).transforms
    assert type(step) is Resize
    assert exportable(None) is None


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (Compose([Resize((40, 50)), CenterCrop(32)]), True),
        (Compose([Normalize([0.5] * 3, [0.2] * 3), Resize((40, 50), antialias=False)]), True),
        (Compose([Resize(40, antialias=False), CenterCrop(32)]), False),
        (Compose([CenterCrop(64), Resize((32, 32))]), False),
        (Resize(20, max_size=32, antialias=False), False),
        (Normalize([0.5] * 3, [0.2] * 3), False),
        (None, False),
    ],
    ids=["resize and crop", "normalised first", "shorter side", "crop first", "longest side", "no resize", "none"],
)
def test_graph_takes_any_size_after_a_resize_to_height_and_width(transform: Transform, expected: bool) -> None:
    assert takes_any_size(transform) is expected
