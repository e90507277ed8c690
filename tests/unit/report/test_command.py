# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the report on one page."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anomalib.data import MVTecAD
from sklearn.metrics import f1_score, precision_score, recall_score

from anomalib_hgad import cli
from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.evaluation.predictions import write_predictions
from anomalib_hgad.evaluation.results import Results, write_results
from anomalib_hgad.models.hgad.criterion import StateFigures
from anomalib_hgad.report import examples
from anomalib_hgad.report.page import render
from anomalib_hgad.report.precision_recall import PrecisionRecall, precision_and_recall
from anomalib_hgad.report.run_files import CHECKPOINT, read_run
from tests.helpers import reported_run, trees
from tests.helpers.engines import train_and_test
from tests.helpers.html_pages import Elements, assert_whole_and_alone
from tests.helpers.predictions import prediction


@pytest.fixture(scope="module")
def page(run: Path, data: Path, monitored: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    other = reported_run.tested_run(data, tmp_path_factory.mktemp("other"), prior="single_gaussian")
    return reported_run.whole_page(run, other, monitored)


@pytest.mark.slow
def test_page_is_whole_and_asks_for_nothing(page: str) -> None:
    assert_whole_and_alone(page)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


@pytest.mark.slow
def test_names_are_text_not_markup(page: str) -> None:
    assert "nut &lt;b&gt;&amp;$x" in page
    assert "<b>&$x" not in page


@pytest.mark.slow
def test_page_shows_every_part(page: str, run: Path) -> None:
    text = page.replace("\n", " ")
    for part in ("Classes", "Scores", "ROC curves", "Inferred classes", "Errors", "Log-likelihood of positions"):
        assert part in text
    # Histograms, ROC, confusion, novelty, log-likelihoods, latent space, and the chart of the product that has moved.
    assert page.count("<svg") == 7
    for title in ("Side by side", "Unknown products", "Drift"):
        assert f">{title}</h2>" in page
    assert page.count('class="card"') == 12
    assert ' alt="The same image, the edge of its mask in red"' in page
    assert "no mask" in page
    for package in ("anomalib-hgad", "anomalib"):
        assert f"<dt>{package}</dt>" in page
    assert "<dt>flow_arguments.coupling_blocks</dt><dd>2</dd>" in page
    threshold = read_run(run).threshold
    assert f"<dt>threshold</dt><dd>{threshold:.4g}</dd>" in page


@pytest.mark.slow
def test_figures_of_the_page_are_those_of_the_test(page: str, run: Path) -> None:
    with (run / "results.csv").open(newline="", encoding="utf-8") as file:
        mean = next(row for row in csv.DictReader(file) if row["class"] == "mean")
    assert f"<b>{100 * float(mean['image_AUROC']):.1f} %</b>" in page


@pytest.mark.slow
def test_image_called_unknown_is_neither_missed_nor_an_alarm_nor_found(run: Path) -> None:
    """Whatever its label; the cards say it in place of the decision, and so it counts by itself."""
    files = read_run(run)
    for label in (True, False):
        rows = [replace(row, pred_label=label, pred_class_name=row.class_name) for row in files.predictions]
        normal, anomalous = (sum(row.gt_label is truth for row in rows) for truth in (False, True))
        page = render(replace(files, predictions=rows))
        assert "called unknown</span>" not in page
        assert f"<b>{0 if label else anomalous} of {anomalous}</b><span>anomalous images missed" in page
        assert f"<b>{normal if label else 0} of {normal}</b><span>normal images that raised an alarm" in page
        strange = [replace(row, pred_class_name=UNKNOWN) for row in rows]
        page = render(replace(files, predictions=strange))
        assert f"<b>0 of {anomalous}</b><span>anomalous images missed" in page
        assert f"<b>0 of {normal}</b><span>normal images that raised an alarm" in page
        assert f"<b>{len(rows)} of {len(rows)}</b><span>images called unknown" in page
        assert page.count('<span class="wrong">called unknown</span>,') == page.count('class="card"') == 12
        for word in ("missed", "false alarm", "found", "passed", "taken for"):
            assert not re.search(rf'<span class="\w+">{word}', page)


@pytest.mark.slow
def test_image_of_no_class_is_called_unknown_rightly(run: Path) -> None:
    files = read_run(run)
    rows = [replace(row, class_name="gear", pred_class_name=UNKNOWN) for row in files.predictions]
    assert examples.example(files, rows[0]).of_known_class is False
    assert examples.example(files, files.predictions[0]).of_known_class is True


@pytest.mark.slow
def test_one_class_of_a_plain_datamodule(data: Path, tmp_path: Path) -> None:
    """No labels, no class to infer: the page leaves out what there is not."""
    datamodule = MVTecAD(data, category="bolt", train_batch_size=4, eval_batch_size=4, num_workers=0)
    run = train_and_test(datamodule, tmp_path)
    assert cli.main(["report", str(run), "--output", str(tmp_path / "pages/one.html")]) == 0
    text = (tmp_path / "pages/one.html").read_text(encoding="utf-8")
    assert "Hgad on 1 class:" in text
    assert "Inferred classes" not in text
    assert text.count("<svg") == 5


@pytest.mark.slow
def test_precision_and_recall_on_the_page_are_those_of_the_tables(page: str, run: Path) -> None:
    """By scikit-learn, of the labels in the table of the test."""
    rows = read_run(run).predictions
    truth, labels = [row.gt_label for row in rows], [row.pred_label for row in rows]
    table = page[page.index(">At the threshold<") :]
    cells = re.findall(r"<td>([\d.–]+)</td>", table[table.index('<th scope="row">pooled</th>') :])
    figures = [score(truth, labels) for score in (precision_score, recall_score, f1_score)]
    assert cells[:3] == [f"{100 * figure:.1f}" for figure in figures]


@pytest.mark.slow
def test_counted_pixels_make_the_f1_of_the_test(run: Path) -> None:
    """torchmetrics has computed it, from the masks themselves."""
    files = read_run(run)
    for name, metrics in [*files.results["classes"].items(), ("pooled", files.results["pooled"])]:
        pixels = precision_and_recall(files)[name]["pixel"]
        if metrics["pixel_F1Score"] is None:
            assert pixels == PrecisionRecall(None, None)
        else:
            f1 = 2 * pixels.precision * pixels.recall / (pixels.precision + pixels.recall)
            assert f1 == pytest.approx(metrics["pixel_F1Score"])


@pytest.mark.slow
def test_page_keeps_a_size_that_can_be_mailed(page: str) -> None:
    assert len(page) < 2_000_000


def test_too_many_runs_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path), "--compare", "a", "b", "c", "d"])
    assert "at most 3 runs to compare with; got 4" in capsys.readouterr().err


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path)])
    assert "predictions.csv is missing" in capsys.readouterr().err


@pytest.mark.parametrize(("broken", "message"), [("predictions.csv", "truncated"), ("results.json", "Test the model")])
def test_broken_file_of_a_run_is_named(
    broken: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = trees.write_image(tmp_path / "1.png")
    write_predictions([prediction(str(image), "bolt", anomalous=True, score=0.9)], tmp_path)
    write_results(Results({"bolt": {"image_AUROC": None}}, {"image_AUROC": None}), tmp_path)
    (tmp_path / CHECKPOINT).parent.mkdir(parents=True)
    (tmp_path / CHECKPOINT).touch()
    content = (tmp_path / broken).read_text()
    (tmp_path / broken).write_text(content[:-30])
    with pytest.raises(SystemExit) as stopped:
        cli.main(["report", str(tmp_path)])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert str(tmp_path / broken) in said
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        ({"raw_score": math.nan, "pred_score": None}, ["bolt"], "1 of 2 tested images have no finite score, such as"),
        ({"raw_score": math.inf}, ["bolt"], "1 of 2 tested images have no finite score, such as"),
        ({"mask_path": "gone.png"}, ["bolt"], "1 of 1 masks do not exist, such as gone.png"),
        (
            {},
            ["nut", "screw"],
            "results.json has the classes nut, screw, but predictions.csv beside it has images of bol",
        ),
        ({}, [], "results.json has the classes none, but"),
    ],
    ids=["no score", "infinite score", "no mask", "results of another test", "results without classes"],
)
def test_run_whose_files_do_not_match_is_refused(
    change: dict[str, Any], classes: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = trees.write_image(tmp_path / "1.png")
    row = prediction(str(image), "bolt", anomalous=True, score=0.9)
    write_predictions([row, replace(row, **change)], tmp_path)
    write_results(Results({name: {"image_AUROC": None} for name in classes}, {"image_AUROC": None}), tmp_path)
    (tmp_path / CHECKPOINT).parent.mkdir(parents=True)
    (tmp_path / CHECKPOINT).touch()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_folder_as_output_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", str(tmp_path / "run"), "--output", str(tmp_path)])
    assert f"got the folder {tmp_path}. Give {tmp_path / 'report.html'}." in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        (False, "the closed form was kept"),
        pytest.param(
            True, "the state after epoch 1 was kept: no other one had a higher mean", marks=pytest.mark.nightly
        ),
    ],
)
def test_course_of_a_training_from_the_closed_form(run: Path, kept: bool, sentence: str) -> None:
    files = read_run(run)
    assert "<h3>Training</h3>" not in render(files)
    start = StateFigures(0, 0.9, 0.8, 1.0, kept=True)
    files.model.training_course = [start, StateFigures(1, 0.8 + 0.2 * kept, 0.8, 1.1, kept=kept)]
    page = render(files)
    assert "<h3>Training</h3>" in page
    assert sentence in page
    assert page.count("<svg") == 7
    assert not Elements(page).open
