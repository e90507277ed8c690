# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Metadata of the model in exported files, and the class names of their outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from anomalib_hgad.data.reserved_names import UNKNOWN

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGE_SIZE = [256, 256]
"""Height and width of the first image for a file without those of its model."""

THRESHOLDS = {"pred_label": "image_threshold", "pred_mask": "pixel_threshold"}
"""Outputs of a graph that need a threshold, and its entry in the metadata."""


def load_onnx(path: Path) -> ModelProto:
    """Read an .onnx file without weights that are in another file.

    Args:
        path: The file.

    Returns:
        Its graph.

    Raises:
        ValueError: If it is not an .onnx file.
    """
    import onnx  # noqa: PLC0415 - takes a third of a second that other files do not need

    try:
        return onnx.load(path, load_external_data=False)
    except OSError:
        raise
    except Exception as error:  # protobuf's own
        msg = f"{path} is not an .onnx file, or was cut short: {error}. Export the model again."
        raise ValueError(msg) from error


def of_onnx(path: Path) -> dict[str, Any]:
    """Read the metadata of an .onnx file.

    Args:
        path: The file.

    Returns:
        Its entries, see :meth:`anomalib_hgad.Hgad.description`; empty if the file has none.

    Raises:
        ValueError: If the file cannot be read.
    """
    return values({entry.key: entry.value for entry in load_onnx(path).metadata_props})


def of_openvino(graph: openvino.Model) -> dict[str, Any]:
    """Read the metadata of the graph of an .xml file.

    Args:
        graph: The graph, as it was read.

    Returns:
        As in :func:`of_onnx`.
    """
    described = graph.has_rt_info(["model_info"])
    return values(dict(graph.get_rt_info(["model_info"]).value)) if described else {}


def check_description(path: Path, description: dict[str, Any]) -> None:
    """Check the metadata of a file of Hgad: other programs can change it, and a wrong entry would fail at some image.

    Args:
        path: The file.
        description: Its metadata.

    Raises:
        ValueError: If the file is of an older version without novelty, or if an entry is missing or wrong.
    """
    if "novelty_tensor" not in description:
        msg = f"{path} was exported by an older version and cannot detect unknown products: export the model again."
        raise ValueError(msg)
    names, size = description.get("class_names"), description.get("image_size", IMAGE_SIZE)
    wrong = {
        "class_names": not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)),
        "class_tensor": not isinstance(description.get("class_tensor", 0), str | None),
        "novelty_tensor": not isinstance(description["novelty_tensor"], str),
        "novelty_limit": not _is_number(description.get("novelty_limit")),
        "image_size": not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)),
    } | {entry: not _is_number(description.get(entry) or 0) for entry in THRESHOLDS.values()}
    if entries := [f"{name} is {description.get(name)!a}" for name, is_wrong in wrong.items() if is_wrong]:
        msg = f"The metadata of {path} are not those of an export: {', '.join(entries)}. Export the model again."
        raise ValueError(msg)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def has_threshold(description: dict[str, Any], output: str) -> bool:
    """Whether an output of a graph is meaningful: without a threshold the graph compares raw scores with 0.5.

    Args:
        description: Metadata of the exported file. That of another model does not mention thresholds, but has them.
        output: ``pred_label`` or ``pred_mask``.
    """
    return description.get(THRESHOLDS[output], math.nan) is not None


def scored_names(description: dict[str, Any], class_index: np.ndarray | None, images: int) -> list[str] | None:
    """Return the names of the classes that a batch was scored as.

    Args:
        description: Metadata of the exported file.
        class_index: Inferred classes, int64, shape (B,); ``None`` for a file that infers none.
        images: B.

    Returns:
        The names; ``None`` for a model that does not distinguish classes: a single Gaussian for several classes.

    Raises:
        ValueError: If the file has no name for an inferred class.
    """
    names = description["class_names"]
    if class_index is None:
        return names * images if len(names) == 1 else None
    if class_index.max(initial=0) >= len(names):
        msg = f"the metadata name {len(names)} classes, and the graph infers class {class_index.max()}, counted from 0"
        raise ValueError(msg)
    return [names[index] for index in class_index]


def are_unknown(description: dict[str, Any], novelty: np.ndarray) -> np.ndarray:
    """Determine which images of a batch show none of the model's products.

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
    """Return the names of the inferred classes of a batch.

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
    """Read the entries of a file whose values are JSON, as written by this package."""
    read = {}
    for name, value in entries.items():
        try:
            read[name] = json.loads(value)
        except (TypeError, ValueError):  # OpenVINO's tools write plain text into the files of other models
            continue
    return read
