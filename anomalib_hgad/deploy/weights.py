# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The file with the weights of an exported graph, which is separate and may be of another export.

The graphs of two trainings differ only in their thresholds, and the weights are in another file: if only one of the two
files is copied, the graph runs and every score is wrong. An exported file therefore has checksums of itself and of its
weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from anomalib_hgad.deploy.description import load_onnx

CHECKSUMS = "checksums"
"""Entry of the metadata: :data:`DIGITS` digits of the file, with :data:`UNKNOWN` in this place, and as many of the
weights."""

DIGITS = 16

UNKNOWN = "checksums-of-file-and-of-weights"
"""Placeholder of the entry until the checksums are known, of the same length."""


def weights_of(path: Path) -> Path | None:
    """Find the file with the weights of an exported file.

    Args:
        path: Exported .xml or .onnx file.

    Returns:
        Its path; ``None`` if the exported file contains them.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If the exported file cannot be read.
    """
    if path.suffix == ".xml":
        weights = path.with_suffix(".bin")
    else:
        tensors = load_onnx(path).graph.initializer
        names = (entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location")
        if (name := next(names, None)) is None:
            return None
        weights = path.parent / name
    if not weights.is_file():
        msg = f"{path} has its weights in {weights}, which is missing. Copy both files."
        raise FileNotFoundError(msg)
    return weights


def with_checksums(description: dict[str, str]) -> dict[str, str]:
    """Add a placeholder of the checksums to the metadata of an exported file, for :func:`seal`.

    Args:
        description: Metadata, each as JSON.

    Returns:
        The same with :data:`UNKNOWN` in place of the checksums.
    """
    return description | {CHECKSUMS: json.dumps(UNKNOWN)}


def seal(path: Path) -> None:
    """Write the checksums into an exported file.

    Args:
        path: The file, with the metadata of :func:`with_checksums`.
    """
    content = path.read_bytes()
    sealed = content.replace(UNKNOWN.encode(), _checksums(content, weights_of(path)).encode())
    path.write_bytes(sealed)


def check_weights(path: Path, description: dict[str, Any]) -> None:
    """Check that the weights beside an exported file are those that it was exported with.

    A file that was saved again, as after a change of its graph, is not checked.

    Args:
        path: The file.
        description: Its metadata.

    Raises:
        FileNotFoundError: If the weights are missing.
        ValueError: If they are of another export.
    """
    weights, told = weights_of(path), description.get(CHECKSUMS)
    if weights is None or not isinstance(told, str):
        return
    found = _checksums(path.read_bytes().replace(told.encode(), UNKNOWN.encode()), weights)
    if found[:DIGITS] == told[:DIGITS] and found != told:
        msg = f"{weights} does not belong to {path}: its content is not that of the export, so that all scores would "
        msg += "be wrong. Copy both files of one export."
        raise ValueError(msg)


def checksum(*contents: bytes | Path) -> str:
    """Compute the checksum of contents, one after another.

    Args:
        contents: Bytes, or files.

    Returns:
        :data:`DIGITS` hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=DIGITS // 2)
    for content in contents:
        if isinstance(content, bytes):
            digest.update(content)
            continue
        with content.open("rb") as opened:
            while part := opened.read(2**20):
                digest.update(part)
    return digest.hexdigest()


def _checksums(content: bytes, weights: Path | None) -> str:
    return checksum(content) + checksum(*([] if weights is None else [weights]))
