# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Progress of what takes long: a bar on a terminal, lines in a log."""

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
"""Time between two lines of a task in a log: a short one has a line when it ends alone."""


def is_interactive(console: Console) -> bool:
    """Whether what was printed can be drawn over, as on a terminal and in a notebook, but not in a file."""
    return console.is_terminal or console.is_jupyter


class LoggedTask:
    """Lines of a task in a log: one for each tenth, and one when it ends.

    Args:
        description: What is done.
        total: Number of steps. ``None`` if it is not known: there is a line when it starts then, and none of tenths.
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
        """Say that the task is done."""
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
    """Show how far an iteration is.

    Args:
        steps: What is iterated over.
        description: What is done.
        total: Number of steps. Defaults to ``None``, the length of ``steps`` if they have one.
        within: Bars that are on the terminal already: there can be one display of bars at a time.
            Defaults to ``None``, none.
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
    """Show how far an iteration within a run of Lightning is, beside the bars of the run; see :func:`track`.

    Args:
        trainer: Trainer of the run.
        steps: What is iterated over.
        description: What is done.
        total: Number of steps.

    Returns:
        The steps.
    """
    bars = getattr(trainer.progress_bar_callback, "progress", None)
    live = isinstance(bars, Progress) and bars.live.is_started
    return track(steps, description, total, within=bars if live else None, shown=shows_progress(trainer))


@contextmanager
def phase(description: str) -> Iterator[None]:
    """Show that something of unknown length is under way, and how long it has taken.

    Args:
        description: What is done.
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
