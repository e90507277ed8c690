# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a watch takes of main memory while images come by the ten thousands. Linux only.

``python -m tests.stress.watch`` shows 100 000 images to a watch in a process of its own, as fast as it scores them, and
prints the resident memory of the process. The images are few files under many names, and the model is tiny: what is
measured is what is kept of an image, not what a model takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.drawn_models import brightness_model, flat_image

AHEAD = 500
"""Images that are there and not yet scored."""

IN_A_FOLDER = 10_000
"""Images in a subfolder, as of a shift."""

SIZES = ((64, 64), (80, 60), (100, 100), (64, 48))


def memory(process: int) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def watched(images: int, samples: int, folder: Path) -> list[tuple[int, int]]:
    """Show images to a watch.

    Args:
        images: How many.
        samples: How often its memory is looked at.
        folder: Where the files are put.

    Returns:
        Images that were scored, and bytes of resident memory then.

    Raises:
        RuntimeError: If the watch ends early, or if an image is not in its table once.
    """
    model, table = brightness_model(folder / "model.xml"), folder / "table.csv"
    originals = [flat_image(folder / f"{number}.png", number, 0, 0, SIZES[number % len(SIZES)]) for number in range(40)]
    (folder / "shown").mkdir()
    command = [sys.executable, "-m", "anomalib_hgad.cli", "watch", folder / "shown", "--model", model]
    # Names come into being as a whole here.
    process = subprocess.Popen([*command, "--output", table, "--settle", "0"], stdout=subprocess.DEVNULL)
    taken, shown, scored, lines = [], 0, -1, 0
    try:
        reader = None
        while scored < images:
            if process.poll() is not None:
                msg = f"the watch has ended with {process.returncode}"
                raise RuntimeError(msg)
            while shown < min(images, max(scored, 0) + AHEAD):
                place = folder / "shown" / str(shown // IN_A_FOLDER) / f"{shown:08}.png"
                place.parent.mkdir(exist_ok=True)
                place.hardlink_to(originals[shown % len(originals)])
                shown += 1
            if reader is None and table.is_file():
                reader = table.open("rb")
            lines += reader.read().count(b"\n") if reader else 0
            scored = lines - 1
            if scored >= (len(taken) + 1) * images // samples:
                taken.append((scored, memory(process.pid)))
            time.sleep(0.02)
    finally:
        process.terminate()
        process.wait()
    rows = table.read_text().splitlines()[1:]
    if len({row.partition(",")[0] for row in rows}) != images or len(rows) != images:
        msg = f"{len(rows)} lines for {images} images"
        raise RuntimeError(msg)
    return taken


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for count, size in watched(arguments.images, 20, Path(name)):
            print(f"{count} images: {size / 1e6:.1f} MB")
