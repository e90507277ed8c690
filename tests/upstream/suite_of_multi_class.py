# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""anomalib's own tests of a datamodule, on every form of MultiClass; they run within a copy of its tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from anomalib.data import MVTecAD, Visa
from anomalib.data.utils import ValSplitMode
from torchvision.transforms.v2 import Resize

from anomalib_hgad import MultiClass
from tests.unit.data.datamodule.base.image import _TestAnomalibImageDatamodule

AUGMENTATIONS = {"augmentations": Resize((256, 256))}
NAMED = {"normal_dir": "train/good", "normal_test_dir": "test/good", "abnormal_dir": "test/bad"}

FORMS: dict[str, Callable[[Path], dict[str, object]]] = {
    "datamodules": lambda root: {
        "datamodules": [
            MVTecAD(root=root / "mvtecad", category="dummy", **AUGMENTATIONS),
            Visa(root=root, category="dummy", **AUGMENTATIONS),
        ]
    },
    "dataset": lambda root: {
        "dataset": "MVTecAD",
        "root": root / "mvtecad",
        "categories": ["dummy"],
        "val_split_mode": "same_as_test",
        **AUGMENTATIONS,
    },
    "layout of MVTec AD": lambda root: {"root": root / "mvtecad", "val_split_mode": "same_as_test", **AUGMENTATIONS},
    "named folders": lambda root: {
        "root": root / "mvtecad",
        **NAMED,
        "mask_dir": "ground_truth/bad",
        "val_split_mode": "from_test",
        **AUGMENTATIONS,
    },
    "without masks": lambda root: {"root": root / "mvtecad", **NAMED, "val_split_mode": "from_test", **AUGMENTATIONS},
    "clusters": lambda root: {"root": root / "mvtecad", "labels": "cluster", "num_clusters": 2, **AUGMENTATIONS},
}


class TestMultiClass(_TestAnomalibImageDatamodule):
    """Every form in turn."""

    @pytest.fixture(params=FORMS)
    @staticmethod
    def datamodule(dataset_path: Path, request: pytest.FixtureRequest) -> MultiClass:
        """The form, set up."""
        form = FORMS[request.param](dataset_path)
        datamodule = MultiClass(**form, train_batch_size=4, eval_batch_size=4, num_workers=0)
        # It tells what anomalib's tests check; that of a MultiClass is the one of its classes.
        datamodule.val_split_mode = ValSplitMode(form.get("val_split_mode", "none"))
        datamodule.prepare_data()
        datamodule.setup()
        return datamodule

    @pytest.fixture
    @staticmethod
    def fxt_data_config_path(dataset_path: Path, tmp_path: Path) -> str:
        """A config as anomalib has one for each of its datamodules."""
        path = tmp_path / "multi_class.yaml"
        settings = {"root": str(dataset_path / "mvtecad"), "train_batch_size": 4, "num_workers": 0}
        path.write_text(yaml.safe_dump({"class_path": "anomalib_hgad.MultiClass", "init_args": settings}))
        return str(path)
