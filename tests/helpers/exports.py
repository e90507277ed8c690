# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models as functions of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
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


def from_onnx(path: Path, tensors: Sequence[tuple[str, int]] = ((CLASS_TENSOR, onnx.TensorProto.INT64),)) -> Predict:
    """Plain onnxruntime, with the class, or other tensors by name and type, as further outputs."""
    graph = onnx.load(path, load_external_data=False)
    graph.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in tensors)
    further = path.with_name("further_outputs.onnx")  # beside its weights
    onnx.save(graph, further)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow down what comes after
    session = onnxruntime.InferenceSession(further, options)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"input": images}), strict=True))
