# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Reads the marked pixels of the mask files of an image.

anomalib reads one file, and counts all of its pixels that are not black: also transparent ones, and those that JPEG
compression has made grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_hgad.data.reading import naming_errors

LOSSY = {"JPEG", "MPO", "WEBP"}
"""Formats whose compression changes black pixels."""

SEPARATOR = " | "
"""Separator of the mask files of an image in one string."""


def read_masks(files: Sequence[Path]) -> np.ndarray:
    """Read the masks of an image.

    Args:
        files: One file, or several of the same size.

    Returns:
        Whether any of them marks a pixel, bool, shape (height, width).

    Raises:
        OSError: If a file is broken. The message names it.
    """
    marked = []
    for file in files:
        with naming_errors(file), Image.open(file) as image:
            marked.append(_marked_pixels(image))
    return np.logical_or.reduce(marked)


def _marked_pixels(image: Image.Image) -> np.ndarray:
    """Pixels neither black nor transparent; in a lossy file those brighter than half of its maximum."""
    lossy = image.format in LOSSY or image.info.get("compression") == "jpeg"  # the latter of a TIFF file
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
    elif image.has_transparency_data:
        channels = np.asarray(image.convert("RGBA"))
        values = np.where(channels[..., 3] > 0, channels[..., :3].max(axis=-1), 0)
    elif image.mode in {"1", "L"}:
        values = np.asarray(image.convert("L"))
    else:
        values = np.asarray(image.convert("RGB")).max(axis=-1)
    return values > (values.max() / 2 if lossy else 0)


def joined(files: Sequence[Path | str]) -> str:
    """Mask files as one string for the tables of predictions and anomalib's items; empty if there are none."""
    return SEPARATOR.join(map(str, files))


def split_masks(text: str) -> list[Path]:
    """Mask files of a string made by :func:`joined`."""
    return [Path(text)] if Path(text).is_file() else [Path(part) for part in text.split(SEPARATOR)]
