# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the figures of the report, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from anomalib_hgad.models.hgad.criterion import StateFigures
from anomalib_hgad.report import figures
from anomalib_hgad.report.run_files import read_run
from tests.helpers.predictions import predicted, prediction


@pytest.mark.slow
def test_anomalies_of_none_of_the_classes_have_a_curve(run: Path) -> None:
    """Three of four pairs of a normal and an anomalous image are in order."""
    rows = [prediction(f"n{index}", "cat", anomalous=False, score=index) for index in (0, 2)]
    rows += [prediction(f"a{index}", "dog", anomalous=True, score=index) for index in (1, 3)]
    of_cats = replace(read_run(run), predictions=rows, results={"classes": {"cat": {}, "owl": {}}})
    assert [len(group) for group in of_cats.groups.values()] == [2, 0, 4]
    curves = figures.roc_curves(of_cats.groups)
    assert "all images  75.0" in curves
    assert "cat  " not in curves


def test_histogram_has_shares_and_gathers_far_values() -> None:
    """Of 0 to 97, 1000 and 2000 the 0.98 quantile is 97 + 0.02 x 903 = 115.06: bars are 3.835 wide."""
    axis = Figure().subplots()
    figures._histogram(axis, np.arange(98.0), np.array([1000.0, 2000.0]))
    normal, anomalous = ([bar.get_height() for bar in bars] for bars in axis.containers)
    assert len(normal) == 30
    assert normal[:2] == pytest.approx([4 / 98, 4 / 98])  # 0 to 3, 4 to 7
    assert sum(normal) == pytest.approx(1)
    assert anomalous == pytest.approx([0] * 29 + [1])


def test_histogram_of_one_value_and_of_none() -> None:
    one = np.array([0.5])
    assert "<svg" in figures.histograms({"a": (one, one), "b": (np.empty(0), np.empty(0))}, "score", 0.5)


def test_training_course_starts_at_the_closed_form_and_marks_the_kept_state(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kwargs: (drawn.append(figure), args[0].write("<svg"))
    )
    course = [StateFigures(0, 0.8, 0.6, 1, kept=True), StateFigures(1, 0.9, 0.7, 2, kept=True)]
    figures.training_course([*course, StateFigures(2, 0.7, 0.7, 3)])
    axis, of_likelihood = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert of_likelihood.lines[0].get_xydata().tolist() == [[0, 1], [1, 2], [2, 3]]
    assert of_likelihood.collections[0].get_offsets().data.tolist() == [[1, 2]]
    assert np.array(lines["mean of both"]) == pytest.approx(np.array([[0, 70], [1, 80], [2, 70]]))
    assert np.array(lines["images"]) == pytest.approx(np.array([[0, 80], [1, 90], [2, 70]]))
    assert axis.collections[0].get_offsets().data.tolist() == [[1, pytest.approx(80)]]


def test_figure_says_what_it_shows_and_takes_the_colours_of_the_page() -> None:
    one = np.array([0.5])
    svg = figures.histograms({"a <b>": (one, one)}, "score", 0.5)
    assert svg.startswith('<svg role="img"')
    assert "<title>Histograms of normal and anomalous values, score: a &lt;b&gt;</title>" in svg
    assert "var(--normal)" in svg
    for colour in figures.OF_PAGE:
        assert colour not in svg


def test_novelty_of_unknown_products_is_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kwargs: (drawn.append(figure), args[0].write("<svg"))
    )
    known = [predicted("bolt", 0.25), replace(predicted("bolt", 0.5), gt_label=True)]
    figures.novelty_of_products({"bolt": known, "spring": [predicted("unknown", 40.0)]}, ["bolt"])
    (axis,) = drawn[0].axes
    points = {one.get_label(): one.get_offsets().data.tolist() for one in axis.collections}
    assert points == {"normal": [[0.25, 0]], "anomalous": [[0.5, 0]], "unknown product": [[40, 1]]}
    assert axis.get_xscale() == "symlog"
    assert axis.lines[0].get_xdata() == [1, 1]
