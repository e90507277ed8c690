# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Metadata of the model in exported files, and the class names of their outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from anomalib_hgad.data.reserved_names import UNKNOWN

THRESHOLDS = {"pred_label": "image_threshold", "pred_mask": "pixel_threshold"}
"""Outputs of a graph that need a threshold, and its entry in the metadata."""


def of_onnx(path: Path) -> dict[str, Any]:
    """Read the metadata of an .onnx file.

    Args:
        path: The file.

    Returns:
        Its entries, see :meth:`anomalib_hgad.Hgad.description`; empty if the file has none.
    """
    import onnx  # noqa: PLC0415 - takes a third of a second that other files do not need

    entries = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    return values(entries)


def of_openvino(graph: openvino.Model) -> dict[str, Any]:
    """Read the metadata of the graph of an .xml file.

    Args:
        graph: The graph, as it was read.

    Returns:
        As of :func:`of_onnx`.
    """
    described = graph.has_rt_info(["model_info"])
    return values(dict(graph.get_rt_info(["model_info"]).value)) if described else {}


def has_threshold(description: dict[str, Any], output: str) -> bool:
    """Whether an output of a graph means something: without a threshold the graph compares raw scores with 0.5.

    Args:
        description: Metadata of the exported file. A file of another model says nothing of thresholds, and has them.
        output: ``pred_label`` or ``pred_mask``.
    """
    return description.get(THRESHOLDS[output], math.nan) is not None


def scored_names(description: dict[str, Any], class_index: np.ndarray | None, images: int) -> list[str] | None:
    """Names of the classes that a batch was scored as.

    Args:
        description: Metadata of the exported file.
        class_index: Inferred classes, int64, shape (B,); ``None`` for a file that infers none.
        images: B.

    Returns:
        The names; ``None`` for a model that does not distinguish classes: a single Gaussian for several classes.
    """
    names = description["class_names"]
    if class_index is None:
        return names * images if len(names) == 1 else None
    return [names[index] for index in class_index]


def are_unknown(description: dict[str, Any], novelty: np.ndarray) -> np.ndarray:
    """Which images of a batch show none of the model's products.

    Args:
        description: Metadata of the exported file.
        novelty: Novelties, shape (B,).

    Returns:
        Booleans, shape (B,).
    """
    return novelty > description["novelty_limit"]


def predicted_names(
    description: dict[str, Any], novelty: np.ndarray, class_index: np.ndarray | None
) -> list[str] | None:
    """Names of the inferred classes of a batch.

    Args:
        description: Metadata of the exported file.
        novelty: Novelties, shape (B,).
        class_index: Inferred classes, int64, shape (B,); ``None`` for a file that infers none.

    Returns:
        The names, ``"unknown"`` above the limit of the novelty; ``None`` as in :func:`scored_names`.
    """
    names = scored_names(description, class_index, len(novelty))
    if names is None:
        return None
    return [
        UNKNOWN if is_unknown else name
        for name, is_unknown in zip(names, are_unknown(description, novelty), strict=True)
    ]


def values(entries: dict[str, str]) -> dict[str, Any]:
    """Entries of a file whose values are JSON, as written by this package."""
    read = {}
    for name, value in entries.items():
        try:
            read[name] = json.loads(value)
        except (TypeError, ValueError):  # OpenVINO's tools write plain text into the files of other models
            continue
    return read
