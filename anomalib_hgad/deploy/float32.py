# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Keeps OpenVINO graphs in float32 on processors on which OpenVINO computes in bfloat16 by default.

bfloat16 is not precise enough: the score of an image changes by 0.1 and more, and labels flip. No entry of a file sets
the precision for OpenVINO, but its CPU plugin does not change two kinds of nodes:

- nodes marked as precise; the mark is stored in the file. The plugin rewrites most nodes before it looks for marks, and
  a rewritten node has none: a difference becomes a sum, a division a product, a bias part of its product.
- the tail of the graph: all nodes with a path to an output without a product or an interpolation.

Therefore products and interpolations are marked, and converted to a form that the plugin does not rewrite. Every input
of these nodes also gets a path to the score that bypasses them, by a single number that never changes the score.
"""

from __future__ import annotations

import numpy as np
from openvino import Model, Node, Output, opset10, opset13

from anomalib_hgad.deploy.nodes import replace, sources_of

MARK = "precise_0"
"""Runtime information of a node that is never computed in a lower precision than its own: name and version of
OpenVINO's attribute."""

CONVOLUTIONS = {"Convolution", "GroupConvolution"}
"""Operations that OpenVINO never replaces by one without a mark."""

ENDS = CONVOLUTIONS | {"MatMul", "Interpolate"}
"""Operations that end the tail of a graph."""

MINUS_INFINITY = np.float32(-np.inf)

DYNAMIC_QUANTIZATION = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
"""Setting for also rounding the activations that are multiplied with 8-bit weights to 8 bits, where supported."""

KEPT = {"Add", "Parameter", "Relu"}
"""Operations between convolutions that OpenVINO does not rewrite."""

INTERPOLATION = (
    "mode",
    "shape_calculation_mode",
    "pads_begin",
    "pads_end",
    "coordinate_transformation_mode",
    "nearest_mode",
    "antialias",
    "cube_coeff",
)
"""Attributes that both forms of Interpolate have."""


def keep_in_float32(graph: Model) -> None:
    """Make a graph compute in float32 on every processor, regardless of OpenVINO's settings.

    Args:
        graph: Graph with an output ``pred_score``; changed in place, without changing the values of its outputs.
    """
    constant = _constant(graph)
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            _align(node, constant)
        elif node.get_type_name() == "Interpolate":
            replace(node, _interpolate(node))
    _lead_to_score(graph, _ends(graph, constant))
    graph.validate_nodes_and_infer_types()
    for node in graph.get_ordered_ops():
        node.get_rt_info()[MARK] = ""
    graph.set_rt_info("0", ["runtime_options", DYNAMIC_QUANTIZATION])


def _constant(graph: Model) -> set[str]:
    """Names of constants, and of operations that restore constants stored in fewer bits."""
    names: set[str] = set()
    for node in graph.get_ordered_ops():
        sources = [source.get_node().get_friendly_name() for source in sources_of(node)]
        if node.get_type_name() == "Constant" or (sources and names.issuperset(sources)):
            names.add(node.get_friendly_name())
    return names


def _align(product: Node, constant: set[str]) -> None:
    """Transpose the factors of a product, and give both as many axes: OpenVINO would replace any other product."""
    ranks = [len(factor.get_partial_shape()) for factor in sources_of(product)]
    if product.get_attributes()["transpose_a"]:
        *order, rows, columns = range(ranks[0])
        turned = opset13.transpose(product.input_value(0), opset13.constant([*order, columns, rows]))
        # Nothing is below minus infinity, but OpenVINO cannot know, and so does not fuse transpose and product.
        apart = opset13.select(opset13.less(turned, MINUS_INFINITY), MINUS_INFINITY, turned)
        product.input(0).replace_source_output(apart.output(0))
        product.set_attribute("transpose_a", False)  # noqa: FBT003 - OpenVINO's name and value
    for entry, rank in zip(product.inputs(), ranks, strict=True):
        factor = entry.get_source_output()
        if rank < max(ranks) and factor.get_node().get_friendly_name() not in constant:
            axes = opset13.constant(np.arange(max(ranks) - rank))
            entry.replace_source_output(opset13.unsqueeze(factor, axes).output(0))


def _interpolate(node: Node) -> Node:
    """The older form of Interpolate, by which OpenVINO replaces the newer one."""
    image, sizes, *axes = sources_of(node)
    attributes = {name: node.get_attributes()[name] for name in INTERPOLATION}
    scales = opset13.constant(np.ones(sizes.get_partial_shape()[0].get_length(), dtype=np.float32))
    return opset10.interpolate(image, sizes, scales, axes=axes[0] if axes else None, **attributes)


def _ends(graph: Model, constant: set[str]) -> list[Output]:
    """Inputs of products and interpolations, and those of their outputs that OpenVINO would fuse with what follows."""
    found: dict[tuple[str, int], Output] = {}
    kept = set(constant)
    for node in graph.get_ordered_ops():
        kind, name = node.get_type_name(), node.get_friendly_name()
        sources = sources_of(node)
        if kind in ENDS or (
            kind in KEPT and kept.issuperset(source.get_node().get_friendly_name() for source in sources)
        ):
            kept.add(name)
        if kind not in ENDS:
            continue
        tensors = [source for source in sources if source.get_node().get_friendly_name() not in constant]
        if kind in CONVOLUTIONS:
            tensors = [tensor for tensor in tensors if tensor.get_node().get_friendly_name() not in kept]
        else:
            tensors.append(node.output(0))
        for tensor in tensors:
            if tensor.get_element_type().is_real():
                found[tensor.get_node().get_friendly_name(), tensor.get_index()] = tensor
    return list(found.values())


def _lead_to_score(graph: Model, tensors: list[Output]) -> None:
    """Make the score depend on the first number of each tensor, which only matters if it is below minus infinity."""
    if not tensors:
        return
    firsts = []
    for tensor in tensors:
        start = np.zeros(len(tensor.get_partial_shape()), dtype=np.int64)
        first = opset13.slice(tensor, opset13.constant(start), *[opset13.constant(start + 1)] * 2)
        firsts.append(opset13.reshape(first, opset13.constant([-1]), special_zero=False))
    # No number is below minus infinity, and NaN is not either. OpenVINO cannot know that without computing them.
    is_below = opset13.less(opset13.concat(firsts, axis=0), MINUS_INFINITY)
    is_any = opset13.reduce_logical_or(is_below, opset13.constant([0]), keep_dims=True)
    (result,) = [result for result in graph.get_results() if "pred_score" in result.input_value(0).get_names()]
    score = result.input_value(0)
    names = score.get_names()
    chosen = opset13.select(is_any, MINUS_INFINITY, score).output(0)
    score.set_names(set())
    result.input(0).replace_source_output(chosen)
    chosen.set_names(names)
