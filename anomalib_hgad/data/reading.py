# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which files are images, and how one is read. Neither PyTorch nor anomalib is imported: on a line, none is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of files that are images, in small letters: those of torchvision, which anomalib goes by."""

UNREADABLE = (OSError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are no image, broken, or far too large; a SyntaxError for a broken png."""


def check_depth(image: Image.Image) -> None:
    """Refuse grey values of more than 8 bits: Pillow cuts them off at 255, and most images would be white.

    Args:
        image: Opened image.

    Raises:
        OSError: If it has such values.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        msg = "its grey values have more than 8 bits and would be cut off at 255; convert it to 8 bits"
        raise OSError(msg)


@contextmanager
def naming_errors(path: str | Path) -> Iterator[None]:
    """Let errors of reading a file name it.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        yield
    except UNREADABLE as error:
        msg = f"Image {path} cannot be read: {error}. Replace the file or leave it out."
        raise (FileNotFoundError if isinstance(error, FileNotFoundError) else OSError)(msg) from error


def read_pixels(path: str | Path) -> np.ndarray:
    """Read the colours of an image, as training and test see them.

    Args:
        path: The file.

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        OSError: If it cannot be read, or has grey values of more than 8 bits. The message names it.
    """
    with naming_errors(path), Image.open(path) as opened:
        check_depth(opened)
        return np.array(opened.convert("RGB"))
