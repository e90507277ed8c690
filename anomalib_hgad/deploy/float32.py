# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Graphs of OpenVINO that stay in float32 on processors on which it computes in bfloat16 by default.

Scores do not stand bfloat16: an image's score moves by 0.1 and more, and labels flip. Nothing in a file tells OpenVINO
which precision to take, but its CPU plugin leaves two kinds of nodes as they are:

- nodes that are marked as precise, which the file keeps. The plugin rewrites most nodes before it looks for marks, and
  a rewritten node has none: a difference becomes a sum, a division a product, a bias part of its product.
- the tail of the graph: all that leads to an output without a product or an interpolation on the way.

So products and interpolations are marked, and brought to a form in which the plugin does not rewrite them; and what
leads to one of them leads to the score too, past it, by a single number whose value never counts.
"""

from __future__ import annotations

import numpy as np
from openvino import Model, Node, Output, opset10, opset13

from anomalib_hgad.deploy.nodes import replace, sources_of

MARK = "precise_0"
"""Runtime information of a node that is never computed in less than its own precision: name and version of OpenVINO's
attribute."""

CONVOLUTIONS = {"Convolution", "GroupConvolution"}
"""Operations that OpenVINO replaces by none without a mark."""

ENDS = CONVOLUTIONS | {"MatMul", "Interpolate"}
"""Operations that end the tail of a graph."""

MINUS_INFINITY = np.float32(-np.inf)

DYNAMIC_QUANTIZATION = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
"""Setting by which factors of weights that are stored in 8 bits are rounded to 8 bits too on processors that can."""

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
    """Have a graph computed in float32 on every processor, whatever OpenVINO's settings are.

    Args:
        graph: Graph with an output ``pred_score``, which is changed; its outputs' values are not.
    """
    constant = _constant(graph)
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            _align(node, constant)
        elif node.get_type_name() == "Interpolate" and node.get_attributes()["mode"] != "bilinear_pillow":
            replace(node, _interpolate(node))
    _lead_to_score(graph, _ends(graph, constant))
    graph.validate_nodes_and_infer_types()
    for node in graph.get_ordered_ops():
        node.get_rt_info()[MARK] = ""
    graph.set_rt_info("0", ["runtime_options", DYNAMIC_QUANTIZATION])


def _constant(graph: Model) -> set[str]:
    """Names of constants, and of what restores those that are stored in fewer bits."""
    names: set[str] = set()
    for node in graph.get_ordered_ops():
        sources = [source.get_node().get_friendly_name() for source in sources_of(node)]
        if node.get_type_name() == "Constant" or (sources and names.issuperset(sources)):
            names.add(node.get_friendly_name())
    return names


def _align(product: Node, constant: set[str]) -> None:
    """Turn the factors of a product, and give both as many axes: OpenVINO would replace the product by one so made."""
    ranks = [len(factor.get_partial_shape()) for factor in sources_of(product)]
    if product.get_attributes()["transpose_a"]:
        *order, rows, columns = range(ranks[0])
        turned = opset13.transpose(product.input_value(0), opset13.constant([*order, columns, rows]))
        # Nothing is below minus infinity, but OpenVINO cannot know, and does not put transpose and product together.
        apart = opset13.select(opset13.less(turned, MINUS_INFINITY), MINUS_INFINITY, turned)
        product.input(0).replace_source_output(apart.output(0))
        product.set_attribute("transpose_a", False)  # noqa: FBT003 - OpenVINO's name and value
    for entry, rank in zip(product.inputs(), ranks, strict=True):
        factor = entry.get_source_output()
        if rank < max(ranks) and factor.get_node().get_friendly_name() not in constant:
            axes = opset13.constant(np.arange(max(ranks) - rank))
            entry.replace_source_output(opset13.unsqueeze(factor, axes).output(0))


def _interpolate(node: Node) -> Node:
    """The older form of Interpolate, which OpenVINO replaces the newer one by."""
    image, sizes, *axes = sources_of(node)
    attributes = {name: node.get_attributes()[name] for name in INTERPOLATION}
    scales = opset13.constant(np.ones(sizes.get_partial_shape()[0].get_length(), dtype=np.float32))
    return opset10.interpolate(image, sizes, scales, axes=axes[0] if axes else None, **attributes)


def _ends(graph: Model, constant: set[str]) -> list[Output]:
    """What enters products and interpolations, and what leaves them that OpenVINO would merge with what follows."""
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
    """Have the score depend on the first number of each tensor, which counts if it is below minus infinity."""
    if not tensors:
        return
    below = []
    for tensor in tensors:
        start = np.zeros(len(tensor.get_partial_shape()), dtype=np.int64)
        first = opset13.slice(tensor, opset13.constant(start), *[opset13.constant(start + 1)] * 2)
        # No number is, and NaN is not either. OpenVINO cannot know that without computing them.
        is_below = opset13.less(first, MINUS_INFINITY)
        below.append(opset13.reshape(is_below, opset13.constant([-1]), special_zero=False))
    is_any = opset13.reduce_logical_or(opset13.concat(below, axis=0), opset13.constant([0]), keep_dims=True)
    (result,) = [result for result in graph.get_results() if "pred_score" in result.input_value(0).get_names()]
    score = result.input_value(0)
    names = score.get_names()
    chosen = opset13.select(is_any, MINUS_INFINITY, score).output(0)
    score.set_names(set())
    result.input(0).replace_source_output(chosen)
    chosen.set_names(names)
