# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Atomic writes: files and folders are complete or absent, even if the process that writes them is killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

UNFINISHED = ".part"
"""Suffix of a file or folder being written. Leftovers of a killed process are never read and may be deleted."""

READABLE = 40
"""Number of characters of a name that its temporary name keeps."""

NO_ROOM = 2**20
"""Free bytes below which a failed write is explained by a full disk."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full disk."""


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Make errors of a full disk name the path; the errors of Python and of exporters do not.

    Args:
        path: The file or folder being written.

    Raises:
        OSError: If the disk is full, with an errno of :data:`FULL`.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        folder = path if path.is_dir() else path.parent
        # PyTorch, OpenVINO and NumPy do not say why they could not write.
        if number is None and (shutil.disk_usage(folder).free < NO_ROOM or "problem writing element" in str(error)):
            number = errno.ENOSPC
        if number not in FULL:
            raise
        msg = f"{path} cannot be written: {os.strerror(number)}. Free some space, or choose another folder. What was "
        msg += "there before is unchanged."
        raise OSError(number, msg) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Open a temporary file that replaces ``path`` once it is complete and on the disk.

    Args:
        path: The final path. Its folder is created if missing.

    Yields:
        The file to write, in the same folder: a file is not renamed from one disk to another. Its name is unique to
        this process, as equal runs may write the same file at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(path)
    try:
        with explain_full_disk(path):
            yield unfinished
            _replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder that is renamed to ``path`` once it is complete.

    Args:
        path: The final path. An empty folder there is replaced; one with files stays, because another process has
            filled it in the meantime.

    Yields:
        The folder to fill, in the same parent folder.
    """
    unfinished = _beside(path)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        if not path.is_dir():
            unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_text(path: Path, write: Callable[[IO[str]], object]) -> None:
    """Write a text file and create its folder; an interrupted write leaves no partial file.

    Args:
        path: The file.
        write: Writes into the open file.
    """
    # File names in the text may have bytes that do not decode as UTF-8.
    with (
        atomic_write(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        write(file)


def write_json(values: Any, path: Path) -> None:  # noqa: ANN401
    """Write a JSON file; an interrupted write leaves no partial file.

    Args:
        values: JSON-serializable values.
        path: The file.
    """
    write_text(path, lambda file: json.dump(values, file, indent=2))


def move_whole(made: Path, place: Path) -> None:
    """Move a file and the files it refers to, replacing older ones of the same names.

    Args:
        made: The file, in a folder on the same disk with only the files it refers to.
        place: The final path.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    others = [file for file in made.parent.iterdir() if file != made]
    if others:
        # Better no file than an old one that refers to new files.
        place.unlink(missing_ok=True)
    for file in (*others, made):
        _replace(file, place.with_name(file.name))


def _beside(path: Path) -> Path:
    # No longer than a file name may be, whatever the name of the path.
    return path.with_name(f"{path.name[:READABLE]}.{uuid4().hex[:12]}{UNFINISHED}")


def _replace(file: Path, place: Path) -> None:
    with file.open("rb+") as written:
        os.fsync(written.fileno())
    file.replace(place)
