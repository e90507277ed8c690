# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names of tensors in exported graphs of Hgad.

anomalib's inferencers reject a graph with an unknown output, so inferred class and novelty are not outputs. The graph
still computes them, as tensors named :data:`CLASS_TENSOR` and :data:`NOVELTY_TENSOR`; whoever needs them makes these
tensors outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anomalib_hgad.deploy.export import CLASS_TENSOR, NOVELTY_TENSOR, PIXELS_TENSOR

if TYPE_CHECKING:
    from onnx import ModelProto


def name_tensors(graph: ModelProto) -> None:
    """Name the inferred class, the novelty, and the largest pixels whose mean is the score of an image.

    Args:
        graph: Exported graph, which is changed.
    """
    nodes = graph.graph.node
    averaged = {node.input[0] for node in nodes if node.op_type == "ReduceMean"}
    names = {node.output[0]: CLASS_TENSOR for node in nodes if node.op_type == "ArgMax"}
    names |= {node.output[0]: PIXELS_TENSOR for node in nodes if node.op_type == "TopK" and node.output[0] in averaged}
    # Only the novelty is chosen where it is NaN itself; post-processors replace NaN by something else.
    tested = {node.output[0]: node.input[0] for node in nodes if node.op_type == "IsNaN"}
    chosen = [(tested.get(node.input[0]), node.input[1]) for node in nodes if node.op_type == "Where"]
    names |= {value: NOVELTY_TENSOR for is_nan, value in chosen if is_nan == value}
    for node in nodes:
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                tensors[position] = names.get(name, name)
