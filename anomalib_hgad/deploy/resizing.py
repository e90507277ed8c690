# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Antialiased resizing in OpenVINO graphs."""

from __future__ import annotations

import numpy as np
from openvino import Model, Node, opset11, opset13

from anomalib_hgad.deploy.nodes import replace, sources_of


def antialias(graph: Model) -> None:
    """Make a graph resize with the antialiasing that it was exported with.

    OpenVINO reads the attribute ``antialias`` of an ONNX Resize and ignores it. Its own antialiased operation is that
    of Pillow, which PyTorch implements too.

    Args:
        graph: Graph that was read from ONNX; changed in place.

    Raises:
        ValueError: If it resizes with antialiasing and another interpolation than bilinear.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Interpolate" or not node.get_attributes().get("antialias"):
            continue
        if (mode := node.get_attributes()["mode"]) == "bilinear_pillow":
            continue
        if mode != "linear_onnx":
            msg = f"Expected a graph that resizes bilinearly, got OpenVINO's mode {mode!r}."
            raise ValueError(msg)
        replace(node, _of_pillow(node))


def _of_pillow(node: Node) -> Node:
    image, sizes, *_ = sources_of(node)
    # Pillow's operation accepts height and width only.
    last = opset13.slice(sizes, *(opset13.constant(np.array([value])) for value in (2, 4, 1)))
    axes = opset13.constant(np.array([2, 3]))
    return opset11.interpolate(image, last, "bilinear_pillow", "sizes", axes=axes, antialias=True)
