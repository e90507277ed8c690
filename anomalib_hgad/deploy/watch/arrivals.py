# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Images of a folder that are complete and have not been scored yet.

The folder is listed repeatedly: network shares, from which most cameras' images come, send no notifications.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
import stat
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock

from anomalib_hgad.data.reading import IMAGE_SUFFIXES
from anomalib_hgad.deploy.watch.seen_paths import SeenPaths

logger = logging.getLogger(__name__)

MOST_READY = 500
"""Images handed out per listing. As many more are already known, so that the next listing need not wait for them."""

CHUNK = 4096
"""Names of a folder that are in memory at a time."""

RETRY_SECONDS = 0.5
"""Seconds after which reading an unreadable image is retried."""


@dataclass
class Waiting:
    """An image that was seen but not scored yet.

    Attributes:
        state: Its file size and modification time.
        since: When it was first seen in this state, in seconds of the monotonic clock.
        due: When it may be read.
        is_taken: Whether it was handed out.
    """

    state: tuple[int, int]
    since: float
    due: float
    is_taken: bool = False


class Arrivals:
    """Images of a folder and its subfolders, each handed out once when it has not changed for a while.

    One thread calls :meth:`look`; all threads may call the other methods.

    Args:
        folder: The folder.
        seen: Paths of images that were scored before.
        settle: Seconds for which the file size and modification time of an image must not change.
        give_up_after: Seconds after its last change for which reading an unreadable image is retried.
    """

    def __init__(self, folder: Path, seen: SeenPaths, settle: float, give_up_after: float) -> None:
        self._folder = folder
        self._seen = seen
        self._settle = settle
        self._give_up_after = give_up_after
        self._waiting: dict[str, Waiting] = {}
        self._unlisted: set[str] = set()
        self._named: set[str] = set()
        self._lock = Lock()

    @property
    def is_empty(self) -> bool:
        """Whether no image is waiting to be scored."""
        with self._lock:
            return not self._waiting

    @property
    def unlisted(self) -> list[str]:
        """Folders that could not be listed the last time."""
        return sorted(self._unlisted)

    def look(self) -> list[str]:
        """List the folder.

        Returns:
            Paths of complete images, in order; they now count as handed out.
        """
        found = heapq.nsmallest(2 * MOST_READY, self._unseen())
        states = {path: state for path in found if (state := _state(path)) is not None}
        now = time.monotonic()
        ready: list[str] = []
        with self._lock:
            # Another thread may have scored one since it was listed.
            here = set(self._seen.unseen(list(states)))
            self._waiting = {
                path: waiting for path, waiting in self._waiting.items() if waiting.is_taken or path in here
            }
            for path, state in states.items():
                if path not in here:
                    continue
                waiting = self._waiting.get(path)
                if waiting is None or (waiting.state != state and not waiting.is_taken):
                    waiting = self._waiting[path] = Waiting(state, now, now + self._settle)
                if not waiting.is_taken and now >= waiting.due and len(ready) < MOST_READY:
                    waiting.is_taken = True
                    ready.append(path)
        return ready

    def has_changed(self, path: str) -> bool:
        """Whether an image has changed since it was handed out; one that was deleted since then was complete."""
        with self._lock:
            return _state(path) not in {None, self._waiting[path].state}

    def finish(self, path: str) -> None:
        """Mark an image as written to the table."""
        with self._lock:
            self._seen.add(path)
            del self._waiting[path]

    def put_back(self, path: str) -> None:
        """Hand out an image again later, when it is due and still exists."""
        with self._lock:
            waiting = self._waiting[path]
            waiting.is_taken, waiting.due = False, time.monotonic() + max(self._settle, RETRY_SECONDS)

    def is_given_up(self, path: str) -> bool:
        """Whether an unreadable image has not changed for ``give_up_after`` seconds, so that it counts as broken."""
        with self._lock:
            waiting = self._waiting[path]
            return _state(path) == waiting.state and time.monotonic() - waiting.since >= self._give_up_after

    def _unseen(self) -> Iterator[str]:
        before, self._unlisted = self._unlisted, set()
        for chunk in self._listed(str(self._folder), before):
            entries = {entry.path: entry for entry in chunk}
            yield from (path for path in self._seen.unseen(list(entries)) if self._is_file(entries[path]))

    def _listed(self, folder: str, unlisted: Container[str]) -> Iterator[list[os.DirEntry[str]]]:
        """Entries with the suffix of an image below a folder, without hidden ones.

        Args:
            folder: The folder.
            unlisted: Folders that a warning has already named, as they cannot be listed.
        """
        subfolders = []
        try:
            with os.scandir(folder) as entries:
                if not os.access(folder, os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                visible = (entry for entry in entries if not entry.name.startswith("."))
                while chunk := list(islice(visible, CHUNK)):
                    subfolders += [entry.path for entry in chunk if entry.is_dir(follow_symlinks=False)]
                    images = [entry for entry in chunk if entry.name.lower().endswith(IMAGE_SUFFIXES)]
                    self._name_links({*chunk}.difference(images))
                    yield images
        except OSError as error:
            # A subfolder may have been deleted since it was seen.
            if not isinstance(error, FileNotFoundError) or folder == str(self._folder):
                if folder not in unlisted:
                    logger.warning("The folder %s cannot be listed now; will retry: %s.", folder, error.strerror)
                self._unlisted.add(folder)
        for subfolder in subfolders:
            yield from self._listed(subfolder, unlisted)

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a file, or a link to one; a broken link must not take the place of an image."""
        try:
            if entry.is_file():
                return True
            entry.stat()
        except OSError as error:
            if entry.is_symlink():
                self._warn_once(entry.path, f"{entry.path} is a link that leads to no file: {error.strerror}.")
        return False

    def _name_links(self, entries: Iterable[os.DirEntry[str]]) -> None:
        """Warn of links to folders, which may lead back and are not followed."""
        for entry in entries:
            if (
                entry.is_symlink()
                and entry.path not in self._named
                and Path(entry.path).is_dir()
                and not Path(entry.path).resolve().is_relative_to(self._folder)
            ):
                text = f"{entry.path} is a link to a folder and is not followed: its images are not scored. Watch the "
                self._warn_once(entry.path, text + "folder itself, with an output of its own.")

    def _warn_once(self, path: str, text: str) -> None:
        if path not in self._named:
            self._named.add(path)
            logger.warning("%s", text)


def _state(path: str) -> tuple[int, int] | None:
    """Size and modification time of a file; ``None`` if it is not a file, or no longer exists."""
    try:
        status = os.stat(path)  # noqa: PTH116 - thousands of times a second
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
