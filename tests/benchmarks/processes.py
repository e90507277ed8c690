# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Time of a distributed training by its number of processes, one core each.

The images of a step are the same ones, however many processes share them. One process has one core too, so that what is
compared is the work and the communication, not the number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from lightning.pytorch import Callback

from tests.helpers.trees import mvtec_class

GLOBAL_BATCH = 16
CLASSES = ("bolt", "nut")


class Clock(Callback):
    """Seconds until the first step, in which the features are computed, and of every epoch after the first."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.features = 0.0
        self._start = time.perf_counter()

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        """Start the clock of an epoch."""
        if trainer.current_epoch == 0:
            self.features = time.perf_counter() - self._start
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Stop it; the first epoch warms up."""
        if trainer.current_epoch:
            self.epochs.append(time.perf_counter() - self._start)


def train(data: Path, processes: int, epochs: int, image_size: int) -> dict[str, float]:
    """Train in this process, as one of several, and tell the times."""
    from anomalib_hgad import Hgad, MultiClass  # noqa: PLC0415 - the process that starts the others does without
    from tests.helpers.engines import engine  # noqa: PLC0415
    from tests.helpers.light import TRAINED  # noqa: PLC0415

    settings = TRAINED | {
        "backbone": "resnet18",
        "levels": {"layer3": [1.0, 0.5, 0.25]},
        "image_size": image_size,
        "flow_arguments": {"coupling_blocks": 8, "condition_dim": 128},
        "pre_trained": False,
        "feature_cache": str(data.parent / f"cache_{processes}"),
    }
    datamodule = MultiClass(root=data, train_batch_size=GLOBAL_BATCH // processes, num_workers=0, val_split_mode="none")
    clock = Clock()
    run = engine(
        data.parent / f"results_{processes}",
        clock,
        strategy="ddp" if processes > 1 else "auto",
        devices=processes,
        max_epochs=epochs,
        limit_val_batches=0,
    )
    run.fit(Hgad(**settings), datamodule=datamodule)
    return {"features, s": round(clock.features, 2), "epoch, s": round(statistics.median(clock.epochs), 3)}


def main(command: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=6, help="epochs of a training; the first one is not counted")
    parser.add_argument("--images", type=int, default=48, help="training images of each of two classes")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--json", type=Path, required=True, help="file to write the times to")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(command)
    if arguments.data is not None:  # one of the processes
        times = train(arguments.data, arguments.processes[0], arguments.epochs, arguments.image_size)
        if os.environ.get("RANK", "0") == "0":
            arguments.json.write_text(json.dumps(times))
        return
    figures = {}
    with TemporaryDirectory() as name:
        data = Path(name) / "data"
        for of_class in CLASSES:
            mvtec_class(data / of_class, train=arguments.images, size=(arguments.image_size,) * 2)
        for processes in arguments.processes:
            written = Path(name) / "times.json"
            script = [str(Path(__file__).resolve()), "--data", str(data), "--json", str(written)]
            script += ["--processes", str(processes), "--epochs", str(arguments.epochs)]
            script += ["--image_size", str(arguments.image_size)]
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            subprocess.run([*launch, *script], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
            figures[str(processes)] = json.loads(written.read_text())
            print(processes, figures[str(processes)], flush=True)
    made_with = {
        "images": len(CLASSES) * arguments.images,
        "image_size": arguments.image_size,
        "global_batch": GLOBAL_BATCH,
        "epochs": arguments.epochs,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"made_with": made_with, "processes": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
