# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What tables of predictions say of the products of a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anomalib_hgad.deploy.watch.table import Table
from anomalib_hgad.evaluation.predictions import PREDICTED_FILE, write_predictions
from anomalib_hgad.report.monitor.periods import labels, read_periods, table_file
from tests.helpers.predictions import predicted

NAMES = ["bolt", "nut"]


def test_images_are_counted_product_by_product(tmp_path: Path) -> None:
    rows = [
        predicted("bolt", 0.25),
        predicted("bolt", 0.5),
        predicted("bolt", 0.75, anomalous=True),
        predicted("nut", -1.0),
        predicted("unknown", 3.0),
        predicted("unknown", 2.0, anomalous=True),
    ]
    write_predictions(rows, tmp_path / "monday")
    write_predictions(rows[3:4], tmp_path / "tuesday", PREDICTED_FILE)
    monday, tuesday = read_periods([tmp_path / "monday/predictions.csv", tmp_path / "tuesday"], NAMES)
    assert (monday.images, monday.unknown) == (6, 2)
    bolt, nut = (monday.products[name] for name in NAMES)
    assert (bolt.normal, bolt.anomalous, bolt.novelty) == (2, 1, 1.5)
    assert (nut.normal, nut.anomalous, nut.novelty) == (1, 0, -1)
    assert (tuesday.images, list(tuesday.products)) == (1, ["nut"])


def watched(path: Path, *models: str) -> Path:
    """A table of a watch with an image of each model; one file, if they were put together by hand."""
    lines: list[bytes] = []
    for model in models:
        table = Table(path.with_suffix(".part.csv"), model)
        table.append({"image_path": "a.png", "pred_class_name": "bolt", "pred_label": False, "novelty": 0.5})
        table.close()
        lines += path.with_suffix(".part.csv").read_bytes().splitlines(keepends=True)[1 if lines else 0 :]
        path.with_suffix(".part.csv").unlink()
    path.write_bytes(b"".join(lines))
    return path


def test_tables_of_different_models_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Between tables and within one; a table that does not say its model counts as of any."""
    write_predictions([predicted("bolt", 0.25)], tmp_path / "by_hand")
    first, same = watched(tmp_path / "first.csv", "aaaa"), watched(tmp_path / "same.csv", "aaaa")
    read_periods([first, same, tmp_path / "by_hand"], NAMES)
    assert not caplog.records
    read_periods([first, tmp_path / "by_hand", watched(tmp_path / "other.csv", "bbbb")], NAMES)
    assert f"different exported files: {first} by aaaa; {tmp_path / 'other.csv'} by bbbb. Novelty is" in caplog.text
    caplog.clear()
    read_periods([watched(tmp_path / "both.csv", "bbbb", "aaaa")], NAMES)
    assert f"different exported files: {tmp_path / 'both.csv'} by aaaa, bbbb. Novelty is" in caplog.text


def test_images_that_are_there_twice_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy of a table, one that has grown, and images twice in a table; not files of the same names."""
    rows = [predicted("bolt", novelty) for novelty in (0.1, 0.2, 0.3)]
    tables = {
        "first": rows[:2],
        "later": [replace(row, novelty=-1.5 + index) for index, row in enumerate(rows)],
        "grown": rows,
        "twice": [replace(row, image_path="2.png") for row in rows[:2] * 2],
    }
    for name, of_table in tables.items():
        write_predictions(of_table, tmp_path / name)
    read_periods([tmp_path / name for name in tables], NAMES)
    said = [record.getMessage().partition(", with")[0] for record in caplog.records]
    assert said == [
        f"2 of 3 images of {tmp_path / 'grown'} are already in {tmp_path / 'first'}",
        f"2 of 4 images of {tmp_path / 'twice'} are already in it",
    ]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["results/mon/Hgad/latest", "results/tue/Hgad/latest"], ["mon", "tue"]),
        (["mon.csv", "tue.csv"], ["mon.csv", "tue.csv"]),
        (["a/1/predicted.csv", "a/2/b/predicted.csv"], ["1", "2/b"]),
        (["a", "a/a"], ["a", "a/a"]),
        (["a/predicted.csv"], ["a/predicted.csv"]),
    ],
)
def test_labels_are_what_differs(paths: list[str], expected: list[str]) -> None:
    assert labels([Path(path) for path in paths]) == expected


def test_a_folder_of_two_tables_needs_a_name(tmp_path: Path) -> None:
    write_predictions([], tmp_path)
    write_predictions([], tmp_path, PREDICTED_FILE)
    with pytest.raises(ValueError, match=r"contains two tables.* name one of predicted\.csv and predictions\.csv"):
        table_file(tmp_path)
    assert table_file(tmp_path / "predictions.csv") == tmp_path / "predictions.csv"
