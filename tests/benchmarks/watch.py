# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images a second of a watch, beside those of the bare runtime with the same compiled model.

The bare runtime is OpenVINO's AsyncInferQueue. It gets images that were decoded before, which no line has, or decodes
each right before it is handed over. Both and the watch take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import openvino

sys.path.insert(0, str(Path(__file__).parents[2]))

from anomalib_hgad.data.folders import image_files
from anomalib_hgad.data.reading import read_pixels
from anomalib_hgad.deploy.arrays import as_input
from anomalib_hgad.deploy.watch.arrivals import Arrivals
from anomalib_hgad.deploy.watch.line import Line, PictureChoice
from anomalib_hgad.deploy.watch.scorer import Scorer
from anomalib_hgad.deploy.watch.table import Table

REPEATS = 5


def bare(scorer: Scorer, images: list[Callable[[], Any]]) -> int:
    """Score images by OpenVINO's own queue; give how many there were."""
    requests = scorer.model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    queue = openvino.AsyncInferQueue(scorer.model, requests)
    scores: list[float] = []
    queue.set_callback(lambda request, _: scores.append(request.get_tensor("pred_score").data.item()))
    for image in images:
        queue.start_async({0: image()}, share_inputs=True)
    queue.wait_all()
    return len(scores)


def watched(scorer: Scorer, folder: Path, pictures: str) -> int:
    """Score the images of a folder as the command does; give how many there were."""
    with TemporaryDirectory() as name:
        table = Table(Path(name) / "table.csv", scorer.identity)
        choice = PictureChoice(pictures, folder.resolve(), Path(name) / "pictures")
        line = Line(Arrivals(folder.resolve(), table.seen, 0, 10), scorer, table, choice)
        line.run(Event(), once=True)
        table.close()
        return line.counts.total()


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="exported file")
    parser.add_argument("--data", type=Path, required=True, help="folder with images")
    parser.add_argument("--json", type=Path, required=True, help="file to write the figures to")
    arguments = parser.parse_args(command)
    scorer = Scorer(arguments.model)
    files = image_files(arguments.data)
    decoded = [as_input(read_pixels(file)) for file in files]
    ways: dict[str, Callable[[], int]] = {
        "bare runtime, images decoded before": lambda: bare(scorer, [lambda image=image: image for image in decoded]),
        "bare runtime, images decoded one by one": lambda: bare(
            scorer, [lambda file=file: as_input(read_pixels(file)) for file in files]
        ),
        "watch": lambda: watched(scorer, arguments.data, "none"),
        "watch, pictures of all images": lambda: watched(scorer, arguments.data, "all"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    of_processor: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(REPEATS):
        for way, score in ways.items():
            start, before = time.perf_counter(), time.process_time()
            if score() != len(files):
                msg = f"{way} has not scored all {len(files)} images"
                raise RuntimeError(msg)
            seconds[way].append(time.perf_counter() - start)
            of_processor[way].append(time.process_time() - before)
    figures = {
        way: {
            "images/s": len(files) / statistics.median(seconds[way]),
            "processor, ms per image": 1000 * statistics.median(of_processor[way]) / len(files),
        }
        for way in ways
    }
    for way, values in figures.items():
        print(f"{way}: {', '.join(f'{value:.1f} {name}' for name, value in values.items())}", flush=True)
    made_with = {"images": len(files), "repeats": REPEATS, "cores": os.cpu_count(), "openvino": openvino.__version__}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"made_with": made_with, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
