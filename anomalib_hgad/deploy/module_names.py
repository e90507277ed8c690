# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Names operations of an exported graph after the modules that they belong to."""

from __future__ import annotations

from ast import literal_eval
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model

MODULES_KEY = "pkg.torch.onnx.name_scopes"
"""Metadata entry of an ONNX operation in which PyTorch lists the modules it belongs to, and then itself."""

START = "/node"
"""Prefix of PyTorch's names of operations, after a slash."""


def name_modules(graph: ModelProto) -> None:
    """Prefix the name of each operation with its module and a slash, as in ``model.encoder.extractor/node_conv``.

    Args:
        graph: Graph that PyTorch exported without gradients; changed in place. If gradients are disabled only within
            the model, PyTorch loses the modules.
    """
    for node in graph.graph.node:
        for entry in node.metadata_props:
            if entry.key == MODULES_KEY:
                *modules, _ = literal_eval(entry.value)
                node.name = f"{modules[-1] if modules else ''}/{node.name}"


def module_in(name: str) -> str | None:
    """Module in the name of an operation; ``None`` for an operation named by the runtime."""
    module, is_named, _ = name.partition(START)
    return module if is_named else None


def modules_of(graph: Model) -> dict[str, str]:
    """Modules of the operations of a graph by operation name.

    Args:
        graph: Graph that OpenVINO has read from ONNX.

    Returns:
        The modules. An operation renamed by OpenVINO gets the module that uses its result.
    """
    modules: dict[str, str] = {}
    for node in reversed(graph.get_ordered_ops()):
        takers = (entry.get_node() for output in node.outputs() for entry in output.get_target_inputs())
        module = module_in(node.get_friendly_name())
        if module is None:
            module = next((modules[taker.get_friendly_name()] for taker in takers), "")
        modules[node.get_friendly_name()] = module
    return modules
