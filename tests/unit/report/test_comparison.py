# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Runs side by side, by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anomalib_hgad.report.comparison import check_compared, compare_runs
from tests.helpers.predictions import prediction


def run_of(folder: str, images: list[str], **metrics: float | None) -> Any:
    rows = [prediction(name, "bolt", anomalous=False, score=0.0) for name in images]
    return SimpleNamespace(folder=Path(folder), predictions=rows, results={"mean": metrics, "pooled": metrics})


RUNS = [
    run_of("a/x/v0", ["1.png", "2.png"], image_AUROC=0.9, FalseAlarmRate=0.1, same=0.5, hidden=0.50001, alone=None),
    run_of("a/y/v0", ["2.png", "1.png"], image_AUROC=0.8, FalseAlarmRate=0.0, same=0.5, hidden=0.50002, alone=0.7),
    run_of("a/z/v0", ["1.png", "2.png"], image_AUROC=0.9, FalseAlarmRate=0.2, same=0.5, hidden=0.49999, alone=None),
]
COLUMNS = ["image_AUROC", "FalseAlarmRate", "same", "hidden", "alone"]


def test_best_of_each_column_is_marked() -> None:
    """Of false alarms the fewest are; what looks the same is, and a single value is no best one."""
    found = compare_runs(RUNS, COLUMNS, [{}, {}, {}])
    for table in found.tables.values():
        marked = {name: [row[name].best for row in table] for name in COLUMNS}
        assert marked == {
            "image_AUROC": [True, False, True],
            "FalseAlarmRate": [False, True, False],
            "same": [False] * 3,
            "hidden": [False] * 3,
            "alone": [False] * 3,
        }
        assert [row["hidden"].value for row in table] == [0.50001, 0.50002, 0.49999]


def test_settings_that_differ_are_those_shown() -> None:
    settings = [{"prior": "hierarchical", "lr": 0.1}, {"prior": "single_gaussian", "lr": 0.1}, {"lr": 0.1}]
    found = compare_runs(RUNS, COLUMNS, settings)
    assert found.settings == {"prior": ["hierarchical", "single_gaussian", "–"]}
    assert found.names == ["1: x", "2: y", "3: z"]


@pytest.mark.parametrize(
    ("images", "same"), [(["2.png", "1.png"], True), (["1.png"], False), (["1.png", "3.png"], False)]
)
def test_other_images_are_noticed(images: list[str], same: bool) -> None:
    assert compare_runs([RUNS[0], run_of("b", images)], [], [{}, {}]).same_images is same


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(5)]
    check_compared(paths[0], paths[1:4])
    with pytest.raises(ValueError, match="at most 3 runs to compare with; got 4"):
        check_compared(paths[0], paths[1:])
    with pytest.raises(ValueError, match="/1 is given twice"):
        check_compared(paths[0], [paths[1], tmp_path / "0" / ".." / "1"])
    with pytest.raises(ValueError, match="/0 is given twice"):
        check_compared(paths[0], [paths[0]])
