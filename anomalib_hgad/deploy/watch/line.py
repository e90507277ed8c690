# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Passes images from the folder to the table, several at a time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import BoundedSemaphore, Event, Lock
from typing import Any

import numpy as np

from anomalib_hgad.common.files import FULL, atomic_write
from anomalib_hgad.data.reading import UNREADABLE, read_pixels
from anomalib_hgad.deploy.watch.arrivals import MOST_READY, Arrivals
from anomalib_hgad.deploy.watch.pictures import draw, picture_path
from anomalib_hgad.deploy.watch.scorer import Scored, Scorer
from anomalib_hgad.deploy.watch.table import Table

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""Minimum seconds between two listings of the folder."""

LOOK_SHARE = 0.1
"""Maximum share of the time spent listing: a folder with very many images is listed less often."""

NOT_SCORED = "not scored"
"""Counted instead of a verdict for an image with an error."""


@dataclass(frozen=True)
class PictureChoice:
    """Which pictures are saved, and where.

    Attributes:
        kind: ``"all"``, ``"anomalous"`` for bad and unknown images, or ``"none"``.
        root: The watched folder.
        folder: Folder for the pictures.
    """

    kind: str
    root: Path
    folder: Path

    def wants(self, scored: Scored) -> bool:
        """Whether an image gets a picture."""
        return self.kind == "all" or (self.kind == "anomalous" and scored.verdict in {"bad", "unknown"})

    def save(self, path: str, pixels: np.ndarray, scored: Scored) -> None:
        """Save the picture of an image, complete or not at all."""
        with atomic_write(picture_path(Path(path), self.root, self.folder)) as unfinished:
            draw(pixels, scored).save(unfinished, "JPEG", quality=90)


class Line:
    """Scores images as they arrive.

    One thread handles an image from its file to its row in the table, so that no more images are in memory than there
    are threads. A failed inference belongs to one image; OpenVINO's own queue does not report to which.

    Args:
        arrivals: The images.
        scorer: The model.
        table: The table for the results.
        pictures: Which pictures are saved.

    Attributes:
        counts: Number of images with each verdict.
    """

    def __init__(self, arrivals: Arrivals, scorer: Scorer, table: Table, pictures: PictureChoice) -> None:
        self._arrivals = arrivals
        self._scorer = scorer
        self._table = table
        self._pictures = pictures
        self._slots = BoundedSemaphore(scorer.in_flight)
        self._failure: BaseException | None = None
        self._counting = Lock()
        self.counts: Counter[str] = Counter()

    def run(self, stop: Event, *, once: bool) -> None:
        """Score images until stopped, then finish those in flight.

        Args:
            stop: Event that stops it when set.
            once: Whether to stop when all existing images have been scored.

        Raises:
            OSError: If a line cannot be written, or if the disk is full.
        """
        with ThreadPoolExecutor(self._scorer.in_flight, "watch") as pool:
            while not stop.is_set() and self._failure is None:
                start = time.monotonic()
                ready = self._arrivals.look()
                looked = time.monotonic()
                for path in ready:
                    if not self._has_slot(stop):
                        break
                    pool.submit(self._process, path)
                if once and not ready and self._arrivals.is_empty:
                    break
                if len(ready) < MOST_READY:
                    pause = max(LOOK_SECONDS, (looked - start) / LOOK_SHARE)
                    stop.wait(max(0.0, looked + pause - time.monotonic()))
        if self._failure is not None:
            raise self._failure

    def _has_slot(self, stop: Event) -> bool:
        """Wait until one more image may be in flight, or until it is stopped."""
        while not stop.is_set() and self._failure is None:
            if self._slots.acquire(timeout=LOOK_SECONDS):
                return True
        return False

    def _process(self, path: str) -> None:
        try:
            row = self._scored(path)
            if row is not None:
                self._table.append({"image_path": path, "time": _now()} | row)
                self._arrivals.finish(path)
                with self._counting:
                    self.counts[row["verdict"] or (NOT_SCORED if row.get("error") else "without a verdict")] += 1
        except BaseException as error:  # noqa: BLE001 - raised by the thread that runs the line
            self._failure = self._failure or error
        finally:
            self._slots.release()

    def _scored(self, path: str) -> dict[str, Any] | None:
        """Table row of an image; ``None`` if it is incomplete or deleted."""
        try:
            pixels = read_pixels(path)
            if self._arrivals.has_changed(path):
                self._arrivals.put_back(path)
                return None
        except UNREADABLE as error:
            if not self._arrivals.is_given_up(path):
                self._arrivals.put_back(path)
                return None
            return self._fault(path, error)
        try:
            scored = self._scorer.score(pixels, with_map=self._pictures.kind != "none")
        except (ValueError, RuntimeError) as error:
            return self._fault(path, error)
        if self._pictures.wants(scored):
            self._save_picture(path, pixels, scored)
        return scored.values | {"verdict": scored.verdict}

    def _save_picture(self, path: str, pixels: np.ndarray, scored: Scored) -> None:
        try:
            self._pictures.save(path, pixels, scored)
        except OSError as error:
            if error.errno in FULL:
                raise
            logger.warning("The picture of %s was not saved: %s", path, error)

    def _fault(self, path: str, error: Exception) -> dict[str, Any]:
        text = " ".join(str(error).split())
        logger.warning("%s was not scored: %s", path, text)
        return {"verdict": None, "error": text}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
