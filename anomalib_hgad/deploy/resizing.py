# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Antialiased resizing in graphs of OpenVINO."""

from __future__ import annotations

import numpy as np
from openvino import Model, Node, opset11, opset13

from anomalib_hgad.deploy.nodes import replace, sources_of


def antialias(graph: Model) -> None:
    """Have a graph resize with the antialiasing that it was exported with.

    OpenVINO reads an ONNX Resize with its attribute ``antialias``, and ignores it. Its own operation with antialiasing
    is that of Pillow, which PyTorch computes too.

    Args:
        graph: Graph that was read from ONNX, which is changed.

    Raises:
        ValueError: If it resizes with antialiasing otherwise than bilinearly.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Interpolate" or not node.get_attributes().get("antialias"):
            continue
        if (mode := node.get_attributes()["mode"]) == "bilinear_pillow":
            continue
        if mode != "linear_onnx":
            msg = f"Expected a graph that resizes bilinearly, got the mode {mode!r} of OpenVINO."
            raise ValueError(msg)
        replace(node, _of_pillow(node))


def _of_pillow(node: Node) -> Node:
    image, sizes, *_ = sources_of(node)
    # Pillow's takes height and width alone.
    last = opset13.slice(sizes, *(opset13.constant(np.array([value])) for value in (2, 4, 1)))
    axes = opset13.constant(np.array([2, 3]))
    return opset11.interpolate(image, last, "bilinear_pillow", "sizes", axes=axes, antialias=True)
