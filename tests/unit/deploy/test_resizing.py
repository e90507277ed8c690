# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Antialiased resizing in OpenVINO against PyTorch's and Pillow's."""

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
from anomalib_hgad.deploy.resizing import antialias
from anomalib_hgad.deploy.transforms import ResizeOperator

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("seeded")]


class Resizing(nn.Module):
    """What a graph does before its backbone, with a score."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.mode == "bilinear":
            resized = ResizeOperator((32, 48))(images)
        else:
            resized = F.interpolate(images, size=(32, 48), mode=self.mode, antialias=True)
        return resized, resized.flatten(1).max(dim=1).values


def graph_of(mode: str, folder: Path) -> openvino.Model:
    """Its graph for images of any size."""
    file, free = folder / "resize.onnx", torch.export.Dim.DYNAMIC
    torch.onnx.export(
        Resizing(mode).eval(),
        (torch.rand(2, 3, 50, 40),),
        file,
        dynamo=True,
        opset_version=18,
        input_names=["input"],
        output_names=["resized", "pred_score"],
        dynamic_shapes=({0: free, 2: free, 3: free},),
        verbose=False,
    )
    return openvino.Core().read_model(file)


def test_openvino_resizes_as_pytorch_and_pillow_do(tmp_path: Path) -> None:
    """It does not with the attribute alone."""
    graph = graph_of("bilinear", tmp_path)
    without = openvino.compile_model(graph.clone(), "CPU")
    antialias(graph)
    antialias(graph)  # which leaves it as it is
    keep_in_float32(graph)
    model = openvino.compile_model(graph, "CPU")
    for size in ((32, 48), (288, 384), (550, 380), (1, 1), (700, 2), (7, 100), (33, 47)):
        images = torch.rand(2, 3, *size)
        resized = model(images.numpy())["resized"]
        expected = F.interpolate(images, size=(32, 48), mode="bilinear", antialias=True).numpy()
        np.testing.assert_allclose(resized, expected, rtol=0, atol=3e-5)
        channel = Image.fromarray(images[0, 0].numpy()).resize((48, 32), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(resized[0, 0], np.asarray(channel), rtol=0, atol=3e-5)
        if min(size) > 48:
            assert np.abs(without(images.numpy())["resized"] - expected).max() > 0.1


def test_other_resizing_with_antialiasing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resizes bilinearly, got OpenVINO's mode 'cubic'"):
        antialias(graph_of("bicubic", tmp_path))
