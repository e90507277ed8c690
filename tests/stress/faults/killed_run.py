# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A run of the command line in a process of its own, killed at a given moment of a phase."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from anomalib.cli import AnomalibCLI
from anomalib.engine import Engine
from lightning.pytorch import Trainer

from anomalib_hgad.models.hgad.feature_cache import cache as feature_cache

PHASES: dict[str, tuple[Any, str]] = {
    "training": (Trainer, "fit"),
    "caching": (feature_cache, "write_shard"),
    "testing": (Trainer, "test"),
    "exporting": (Engine, "export"),
}
"""What is killed, and the function during which."""


@dataclass(frozen=True)
class Kill:
    """When to kill: some seconds into the phase, or at one of its events of the file system."""

    seconds: float | None = None
    event: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How long the phase was, in seconds and in events; nothing if the run was killed."""

    seconds: float = 0.0
    events: int = 0
    killed: bool = False


class FileEvents:
    """Counts what is about to change files while it is switched on, and kills this process at one of these events."""

    def __init__(self, fatal: int | None) -> None:
        self.on = False
        self.count = 0
        self.fatal = fatal
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}:
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1


def child(phase: str, arguments: list[str], log: Path, kill: Kill, pipe: Connection) -> None:
    """Run ``anomalib``; say when the phase begins, and how long it was."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    feature_cache.available_memory = lambda: 0  # the features go to files
    owner, name = PHASES[phase]
    function = getattr(owner, name)
    events = FileEvents(kill.event)

    @wraps(function)  # the command line reads the signature
    def watched(*args: Any, **kwargs: Any) -> Any:
        pipe.send("begins")
        start, events.on = time.perf_counter(), True
        result = function(*args, **kwargs)
        events.on = False
        pipe.send(Outcome(time.perf_counter() - start, events.count))
        return result

    setattr(owner, name, watched)
    AnomalibCLI(arguments)


def run(phase: str, arguments: list[str], folder: Path, kill: Kill = Kill()) -> Outcome:
    """Run a command line in a process of its own.

    Raises:
        RuntimeError: If it failed by itself.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    here, there = context.Pipe()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    process = context.Process(target=child, args=(phase, arguments, log, kill, there))
    process.start()
    there.close()
    outcome = Outcome(killed=True)
    try:
        if here.recv() == "begins" and kill.seconds is not None:
            process.join(kill.seconds)
            process.kill()
        outcome = here.recv()
    except EOFError:  # it ended meanwhile
        pass
    process.join()
    if process.exitcode not in {0, -signal.SIGKILL}:
        msg = f"{' '.join(arguments)} failed:\n{log.read_text(errors='replace')[-3000:]}"
        raise RuntimeError(msg)
    return outcome
