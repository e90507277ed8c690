# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Settings of splits are what they say, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anomalib.data.utils import ValSplitMode

from anomalib_hgad import Cifar10, MultiClass
from tests.helpers import trees


@pytest.fixture
def root(tmp_path: Path) -> Path:
    trees.mvtec_class(tmp_path / "tile", train=8, good=4, bad=4)
    return tmp_path


@pytest.mark.parametrize("form", [{}, {"dataset": "MVTecAD"}])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"val_split_mode": "same as test"},
            "val_split_mode to be one of 'none', 'same_as_test', .*; got 'same as test'",
        ),
        ({"val_split_mode": "NONE"}, "val_split_mode to be one of 'none', .*; got 'NONE'"),
        (
            {"test_split_mode": "from_train"},
            "test_split_mode to be one of 'none', 'from_dir', 'synthetic'; got 'from_t",
        ),
        (
            {"val_split_ratio": 0.0},
            "val_split_ratio to be a number greater than 0 and less than 1; got 0.0. .* val_split_mode='none'",
        ),
        (
            {"test_split_ratio": 0.0},
            "test_split_ratio to be a number greater than 0 .* got 0.0. .* test_split_mode='none'",
        ),
        ({"val_split_ratio": 1.0}, "got 1.0"),
        ({"val_split_ratio": 1}, "got 1"),
        ({"val_split_ratio": -0.1}, "got -0.1"),
        ({"test_split_ratio": float("nan")}, "got nan"),
        ({"test_split_ratio": "0.3"}, "got '0.3'"),
    ],
)
def test_settings_that_make_no_sense(root: Path, form: dict[str, str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiClass(root=root, **form, **settings)


@pytest.mark.parametrize("mode", ["from_test", ValSplitMode.FROM_TEST])
def test_ratio_is_what_it_says(root: Path, mode: str | ValSplitMode) -> None:
    datamodule = MultiClass(root=root, val_split_mode=mode, val_split_ratio=0.25, seed=0)
    datamodule.setup()
    assert (len(datamodule.val_data), len(datamodule.test_data)) == (2, 6)


@pytest.mark.parametrize("form", [{}, {"dataset": "MVTecAD"}])
def test_validation_images_of_a_dataset_that_has_none(root: Path, form: dict[str, str]) -> None:
    datamodule = MultiClass(root=root, **form, val_split_mode="from_dir")
    with pytest.raises(ValueError, match=r"'tile': val_split_mode='from_dir' .* found none\. Give another"):
        datamodule.setup()


def test_ratio_of_cifar10(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"val_split_ratio to be a number greater than 0 and less than 1; got 0\.0"):
        Cifar10(root=tmp_path, val_split_mode="from_test", val_split_ratio=0.0)
