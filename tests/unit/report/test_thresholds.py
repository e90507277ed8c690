# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether a rate of false alarms holds, by hand and by quantiles of the beta distribution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import beta

from anomalib_hgad.evaluation.predictions import Prediction
from anomalib_hgad.models.hgad.class_thresholds import ClassThresholds
from anomalib_hgad.report.page import render
from anomalib_hgad.report.run_files import read_run
from anomalib_hgad.report.thresholds import ThresholdRow, clopper_pearson, threshold_rows
from tests.helpers.html_pages import Elements


def row(normal: int, alarms: int, rate: float = 0.1) -> ThresholdRow:
    return ThresholdRow("bolt", rate, 50, 1.0, 1.0, normal, alarms, 0)


@pytest.mark.parametrize(("count", "total"), [(0, 20), (2, 20), (20, 20), (1, 1), (7, 300)])
def test_interval_is_that_of_the_beta_distribution(count: int, total: int) -> None:
    low = 0.0 if count == 0 else beta.ppf(0.025, count, total - count + 1)
    high = 1.0 if count == total else beta.ppf(0.975, count + 1, total - count)
    assert clopper_pearson(count, total) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(
    ("normal", "alarms", "verdict"),
    [
        (100, 10, "holds"),
        (100, 0, "holds"),  # fewer than asked for keep the rate as well
        (100, 16, "holds"),  # from 9.4 %
        (100, 18, "does not hold"),  # from 11.0 %
        (9, 0, "holds"),
        (8, 0, "too few images to tell"),
        (8, 8, "does not hold"),
        (0, 0, "too few images to tell"),
    ],
)
def test_verdict(normal: int, alarms: int, verdict: str) -> None:
    assert row(normal, alarms).verdict == verdict
    assert (row(normal, alarms).interval is None) == (normal == 0)


def prediction(scored: str | None, score: float, *, anomalous: bool = False) -> Prediction:
    """Of an image whose score is above the threshold of 2 or not."""
    return Prediction("a.png", None, "bolt", "unknown", anomalous, score > 2, 0.5, score, 2.0, scored)


def run_of(predictions: list[Prediction], names: list[str], own: list[float], common: float | None = 2.0) -> object:
    thresholds = ClassThresholds(len(names))
    thresholds.update(torch.tensor(own), torch.tensor(2.0), torch.arange(len(names)) + 5, 0.05)
    calibration = SimpleNamespace(class_thresholds=thresholds)
    model = SimpleNamespace(threshold_names=names, model=SimpleNamespace(calibration=calibration))
    return SimpleNamespace(folder="run", model=model, threshold=common, predictions=predictions)


def test_false_alarms_are_counted_by_the_class_that_scored_them_at_both_thresholds() -> None:
    """The nut's threshold is 3 and its scores are one lower: 1.5 was 2.5, above that of all."""
    rows = [prediction("bolt", 2.5), prediction("bolt", 1.5), prediction("nut", 1.5), prediction("nut", 2.5)]
    rows += [prediction("nut", 0.5), prediction("nut", 9.0, anomalous=True)]
    bolt, nut = threshold_rows(run_of(rows, ["bolt", "nut"], [2.0, 3.0]))
    assert bolt == ThresholdRow("bolt", 0.05, 5, 2.0, 2.0, normal=2, alarms=1, common_alarms=1)
    assert nut == ThresholdRow("nut", 0.05, 6, 3.0, 2.0, normal=3, alarms=1, common_alarms=2)
    assert bolt.needed == 19
    assert (bolt.verdict, bolt.common_verdict) == ("too few images to tell",) * 2


def test_each_threshold_has_a_verdict() -> None:
    row = ThresholdRow("bolt", 0.1, 50, 3.0, 2.0, normal=100, alarms=10, common_alarms=18)
    assert (row.verdict, row.common_verdict) == ("holds", "does not hold")


def test_images_of_a_mixture_without_classes_are_in_one_row() -> None:
    (only,) = threshold_rows(run_of([prediction(None, 3.0), prediction(None, 1.0)], ["all images"], [2.0]))
    assert (only.name, only.alarms, only.normal) == ("all images", 1, 2)


def test_test_of_a_model_of_other_classes_is_named() -> None:
    rows = [prediction("bolt", 2.5), prediction("washer", 2.5)]
    with pytest.raises(ValueError, match=r"scores of washer; the run's checkpoint knows only bolt, nut\. .*another"):
        threshold_rows(run_of(rows, ["bolt", "nut"], [2.0, 3.0]))


def test_run_without_a_rate_has_no_rows() -> None:
    run = run_of([], ["bolt"], [2.0])
    assert threshold_rows(run_of([], ["bolt"], [2.0], common=None)) == []
    run.model.model.calibration.class_thresholds.clear()
    assert threshold_rows(run) == []


@pytest.mark.slow
def test_page_has_a_table_of_thresholds_where_a_rate_was_asked_for(run: Path) -> None:
    files = read_run(run)
    page = render(files)
    assert "false alarms</h3>" not in page
    assert "used another model" not in page
    thresholds = files.model.model.calibration.class_thresholds
    common = torch.tensor(files.threshold)
    thresholds.update(common.expand(3), common, torch.tensor([30, 5, 0]), 0.05)
    page = render(replace(files, tested_another=True))  # as it would be read, with other thresholds than were tested
    assert "The last test in this folder used another model" in page
    assert "All classes share one threshold" in page
    assert "This needs 19 of them." in page
    assert "too few</span>" not in page
    assert "at the common threshold" not in page
    thresholds.update(common + torch.tensor([1.0, 0.0, 0.0]), common, torch.tensor([30, 5, 0]), 0.05)
    page = render(files)
    assert "Every class has its own threshold" in page
    assert page.count("too few</span>") == 2
    rows = threshold_rows(files)
    for verdict in {row.verdict for row in rows} | {row.common_verdict for row in rows}:
        assert f"{verdict}</span></td>" in page
    assert "at the common threshold" in page
    assert not Elements(page).open
