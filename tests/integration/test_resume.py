# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A training that is killed and resumed ends as an unbroken one."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import trees
from tests.helpers.commands import FAST_FLAGS, LIGHT_FLAGS_BY_MODEL, data_flags, in_process

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

EPOCHS = 4

KILLED_RUN = """
import os, signal, sys
from anomalib.cli.cli import AnomalibCLI
from anomalib_hgad import {model}

step = {model}.training_step

def killed_in_epoch_two(self, batch, batch_idx, *args):
    if self.current_epoch == 2 and batch_idx == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx, *args)

{model}.training_step = killed_in_epoch_two
AnomalibCLI(sys.argv[1:])
"""


def train_flags(model: str, data: Path, results: Path) -> list[str]:
    return [
        *("train", f"--model={model}", *LIGHT_FLAGS_BY_MODEL[model], "--model.lr=1e-3"),
        *(*data_flags(data), "--data.train_batch_size=4"),
        *(*FAST_FLAGS, f"--trainer.max_epochs={EPOCHS}", "--trainer.log_every_n_steps=1", "--model.seed=0"),
        *("--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={results}"),
        f"--default_root_dir={results}",
    ]


def loss_curve(results: Path) -> dict[int, float]:
    with next(results.rglob("metrics.csv")).open() as file:
        return {
            int(row["step"]): float(row["train_loss_step"]) for row in csv.DictReader(file) if row["train_loss_step"]
        }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("resume") / "data"
    trees.mvtec_class(data / "bolt", train=6)
    trees.mvtec_class(data / "nut", train=5)
    return data


@pytest.mark.parametrize("model", ["Hgad", pytest.param("UniAd", marks=pytest.mark.nightly)])
def test_resumed_training_ends_as_an_unbroken_one(model: str, data: Path, tmp_path: Path) -> None:
    in_process(*train_flags(model, data, tmp_path / "unbroken"))

    flags = train_flags(model, data, tmp_path / "killed")
    killed_run = KILLED_RUN.format(model=model)
    killed = subprocess.run([sys.executable, "-c", killed_run, *flags], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list((tmp_path / "killed").rglob("results.json"))

    checkpoint = next((tmp_path / "killed").rglob("model.ckpt"))
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1
    in_process(*train_flags(model, data, tmp_path / "resumed"), f"--ckpt_path={checkpoint}")

    unbroken, resumed = loss_curve(tmp_path / "unbroken"), loss_curve(tmp_path / "resumed")
    assert set(resumed) == {step for step in unbroken if step >= len(unbroken) * 2 // EPOCHS}
    assert resumed == pytest.approx({step: unbroken[step] for step in resumed}, rel=1e-5)

    figures = [json.loads(next((tmp_path / run).rglob("results.json")).read_text()) for run in ("unbroken", "resumed")]
    for name, figure in figures[0]["mean"].items():
        assert figures[1]["mean"][name] == pytest.approx(figure, abs=1e-5), name

    weights = [
        torch.load(next((tmp_path / run).rglob("model.ckpt")), weights_only=True)["state_dict"]
        for run in ("unbroken", "resumed")
    ]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-5, equal_nan=True, msg=name)
