# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real images and weights, named by the environment variable HGAD_TEST_DATA."""
    if not (folder := os.environ.get("HGAD_TEST_DATA")):
        pytest.skip("HGAD_TEST_DATA names no folder with real images")
    return Path(folder)


@pytest.fixture
def seeded() -> None:
    """Fixed random numbers; the permutations of the flow come from NumPy's."""
    torch.manual_seed(0)
    np.random.seed(0)
