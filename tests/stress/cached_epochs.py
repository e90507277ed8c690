# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""What a long training on cached features takes of the system: memory, open files and threads. Linux only.

``python -m tests.stress.cached_epochs`` trains a tiny model for 200 epochs, once on features in main memory and once on
features in files, with a validation after each epoch, and prints what the process takes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from lightning.pytorch import Callback

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.models.hgad.feature_cache import cache as feature_cache
from tests.helpers import trees
from tests.helpers.engines import engine
from tests.helpers.light import LIGHT


@dataclass(frozen=True)
class Use:
    """What the process takes at the end of an epoch.

    Attributes:
        memory: Main memory in bytes.
        files: Open files.
        threads: Threads.
    """

    memory: int
    files: int
    threads: int


class Record(Callback):
    """Writes down what the process takes."""

    def __init__(self) -> None:
        self.uses: list[Use] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        counts = (len(list(Path("/proc/self", name).iterdir())) for name in ("fd", "task"))
        self.uses.append(Use(pages * os.sysconf("SC_PAGE_SIZE"), *counts))


def train(epochs: int, in_files: bool) -> list[Use]:
    """Train on cached features; give what each epoch takes."""
    record = Record()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for product in ("bolt", "nut"):
            trees.mvtec_class(folder / "data" / product, train=12)
        run = engine(folder, record, max_epochs=epochs)
        datamodule = MultiClass(root=folder / "data", train_batch_size=4, num_workers=0, val_split_mode="same_as_test")
        available = {"return_value": 0} if in_files else {"wraps": feature_cache.available_memory}
        with mock.patch.object(feature_cache, "available_memory", **available):
            run.fit(Hgad(**LIGHT, feature_cache=folder / "cache", visualizer=False), datamodule=datamodule)
    return record.uses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    arguments = parser.parse_args()
    for place in ("main memory", "files"):
        uses = train(arguments.epochs, place == "files")
        for epoch in sorted({0, *range(9, len(uses), max(1, len(uses) // 8)), len(uses) - 1}):
            use = uses[epoch]
            print(f"{place}, epoch {epoch + 1}: {use.memory / 1e6:.1f} MB, {use.files} files, {use.threads} threads")
