# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A run to report on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import reported_run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the classes."""
    return reported_run.write_classes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Folder of a training and its test."""
    return reported_run.tested_run(data, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a monitor has written on two of the classes."""
    return reported_run.monitored_line(tmp_path_factory.mktemp("line"))
