# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which files are images, the same without torchvision as with it; and what no image is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS

from anomalib_hgad.data.images import read_checked
from anomalib_hgad.data.masks import read_masks
from anomalib_hgad.data.reading import IMAGE_SUFFIXES, naming_errors, read_pixels
from tests.helpers import trees


def test_endings_are_those_that_anomalib_goes_by() -> None:
    assert IMAGE_SUFFIXES == IMG_EXTENSIONS


@pytest.mark.parametrize("name", ["image 7.png", "image 7.pgm"])
@pytest.mark.parametrize("read", [read_pixels, read_checked, lambda path: read_masks([path])])
def test_files_that_pillow_refuses_by_a_value_error_are_named(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    path = trees.write_refused_image(tmp_path / name)
    with pytest.raises(OSError, match=rf"{name} cannot be read: (Reached EOF|Truncated tRNS).*\. Replace the file"):
        read(path)


@pytest.mark.parametrize("read", [read_pixels, read_checked, lambda path: read_masks([path])])
def test_files_of_other_formats_that_pillow_refuses_are_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """By whatever exception: Pillow goes by what a file begins with, not by its ending."""
    with pytest.raises(OSError, match=r"image 7\.png cannot be read: Unknown pixel format.*\. Replace the file"):
        read(trees.write_dds_of_no_kind(tmp_path / "image 7.png"))


@pytest.mark.parametrize("error", [EOFError(), struct.error("unpack"), RuntimeError("unpack"), MemoryError()])
def test_other_errors_of_decoding_name_the_file(error: Exception) -> None:
    said = r"7\.png cannot be read: (EOFError|unpack|MemoryError)\. "
    with pytest.raises(OSError, match=said), naming_errors("7.png"):
        raise error
