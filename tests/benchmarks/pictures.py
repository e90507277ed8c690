# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of the demo for the documentation: ``python -m tests.benchmarks.pictures --output docs/images``.

What it prints, on terminals of two widths, and its report. The report needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich
from PIL import Image

from anomalib_hgad import cli
from anomalib_hgad.data.reserved_names import POOLED
from anomalib_hgad.demo import __main__ as demo
from anomalib_hgad.evaluation.predictions import read_predictions
from anomalib_hgad.evaluation.results import Results, read_results
from anomalib_hgad.evaluation.terminal import show_test
from tests.helpers import browser

DESKTOP, PHONE = (1280, 2000), (360, 1200)
"""Width of the page, and height of a piece of it, in pixels."""

COLUMNS = 4
"""Pieces of the page on a phone, side by side: a strip would be too long to be looked at."""

TERMINALS = (80, 120)
"""Characters in a line."""

SHOWN_RUN = Path("results/Hgad/hgad_demo/v0")
"""Where the demo's results are by default."""

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


def terminal_picture(run: Path, columns: int, output: Path) -> None:
    """Write a picture of what a test prints when it is over.

    Args:
        run: Folder of the tested run.
        columns: Characters in a line.
        output: SVG file.
    """
    content = read_results(run / "results.json")
    images = Counter(str(row.class_name) for row in read_predictions(run))
    images[POOLED] = images.total()
    place = Path.cwd() / SHOWN_RUN
    trainer: Any = SimpleNamespace(
        default_root_dir=place,
        callbacks=[],
        ckpt_path=place / "weights/lightning/model.ckpt",
        checkpoint_callback=None,
        world_size=1,
    )
    rich.reconfigure(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    show_test(trainer, Results(content["classes"], content["pooled"]), images, "Hgad")
    drawn = rich.get_console().export_svg(title="python -m anomalib_hgad.demo")
    # The fonts would be loaded from the network.
    output.write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL), encoding="utf-8")
    rich.reconfigure()


def _drawn(page: str, width: int, height: int) -> Image.Image:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.png"
        browser.picture(page, width, height, path)
        return Image.open(path).convert("RGB").crop((0, 0, width, height))


def main(command: list[str] | None = None) -> None:
    """Run the demo, or take a run of it, and write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pictures", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
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
        for columns in TERMINALS:
            terminal_picture(run, columns, given.output / f"terminal_{columns}.svg")
    desktop_picture(page, given.output / "report.jpg")
    phone_picture(page, given.output / "report_phone.jpg")


if __name__ == "__main__":
    main()
