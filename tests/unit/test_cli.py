# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-hgad`` imports what it needs and no more."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from zipfile import ZipFile
from zipimport import zipimporter

import pytest

import anomalib_hgad
from anomalib_hgad import cli
from tests.helpers.drawn_models import brightness_model, flat_image
from tests.helpers.paths import ROOT

SLOW = ("torch", "torchvision", "anomalib", "lightning", "timm", "pandas", "matplotlib", "sklearn", "scipy")
"""Packages whose import takes from half a second to ten."""

PROGRAM = f"""
import sys
from anomalib_hgad import cli
try:
    status = cli.main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print("imported:", *(name for name in {SLOW} if name in sys.modules))
sys.exit(status)
"""


def imported_by(*arguments: str | Path) -> list[str]:
    """Those of the slow packages that a command imports."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.rsplit("imported:", maxsplit=1)[1].split()


@pytest.mark.subprocess
@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"], ["watch", "--help"]], ids=" ".join)
def test_help_needs_no_slow_package(arguments: list[str]) -> None:
    assert imported_by(*arguments) == []


@pytest.mark.subprocess
def test_watch_needs_no_slow_package(tmp_path: Path) -> None:
    flat_image(tmp_path / "shown/a.png", 255, 255, 0)
    model, table = brightness_model(tmp_path / "model.xml"), tmp_path / "table.csv"
    options = ("--pictures=all", "--once")
    assert imported_by("watch", tmp_path / "shown", "--model", model, "--output", table, *options) == []
    assert table.read_text().count("\n") == 2
    assert (tmp_path / "table_pictures/a.png.jpg").is_file()


def test_help_says_what_every_function_says_of_itself_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for command, home in cli.COMMANDS.items():
        function = getattr(import_module(f"anomalib_hgad.{home}"), command.replace("-", "_"))
        assert f"{command} {function.__doc__.splitlines()[0]}" in shown


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_shows_its_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert "--config" in capsys.readouterr().out


def test_help_of_a_package_in_a_zip_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And of one without sources, as programs are frozen: it says less."""
    with ZipFile(tmp_path / "package.zip", "w") as archive:
        for home in {*cli.COMMANDS.values()} - {"report.command"}:
            file = f"anomalib_hgad/{home.replace('.', '/')}.py"
            archive.write(ROOT / file, file)
    monkeypatch.setattr(anomalib_hgad.__spec__, "loader", zipimporter(str(tmp_path / "package.zip")))
    for module, name in ((anomalib_hgad, "__init__"), (cli, "cli")):
        monkeypatch.setattr(module, "__file__", str(tmp_path / f"package.zip/anomalib_hgad/{name}.py"))
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "monitor Find products of a production line" in shown
    assert "Write one HTML page" not in shown


@pytest.mark.parametrize("lazily", [False, True])
def test_anomalib_that_is_missing_is_one_sentence(
    lazily: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> ModuleType:
        raise ImportError("lost", name="anomalib.models")

    def list_products(ckpt_path: str) -> None:
        """Import what takes long."""
        fail()

    lazy = SimpleNamespace(list_products=list_products)
    monkeypatch.setattr(cli, "import_module", (lambda _: lazy) if lazily else fail)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["list-products", "--ckpt_path", "model.ckpt"])
    said = capsys.readouterr().err
    assert re.search(r"error: anomalib-hgad \S+ works with anomalib.*is installed: lost\. Install a version", said)


def test_command_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["look"])
    assert "look" in capsys.readouterr().err
