# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""An exported file as OpenVINO reads it, and what it says of itself. Neither PyTorch nor anomalib is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openvino

IN_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""Setting of OpenVINO without which it computes in bfloat16 on processors that can, where a graph does not forbid it:
exported OpenVINO files do, ONNX files cannot."""

OURS = '"anomalib_hgad.'
"""What the name of the model begins with in the description of a file of this package."""


def read_graph(path: Path) -> tuple[openvino.Model, dict[str, Any]]:
    """Read an exported file, with class and novelty among its outputs where it has them.

    Args:
        path: Exported .xml or .onnx file.

    Returns:
        The graph, and what it says of itself, see :meth:`anomalib_hgad.Hgad.description`; nothing if it is of a model
        of another package.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If its name has another ending, or if it was exported by a version whose files have no novelty.
    """
    if path.suffix not in {".xml", ".onnx"}:
        msg = f"Expected an exported .xml or .onnx file, got {path}."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"No file at {path}. Export a model with `anomalib export --model Hgad --export_type openvino`."
        raise FileNotFoundError(msg)
    graph = openvino.Core().read_model(path)
    description = _description(path, graph)
    if "class_tensor" in description and "novelty_tensor" not in description:
        msg = f"{path} was exported by an older version, and cannot tell unknown products: export the model again."
        raise ValueError(msg)
    tensors = (description.get(f"{name}_tensor") for name in ("novelty", "class"))
    graph.add_outputs([tensor for tensor in tensors if tensor is not None])
    return graph, description


def _description(path: Path, graph: openvino.Model) -> dict[str, Any]:
    if path.suffix == ".onnx":
        import onnx  # noqa: PLC0415 - a third of a second that other files need not wait for

        entries = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    else:
        entries = dict(graph.get_rt_info(["model_info"]).value) if graph.has_rt_info(["model_info"]) else {}
    if "class_tensor" not in entries and not str(entries.get("model", "")).startswith(OURS):
        return {}
    return {name: json.loads(value) for name, value in entries.items()}
