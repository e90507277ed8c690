# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A run to report on."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalib_hgad import MultiClass, cli
from tests.helpers import trees
from tests.helpers.engines import train_and_test
from tests.helpers.monitored_line import line_checkpoint, write_line


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


@pytest.fixture(scope="session")
def other_run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Folder of a run of a single Gaussian on the same data."""
    datamodule = MultiClass(root=data, train_batch_size=4, eval_batch_size=4, num_workers=0)
    return train_and_test(datamodule, tmp_path_factory.mktemp("other"), prior="single_gaussian")


@pytest.fixture(scope="session")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a monitor has written on two of the classes."""
    folder = tmp_path_factory.mktemp("line")
    periods = map(str, write_line(folder, line_checkpoint()))
    checkpoint, output = str(folder / "model.ckpt"), str(folder / "monitor")
    assert cli.main(["monitor", *periods, "--ckpt_path", checkpoint, "--output", output]) == 0
    return folder / "monitor"


@pytest.fixture(scope="session")
def page(run: Path, other_run: Path, monitored: Path) -> str:
    """Page on the run, with all that a page can have."""
    beside = ["--compare", str(other_run), "--monitor", str(monitored)]
    assert cli.main(["report", str(run), *beside]) == 0
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def monitor_page(monitored: Path) -> str:
    """Page of the monitor."""
    return (monitored / "monitor.html").read_text(encoding="utf-8")
