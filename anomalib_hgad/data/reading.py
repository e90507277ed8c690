# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Reads image files. Neither PyTorch nor anomalib is imported, so that neither is needed on a production line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes of image files, in lower case: those of torchvision, which anomalib uses."""

UNREADABLE = (OSError, SyntaxError, Image.DecompressionBombError)
"""Exceptions of Pillow for files that are not images, broken or far too large; SyntaxError for a broken PNG file.

For other faults of a file, Pillow raises exceptions that also have other causes: see :func:`decoding`.
"""


def check_depth(image: Image.Image) -> None:
    """Reject grey values of more than 8 bits: Pillow clips them at 255, and most images would be white.

    Args:
        image: Opened image.

    Raises:
        OSError: If it has such values.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        msg = "its grey values have more than 8 bits and would be clipped at 255; convert it to 8 bits"
        raise OSError(msg)


def has_pages(image: Image.Image) -> bool:
    """Whether an opened file has further images, as a stack in a TIFF file; a phone's MPO file repeats the first."""
    return image.format != "MPO" and getattr(image, "n_frames", 1) > 1


@contextmanager
def decoding() -> Iterator[None]:
    """Turn the exceptions of Pillow that also have other causes into OSError; only decoding belongs in this context.

    They depend on the format: ValueError for a PGM file truncated within its header, or a PNG file with a chunk too
    short or too long; NotImplementedError for a DDS file of an unknown kind; RuntimeError for a truncated AVIF file;
    MemoryError for a header that declares too many pixels.

    Raises:
        OSError: If a file cannot be decoded.
    """
    try:
        yield
    except UNREADABLE:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error


@contextmanager
def naming_errors(path: str | Path) -> Iterator[None]:
    """Make errors of decoding a file name it; only decoding belongs in this context.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        with decoding():
            yield
    except UNREADABLE as error:
        msg = f"Image {path} cannot be read: {error}. Replace the file or leave it out."
        raise (FileNotFoundError if isinstance(error, FileNotFoundError) else OSError)(msg) from error


def read_pixels(path: str | Path) -> np.ndarray:
    """Read the RGB values of an image, as in training and test.

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
