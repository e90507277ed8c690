# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a test says when it is over."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import rich
from rich.console import Console

from anomalib_hgad.evaluation.pictures import SomePictures
from anomalib_hgad.evaluation.results import Results
from anomalib_hgad.evaluation.terminal import places, show_test


def trainer_of(folder: Path, **others: object) -> SimpleNamespace:
    known = {
        "default_root_dir": folder,
        "callbacks": [],
        "ckpt_path": None,
        "checkpoint_callback": None,
        "world_size": 1,
    }
    return SimpleNamespace(**known | others)


def test_places_within_the_working_directory_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = SimpleNamespace(best_model_path=str(tmp_path / "my run/model.ckpt"))
    assert places(trainer_of(tmp_path / "my run", checkpoint_callback=checkpoints)) == {
        "Metrics": "my run/results.csv",
        "Checkpoint": "my run/model.ckpt",
        "Next": "anomalib-hgad report 'my run'",
    }


def test_checkpoint_that_was_tested_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    checkpoints = SimpleNamespace(best_model_path="")
    found = places(trainer_of(tmp_path, ckpt_path="/elsewhere/model.ckpt", checkpoint_callback=checkpoints))
    assert found["Checkpoint"] == "elsewhere/model.ckpt"
    assert "Pictures" not in found


def test_pictures_are_counted(tmp_path: Path) -> None:
    visualizer = SomePictures()
    visualizer.on_test_start(None, None)
    assert "Pictures" not in places(trainer_of(tmp_path, callbacks=[visualizer]))
    visualizer._taken = {tmp_path / "images/0.png", tmp_path / "images/1.png"}
    visualizer._selection.seen = 2
    assert places(trainer_of(tmp_path, callbacks=[visualizer]))["Pictures"].endswith("images (all 2 images)")
    visualizer._selection.seen = 1200
    assert places(trainer_of(tmp_path, callbacks=[visualizer]))["Pictures"].endswith(
        "images (2 of 1200 images: the worst, and a sample)"
    )


def test_no_place_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=file, width=80))
    folder = tmp_path / ("[red]" + "x" * 100)
    show_test(trainer_of(folder), Results({"bolt": {"image_AUROC": 1.0}}, {"image_AUROC": 1.0}), {"bolt": 3}, "Hgad")
    lines = file.getvalue().splitlines()
    assert f"Metrics     {folder / 'results.csv'}" in lines
    assert f"Next        anomalib-hgad report '{folder}'" in lines
