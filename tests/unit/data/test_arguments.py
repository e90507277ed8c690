# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Arguments of the data that a command is given, which may be of any type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anomalib.data.utils import ValSplitMode
from torchvision.transforms.v2 import Resize

from anomalib_hgad.data.arguments import check_arguments, multi_class
from tests.helpers import trees


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("root", 2026),
        ("root", ["bolt"]),
        ("categories", 5),
        ("categories", "bolt"),
        ("categories", ["bolt", 5]),
        ("num_workers", "two"),
        ("train_batch_size", 4.5),
        ("seed", True),
        ("name", 3),
    ],
)
def test_wrong_type_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"MultiClass: {name} has the wrong type: expected .*, got "):
        multi_class({name: value})


def test_argument_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match=r"MultiClass has no argument sources\. It has datamodules, dataset, root"):
        multi_class({"sources": []})


@pytest.mark.parametrize(
    "arguments",
    [
        {"root": Path("data"), "categories": ("bolt", "nut"), "num_workers": None},
        {"root": None, "val_split_mode": ValSplitMode.NONE, "val_split_ratio": 1, "test_split_mode": "from_dir"},
        {"abnormal_dir": ["scratch", "dent"], "augmentations": Resize(32), "labels": "cluster"},
    ],
)
def test_right_types(arguments: dict[str, Any]) -> None:
    check_arguments(arguments)


def test_datamodule_of_arguments(tmp_path: Path) -> None:
    trees.mvtec_class(tmp_path / "bolt")
    made = multi_class({"root": tmp_path, "categories": ["bolt"], "eval_batch_size": 3})
    assert (made.class_names, made.eval_batch_size, made.num_workers) == (["bolt"], 3, 0)
