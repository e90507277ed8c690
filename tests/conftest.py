# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures that several rooms of tests share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from filelock import FileLock

from tests.helpers import trees
from tests.helpers.signal_stack import take_own_signal_stack

if TYPE_CHECKING:
    from tests.helpers.light_run import LightRun

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes on all cores each would wait for one another; what the tests start inherits it.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let anomalib's own tests be given."""
    parser.addoption("--anomalib-checkout", help="folder with anomalib's repository, for the tests in tests/upstream")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let no model of an earlier test end the process."""
    take_own_signal_stack()


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests on real images."""
    for item in items:
        if {"shared_data", "few_shared"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("real_data")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real images and weights, named by the environment variable HGAD_TEST_DATA."""
    if not (folder := os.environ.get("HGAD_TEST_DATA")):
        pytest.skip("HGAD_TEST_DATA names no folder with real images")
    return Path(folder)


@pytest.fixture(scope="session")
def few_shared(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a few of the images, for what must run on real ones but need not on all."""
    folder = tmp_path_factory.mktemp("few_shared")
    (folder / "weights").symlink_to(shared_data / "weights")
    for source in (shared_data / "data").glob("*/"):
        trees.few_of_mvtec_class(source, folder / "data" / source.name)
    return folder


@pytest.fixture
def seeded() -> None:
    """Fixed random numbers; the permutations of the flow come from NumPy's."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def light_run(tmp_path_factory: pytest.TempPathFactory) -> LightRun:
    """A light model, trained and exported: by one process, for all; each has files of its own."""
    from tests.helpers import light_run as made  # noqa: PLC0415 - takes anomalib, which many tests do without

    of_all = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        of_all = of_all.parent
    whole = of_all / "light_run"
    with FileLock(of_all / "light_run.lock"):
        if not whole.exists():
            made.write(unfinished := tmp_path_factory.mktemp("unfinished"))
            unfinished.rename(whole)
    own = tmp_path_factory.mktemp("light run") / "출력"
    shutil.copytree(whole, own, symlinks=True)  # a run has a link to itself
    return made.read(own)
