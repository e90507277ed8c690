# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models as functions of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino

from anomalib_hgad.deploy.export import CLASS_TENSOR, IN_FLOAT32

Outputs = dict[str, np.ndarray]
Predict = Callable[[np.ndarray], Outputs]


def from_openvino(path: Path) -> Predict:
    """OpenVINO in float32, with the class as a fifth output."""
    graph = openvino.Core().read_model(path)
    graph.add_outputs(CLASS_TENSOR)
    model = openvino.compile_model(graph, "CPU", IN_FLOAT32)
    return lambda images: {output.any_name: value.copy() for output, value in model(images).items()}
