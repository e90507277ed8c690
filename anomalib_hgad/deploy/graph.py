# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Reads an exported file and its metadata with OpenVINO. Neither PyTorch nor anomalib is imported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino

from anomalib_hgad.deploy.description import check_description, of_onnx, of_openvino
from anomalib_hgad.deploy.weights import check_weights, weights_of

IN_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
"""Setting of OpenVINO against computing in bfloat16 on processors that support it. Exported OpenVINO files forbid
bfloat16 themselves, ONNX files cannot."""

OURS = "anomalib_hgad."
"""Prefix of the model's name in the metadata of a file of this package."""

_FIRST = Lock()


@cache
def core() -> openvino.Core:
    """The only OpenVINO core of this process, which is never destroyed.

    A core that compiles for a CPU changes the stack on which the process handles signals. If two cores are destroyed in
    the order of their creation, OpenVINO leaves a freed stack in place, and the next signal ends the process.
    """
    return openvino.Core()


def read_graph(path: Path) -> tuple[openvino.Model, dict[str, Any]]:
    """Read an exported file, and add class and novelty to its outputs if it has them.

    Args:
        path: Exported .xml or .onnx file.

    Returns:
        The graph and its metadata, see :meth:`anomalib_hgad.Hgad.description`; empty for a model of another package.

    Raises:
        FileNotFoundError: If the file, or that of its weights, does not exist.
        ValueError: If it has another suffix, cannot be read, has weights of another export or wrong metadata, or was
            exported by a version without novelty.
    """
    if path.suffix not in {".xml", ".onnx"}:
        msg = f"Expected an exported .xml or .onnx file, got {path}."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"No file at {path}. Export a model with `anomalib export --model Hgad --export_type openvino`."
        raise FileNotFoundError(msg)
    try:
        graph = core().read_model(path)
    except RuntimeError as error:
        if path.suffix == ".onnx":  # whose weights OpenVINO does not name if they are missing
            weights_of(path)
        msg = f"{path} cannot be used by OpenVINO: {str(error).strip().splitlines()[-1]}"
        raise ValueError(msg) from error
    description = _description(path, graph)
    check_weights(path, description)
    if "class_tensor" in description:
        check_description(path, description)
    tensors = (description.get(f"{name}_tensor") for name in ("novelty", "class"))
    graph.add_outputs([tensor for tensor in tensors if tensor is not None])
    return graph, description


def compile_graph(graph: openvino.Model, device: str, settings: dict[str, Any], image_size: Sequence[int]) -> Any:  # noqa: ANN401 - OpenVINO has no types
    """Compile a graph and score a black image, so that errors show before the first real image, which is not delayed.

    OpenVINO's Python binding initialises static C++ variables at the first inference. Two threads must not do so at the
    same time: one would wait for the other, which waits for Python's lock, which the first one holds.

    Args:
        graph: The graph.
        device: OpenVINO device.
        settings: OpenVINO settings.
        image_size: Height and width of the black image, if the graph accepts any size.

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
    """Run a request and return its outputs by name, in the memory of the request: copy what is kept."""
    return request.infer({0: image}, share_inputs=True, share_outputs=True)


def _description(path: Path, graph: openvino.Model) -> dict[str, Any]:
    entries = of_onnx(path) if path.suffix == ".onnx" else of_openvino(graph)
    return entries if "class_tensor" in entries or str(entries.get("model", "")).startswith(OURS) else {}
