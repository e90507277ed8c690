# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What is special to exported graphs of Hgad.

anomalib's inferencers refuse a graph with an output that they do not know, so inferred class and novelty are no
outputs. The graph computes them all the same, and names them :data:`CLASS_TENSOR` and :data:`NOVELTY_TENSOR`: whoever
wants them makes these tensors outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anomalib.data import AnomalibDataModule
from anomalib.deploy import CompressionType

from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR, PIXELS_TENSOR
from anomalib_hgad.models.hgad.torch_model import HgadModel

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model


def name_tensors(graph: ModelProto) -> None:
    """Name the inferred class, the novelty, and the largest pixels whose mean is the score of an image.

    Args:
        graph: Exported graph, which is changed.
    """
    nodes = graph.graph.node
    averaged = {node.input[0] for node in nodes if node.op_type == "ReduceMean"}
    names = {node.output[0]: CLASS_TENSOR for node in nodes if node.op_type == "ArgMax"}
    names |= {node.output[0]: PIXELS_TENSOR for node in nodes if node.op_type == "TopK" and node.output[0] in averaged}
    # The novelty alone takes a place where it is NaN itself; post-processors put other things in the place of NaN.
    tested = {node.output[0]: node.input[0] for node in nodes if node.op_type == "IsNaN"}
    chosen = [(tested.get(node.input[0]), node.input[1]) for node in nodes if node.op_type == "Where"]
    names |= {value: NOVELTY_TENSOR for is_nan, value in chosen if is_nan == value}
    for node in nodes:
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                tensors[position] = names.get(name, name)


def compress_graph(
    model: HgadModel,
    graph: Model,
    compression_type: CompressionType,
    datamodule: AnomalibDataModule | None = None,
    metric: Any = None,  # noqa: ANN401
    task: Any = None,  # noqa: ANN401
    max_drop: float = 0.01,
) -> Model:
    """Quantise a graph to INT8, but for the mixture and the smoothing of the maps.

    Args:
        model: The model that the graph is of.
        graph: Graph in floating point.
        compression_type: Form of INT8.
        datamodule: Data for the calibrated forms.
        metric: Metric for ``INT8_ACQ``.
        task: Unused; anomalib gives it.
        max_drop: How much the metric may fall.

    Returns:
        The quantised graph.
    """
    from anomalib_hgad.deploy.quantization import compress  # noqa: PLC0415 - nncf takes seconds, and few need it

    del task
    head = [tensor.detach().cpu().numpy() for tensor in model.head_weights]
    return compress(graph, head, compression_type, datamodule, metric, max_drop)
