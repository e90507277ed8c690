# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of the demo's report for the documentation: ``python -m tests.benchmarks.pictures --output docs/images``.

It needs Chromium.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from anomalib_hgad import cli
from anomalib_hgad.demo import __main__ as demo
from tests.helpers import browser

DESKTOP, PHONE = (1280, 2000), (360, 1200)
"""Width of the page, and height of a piece of it, in pixels."""

COLUMNS = 4
"""Pieces of the page on a phone, side by side: a strip would be too long to be looked at."""

GAP = 24
QUALITY = 82


def desktop_picture(page: str, output: Path) -> None:
    """Write a picture of the top of a page on a screen.

    Args:
        page: HTML.
        output: JPEG file.
    """
    _drawn(page, *DESKTOP).save(output, quality=QUALITY)


def phone_picture(page: str, output: Path) -> None:
    """Write a picture of the top of a page on a phone, in columns.

    Args:
        page: HTML.
        output: JPEG file.
    """
    width, height = PHONE
    strip = _drawn(page, width, COLUMNS * height)
    columns = Image.new("RGB", (COLUMNS * (width + GAP) - GAP, height), "#8a939b")
    for number in range(COLUMNS):
        columns.paste(strip.crop((0, number * height, width, (number + 1) * height)), (number * (width + GAP), 0))
    columns.save(output, quality=QUALITY)


def _drawn(page: str, width: int, height: int) -> Image.Image:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.png"
        browser.picture(page, width, height, path)
        return Image.open(path).convert("RGB").crop((0, 0, width, height))


def main(command: list[str] | None = None) -> None:
    """Run the demo, or take a run of it, and write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pictures", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for report.jpg and report_phone.jpg")
    parser.add_argument("--run", type=Path, help="folder of a run of the demo; without it the demo is run")
    given = parser.parse_args(command)
    with tempfile.TemporaryDirectory() as name:
        folder, run = Path(name), given.run
        if run is None:
            engine = demo.main(["--data", str(folder / "hgad_demo"), "--results", str(folder / "results")])
            run = Path(engine.trainer.default_root_dir)
        cli.main(["report", str(run), "--output", str(folder / "report.html")])
        page = (folder / "report.html").read_text(encoding="utf-8")
    given.output.mkdir(parents=True, exist_ok=True)
    desktop_picture(page, given.output / "report.jpg")
    phone_picture(page, given.output / "report_phone.jpg")


if __name__ == "__main__":
    main()
