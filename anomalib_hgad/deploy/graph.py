# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""An exported file as OpenVINO reads it, and what it says of itself. Neither PyTorch nor anomalib is imported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino

from anomalib_hgad.deploy.description import of_onnx, of_openvino

IN_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""Setting of OpenVINO without which it computes in bfloat16 on processors that can, where a graph does not forbid it:
exported OpenVINO files do, ONNX files cannot."""

OURS = "anomalib_hgad."
"""What the name of the model begins with in the description of a file of this package."""

_FIRST = Lock()


@cache
def core() -> openvino.Core:
    """The one OpenVINO of this process, which stays.

    Each one that compiles for a processor changes the stack on which the process handles signals. Where two come and go
    in the same order, OpenVINO leaves a stack that is gone, and the next signal ends the process.
    """
    return openvino.Core()


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
    graph = core().read_model(path)
    description = _description(path, graph)
    if "class_tensor" in description and "novelty_tensor" not in description:
        msg = f"{path} was exported by an older version, and cannot tell unknown products: export the model again."
        raise ValueError(msg)
    tensors = (description.get(f"{name}_tensor") for name in ("novelty", "class"))
    graph.add_outputs([tensor for tensor in tensors if tensor is not None])
    return graph, description


def compile_graph(graph: openvino.Model, device: str, settings: dict[str, Any], image_size: Sequence[int]) -> Any:  # noqa: ANN401 - OpenVINO has no types
    """Compile a graph, and score a black image: a fault of it shows before the first image, which need not wait then.

    What OpenVINO's binding sets up at the first inference (static variables of C++) must not be set up by two threads:
    one would wait for the other, which waits for Python's lock, which the first one holds.

    Args:
        graph: The graph.
        device: Device of OpenVINO.
        settings: Settings of OpenVINO.
        image_size: Height and width of the image, where the graph takes any.

    Returns:
        The compiled model.

    Raises:
        RuntimeError: If OpenVINO cannot compile it, or cannot infer.
    """
    model = core().compile_model(graph, device, settings)
    sizes = zip(model.input(0).partial_shape, (1, 3, *image_size), strict=True)
    image = np.zeros([free if size.is_dynamic else size.get_length() for size, free in sizes], dtype=np.float32)
    with _FIRST:
        infer(model.create_infer_request(), image)
    return model


def infer(request: openvino.InferRequest, image: np.ndarray) -> Any:  # noqa: ANN401 - OpenVINO's own dictionary
    """Outputs of a request by name, in its own memory: what is kept has to be copied."""
    return request.infer({0: image}, share_inputs=True, share_outputs=True)


def _description(path: Path, graph: openvino.Model) -> dict[str, Any]:
    entries = of_onnx(path) if path.suffix == ".onnx" else of_openvino(graph)
    return entries if "class_tensor" in entries or str(entries.get("model", "")).startswith(OURS) else {}
