# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Where new checkpoints go, and commands that name nothing."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from anomalib_hgad.products import command
from anomalib_hgad.products.command import add_product, beside, remove_product
from anomalib_hgad.products.defects import name_defects


def test_name_of_a_checkpoint_with_many_products_is_not_too_long(tmp_path: Path) -> None:
    names = [f"product {number}" for number in range(30)]
    assert beside(tmp_path / "model.ckpt", "with", names[:2]) == tmp_path / "model-with-product 0-product 1.ckpt"
    long = beside(tmp_path / "model.ckpt", "with", names)
    assert long == tmp_path / "model-with-30-products.ckpt"
    beside(tmp_path / "model.ckpt", "without", ["볼트" * 45]).touch()


def test_folder_as_output_is_refused_before_the_work(tmp_path: Path) -> None:
    arguments = (tmp_path / "no.ckpt", {"root": tmp_path})
    for use in (
        lambda: add_product(*arguments, output=tmp_path),
        lambda: name_defects(*arguments, output=tmp_path),
        lambda: remove_product(arguments[0], ["bolt"], output=tmp_path),
    ):
        with pytest.raises(IsADirectoryError, match=r"Expected a file .* as output, got the folder .*model\.ckpt"):
            use()


def test_removing_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected the names of products to remove, got none"):
        remove_product(tmp_path / "no.ckpt", [])


class Known:
    """A model of two products."""

    def __init__(self) -> None:
        self.class_names = [unicodedata.normalize("NFC", "Schräubchen"), "nut"]

    def remove_class(self, name: str) -> None:
        self.class_names.remove(name)


def test_products_are_removed_however_their_letters_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once, if they are named twice."""
    model = Known()
    monkeypatch.setattr(command, "load", lambda _: model)
    monkeypatch.setattr(command, "write_checkpoint", lambda *_: None)
    name = unicodedata.normalize("NFD", "Schräubchen")
    remove_product(tmp_path / "model.ckpt", [name, name])
    assert model.class_names == ["nut"]
