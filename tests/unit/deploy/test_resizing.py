# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exportable antialiased resizing against PyTorch's and Pillow's, in PyTorch and in OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from anomalib_hgad.deploy.float32 import keep_in_float32
from anomalib_hgad.deploy.resizing import AntialiasedResize

pytestmark = pytest.mark.usefixtures("seeded")

SIZES = [(32, 48), (288, 384), (550, 380), (1, 1), (3000, 2), (7, 100), (33, 47), (256, 192)]
"""Smaller, larger, and one side each."""


@pytest.mark.parametrize("new_size", [(32, 48), (256, 250), (1, 33)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resizes_as_pytorch_does(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = F.interpolate(images, size=new_size, mode="bilinear", antialias=True)
    torch.testing.assert_close(AntialiasedResize(new_size)(images), expected, rtol=0, atol=1e-12)


def test_images_of_the_size_are_left_as_they_are() -> None:
    images = torch.rand(2, 3, 32, 48)
    assert AntialiasedResize((32, 48))(images) is images


class Resizing(nn.Module):
    """What a graph does before its backbone, with a score."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        resized = AntialiasedResize((32, 48))(images)
        return resized, resized.flatten(1).max(dim=1).values


@pytest.mark.slow
def test_openvino_resizes_as_pytorch_and_pillow_do(tmp_path: Path) -> None:
    file, free = tmp_path / "resize.onnx", torch.export.Dim.DYNAMIC
    torch.onnx.export(
        Resizing().eval(),
        (torch.rand(2, 3, 50, 40),),
        file,
        dynamo=True,
        opset_version=18,
        input_names=["input"],
        output_names=["resized", "pred_score"],
        dynamic_shapes=({0: free, 2: free, 3: free},),
        verbose=False,
    )
    graph = openvino.Core().read_model(file)
    keep_in_float32(graph)
    model = openvino.compile_model(graph, "CPU")
    for size in SIZES:
        images = torch.rand(2, 3, *size)
        resized = model(images.numpy())["resized"]
        expected = F.interpolate(images, size=(32, 48), mode="bilinear", antialias=True).numpy()
        np.testing.assert_allclose(resized, expected, rtol=0, atol=3e-5)
        channel = Image.fromarray(images[0, 0].numpy()).resize((48, 32), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(resized[0, 0], np.asarray(channel), rtol=0, atol=3e-5)
