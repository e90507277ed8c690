# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""A training and a test on some processes of the CPU.

Run as ``python -m tests.helpers.ddp_run FOLDER DEVICES [KILLED]``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.common.encoder import PyramidEncoder
from anomalib_hgad.data import dataset as dataset_module
from anomalib_hgad.models.hgad.feature_cache import cache as feature_cache
from tests.helpers.engines import all_figures, engine
from tests.helpers.light import LIGHT

GLOBAL_BATCH = 4


class Ordered(MultiClass):
    """Trains on the images in a fixed order: step for step the same ones, however many processes share them."""

    def train_dataloader(self) -> DataLoader:
        processes, rank = self.trainer.world_size, self.trainer.global_rank
        return DataLoader(
            self.train_data,
            self.train_batch_size,
            sampler=DistributedSampler(self.train_data, processes, rank, shuffle=False),
            num_workers=self.num_workers,
            collate_fn=self.train_data.collate_fn,
        )


class Record(Callback):
    """Writes down what a process did until its first step, and its state in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read = 0
        self.encoded = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        counts = {"read": self.read, "encoded": self.encoded}
        (self.folder / f"counts_{trainer.global_rank}.json").write_text(json.dumps(counts))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"state_{trainer.global_rank}.pt")


class Death(Callback):
    """Kills a process in its second step."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank == self.rank and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, devices: int, killed: int | None = None) -> None:
    """Train, test, predict, and leave losses, state, figures and tables in FOLDER; its data are in ``data`` beside."""
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder)
    read_image, encode = dataset_module.read_image, PyramidEncoder.forward

    def counted_read(*args: Any, **kwargs: Any) -> Any:
        record.read += 1
        return read_image(*args, **kwargs)

    def counted_encode(self: PyramidEncoder, images: torch.Tensor) -> list[torch.Tensor]:
        record.encoded += len(images)
        return encode(self, images)

    datamodule = Ordered(
        root=folder.parent / "data",
        train_batch_size=GLOBAL_BATCH // devices,
        eval_batch_size=3,
        num_workers=0,
        val_split_mode="same_as_test",
    )
    # 13 images are trained on: the last one makes no full step, but counts for the whitening and the constants.
    training = engine(
        folder,
        *(record, *([] if killed is None else [Death(killed)])),
        max_epochs=2,
        limit_train_batches=3,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=CSVLogger(folder),
        log_every_n_steps=1,
    )
    # With the number of classes all weights are drawn here; later, Lightning's DDP seeds anew.
    model = Hgad(
        **LIGHT,
        num_classes=2,
        seed=0,
        lr=1e-3,
        training_arguments={"first_stage": 0.5},
        calibration_share=0.2,
        feature_cache=folder / "cache",
        visualizer=False,
    )
    with (
        mock.patch.object(dataset_module, "read_image", counted_read),
        mock.patch.object(PyramidEncoder, "forward", counted_encode),
        mock.patch.object(feature_cache, "available_memory", return_value=0),
    ):
        training.fit(model, datamodule=datamodule)
        training.test(model, datamodule=datamodule)
        figures = all_figures(training)
        training.predict(model, datamodule=datamodule, return_predictions=False)
    if training.trainer.is_global_zero:
        (folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    run(Path(sys.argv[1]), *map(int, sys.argv[2:]))
