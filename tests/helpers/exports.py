# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Exported models as functions of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR, DescribedExport
from anomalib_hgad.deploy.graph import IN_FLOAT32

MARK = "DisablePrecisionConversion"
"""OpenVINO's attribute of a node that is computed in its own precision."""

ENDS = {"Convolution", "GroupConvolution", "FullyConnected", "FullyConnectedCompressed", "MatMul", "Interpolate"}
"""Nodes that OpenVINO computes in bfloat16 wherever they are, unless they are marked."""

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


def to_openvino(module: DescribedExport, graph: Path, folder: Path, **settings: Any) -> Path:
    """An export to OpenVINO that takes the ONNX graph that there is: to make one takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "to_onnx", lambda *_, **__: graph)
        return module.to_openvino(folder, **settings)


def in_bfloat16(path: Path) -> list[str]:
    """Names of the nodes that OpenVINO would compute in bfloat16 on a processor that can, on any processor.

    Nodes as OpenVINO's CPU plugin has rewritten them, read from what it would put into its cache; it takes those that
    are neither marked nor in the tail of the graph (Graph::EnforceInferencePrecision in src/plugins/intel_cpu).
    Products with weights that are stored in 8 bits stay in float32 without a mark, as compiled graphs show.
    """
    seen: list[bytes] = []
    settings = {"CACHE_ENCRYPTION_CALLBACKS": [lambda text: seen.append(text) or text, lambda text: text]}
    openvino.compile_model(openvino.Core().read_model(path), "CPU", settings).export_model()
    start, end = b"<net ", b"</net>"
    network = ET.fromstring(seen[0][seen[0].index(start) : seen[0].index(end) + len(end)])
    layers = {layer.get("id"): layer for layer in network.iterfind("layers/layer")}
    sources: dict[str | None, list[str | None]] = {name: [] for name in layers}
    for edge in network.iterfind("edges/edge"):
        sources[edge.get("to-layer")].append(edge.get("from-layer"))
    tail = set()
    reached = [name for name, layer in layers.items() if layer.get("type") == "Result"]
    while reached:
        name = reached.pop()
        if name not in tail and layers[name].get("type") not in ENDS:
            tail.add(name)
            reached += sources[name]
    passive = {"Const", "Parameter", "Result", "ShapeOf", "FullyConnectedCompressed"}
    return [
        layer.get("name", "")
        for name, layer in layers.items()
        if layer.get("type") not in passive
        and name not in tail
        and MARK not in {attribute.get("name") for attribute in layer.iterfind("rt_info/attribute")}
        and "FP32" in {port.get("precision") for port in layer.iter("port")}
    ]
