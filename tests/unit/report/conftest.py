# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A run to report on."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_hgad import MultiClass
from tests.helpers import trees
from tests.helpers.engines import train_and_test


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes with masks and one without, one with a name that is markup."""
    root = tmp_path_factory.mktemp("data")
    for name in ("bolt", "nut <b>&$x", "washer"):
        trees.mvtec_class(root / name, masks=name != "washer")
    return root


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Folder of a training and its test."""
    datamodule = MultiClass(root=data, train_batch_size=4, eval_batch_size=4, num_workers=0)
    return train_and_test(datamodule, tmp_path_factory.mktemp("run"))
