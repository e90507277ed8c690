# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the report on one page."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from anomalib.data import MVTecAD

from anomalib_hgad import MultiClass, cli
from anomalib_hgad.data.reserved_names import UNKNOWN
from anomalib_hgad.evaluation.predictions import write_predictions
from anomalib_hgad.evaluation.results import Results, write_results
from anomalib_hgad.models.hgad.criterion import StateFigures
from anomalib_hgad.report import examples
from anomalib_hgad.report.page import render
from anomalib_hgad.report.run_files import CHECKPOINT, read_run
from tests.helpers import trees
from tests.helpers.engines import train_and_test
from tests.helpers.html_pages import Elements, assert_whole_and_alone
from tests.helpers.predictions import prediction

PHONE, DESKTOP = 500, 1280
"""Widths in pixels; a headless Chromium has no narrower window than that of a large phone."""


@pytest.fixture(scope="module")
def page(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    datamodule = MultiClass(root=data, train_batch_size=4, eval_batch_size=4, num_workers=0)
    other = train_and_test(datamodule, tmp_path_factory.mktemp("other"), prior="single_gaussian")
    assert cli.main(["report", str(run), "--compare", str(other)]) == 0
    return (run / "report.html").read_text(encoding="utf-8")


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
    assert page.count("<svg") == 5  # histograms, ROC, confusion, log-likelihoods, latent space
    assert page.count('class="card"') == 12
    assert 'alt="mask"' in page
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
        assert "called unknown" not in page
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
    assert text.count("<svg") == 4


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_page_fits_the_window(page: str, width: int, tmp_path: Path) -> None:
    """In a real browser: nothing is wider than the window, and every picture is drawn."""
    if not (chromium := shutil.which("chromium")):
        pytest.skip("there is no chromium")
    script = """<script>addEventListener("load", () => {
        const drawn = [...document.images].filter(image => image.complete && image.naturalWidth > 0).length;
        document.body.dataset.seen = [document.documentElement.scrollWidth, innerWidth, drawn].join(" ");
    })</script>"""
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", script + "</body>"), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    shown = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, check=True, timeout=120).stdout
    scroll_width, inner_width, drawn = map(int, re.search(r'data-seen="([\d ]+)"', shown)[1].split())
    assert inner_width == width
    assert scroll_width <= inner_width
    assert drawn == page.count("<img")


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path)])
    assert "predictions.csv is missing" in capsys.readouterr().err


@pytest.mark.parametrize(("broken", "message"), [("predictions.csv", "cut short"), ("results.json", "Test the model")])
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "sentence"),
    [(False, "the closed form was kept"), (True, "the state after epoch 1 was kept: no other one had a higher mean")],
)
def test_course_of_a_training_from_the_closed_form(run: Path, kept: bool, sentence: str) -> None:
    files = read_run(run)
    assert "<h3>Training</h3>" not in render(files)
    start = StateFigures(0, 0.9, 0.8, 1.0, kept=True)
    files.model.training_course = [start, StateFigures(1, 0.8 + 0.2 * kept, 0.8, 1.1, kept=kept)]
    page = render(files)
    assert "<h3>Training</h3>" in page
    assert sentence in page
    assert page.count("<svg") == 6
    assert not Elements(page).open
