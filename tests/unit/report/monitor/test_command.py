# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the monitor's files, of what it says, and of what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from anomalib_hgad import cli
from anomalib_hgad.evaluation.predictions import PREDICTED_FILE, Prediction, write_predictions
from anomalib_hgad.models.checkpoint import VERSIONS_KEY
from anomalib_hgad.models.hgad.class_labels import CLASS_NAMES_KEY
from anomalib_hgad.report.monitor.command import show
from anomalib_hgad.report.monitor.movements import Movement
from anomalib_hgad.report.monitor.periods import Period
from anomalib_hgad.report.monitor.scale import THRESHOLD
from tests.helpers.html_pages import assert_whole_and_alone
from tests.helpers.monitored_line import GOOD, NAMES, line_checkpoint, write_line
from tests.helpers.predictions import predicted


@pytest.fixture
def checkpoint() -> dict[str, Any]:
    return line_checkpoint()


@pytest.fixture
def line(tmp_path: Path, checkpoint: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the line, in which the monitor is started."""
    write_line(tmp_path, checkpoint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main(["monitor", *arguments, "--ckpt_path", "model.ckpt"])


def days(*names: str) -> list[str]:
    return [f"days/{name}" for name in names]


def test_product_that_has_moved_is_named(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*days("1", "2", "3", "4")) == 0
    said = capsys.readouterr().out
    (row,) = [text for text in said.splitlines() if "nut <b>&$x" in text]
    assert [cell.strip() for cell in row.split("│")[1:6]] == [NAMES[1], "less typical", "3", "now", "mean and EWMA"]
    assert not [text for text in said.splitlines() if "bolt" in text]
    assert "4: 1 of 7 images are of no known product." in said
    table = pd.read_csv(line / "monitor/monitor.csv")
    assert len(table) == 8
    nut = table[table["product"] == NAMES[1]]
    assert nut["table"].tolist() == days("1", "2", "3", "4")
    assert nut["moved"].fillna("").tolist() == ["", "", "less typical", "less typical"]
    assert nut["mean_typicality"].tolist() == pytest.approx([2, 2, 1.91, 1.91])
    assert nut["normal"].tolist() == [3] * 4
    assert nut["unknown_of_all_products"].tolist() == [0, 0, 0, 1]
    assert not table[table["product"] == "bolt"]["moved"].notna().any()


def test_nothing_has_moved(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*days("1", "2"), "--output", "charts") == 0
    assert "No product has moved: 2 products, 2 periods." in capsys.readouterr().out
    assert "None." in (line / "charts/monitor.html").read_text(encoding="utf-8")


def test_product_of_which_most_images_are_anomalous_is_named(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_predictions(
        [*GOOD[:3], *(replace(row, pred_label=True) for row in GOOD[3:])], line / "days/3", PREDICTED_FILE
    )
    assert run(*days("1", "2", "3")) == 0
    assert "3: 3 of 3 images of nut <b>&$x were predicted anomalous." in capsys.readouterr().out
    table = pd.read_csv(line / "monitor/monitor.csv")
    assert table["mean_typicality"].notna().all(), "their mean says how far it has moved"


def test_page_is_whole_and_names_are_text(line: Path) -> None:
    assert run(*days("1", "2", "3", "4")) == 0
    page = (line / "monitor/monitor.html").read_text(encoding="utf-8")
    assert_whole_and_alone(page)
    assert "<h3>nut &lt;b&gt;&amp;$x</h3>" in page
    assert "<b>&$x" not in page
    assert page.count("<svg") == 2
    assert "<b>1 of 2</b>" in page


def test_reference_periods(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*days("1", "2", "3", "4"), "--reference_periods", "2") == 0
    table = pd.read_csv(line / "monitor/monitor.csv")
    assert table["lower_limit"].isna().tolist() == [True, True, False, False] * 2
    for number in ("1", "4", "-2"):
        with pytest.raises(SystemExit):
            run(*days("1", "2", "3", "4"), "--reference_periods", number)
        assert "reference_periods is out of range: expected 2 <= reference_periods < 4" in capsys.readouterr().err


def test_product_of_no_reference_period_is_not_judged_and_named(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for day in ("1", "2"):
        write_predictions(GOOD[:3], line / "days" / day, PREDICTED_FILE)
    assert run(*days("1", "2", "3"), "--reference_periods", "2") == 0
    said = capsys.readouterr().out
    assert "No product has moved: 1 products, 3 periods." in said
    assert f"Not judged: {NAMES[1]}. Their expected values are unknown" in said
    page = (line / "monitor/monitor.html").read_text(encoding="utf-8")
    assert "<b>Not judged:</b> nut &lt;b&gt;&amp;$x." in page
    assert "<b>0 of 1</b>" in page
    capsys.readouterr()
    assert run(*days("3", "1", "2"), "--reference_periods", "2") == 0
    assert "Not judged" not in capsys.readouterr().out, "it is not seen after them"


def test_long_names_of_products_are_shown_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    period = Period(tmp_path, "1")
    names = [f"left_front_bumper_black_metallic_{line}" for line in "ab"]
    moved = [Movement(name, "less typical", period, None, in_mean=True, in_ewma=True) for name in names]
    show([period], {}, moved, [], tmp_path)
    first = "".join(row.split("│")[1].strip() for row in capsys.readouterr().out.splitlines() if "│" in row)
    assert first == "".join(names)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert not Path("monitor").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no images. Leave it out."),
        ([replace(row, novelty=None) for row in GOOD], "6 of 6 images have no novelty, which only Hgad computes"),
        ([*GOOD, replace(GOOD[0], novelty=None)], "1 of 7 images have no novelty"),
        ([replace(row, novelty=-math.inf) for row in GOOD], "6 of 6 images have an infinite novelty"),
        ([replace(row, pred_class_name=None) for row in GOOD], "6 of 6 images have no inferred class"),
        ([replace(row, pred_label=None) for row in GOOD], "6 of 6 images have no predicted label"),
        ([*GOOD, predicted("screw", 0.0)], "the checkpoint does not know screw, only bolt, nut"),
    ],
    ids=[
        "empty",
        "no novelty",
        "some without novelty",
        "infinite novelty",
        "no class",
        "no decision",
        "unknown product",
    ],
)
def test_table_that_says_too_little_is_named(
    line: Path, capsys: pytest.CaptureFixture[str], rows: list[Prediction], message: str
) -> None:
    write_predictions(rows, line / "days/2", PREDICTED_FILE)
    error = refused(capsys, *days("1", "2"))
    assert "days/2/predicted.csv" in error
    assert message in error


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a,b\n1,2\n", "expected the columns image_path"), (b"", "not a table"), (b"\x00\xff\x89PNG\r\n", "table.csv")],
    ids=["other columns", "zero bytes", "no text"],
)
def test_file_that_is_no_table_is_named(
    line: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    Path("table.csv").write_bytes(content)
    error = refused(capsys, "days/1", "table.csv")
    assert "table.csv" in error
    assert message in error


def test_table_that_is_not_there_is_named(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "days/5 is not a table of predictions and contains none" in refused(capsys, *days("1", "5"))


def test_table_given_twice_is_named(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, *days("1", "2"), "days/../days/1/predicted.csv")
    assert "days/1 and days/../days/1/predicted.csv are the same table" in error


def test_file_as_output_is_named(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "days/1", "--output", "model.ckpt")
    assert "Expected a folder for monitor.html and monitor.csv as output, got the file model.ckpt" in said


def test_false_alarm_rate_out_of_range(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rate in ("0", "1", "-0.5", "1e-300", "9e-16"):
        assert "false_alarm_rate is out of range" in refused(capsys, "days/1", "--false_alarm_rate", rate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({CLASS_NAMES_KEY: None}, "Expected a checkpoint of anomalib_hgad.Hgad; this one is of another model"),
        (
            {VERSIONS_KEY: {"anomalib-hgad": "0.1.0", "anomalib": "2.7.0"}},
            "The checkpoint was made with anomalib-hgad 0.1.0",
        ),
        ({VERSIONS_KEY: None}, "Expected a checkpoint of a model of anomalib_hgad"),
        ({"state_dict": {THRESHOLD: torch.tensor(torch.nan)}}, "has no threshold"),
        ({"hyper_parameters": {"prior": "single_gaussian"}}, "has a single Gaussian for all products"),
    ],
    ids=["other model", "other version", "no version", "no threshold", "single Gaussian"],
)
def test_checkpoint_that_does_not_serve_is_refused(
    line: Path, checkpoint: dict[str, Any], capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    changed = {key: value for key, value in (checkpoint | change).items() if value is not None}
    torch.save(changed, "model.ckpt")
    assert message in refused(capsys, "days/1")


def test_checkpoint_that_is_none_is_named(line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.ckpt").write_bytes(b"cut")
    assert "model.ckpt (3 bytes) is not a checkpoint, or is truncated" in refused(capsys, "days/1")
    Path("model.ckpt").unlink()
    assert "model.ckpt is missing" in refused(capsys, "days/1")
