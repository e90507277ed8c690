# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Progress as a terminal and as a log show it."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import rich
from rich.console import Console
from rich.progress import Progress

from anomalib_hgad.common import progress
from anomalib_hgad.common.progress import LoggedTask, phase, track, track_within


def on(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    file = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=file, force_terminal=terminal, width=80))
    return file


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until it is set."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def test_log_has_a_line_for_each_tenth_and_the_end(monkeypatch: pytest.MonkeyPatch, seconds: SimpleNamespace) -> None:
    file = on(monkeypatch, terminal=False)
    for step in track(range(40), "Reading"):
        seconds.now = 5.0 * (step + 1)
    lines = file.getvalue().splitlines()
    times = ["0:00:20", "0:00:40", "0:01:00", "0:01:20", "0:01:40", "0:02:00", "0:02:20", "0:02:40", "0:03:00"]
    assert lines[:-1] == [f"Reading: {10 * tenth} %, {time}" for tenth, time in enumerate(times, 1)]
    assert lines[-1] == "Reading: done, 0:03:20"


def test_short_task_has_one_line_in_a_log(monkeypatch: pytest.MonkeyPatch, seconds: SimpleNamespace) -> None:
    file = on(monkeypatch, terminal=False)
    assert list(track(iter("ab"), "Reading", 2)) == ["a", "b"]
    assert file.getvalue() == "Reading: done, 0:00:00\n"


def test_task_of_unknown_length_says_when_it_starts(monkeypatch: pytest.MonkeyPatch, seconds: SimpleNamespace) -> None:
    file = on(monkeypatch, terminal=False)
    with phase("Exporting"):
        assert file.getvalue() == "Exporting ...\n"
        seconds.now = 65
    assert file.getvalue().splitlines()[1:] == ["Exporting: done, 0:01:05"]


def test_names_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    file = on(monkeypatch, terminal=False)
    LoggedTask("[red]a[/red]", None)
    assert file.getvalue() == "[red]a[/red] ...\n"


def test_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    file = on(monkeypatch, terminal=True)
    assert list(track([1, 2, 3], "Reading")) == [1, 2, 3]
    assert "Reading" in file.getvalue()
    assert "3/3" in file.getvalue()


def test_bar_joins_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves when it is done, or has failed."""
    on(monkeypatch, terminal=True)
    with Progress() as bars:
        trainer = SimpleNamespace(is_global_zero=True, progress_bar_callback=SimpleNamespace(progress=bars))
        steps = track_within(trainer, iter("ab"), "Calibrating", 2)
        next(steps)
        (task,) = bars.tasks
        assert (task.description, task.total, task.completed) == ("Calibrating", 2, 0)
        next(steps)
        assert task.completed == 1
        steps.close()
        assert not bars.tasks


@pytest.mark.parametrize(
    "trainer",
    [
        SimpleNamespace(is_global_zero=False, progress_bar_callback=SimpleNamespace()),
        SimpleNamespace(is_global_zero=True, progress_bar_callback=None),
    ],
    ids=["another process", "turned off"],
)
def test_run_without_progress_shows_none(monkeypatch: pytest.MonkeyPatch, trainer: SimpleNamespace) -> None:
    file = on(monkeypatch, terminal=False)
    assert list(track_within(trainer, "ab", "Calibrating", 2)) == ["a", "b"]
    assert not file.getvalue()
