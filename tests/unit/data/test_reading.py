# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Which files are images: the same without torchvision as with it."""

from __future__ import annotations

from torchvision.datasets.folder import IMG_EXTENSIONS

from anomalib_hgad.data.reading import IMAGE_SUFFIXES


def test_endings_are_those_that_anomalib_goes_by() -> None:
    assert IMAGE_SUFFIXES == IMG_EXTENSIONS
