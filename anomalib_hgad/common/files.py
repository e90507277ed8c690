# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files and folders that are there as a whole or not at all, whenever the process that writes them is killed."""

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
"""Ending of a file or folder that is being written. What a killed process leaves is never read, and may be deleted."""

NO_ROOM = 2**20
"""Bytes that are left on a disk that is full to whoever writes large files."""


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Let a disk that becomes full be named; neither Python's error nor that of an exporter says which it is.

    Args:
        path: The file or folder that is written.

    Raises:
        OSError: If there was no room.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        folder = path if path.is_dir() else path.parent
        # PyTorch, OpenVINO and NumPy do not say why they could not write.
        if number is None and (shutil.disk_usage(folder).free < NO_ROOM or "problem writing element" in str(error)):
            number = errno.ENOSPC
        if number not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        msg = f"{path} cannot be written: {os.strerror(number)}. Make room there, or choose another folder. What was "
        msg += "there before is as it was."
        raise OSError(number, msg) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of another one when it is complete and on the disk.

    Args:
        path: The place. Its folder is made if there is none.

    Yields:
        The file to write, beside that place: a file is not renamed from one disk to another. Its name is of this
        process alone, as equal runs may write the same file together.
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
    """A folder to fill, which takes its place when it is complete.

    Args:
        path: The place. An empty folder there is replaced. One with files in it stays: another process has filled it
            meanwhile.

    Yields:
        The folder to fill, beside that place.
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
    """Write a text file and its folder; an interrupted write leaves no half file behind.

    Args:
        path: The file.
        write: Writes into the open file.
    """
    # The name of a file may have bytes that are no text.
    with (
        atomic_write(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        write(file)


def write_json(values: Any, path: Path) -> None:  # noqa: ANN401
    """Write a JSON file; an interrupted write leaves no half file behind.

    Args:
        values: What JSON can hold.
        path: The file.
    """
    write_text(path, lambda file: json.dump(values, file, indent=2))


def move_whole(made: Path, place: Path) -> None:
    """Move a file, with those beside it that it refers to, over older ones of these names.

    Args:
        made: The file, in a folder on the same disk that holds nothing else but what it refers to.
        place: Where it is to be.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    others = [file for file in made.parent.iterdir() if file != made]
    if others:
        # None rather than an old one that refers to new files.
        place.unlink(missing_ok=True)
    for file in (*others, made):
        _replace(file, place.with_name(file.name))


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{uuid4().hex[:12]}{UNFINISHED}")


def _replace(file: Path, place: Path) -> None:
    with file.open("rb+") as written:
        os.fsync(written.fileno())
    file.replace(place)
