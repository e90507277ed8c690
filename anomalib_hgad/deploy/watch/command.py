# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Score images as they appear in a folder."""

# No `from __future__ import annotations`: jsonargparse reads the types of the arguments.

import os
import signal
import sys
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
    """Score images as they appear in a folder, and append a row to a table for each.

    Runs until SIGTERM or SIGINT, then finishes the images in flight and exits with status 0. Restarted with the same
    output, it resumes with the images that are not in it yet.

    Args:
        folder: The folder; its subfolders are watched too.
        model: Exported OpenVINO file (.xml), or .onnx, of this package or of anomalib.
        output: The table, .csv or .jsonl. If it exists, rows are appended.
        pictures: Which images get a picture with anomaly map and mask; anomalous means bad and unknown ones.
        pictures_folder: Folder of the pictures. ``None`` is the path of the output with ``_pictures`` instead of its
            suffix.
        in_flight: Maximum number of images in memory. ``None`` is twice as many as keep the device busy.
        settle: Seconds for which a file must not change before it is read. Use 0 for files that are renamed into place.
        give_up_after: Seconds for which reading an unreadable image that does not change is retried.
        device: OpenVINO device.
        once: Stop when all existing images have been scored.

    Raises:
        OSError: If folder or model are missing, if output or pictures cannot be written, or if ``once`` is set and a
            subfolder cannot be listed.
        ValueError: If a setting is wrong, or if model or output are not of the expected kind.
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
        msg = f"{model} has no threshold, so no image can be called anomalous: give --pictures all or none."
        raise ValueError(msg)
    table = Table(output, scorer.identity)
    try:
        if table.cut_off:
            _say(f"{output}: the last line was incomplete; its image is scored again.")
        _say(f"Watching {root}: {len(table.seen)} images are in {output}.")
        arrivals = Arrivals(root, table.seen, settle, give_up_after)
        line = Line(arrivals, scorer, table, choice)
        with _stopped_by_signals() as stop:
            line.run(stop, once=once)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(line.counts.items()))
        _say(f"Scored {line.counts.total()} images{': ' if counts else ''}{counts}.")
        if once and not stop.is_set() and (unlisted := arrivals.unlisted):
            msg = f"{len(unlisted)} of the folders could not be listed, such as {unlisted[0]}: their images were not "
            msg += "scored. Grant this user permission, or wait until the share is there, and start it again."
            raise OSError(msg)
    finally:
        table.close()


def _say(text: str) -> None:
    """Print a line; a closed output or a full disk must not end a watch."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = None  # Python flushes it at its end, and would fail again


def _watched(folder: Path) -> Path:
    """The resolved folder, as in the paths of the table."""
    if not folder.is_dir():
        msg = f"The folder {folder} does not exist. Create it, or correct the path: images are expected to appear in "
        msg += "it."
        raise FileNotFoundError(msg)
    if not os.access(folder, os.R_OK | os.X_OK):
        msg = f"No permission to read the folder {folder}. Grant it to this user."
        raise PermissionError(msg)
    return folder.resolve()


def _check_pictures(choice: PictureChoice) -> None:
    if choice.folder.is_relative_to(choice.root) or choice.root.is_relative_to(choice.folder):
        msg = f"Pictures in {choice.folder} would be scored as images of {choice.root}. Give a --pictures_folder that "
        msg += "is neither in it nor above it."
        raise ValueError(msg)
    try:
        choice.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The folder {choice.folder} for the pictures cannot be created: {error.strerror}."
        raise OSError(msg) from error


@contextmanager
def _stopped_by_signals() -> Iterator[Event]:
    """An event that SIGTERM and SIGINT set. A second signal has its usual effect and ends the process at once."""
    stop = Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
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
