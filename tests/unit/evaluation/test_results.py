# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Tests of the figures of a test and the files they are written to."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from anomalib_hgad.data.reserved_names import MEAN, POOLED
from anomalib_hgad.evaluation.default_metrics import default_test_metrics
from anomalib_hgad.evaluation.results import Results, heading, read_results, results_table, write_results

RESULTS = Results(
    classes={
        "bottle": {"image_AUROC": 1.0, "pixel_AUROC": 0.9, "pixel_AUPRO": None},
        "tile, grey": {"image_AUROC": 0.5, "pixel_AUROC": None, "pixel_AUPRO": None},
    },
    pooled={"image_AUROC": 0.625, "pixel_AUROC": 0.8, "pixel_AUPRO": None},
)


def test_mean_is_over_the_classes_that_have_the_figure() -> None:
    assert RESULTS.mean == {"image_AUROC": 0.75, "pixel_AUROC": 0.9, "pixel_AUPRO": None}


def test_mean_of_a_figure_that_a_class_does_not_name() -> None:
    assert Results({"a": {}, "b": {"x": 0.25}, "c": {"x": 0.75}}, {"x": None}).mean == {"x": 0.5}


def test_zero_is_a_figure() -> None:
    assert Results({"a": {"x": 0.0}, "b": {"x": 0.5}}, {"x": 0.0}).mean == {"x": 0.25}


def test_csv_parses_back(tmp_path: Path) -> None:
    """Without the column that is nowhere defined."""
    write_results(RESULTS, tmp_path / "new" / "run")
    with (tmp_path / "new" / "run" / "results.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["class", "image_AUROC", "pixel_AUROC"],
            ["bottle", "1.0", "0.9"],
            ["tile, grey", "0.5", ""],
            [MEAN, "0.75", "0.9"],
            [POOLED, "0.625", "0.8"],
        ]


def test_json_parses_back(tmp_path: Path) -> None:
    write_results(RESULTS, tmp_path, "0123")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == {
        "mean": {"image_AUROC": 0.75, "pixel_AUROC": 0.9, "pixel_AUPRO": None},
        "classes": RESULTS.classes,
        "pooled": RESULTS.pooled,
        "model": "0123",
    }


def test_figures_keep_all_their_digits(tmp_path: Path) -> None:
    write_results(Results({"Flasche, grün": {"x": 1 / 3}}, {"x": 2 / 3}), tmp_path)
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], float(row["x"])) for row in rows[::2]] == [
        ("Flasche, grün", 1 / 3),
        (POOLED, 2 / 3),
    ]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_results(RESULTS, tmp_path)
    old = (tmp_path / "results.json").read_bytes()

    def fail(obj: object, file: io.TextIOBase, **kwargs: object) -> None:
        file.write('{"mean": {"image_AUR')
        raise error

    monkeypatch.setattr(json, "dump", fail)
    with pytest.raises(type(error)):
        write_results(Results({"bottle": {"x": 0.1}}, {"x": 0.1}), tmp_path)
    assert (tmp_path / "results.json").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.json"]


def test_files_have_the_permissions_of_any_other_file(tmp_path: Path) -> None:
    """Colleagues can read them where the user's umask lets them read files."""
    write_results(RESULTS, tmp_path)
    (tmp_path / "other").touch()
    expected = (tmp_path / "other").stat().st_mode
    assert [(tmp_path / name).stat().st_mode for name in ("results.csv", "results.json")] == [expected, expected]


def test_table_is_in_percent() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(results_table(RESULTS, "Test", {"bottle": 7, POOLED: 12}))
    lines = [line.replace("│", "").split() for line in console.file.getvalue().splitlines()]
    assert ["bottle", "100.0", "90.0", "7"] in lines
    assert ["tile,", "grey", "50.0", "–"] in lines
    assert [*MEAN.split(), "75.0", "90.0"] in lines
    assert [*POOLED.split(), "62.5", "80.0", "12"] in lines
    assert "Test" in console.file.getvalue()
    assert "percent" in console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_table_of_all_default_metrics_is_never_cut(width: int) -> None:
    names = [metric.name for metric in default_test_metrics()]
    values = dict.fromkeys(names, 1.0)
    long = "a product whose name takes more than half of the terminal"
    console = Console(file=io.StringIO(), width=width)
    console.print(results_table(Results({long: values}, values), "Test", {long: 100_000, POOLED: 100_000}))
    printed = console.file.getvalue()
    assert "…" not in printed
    assert printed.count("100.0") == 4 * 3
    cells = [line.replace("│", " ") for line in printed.splitlines() if line.startswith("│")]
    assert "".join(cells[0:3]).count("100000") == 1
    assert "More: results.csv" in " ".join(printed.split())


def test_table_has_metrics_of_a_user() -> None:
    values = {"own": 0.5, "image_AUROC": 0.9}
    console = Console(file=io.StringIO(), width=80)
    console.print(results_table(Results({"bolt": values}, values), "Test", {}))
    lines = [line.replace("│", "").split() for line in console.file.getvalue().splitlines()]
    assert ["bolt", "90.0", "50.0"] in lines
    assert "results.csv" not in console.file.getvalue()


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("image_F1Score", "image F1"),
        ("ClassAccuracy", "class Accuracy"),
        ("FalseAlarmRate", "false alarms"),
        ("class_given_image_AUROC", "class given image AUROC"),
    ],
)
def test_metrics_are_named_in_words(metric: str, words: str) -> None:
    assert heading(metric) == words


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_results(RESULTS, tmp_path, "0123")
    assert read_results(tmp_path / "results.json") == {
        "mean": RESULTS.mean,
        "classes": RESULTS.classes,
        "pooled": RESULTS.pooled,
        "model": "0123",
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"mean": {"image_AUROC": 1.0}, "classes": {"bolt": {"image_',
        b"[1, 2]",
        b"null",
        b'{"mean": {}, "pooled": {}}',
        b'{"mean": {}, "pooled": {}, "classes": []}',
        b'{"mean": {}, "pooled": {"image_AUROC": "high"}, "classes": {}}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
    ids=["empty", "cut short", "list", "nothing", "a part", "no classes", "words", "no text", "deep"],
)
def test_broken_results_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json is not what a test writes .* Test the model again"):
        read_results(path)


def test_results_that_an_editor_has_marked_are_read(tmp_path: Path) -> None:
    """Some begin every file with a byte-order mark."""
    path = tmp_path / "results.json"
    path.write_bytes(b'\xef\xbb\xbf{"mean": {}, "pooled": {}, "classes": {"bolt": {}}}')
    assert list(read_results(path)["classes"]) == ["bolt"]
