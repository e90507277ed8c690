# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-hgad watch``, in this process and in one of its own that is stopped and killed."""

from __future__ import annotations

import csv
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from anomalib_hgad import cli
from anomalib_hgad.deploy.watch import arrivals, line
from tests.helpers import trees
from tests.helpers.drawn_models import brightness_model, flat_image, plain_model
from tests.helpers.paths import ROOT

COMMAND = [sys.executable, "-m", "anomalib_hgad.cli"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return brightness_model(tmp_path / "model.xml")


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """A folder with a good, a bad and an unknown image."""
    flat_image(tmp_path / "shown/good.png", 10, 20, 30)
    flat_image(tmp_path / "shown/cam1/bad.bmp", 255, 255, 0)
    flat_image(tmp_path / "shown/cam1/deep/unknown.png", 0, 255, 255)
    return tmp_path / "shown"


def watch(folder: Path, model: Path, output: Path, *options: str) -> int:
    return cli.main(
        ["watch", str(folder), "--model", str(model), "--output", str(output), "--once", "--settle=0", *options]
    )


def rows_of(output: Path) -> dict[str, dict[str, str]]:
    """Rows by the name of the image; no image may be there twice."""
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_name = {Path(row["image_path"]).name: row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to this in time"
        time.sleep(0.02)


@contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A watch in a process of its own, as systemd starts one."""
    started = subprocess.Popen(
        [*COMMAND, "watch", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def test_every_image_has_its_line(shown: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(shown, model, tmp_path / "table.csv") == 0
    rows = rows_of(tmp_path / "table.csv")
    assert {name: (row["verdict"], row["pred_class_name"], row["pred_label"]) for name, row in rows.items()} == {
        "good.png": ("good", "bolt", "False"),
        "bad.bmp": ("bad", "nut", "True"),
        "unknown.png": ("unknown", "unknown", "True"),
    }
    assert float(rows["good.png"]["pred_score"]) == pytest.approx(20 / 255, abs=1e-6)
    assert float(rows["unknown.png"]["novelty"]) == pytest.approx(2, abs=1e-6)
    assert rows["bad.bmp"]["image_path"] == str(shown.resolve() / "cam1/bad.bmp")
    assert rows["bad.bmp"]["time"].endswith("+00:00")
    assert "Scored 3 images: 1 bad, 1 good, 1 unknown." in capsys.readouterr().out
    assert not (tmp_path / "table_pictures").exists()


def test_again_it_scores_what_is_new(shown: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the folder is called."""
    watch(shown, model, tmp_path / "table.csv")
    before = (tmp_path / "table.csv").read_bytes()
    flat_image(shown / "later.png", 1, 2, 3)
    monkeypatch.chdir(shown)
    watch(Path(), model, tmp_path / "table.csv")
    after = (tmp_path / "table.csv").read_bytes()
    assert after.startswith(before)
    assert rows_of(tmp_path / "table.csv").keys() == {"good.png", "bad.bmp", "unknown.png", "later.png"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("all", {"good.png.jpg", "cam1/bad.bmp.jpg", "cam1/deep/unknown.png.jpg"}),
        ("anomalous", {"cam1/bad.bmp.jpg", "cam1/deep/unknown.png.jpg"}),
    ],
)
def test_pictures_that_are_asked_for(shown: Path, model: Path, tmp_path: Path, kind: str, expected: set[str]) -> None:
    watch(shown, model, tmp_path / "table.csv", f"--pictures={kind}")
    folder = tmp_path / "table_pictures"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == expected
    with Image.open(folder / "cam1/bad.bmp.jpg") as picture:
        assert picture.size == (12, 8)


@pytest.mark.parametrize("letter", ["a", "é"])
def test_image_of_the_longest_name_has_a_picture(letter: str, model: Path, tmp_path: Path) -> None:
    """Names have 255 bytes at most; two that end in different ways have two pictures."""
    stem = letter * ((255 - len("1.png")) // len(letter.encode()))
    for number in (1, 2):
        flat_image(tmp_path / f"shown/{stem}{number}.png", 255, 255, 0)
    assert watch(tmp_path / "shown", model, tmp_path / "table.csv", "--pictures=all") == 0
    assert len(rows_of(tmp_path / "table.csv")) == 2
    names = [path.name for path in (tmp_path / "table_pictures").iterdir()]
    assert len(names) == 2
    assert all(re.fullmatch(f"{letter}{{80,}}-[0-9a-f]{{16}}.jpg", name) for name in names)


def test_picture_that_cannot_be_saved_does_not_end_it(
    shown: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its place is taken by a folder."""
    (tmp_path / "table_pictures/good.png.jpg/x").mkdir(parents=True)
    assert watch(shown, model, tmp_path / "table.csv", "--pictures=all") == 0
    assert rows_of(tmp_path / "table.csv")["good.png"]["verdict"] == "good"
    assert (tmp_path / "table_pictures/cam1/bad.bmp.jpg").is_file()
    (record,) = caplog.records
    assert f"The picture of {shown / 'good.png'} was not saved" in record.getMessage()


def test_broken_images_have_a_line_that_says_why(
    shown: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Empty, text, cut short, cut in the header, with a short chunk, of no kind or 16 bits: all others are scored."""
    whole = (shown / "good.png").read_bytes()
    (shown / "cut.png").write_bytes(whole[: len(whole) - 20])
    (shown / "empty.png").touch()
    (shown / "text.png").write_text("this is text")
    Image.new("I;16", (5, 5), 40000).save(shown / "deep.png")
    for name in ("cut.pgm", "chunk.png"):
        trees.write_refused_image(shown / name)
    trees.write_dds_of_no_kind(shown / "dds.png")
    assert watch(shown, model, tmp_path / "table.csv", "--give_up_after=0.1") == 0
    rows = rows_of(tmp_path / "table.csv")
    faults = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert faults.keys() == {"cut.png", "empty.png", "text.png", "deep.png", "cut.pgm", "chunk.png", "dds.png"}
    assert all("cannot be read: " in fault for fault in faults.values())
    assert "more than 8 bits" in faults["deep.png"]
    assert {rows[name]["verdict"] for name in faults} == {""}
    assert rows["good.png"]["verdict"] == "good"
    assert len(caplog.records) == 7


def test_image_that_is_half_there_is_waited_for(shown: Path, model: Path, tmp_path: Path) -> None:
    """Its second half comes after the watch has tried to read the first."""
    whole = flat_image(tmp_path / "elsewhere.png", 200, 200, 0, size=(300, 300)).read_bytes()
    (shown / "half.png").write_bytes(whole[:-30])
    writer = threading.Timer(1, lambda: (shown / "half.png").write_bytes(whole))
    writer.start()
    watch(shown, model, tmp_path / "table.csv", "--give_up_after=30")
    writer.join()
    row = rows_of(tmp_path / "table.csv")["half.png"]
    assert (row["error"], row["verdict"]) == ("", "bad")


def test_no_more_images_are_read_than_may_be_in_flight(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        flat_image(tmp_path / f"shown/{number}.png", number, 0, 0)
    reading, most, lock = Counter(), [0], threading.Lock()
    read_pixels, append = line.read_pixels, line.Table.append

    def counted(path: str) -> object:
        with lock:
            reading["now"] += 1
            most[0] = max(most[0], reading["now"])
        return read_pixels(path)

    def slow_append(table: line.Table, row: dict[str, object]) -> None:
        time.sleep(0.01)
        append(table, row)
        with lock:
            reading["now"] -= 1

    monkeypatch.setattr(line, "read_pixels", counted)
    monkeypatch.setattr(line.Table, "append", slow_append)
    watch(tmp_path / "shown", model, tmp_path / "table.csv", "--in_flight=3")
    assert most == [3]
    assert len(rows_of(tmp_path / "table.csv")) == 40


def test_model_of_anomalibs_own_has_neither_class_nor_novelty(shown: Path, tmp_path: Path) -> None:
    watch(shown, plain_model(tmp_path / "plain.xml"), tmp_path / "table.csv")
    row = rows_of(tmp_path / "table.csv")["unknown.png"]
    assert (row["verdict"], row["pred_class_name"], row["novelty"]) == ("bad", "", "")


def no_folder(arguments: dict[str, str], folder: Path) -> None:
    arguments["folder"] = str(folder / "nowhere")


def no_model(arguments: dict[str, str], folder: Path) -> None:
    arguments["--model"] = str(folder / "model.ckpt")


def model_of_something(arguments: dict[str, str], folder: Path) -> None:
    (folder / "page.xml").write_text("<html>")
    arguments["--model"] = str(folder / "page.xml")


def ending(arguments: dict[str, str], folder: Path) -> None:
    arguments["--output"] = str(folder / "shown/table.png")


def below_a_file(arguments: dict[str, str], folder: Path) -> None:
    arguments["--output"] = str(folder / "model.xml/table.csv")


def pictures_inside(arguments: dict[str, str], folder: Path) -> None:
    arguments |= {"--output": str(folder / "shown/table.csv"), "--pictures": "all"}


def pictures_below_a_file(arguments: dict[str, str], folder: Path) -> None:
    arguments |= {"--pictures": "all", "--pictures_folder": str(folder / "model.xml/pictures")}


def no_threshold(arguments: dict[str, str], folder: Path) -> None:
    arguments["--model"] = str(brightness_model(folder / "no_threshold.xml", image_threshold=None))
    arguments["--pictures"] = "anomalous"


def old_table(arguments: dict[str, str], folder: Path) -> None:
    (folder / "table.csv").write_text("a,b\r\n1,2\r\n")


def none_in_flight(arguments: dict[str, str], folder: Path) -> None:
    arguments["--in_flight"] = "0"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_folder, "The folder .*nowhere does not exist. Create it"),
        (no_model, r"Expected an exported \.xml or \.onnx file, got .*model\.ckpt"),
        (model_of_something, r"page\.xml cannot be used by OpenVINO"),
        (ending, r"Expected an output that ends in \.csv or \.jsonl, got .*table\.png"),
        (below_a_file, r"The output .*table\.csv cannot be written: "),
        (pictures_inside, "would be scored as images of .*shown. Give a --pictures_folder"),
        (pictures_below_a_file, "for the pictures cannot be created: Not a directory"),
        (no_threshold, "has no threshold, so no image can be called anomalous"),
        (old_table, r"table\.csv is not a table of a watch: it has other columns"),
        (none_in_flight, "in_flight is out of range: expected 1 <= in_flight < inf, got 0"),
    ],
    ids=[
        "no folder",
        "no model",
        "broken model",
        "ending",
        "place",
        "pictures in the folder",
        "place of pictures",
        "no threshold",
        "other columns",
        "in flight",
    ],
)
def test_wrong_input_is_one_sentence(
    spoil: Callable[[dict[str, str], Path], None],
    said: str,
    shown: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = {"folder": str(shown), "--model": str(model), "--output": str(tmp_path / "table.csv")}
    spoil(arguments, tmp_path)
    folder = arguments.pop("folder")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["watch", folder, "--once", *(part for pair in arguments.items() for part in pair)])
    error = capsys.readouterr().err.split("error: ")[1].strip()
    assert re.search(said, error), error
    assert "\n" not in error


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_may_not_be_written(shown: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(SystemExit, match="2"):
        watch(shown, model, tmp_path / "locked/table.csv")


def test_subfolder_that_cannot_be_listed_is_an_error_with_once(
    shown: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be listed is scored."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path == str(shown / "cam1"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(arrivals.os, "scandir", refuse)
    with pytest.raises(SystemExit, match="2"):
        watch(shown, model, tmp_path / "table.csv")
    assert (
        f"1 of the folders could not be listed, such as {shown / 'cam1'}: their images were" in capsys.readouterr().err
    )
    assert rows_of(tmp_path / "table.csv").keys() == {"good.png"}


def test_output_that_nobody_reads_does_not_end_it(
    shown: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a pipe to a program that has ended, or a log on a full disk."""
    gone = StringIO()
    monkeypatch.setattr(gone, "write", Mock(side_effect=BrokenPipeError(errno.EPIPE, "Broken pipe")))
    monkeypatch.setattr(sys, "stdout", gone)
    assert watch(shown, model, tmp_path / "table.csv") == 0
    assert len(rows_of(tmp_path / "table.csv")) == 3


def test_full_disk_ends_it_with_a_sentence(
    shown: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not silently: what starts it again finds the images that are not in the table."""

    def fail(table: line.Table, row: dict[str, object]) -> None:
        raise OSError(28, "table.csv cannot be written: No space left on device")

    monkeypatch.setattr(line.Table, "append", fail)
    with pytest.raises(SystemExit, match="2"):
        watch(shown, model, tmp_path / "table.csv")
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    watch(shown, model, tmp_path / "table.csv")
    assert len(rows_of(tmp_path / "table.csv")) == 3


@pytest.mark.subprocess
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it_cleanly(number: signal.Signals, shown: Path, model: Path, tmp_path: Path) -> None:
    """It scores what comes later, too, and imports none of what takes seconds."""
    table = tmp_path / "table.jsonl"
    with process(shown, "--model", model, "--output", table) as running:
        wait_until(lambda: table.is_file() and table.read_text().count("\n") == 3)
        flat_image(shown / "later.png", 1, 2, 3)
        wait_until(lambda: table.read_text().count("\n") == 4)
        running.send_signal(number)
        printed, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "Scored 4 images: 1 bad, 2 good, 1 unknown." in printed


@pytest.mark.slow
@pytest.mark.subprocess
def test_killed_at_any_time_it_scores_no_image_twice(model: Path, tmp_path: Path) -> None:
    """By SIGKILL, again and again, until all images are in the table; every image once."""
    sample = flat_image(tmp_path / "sample.png", 10, 20, 30, size=(200, 200))
    (tmp_path / "shown").mkdir()
    for number in range(300):
        shutil.copy(sample, tmp_path / f"shown/{number:03}.png")
    table, options = tmp_path / "table.csv", ("--settle", "0")
    for scored in (5, 90, 200):
        with process(tmp_path / "shown", "--model", model, "--output", table, *options) as running:
            wait_until(lambda least=scored: table.is_file() and table.read_bytes().count(b"\n") > least)
            running.kill()
    cut = table.read_bytes()[:-7]  # what a crash of the machine may do to the last line
    table.write_bytes(cut)
    with process(tmp_path / "shown", "--model", model, "--output", table, *options, "--once") as running:
        printed, _ = running.communicate(timeout=120)
    assert running.returncode == 0, printed
    assert "the last line was incomplete; its image is scored again" in printed
    assert rows_of(table).keys() == {f"{number:03}.png" for number in range(300)}
