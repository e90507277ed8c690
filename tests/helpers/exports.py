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

from anomalib_hgad.deploy.export import CLASS_TENSOR, IN_FLOAT32, NOVELTY_TENSOR

Outputs = dict[str, np.ndarray]
Predict = Callable[[np.ndarray], Outputs]

TENSORS = ((CLASS_TENSOR, onnx.TensorProto.INT64), (NOVELTY_TENSOR, onnx.TensorProto.FLOAT))
"""Names and types of the tensors that are no outputs."""


def from_openvino(path: Path, settings: dict[str, str] = IN_FLOAT32) -> Predict:
    """OpenVINO, in float32 unless told otherwise, with class and novelty as further outputs."""
    graph = openvino.Core().read_model(path)
    graph.add_outputs([name for name, _ in TENSORS])
    model = openvino.compile_model(graph, "CPU", settings)
    return lambda images: {output.any_name: value.copy() for output, value in model(images).items()}


def from_onnx(path: Path, tensors: Sequence[tuple[str, int]] = TENSORS) -> Predict:
    """Plain onnxruntime, with class and novelty, or other tensors by name and type, as further outputs."""
    graph = onnx.load(path, load_external_data=False)
    graph.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in tensors)
    further = path.with_name("further_outputs.onnx")  # beside its weights
    onnx.save(graph, further)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow down what comes after
    session = onnxruntime.InferenceSession(further, options)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"input": images}), strict=True))
