# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Settings of splits are what they say, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import Folder
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


def split(datamodule: MultiClass, random_state: int) -> list[list[object]]:
    """Images of each subset in a process with a random state: paths, or the contents of synthetic ones."""
    torch.manual_seed(random_state)
    state = torch.get_rng_state()
    datamodule.setup()
    assert torch.equal(torch.get_rng_state(), state)
    subsets = [getattr(datamodule, f"{name}_data", None) for name in ("train", "val", "test")]
    paths = [map(Path, subset.samples["image_path"]) for subset in subsets if subset is not None]
    return [[path.read_bytes() if "synthetic_anomaly" in path.parts else path for path in of_set] for of_set in paths]


@pytest.mark.parametrize("mode", ["from_train", "from_test", "synthetic"])
def test_every_process_splits_alike(root: Path, mode: str) -> None:
    """Else a test in another process would have images that were trained on."""
    first = split(MultiClass(root=root, val_split_mode=mode), random_state=1)
    assert split(MultiClass(root=root, val_split_mode=mode), random_state=2) == first
    assert split(MultiClass(root=root, val_split_mode=mode, seed=5), random_state=1) != first


def test_every_process_splits_the_same_test_images_off(root: Path) -> None:
    """Also of a datamodule of the user without a seed."""

    def datamodule() -> MultiClass:
        folders = {"normal_dir": "train/good", "abnormal_dir": "test/crack"}
        return MultiClass([Folder("tile", root=root / "tile", **folders, val_split_mode="none")])

    assert split(datamodule(), random_state=1) == split(datamodule(), random_state=2)
