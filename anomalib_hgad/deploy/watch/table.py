# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The output file of a watch: a row for each image, complete or absent after a restart."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NoReturn

from anomalib_hgad.common.files import explain_full_disk
from anomalib_hgad.deploy.watch.seen_paths import SeenPaths
from anomalib_hgad.evaluation.predictions import COLUMNS, WATCH_COLUMNS

if sys.platform != "win32":
    import fcntl

ALL_COLUMNS = [*COLUMNS, *WATCH_COLUMNS]
"""Columns of the file, in order."""

CODEC = ("utf-8", "surrogateescape")
"""A file name may have bytes that are not text."""


class Table:
    """A CSV or JSON Lines file; rows are appended if it exists.

    Threads may share it.

    Args:
        path: The file; its suffix, .csv or .jsonl, selects the format.
        model: Identity of the model of the scores.

    Attributes:
        seen: Images in the file.
        cut_off: Bytes of a line left incomplete by a crash, which were removed.

    Raises:
        OSError: If it cannot be written, or if another process writes to it.
        ValueError: If it has another suffix, other columns, a broken line, or scores of another model.
    """

    def __init__(self, path: Path, model: str) -> None:
        if path.suffix not in {".csv", ".jsonl"}:
            msg = f"Expected an output that ends in .csv or .jsonl, got {path}."
            raise ValueError(msg)
        self.seen = SeenPaths()
        self._path = path
        self._model = model
        self._lock = Lock()
        self._is_csv = path.suffix == ".csv"
        self._file = _opened(path)
        try:
            end = self._read()
            self.cut_off = path.stat().st_size - end
            self._file.truncate(end)
            self._size = end
            if end == 0 and self._is_csv:
                self._write(_csv_line(ALL_COLUMNS))
        except BaseException:
            self._file.close()
            raise

    def append(self, row: dict[str, Any]) -> None:
        """Append a row.

        Args:
            row: Values of columns; the others are empty.

        Raises:
            OSError: If the disk is full, or if another program has moved, deleted, replaced or changed the file.
        """
        values = {name: row.get(name) for name in ALL_COLUMNS} | {"model": self._model}
        line = _csv_line(list(values.values())) if self._is_csv else json.dumps(values).encode() + b"\n"
        with self._lock:
            self._check_place()
            self._write(line)

    def close(self) -> None:
        """Write all rows to the disk and close the file."""
        with self._lock, explain_full_disk(self._path):
            os.fsync(self._file.fileno())
            self._file.close()

    def _check_place(self) -> None:
        """Check that the open file is still the one at its path, as it was left: rows would be lost otherwise."""
        there = os.fstat(self._file.fileno())
        try:
            is_same = os.path.samestat(there, self._path.stat())
        except OSError:
            is_same = False
        if not is_same or there.st_size != self._size:
            msg = f"{self._path} was moved, deleted, replaced or changed by another program while the watch wrote to "
            msg += "it. Start the watch again: it continues with what is there then. To rotate tables, stop it first."
            raise OSError(msg)

    def _write(self, line: bytes) -> None:
        with explain_full_disk(self._path):
            self._file.write(line)
            self._file.flush()  # so that other readers of the table find complete lines
        self._size += len(line)

    def _read(self) -> int:
        """Read the existing lines; return the number of bytes of the complete ones."""
        self._file.seek(0)
        records = _records(self._file) if self._is_csv else iter(self._file)
        end = 0
        for number, record in enumerate(records, start=1):
            if not record.endswith(b"\n"):
                self._check_start(end, record)
                return end
            row = self._row(number, record)
            if row is not None:
                self._check_row(number, row)
                self.seen.add(row["image_path"])
            end += len(record)
        return end

    def _check_start(self, end: int, rest: bytes) -> None:
        """Refuse another kind of file with one unterminated line, which would be removed as an incomplete row."""
        start = _csv_line(ALL_COLUMNS) if self._is_csv else f'{{"{ALL_COLUMNS[0]}": '.encode()
        if end == 0 and not start.startswith(rest[: len(start)]):
            self._refuse("it starts with something else")

    def _row(self, number: int, record: bytes) -> dict[str, Any] | None:
        """Values of a line; ``None`` for the names of the columns."""
        text = record.decode(*CODEC)
        try:
            if self._is_csv:
                (cells,) = csv.reader(io.StringIO(text, newline=""), strict=True)
                if number == 1 and cells == ALL_COLUMNS:
                    return None
                row: Any = dict(zip(ALL_COLUMNS, cells, strict=True)) if number > 1 else {}
            else:
                row = json.loads(text)
        except (ValueError, csv.Error) as error:
            self._refuse(f"line {number} is broken ({error})")
        if not isinstance(row, dict) or list(row) != ALL_COLUMNS:
            self._refuse("it has other columns")
        return row

    def _check_row(self, number: int, row: dict[str, Any]) -> None:
        if row["model"] != self._model:
            msg = f"{self._path} has scores of another model: {row['model']} in line {number}, now {self._model}. Use "
            msg += "a separate --output for each model."
            raise ValueError(msg)

    def _refuse(self, reason: str) -> NoReturn:
        msg = f"{self._path} is not a table of a watch: {reason}. It is left unchanged; give another --output."
        raise ValueError(msg)


def _opened(path: Path) -> BinaryIO:
    """Open a file for appending, locked against other processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+")
    except OSError as error:
        msg = (
            f"The output {path} cannot be written: {error.strerror}. Give a file in a folder that this user may write "
            "to."
        )
        raise OSError(msg) from error
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            msg = f"Another process writes to {path}: use a separate --output for each watch."
            raise OSError(msg) from error
    return file


def _csv_line(cells: list[Any]) -> bytes:
    text = io.StringIO(newline="")
    # With another line terminator, a carriage return in a file name would be written without quotes.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode(*CODEC)


def _records(file: BinaryIO) -> Iterator[bytes]:
    """CSV records with their line terminators; a quoted file name may contain a line break."""
    record = b""
    for line in file:
        record += line
        if record.count(b'"') % 2 == 0 and record.endswith(b"\n"):
            yield record
            record = b""
    if record:
        # Unterminated, whatever its last byte is.
        yield record.rstrip(b"\r\n")
