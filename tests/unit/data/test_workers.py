# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Number of worker processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anomalib_hgad import MultiClass
from anomalib_hgad.data.workers import usual_workers
from tests.helpers import trees


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (64, 8)])
def test_one_for_each_core_up_to_eight(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert usual_workers() == workers


def test_where_no_process_is_kept_from_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usual_workers() == 3


def test_datamodule_fits_the_machine_unless_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    root = trees.mvtec_class(tmp_path / "bolt").parent
    assert MultiClass(root=root).num_workers == 3
    assert MultiClass(root=root, num_workers=0).num_workers == 0
