# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Processes that are killed, memory that runs out, and losses that are none: a clear end, and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.engine import Engine
from torch.utils.data import get_worker_info

from anomalib_hgad import Hgad, MultiClass, UniAd
from anomalib_hgad.common.files import atomic_write, move_whole
from anomalib_hgad.data import dataset as dataset_module
from anomalib_hgad.models.hgad.feature_cache import cache as feature_cache
from anomalib_hgad.models.hgad.feature_cache.store import MemoryFeatures
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT, LIGHT_UNIAD
from tests.helpers.paths import ROOT
from tests.stress import cached_epochs
from tests.stress.faults.__main__ import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("bolt", "nut"):
        trees.mvtec_class(tmp_path / "data" / name)
    return tmp_path / "data"


def fit(model: Hgad | UniAd, data: Path, workers: int = 0, epochs: int = 1) -> Engine:
    run = engine(data.parent / "results", max_epochs=epochs)
    run.fit(model, datamodule=MultiClass(root=data, train_batch_size=4, num_workers=workers))
    return run


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("phase", ["training", "testing"])
def test_killed_runs_end_as_unbroken_ones(phase: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A cut of ``python -m tests.stress.faults``."""
    main([phase], runs=2, seed=0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"{phase} 1 of 2", f"{phase} 2 of 2"]


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("cached", [True, False])
def test_killed_worker_of_a_dataloader_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    """While features are computed, and while images are trained on."""
    read_image = dataset_module.read_image

    def killed(path: str, *args: Any, **kwargs: Any) -> Any:
        if get_worker_info() is not None and path.endswith("003.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path, *args, **kwargs)

    monkeypatch.setattr(dataset_module, "read_image", killed)
    with pytest.raises(RuntimeError, match=r"DataLoader worker .*(killed|exited)"):
        fit(Hgad(**LIGHT, visualizer=False, feature_cache=cached), data, workers=1)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_process_of_several_ends_the_others(tmp_path: Path, rank: int) -> None:
    trees.mvtec_class(tmp_path / "data/bolt", train=9)
    trees.mvtec_class(tmp_path / "data/nut", train=7)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.helpers.ddp_run", tmp_path / "run", "2", str(rank)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PL_DISABLE_FORK": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.wait(timeout=240) != 0
        for _ in range(600):  # the other process notices at its next exchange
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        pytest.fail("the other process goes on")
    except ProcessLookupError:
        assert not list(tmp_path.rglob("figures.json"))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_main_memory_that_runs_out_leads_to_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is PyTorch's own."""

    class TooLarge(MemoryFeatures):
        def fill(self, batches: Any) -> None:
            next(iter(batches))
            torch.empty(2**50)

    monkeypatch.setattr(feature_cache, "MemoryFeatures", TooLarge)
    fit(Hgad(**LIGHT, visualizer=False, feature_cache=tmp_path / "cache"), data)
    assert "do not fit into main memory after all" in caplog.text
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]


@pytest.mark.slow
def test_other_errors_of_the_features_are_not_taken_for_a_lack_of_memory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: MemoryFeatures, batches: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(MemoryFeatures, "fill", broken)
    with pytest.raises(RuntimeError, match=r"^broken$"):
        fit(Hgad(**LIGHT, visualizer=False, feature_cache=tmp_path / "cache"), data)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Linux tells it")
@pytest.mark.parametrize("in_files", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_epochs_on_cached_features_open_no_more_files_and_start_no_more_threads(in_files: bool) -> None:
    """A cut of ``python -m tests.stress.cached_epochs``."""
    uses = cached_epochs.train(6, in_files)
    assert {(use.files, use.threads) for use in uses[1:]} == {(uses[1].files, uses[1].threads)}
    assert uses[-1].memory < 1.05 * uses[1].memory


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), [(Hgad, LIGHT), (UniAd, LIGHT_UNIAD)])
def test_weights_that_are_lost_end_the_training_and_leave_the_last_checkpoint(
    data: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Hgad | UniAd], settings: dict[str, Any]
) -> None:
    step = kind.training_step

    def lost(self: Hgad | UniAd, *args: Any) -> Any:
        loss = step(self, *args)
        return loss * torch.nan if self.current_epoch == 2 else loss

    monkeypatch.setattr(kind, "training_step", lost)
    with pytest.raises(ArithmeticError, match=r"NaN or infinite in epoch 2.*smaller lr"):
        fit(kind(**settings, visualizer=False), data, epochs=4)
    (checkpoint,) = (data.parent / "results").rglob("*.ckpt")
    kept = torch.load(checkpoint, weights_only=True)
    assert kept["epoch"] == 1
    parameters = dict(kind.load_from_checkpoint(checkpoint).named_parameters())
    assert all(parameter.isfinite().all() for parameter in parameters.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": -1, "max_steps": 5},
        {"max_epochs": 4, "val_check_interval": 1},
        {"max_epochs": -1, "max_steps": 5, "limit_val_batches": 0},
    ],
    ids=["steps", "batches", "steps without validation"],
)
def test_weights_that_are_lost_within_an_epoch_leave_the_last_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """At the first of two steps of the third epoch, after which the training ends or is validated."""
    step = UniAd.training_step
    monkeypatch.setattr(
        UniAd, "training_step", lambda self, *args: step(self, *args) * (torch.nan if self.current_epoch == 2 else 1)
    )
    run = engine(tmp_path, **settings)
    with pytest.raises(ArithmeticError, match=r"NaN or infinite in epoch 2.*smaller lr"):
        run.fit(
            UniAd(**LIGHT_UNIAD, visualizer=False),
            datamodule=MultiClass(root=data, train_batch_size=4, num_workers=0),
        )
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    parameters = dict(UniAd.load_from_checkpoint(checkpoint).named_parameters())
    assert all(parameter.isfinite().all() for parameter in parameters.values())


def test_file_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new/file.txt"
    for text in ("one", "two"):
        before = path.read_text() if path.exists() else None
        with atomic_write(path) as unfinished:
            unfinished.write_text(text)
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text
    interrupted = atomic_write(path)
    interrupted.__enter__().write_text("three")
    assert not interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_files_that_belong_together_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The .xml, which is what is read, is not there while the .bin is of another one."""
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        for suffix in ("xml", "bin"):
            (tmp_path / folder / f"model.{suffix}").write_text(folder)
    seen = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append({path.name: path.read_text() for path in (tmp_path / "old").iterdir()})
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    move_whole(tmp_path / "new/model.xml", tmp_path / "old/model.xml")
    assert seen == [{"model.bin": "old"}, {"model.bin": "new"}]
    assert (tmp_path / "old/model.xml").read_text() == (tmp_path / "old/model.bin").read_text() == "new"
