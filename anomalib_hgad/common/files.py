# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are there as a whole or not at all, whenever the process that writes them is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

UNFINISHED = ".part"
"""Ending of a file that is being written. What a killed process leaves is never read, and may be deleted."""


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
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:12]}{UNFINISHED}")
    try:
        yield unfinished
        _replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


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


def _replace(file: Path, place: Path) -> None:
    with file.open("rb+") as written:
        os.fsync(written.fileno())
    file.replace(place)
