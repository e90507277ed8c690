# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images of which it is said which file they were in when they cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomalib.data import ImageItem, PredictDataset
from PIL import Image

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
def named(path: str | Path) -> Iterator[None]:
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
        raise OSError(msg) from error


class NamingPredictDataset(PredictDataset):
    """anomalib's dataset of images to predict, whose errors name the file."""

    def __getitem__(self, index: int) -> ImageItem:
        """Read an image.

        Args:
            index: Its number.

        Returns:
            The item.

        Raises:
            OSError: If the image cannot be read.
        """
        path = self.image_filenames[index]
        with named(path):
            with Image.open(path) as image:
                check_depth(image)
            return super().__getitem__(index)
