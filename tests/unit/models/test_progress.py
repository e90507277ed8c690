# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Progress of a run in a log."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import rich
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console

from anomalib_hgad.common import progress
from anomalib_hgad.models.progress import LoggedProgress


def trainer_of(stage: TrainerFn, **others: object) -> SimpleNamespace:
    known = {"is_global_zero": True, "progress_bar_callback": object(), "state": SimpleNamespace(fn=stage)}
    return SimpleNamespace(**known | others)


def lines(monkeypatch: pytest.MonkeyPatch, run: object, *, terminal: bool = False) -> list[str]:
    """What is printed by a run whose steps take no time, but each a line."""
    file = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=file, force_terminal=terminal, width=80))
    monkeypatch.setattr(progress, "LEAST_SECONDS", 0)
    run(LoggedProgress())
    return [line.partition(",")[0] for line in file.getvalue().splitlines()]


TENTHS = [f"{10 * tenth} %" for tenth in range(1, 10)]


def test_training_counts_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(TrainerFn.FITTING, max_epochs=4, num_training_batches=5)

    def run(callback: LoggedProgress) -> None:
        callback.on_train_start(trainer, None)
        for _ in range(4):
            callback.on_validation_start(trainer, None)
            for _ in range(5):
                callback.on_train_batch_end(trainer, None, None, None, 0)
            callback.on_validation_batch_end(trainer, None, None, None, 0)
            callback.on_validation_end(trainer, None)
        callback.on_train_end(trainer, None)

    assert lines(monkeypatch, run) == [*(f"Training: {tenth}" for tenth in TENTHS), "Training: done"]
    assert lines(monkeypatch, run, terminal=True) == []


def test_training_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(TrainerFn.FITTING, max_epochs=-1, num_training_batches=5)

    def run(callback: LoggedProgress) -> None:
        callback.on_train_start(trainer, None)
        callback.on_train_batch_end(trainer, None, None, None, 0)
        callback.on_train_end(trainer, None)

    assert lines(monkeypatch, run) == ["Training ...", "Training: done"]


@pytest.mark.parametrize(
    ("stage", "word", "name"),
    [
        (TrainerFn.VALIDATING, "Validation", "validation"),
        (TrainerFn.TESTING, "Test", "test"),
        (TrainerFn.PREDICTING, "Prediction", "predict"),
    ],
)
def test_other_runs(monkeypatch: pytest.MonkeyPatch, stage: TrainerFn, word: str, name: str) -> None:
    batches = [6, 4]
    trainer = trainer_of(stage, num_val_batches=batches, num_test_batches=batches, num_predict_batches=batches)

    def run(callback: LoggedProgress) -> None:
        getattr(callback, f"on_{name}_start")(trainer, None)
        for _ in range(10):
            getattr(callback, f"on_{name}_batch_end")(trainer, None, None, None, 0)
        getattr(callback, f"on_{name}_end")(trainer, None)

    assert lines(monkeypatch, run) == [*(f"{word}: {tenth}" for tenth in TENTHS), f"{word}: done"]
