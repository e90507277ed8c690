# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Where new checkpoints go, and commands that name nothing."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anomalib_hgad.products import command
from anomalib_hgad.products.command import add_product, beside, list_products, remove_product
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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"root": 2026}, "root has the wrong type: .*, got 2026"),
        ({"root": None}, "Expected the folder of known defects as data.root"),
        ({"root": "plant", "num_workers": 1}, r"and no other argument, got \['num_workers', 'root'\]"),
    ],
    ids=["number", "null", "others"],
)
def test_folder_of_known_defects_that_is_none_is_refused(data: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        name_defects(tmp_path / "no.ckpt", data)


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


def test_long_names_are_listed_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two that begin alike would be the same if they were cut."""
    names = [f"left_front_bumper_black_metallic_{line}" for line in "ab"]
    values = SimpleNamespace(**dict.fromkeys(("location", "spread", "margin"), torch.zeros(2)))
    values.class_thresholds = SimpleNamespace(shift=torch.zeros(2))
    model = SimpleNamespace(
        class_names=names,
        model=SimpleNamespace(calibration=values, novelty=values),
        post_processor=None,
        labels=SimpleNamespace(records={}),
        pixel_limit=None,
    )
    monkeypatch.setattr(command, "load", lambda _: model)
    monkeypatch.setattr(command, "labelled_above", lambda _: 0.5)
    list_products(tmp_path / "model.ckpt")
    first = "".join(line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "│" in line)
    assert first == "".join(names)
