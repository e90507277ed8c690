# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images of products that are added."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from anomalib_hgad.products.images import product_images
from tests.helpers import trees


def test_given_name_is_the_same_however_its_letters_are_written(tmp_path: Path) -> None:
    trees.write_image(tmp_path / "bolt/train/good/1.png")
    name = unicodedata.normalize("NFD", "Schräubchen")
    assert product_images({"root": tmp_path / "bolt"}, name).class_names == [unicodedata.normalize("NFC", name)]
