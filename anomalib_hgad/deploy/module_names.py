# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which module of a model an operation of its exported graph is of: its name says it."""

from __future__ import annotations

from ast import literal_eval
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model

MODULES_KEY = "pkg.torch.onnx.name_scopes"
"""Entry of the metadata of an ONNX operation in which PyTorch lists the modules that it is of, and then itself."""

START = "/node"
"""What PyTorch's names of operations begin with, after a slash."""


def name_modules(graph: ModelProto) -> None:
    """Put the module that an operation is of before its name, with a slash, as ``model.encoder.extractor/node_conv``.

    Args:
        graph: Graph that PyTorch exported without gradients, which is changed: where they are switched off on the way,
            it forgets the modules.
    """
    for node in graph.graph.node:
        for entry in node.metadata_props:
            if entry.key == MODULES_KEY:
                *modules, _ = literal_eval(entry.value)
                node.name = f"{modules[-1] if modules else ''}/{node.name}"


def module_in(name: str) -> str | None:
    """Module in the name of an operation; ``None`` of one that the runtime has named."""
    module, is_named, _ = name.partition(START)
    return module if is_named else None


def modules_of(graph: Model) -> dict[str, str]:
    """Modules of the operations of a graph by their names.

    Args:
        graph: Graph that OpenVINO has read from ONNX.

    Returns:
        The modules. An operation that OpenVINO has renamed is of the module that takes its result.
    """
    modules: dict[str, str] = {}
    for node in reversed(graph.get_ordered_ops()):
        takers = (entry.get_node() for output in node.outputs() for entry in output.get_target_inputs())
        module = module_in(node.get_friendly_name())
        if module is None:
            module = next((modules[taker.get_friendly_name()] for taker in takers), "")
        modules[node.get_friendly_name()] = module
    return modules
