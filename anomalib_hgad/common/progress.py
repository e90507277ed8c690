# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Progress of long tasks: a bar on a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from lightning.pytorch import Trainer
from rich import get_console
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Step = TypeVar("Step")

LEAST_SECONDS = 2
"""Shortest time between two lines of a task in a log: a short task has a line at its end only."""


def is_interactive(console: Console) -> bool:
    """Whether output can be redrawn, as on a terminal or in a notebook but not in a file."""
    return console.is_terminal or console.is_jupyter


class LoggedTask:
    """Lines of a task in a log: one for each tenth, and one when it ends.

    Args:
        description: Name of the task.
        total: Number of steps. ``None`` if unknown: then there is a line at the start, and none for tenths.
    """

    def __init__(self, description: str, total: int | None) -> None:
        self._description, self._total = description, total
        self._tenths = self._done = 0
        self._start = self._last = time.monotonic()
        if total is None:
            self._print(f"{description} ...")

    def advance(self) -> None:
        """Count a step."""
        self._done += 1
        tenths = 10 * self._done // self._total if self._total else 0
        if tenths in {self._tenths, 10} or time.monotonic() - self._last < LEAST_SECONDS:
            return
        self._tenths, self._last = tenths, time.monotonic()
        self._print(f"{self._description}: {10 * tenths} %, {self._elapsed}")

    def end(self) -> None:
        """Log that the task is done."""
        self._print(f"{self._description}: done, {self._elapsed}")

    @property
    def _elapsed(self) -> timedelta:
        return timedelta(seconds=round(time.monotonic() - self._start))

    @staticmethod
    def _print(line: str) -> None:
        get_console().print(line, soft_wrap=True, highlight=False, markup=False)


def track(
    steps: Iterable[Step],
    description: str,
    total: int | None = None,
    *,
    within: Progress | None = None,
    shown: bool = True,
) -> Iterator[Step]:
    """Show the progress of an iteration.

    Args:
        steps: What to iterate over.
        description: Name of the task.
        total: Number of steps. Defaults to ``None``, the length of ``steps`` if they have one.
        within: Progress display that is already on the terminal, which can have one at a time.
            Defaults to ``None``.
        shown: Whether anything is shown. Defaults to ``True``.

    Yields:
        The steps.
    """
    if not shown:
        yield from steps
    elif not is_interactive(get_console()):
        task = LoggedTask(description, _length(steps) if total is None else total)
        for step in steps:
            yield step
            task.advance()
        task.end()
    elif within is not None:
        bar = within.add_task(description, total=_length(steps) if total is None else total)
        try:
            for step in steps:
                yield step
                within.update(bar, advance=1)
        finally:
            within.remove_task(bar)
    else:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=get_console()) as progress:
            yield from progress.track(steps, total=total, description=description)


def shows_progress(trainer: Trainer) -> bool:
    """Whether this process is the one to show progress, and the user has not turned it off."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None


def track_within(trainer: Trainer, steps: Iterable[Step], description: str, total: int) -> Iterator[Step]:
    """Show the progress of an iteration within a Lightning run, below the bars of the run; see :func:`track`.

    Args:
        trainer: Trainer of the run.
        steps: What to iterate over.
        description: Name of the task.
        total: Number of steps.

    Returns:
        The steps.
    """
    bars = getattr(trainer.progress_bar_callback, "progress", None)
    live = isinstance(bars, Progress) and bars.live.is_started
    return track(steps, description, total, within=bars if live else None, shown=shows_progress(trainer))


@contextmanager
def phase(description: str) -> Iterator[None]:
    """Show that a task of unknown length is running, and its elapsed time.

    Args:
        description: Name of the task.
    """
    if not is_interactive(get_console()):
        task = LoggedTask(description, None)
        yield
        task.end()
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=get_console()) as bar:
        task_id = bar.add_task(description, total=1)
        yield
        bar.update(task_id, completed=1)


def _length(steps: Iterable[Step]) -> int | None:
    return len(steps) if isinstance(steps, Sized) else None
