# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Score the images that a line shows, as they appear."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Literal

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.deploy.watch.arrivals import Arrivals
from anomalib_hgad.deploy.watch.line import Line, PictureChoice
from anomalib_hgad.deploy.watch.scorer import Scorer
from anomalib_hgad.deploy.watch.table import Table


def watch(
    folder: Path,
    model: Path,
    output: Path,
    pictures: Literal["all", "anomalous", "none"] = "none",
    pictures_folder: Path | None = None,
    in_flight: int | None = None,
    settle: float = 0.2,
    give_up_after: float = 10.0,
    device: str = "CPU",
    once: bool = False,
) -> None:
    """Score images as they appear in a folder, and write a line of a table for each.

    It goes on until SIGTERM or SIGINT, finishes what is in flight, and ends with the status 0. Started anew with the
    same output it scores what is not in it yet.

    Args:
        folder: The folder; its subfolders are watched too.
        model: Exported OpenVINO file (.xml), or .onnx, of this package or of anomalib.
        output: The table, .csv or .jsonl. It is gone on with if it is there.
        pictures: Which images get a picture with anomaly map and mask; anomalous are bad and unknown ones.
        pictures_folder: Folder of the pictures. ``None`` is beside the output, with ``_pictures`` behind its name.
        in_flight: Most images in memory at a time. ``None`` is twice as many as keep the device busy.
        settle: Seconds for which a file has to stay as it is before it is read. 0 is for files that are renamed into
            place.
        give_up_after: Seconds for which an image that cannot be read, and does not change, is tried again.
        device: Device of OpenVINO.
        once: Stop when all images that are there have been scored.

    Raises:
        OSError: If folder or model are missing, or output or pictures cannot be written.
        ValueError: If a setting is wrong, or if model and output are not what is expected.
    """
    check_range("0 <= {} < inf", settle=settle, give_up_after=give_up_after)
    if in_flight is not None:
        check_range("1 <= {} < inf", in_flight=in_flight)
    root = _watched(folder)
    choice = PictureChoice(pictures, root, (pictures_folder or output.with_name(f"{output.stem}_pictures")).resolve())
    if pictures != "none":
        _check_pictures(choice)
    scorer = Scorer(model, device, in_flight)
    if pictures == "anomalous" and not scorer.has_threshold:
        msg = f"{model} has no threshold, by which an image would be anomalous: give --pictures all or none."
        raise ValueError(msg)
    table = Table(output, scorer.identity)
    try:
        if table.cut_off:
            print(f"{output}: the last line was cut off, and is written anew.", flush=True)
        print(f"Watching {root}: {len(table.seen)} images are in {output}.", flush=True)
        line = Line(Arrivals(root, table.seen, settle, give_up_after), scorer, table, choice)
        with _stopped_by_signals() as stop:
            line.run(stop, once=once)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(line.counts.items()))
        print(f"Scored {line.counts.total()} images{': ' if counts else ''}{counts}.", flush=True)
    finally:
        table.close()


def _watched(folder: Path) -> Path:
    """The folder by its one name, as the table has it."""
    if not folder.is_dir():
        msg = f"There is no folder {folder}. Make it first, or correct the path: images are expected to appear in it."
        raise FileNotFoundError(msg)
    if not os.access(folder, os.R_OK | os.X_OK):
        msg = f"No permission to read the folder {folder}. Give this user the right to."
        raise PermissionError(msg)
    return folder.resolve()


def _check_pictures(choice: PictureChoice) -> None:
    if choice.folder.is_relative_to(choice.root) or choice.root.is_relative_to(choice.folder):
        msg = f"Pictures in {choice.folder} would be taken for images of {choice.root}, and be scored. Give a "
        msg += "--pictures_folder that is neither in it nor above it."
        raise ValueError(msg)
    try:
        choice.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The folder {choice.folder} cannot be made for the pictures: {error.strerror}."
        raise OSError(msg) from error


@contextmanager
def _stopped_by_signals() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set. A second signal acts as ever, and ends the process at once."""
    stop = Event()
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number in numbers:
            signal.signal(number, before[number])
