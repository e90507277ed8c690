# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images of products that are added."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from anomalib_hgad.products.images import product_images
from tests.helpers import trees


def test_given_name_is_the_same_however_its_letters_are_written(tmp_path: Path) -> None:
    trees.write_image(tmp_path / "bolt/train/good/1.png")
    name = unicodedata.normalize("NFD", "Schräubchen")
    assert product_images({"root": tmp_path / "bolt"}, name).class_names == [unicodedata.normalize("NFC", name)]


@pytest.mark.parametrize("chosen", [{}, {"categories": ["bolt"]}])
def test_all_normal_images_are_used(chosen: dict[str, list[str]], tmp_path: Path) -> None:
    """None is split off for a test that does not come."""
    trees.mvtec_class(tmp_path / "bolt", train=10, good=0, bad=0)
    datamodule = product_images({"root": tmp_path} | chosen, None)
    datamodule.setup()
    assert len(datamodule.train_data) == 10


def test_link_names_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it names a class in a training."""
    trees.write_image(tmp_path / "store/batch_7/train/good/1.png")
    (tmp_path / "bolt").symlink_to(tmp_path / "store/batch_7")
    assert product_images({"root": tmp_path / "bolt"}, None).class_names == ["bolt"]
    monkeypatch.chdir(tmp_path / "store/batch_7")
    assert product_images({"root": "."}, None).class_names == ["batch_7"]
