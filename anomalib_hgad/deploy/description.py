# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What exported files say of the model that they are of, and the names of the classes in their outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import torch

from anomalib_hgad.data.batch import UNKNOWN
from anomalib_hgad.deploy.torch_export import load_program


def of_onnx(path: Path) -> dict[str, Any]:
    """Read the description of an .onnx file.

    Args:
        path: The file.

    Returns:
        Its entries, see :meth:`anomalib_hgad.Hgad.description`; none if the file has none.
    """
    entries = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    return _values(entries)


def of_openvino(graph: openvino.Model) -> dict[str, Any]:
    """The same of a graph of an .xml file.

    Args:
        graph: The graph, as it was read.

    Returns:
        As of :func:`of_onnx`.
    """
    described = graph.has_rt_info(["model_info"])
    return _values(dict(graph.get_rt_info(["model_info"]).value)) if described else {}


def of_program(path: Path) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    """The same of a .pt2 file, which has to be loaded for it.

    Args:
        path: The file.

    Returns:
        Its program, and its description as of :func:`of_onnx`.

    Raises:
        ValueError: As of :func:`anomalib_hgad.deploy.torch_export.load_program`.
    """
    program, entries = load_program(path)
    return program, _values(entries)


def predicted_names(
    description: dict[str, Any], novelty: np.ndarray, class_index: np.ndarray | None
) -> list[str] | None:
    """Names of the inferred classes of a batch.

    Args:
        description: Description of the file that the numbers are of.
        novelty: Novelties, shape (B,).
        class_index: Inferred classes, int64, shape (B,); ``None`` of a file that infers none.

    Returns:
        The names, ``"unknown"`` above the limit of the novelty; ``None`` of a model that tells no classes apart: a
        single Gaussian of several classes.
    """
    names = description["class_names"]
    if class_index is None:
        if len(names) > 1:
            return None
        class_index = np.zeros(len(novelty), dtype=np.int64)
    return [
        UNKNOWN if is_novel else names[index]
        for index, is_novel in zip(class_index, novelty > description["novelty_limit"], strict=True)
    ]


def _values(entries: dict[str, str]) -> dict[str, Any]:
    """Entries whose values are JSON, as this package writes them."""
    values = {}
    for name, value in entries.items():
        try:
            values[name] = json.loads(value)
        except (TypeError, ValueError):  # OpenVINO's tools write plain text into the files of other models
            continue
    return values
