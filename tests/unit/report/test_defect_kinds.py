# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Kinds of defects on the page of the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anomalib_hgad.report.defect_kinds import KindTable, kind_tables
from anomalib_hgad.report.page import render
from anomalib_hgad.report.run_files import read_run
from tests.helpers.html_pages import Elements

pytestmark = pytest.mark.slow


def test_page_has_true_kinds_by_named_ones(run: Path) -> None:
    """Of each product the fixture has two images with the defect crack; those of the nut are called <i> here."""
    files = read_run(run)
    assert kind_tables(files) == []
    assert "Kinds of defects" not in render(files)
    of_bolt = iter(["rust", None])
    rows = [
        replace(row, defect_kind="<i>" if row.class_name == "nut <b>&$x" else next(of_bolt))
        if row.gt_label and row.class_name != "washer"
        else row
        for row in files.predictions
    ]
    files = replace(files, predictions=rows)
    assert kind_tables(files) == [
        KindTable("bolt", ["crack", "rust", "other"], {"crack": [0, 1, 0]}, {"crack": 1}),
        KindTable("nut <b>&$x", ["<i>", "crack", "other"], {"crack": [2, 0, 0]}, {"crack": 0}),
    ]
    page = render(files)
    assert not Elements(page).open
    assert '<th scope="row">crack</th><td>0</td><td>1</td><td>0</td><td>1</td>' in page
    assert page.count("named &lt;i&gt;") == 2
    assert "named rust" in page
    assert "<i>" not in page
