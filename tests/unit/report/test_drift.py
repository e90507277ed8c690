# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The report says of drift what the monitor has said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from anomalib_hgad.report.drift import read_drift
from anomalib_hgad.report.monitor.chart import Point
from anomalib_hgad.report.monitor.movements import Record, movements, product_records
from anomalib_hgad.report.monitor.periods import Period, ProductImages, read_periods
from anomalib_hgad.report.monitor.scale import read_scale
from anomalib_hgad.report.monitor.table import TABLE, read_records, record_table
from tests.helpers.monitored_line import NAMES


def test_table_gives_the_records_that_it_was_written_from(monitored: Path) -> None:
    folder = monitored.parent
    products = read_scale(folder / "model.ckpt")
    periods = read_periods([folder / "days" / name for name in "1234"], products.names)
    expected = product_records(periods, products, 0.001, 0)
    found = read_records(monitored)
    assert list(found) == NAMES
    for name in NAMES:
        assert [record.point for record in found[name]] == [record.point for record in expected[name]]
        assert [record.images.count for record in found[name]] == [3, 3, 3, 3]
    for moved in (movements(found), movements(expected)):
        (one,) = moved
        assert (one.product, one.direction, one.first.label, one.last) == (NAMES[1], "less typical", "3", None)


def test_drift_of_a_run(monitored: Path) -> None:
    drift = read_drift(monitored, [*NAMES, "washer"])
    assert (drift.products, drift.periods, drift.first, drift.last) == (2, 4, "1", "4")
    assert list(drift.charts) == NAMES[1:]


def test_names_that_look_like_numbers_are_names(tmp_path: Path) -> None:
    """Of products and of periods, as article numbers and dates."""
    names, days = ["0815", "1.10", "1e3"], ["20261127", "20261128", "007"]
    records = {
        name: [Record(Period(Path(day), day), ProductImages(3, 1), Point(1.0, 0.5, 1.5, 0.0, 2.0)) for day in days]
        for name in names
    }
    record_table(records).to_csv(tmp_path / TABLE, index=False)
    assert read_records(tmp_path) == records
    drift = read_drift(tmp_path, names)
    assert (drift.products, drift.first, drift.last) == (3, "20261127", "007")


def sorted_by_hand(table: pd.DataFrame) -> bytes:
    """The newest period first, and the products of a period together."""
    return table.sort_values(["period", "product"], ascending=False).to_csv(index=False).encode()


def german(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, sep=";", decimal=",").encode("utf-8-sig")


@pytest.mark.parametrize("save", [sorted_by_hand, german])
def test_table_that_a_spreadsheet_has_saved(
    save: Callable[[pd.DataFrame], bytes], monitored: Path, tmp_path: Path
) -> None:
    (tmp_path / TABLE).write_bytes(save(pd.read_csv(monitored / TABLE)))
    found, expected = read_records(tmp_path), read_records(monitored)
    assert found == expected
    (moved,) = movements(found)
    assert (moved.first.label, moved.last) == ("3", None)
    drift = read_drift(tmp_path, NAMES)
    assert (drift.first, drift.last) == ("1", "4")


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 6, 7], [*range(8), 5]], ids=["missing", "twice"])
def test_table_without_one_row_for_each_period_is_refused(kept: list[int], monitored: Path, tmp_path: Path) -> None:
    pd.read_csv(monitored / TABLE).iloc[kept].to_csv(tmp_path / TABLE, index=False)
    with pytest.raises(
        ValueError, match=r"monitor\.csv is not .*: expected one row of nut .* of the 4 periods, got [35]"
    ):
        read_drift(tmp_path, NAMES)


def test_monitor_of_another_model_is_refused(monitored: Path) -> None:
    with pytest.raises(ValueError, match="is of another model: the run does not know bolt, only nut"):
        read_drift(monitored, NAMES[1:])


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "product,period,table\nbolt,1,a\n"])
def test_other_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text(content)
    with pytest.raises(ValueError, match="is not a table of `anomalib-hgad monitor`"):
        read_drift(tmp_path, NAMES)


def test_table_without_rows_is_refused(tmp_path: Path) -> None:
    """The monitor of a line whose products are all unknown writes one."""
    record_table({}).to_csv(tmp_path / TABLE, index=False)
    with pytest.raises(ValueError, match="has no rows"):
        read_drift(tmp_path, NAMES)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"monitor\.csv is missing\. Expected the --output of"):
        read_drift(tmp_path, NAMES)
