# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""One run of a benchmark: builds a model, and trains and tests it with anomalib's Engine."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import timm
import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from anomalib.metrics import AUPR, AUPRO, AUROC, AnomalibMetric, F1Max
from anomalib.models import AnomalibModule
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn

from anomalib_hgad.benchmark.plan import Run, model_class
from anomalib_hgad.common.backbone_weights import load_backbone_weights
from anomalib_hgad.common.files import write_json
from anomalib_hgad.common.memory import peak_memory
from anomalib_hgad.common.versions import installed_versions
from anomalib_hgad.data.multi_class import MultiClass
from anomalib_hgad.evaluation.class_calibration import MultiClassCalibration
from anomalib_hgad.evaluation.default_metrics import ClassAccuracy
from anomalib_hgad.evaluation.evaluator import ClassEvaluator

REPORTED_PACKAGES = ("anomalib-hgad", "anomalib", "lightning", "timm", "torch")
"""Packages that a result depends on."""

SETTINGS_FILE = "settings.json"
RECORD_FILE = "record.json"


def benchmark_metrics() -> list[AnomalibMetric]:
    """Image- and pixel-level AUROC, AP (anomalib's AUPR) and F1-max, AUPRO, and metrics of models that know classes."""
    levels = (("image_", "pred_score", "gt_label"), ("pixel_", "anomaly_map", "gt_mask"))
    metrics = [
        metric(fields=[field, truth], prefix=prefix, strict=False)
        for prefix, field, truth in levels
        for metric in (AUROC, AUPR, F1Max)
    ]
    return [
        *metrics,
        AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
        ClassAccuracy(strict=False),
        AUROC(fields=["class_given_score", "gt_label"], prefix="class_given_image_", strict=False),
        AUROC(fields=["class_given_map", "gt_mask"], prefix="class_given_pixel_", strict=False),
    ]


class ModelClock(Callback):
    """Measures the seconds that the model itself needs for the images of a test, and waits for a GPU to be done."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.images = 0
        self._start = 0.0

    def on_test_batch_start(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401
        """Start the clock."""
        self._start = _time_on(trainer.strategy.root_device)

    def on_test_batch_end(self, trainer: Trainer, _module: Any, _outputs: Any, batch: ImageBatch, *_: Any) -> None:  # noqa: ANN401
        """Stop the clock; user callbacks such as this one run before those that compute metrics."""
        self.seconds += _time_on(trainer.strategy.root_device) - self._start
        self.images += batch.batch_size


def _time_on(device: torch.device) -> float:
    """Time in seconds, after a device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


@contextmanager
def local_weights(files: dict[str, str]) -> Iterator[None]:
    """Make pre-trained backbones read local files, also in models without an argument for one.

    Args:
        files: A file for each timm model name, or ``"package"``. The weights of other models are downloaded as usual.

    Yields:
        Nothing.
    """
    create_model = timm.create_model

    def create_with_local_weights(
        model_name: str,
        pretrained: bool = False,
        **arguments: Any,  # noqa: ANN401
    ) -> nn.Module:
        path = files.get(model_name) if pretrained else None
        module = create_model(model_name, pretrained=pretrained and path is None, **arguments)
        if path is not None:
            load_backbone_weights(module, path, model_name)
        return module

    with mock.patch.object(timm, "create_model", create_with_local_weights):
        yield


def build_model(run: Run) -> AnomalibModule:
    """Build the model of a run. Its scores stay raw: post-processing would clamp them, which makes ties.

    Args:
        run: The run.

    Returns:
        The model.
    """
    constructor = model_class(run.choice.model)
    size = run.protocol.image_size
    # The first leaves scores raw before its first validation, the second always does.
    post_processor = MultiClassCalibration if run.choice.calibration else PostProcessor
    arguments: dict[str, Any] = {
        "post_processor": post_processor(enable_normalization=False, enable_thresholding=False),
        "evaluator": ClassEvaluator(val_metrics=[], test_metrics=benchmark_metrics()),
        "visualizer": False,
    }
    if "image_size" in inspect.signature(constructor).parameters:
        arguments["image_size"] = size
    else:
        arguments["pre_processor"] = constructor.configure_pre_processor(image_size=(size, size))
    with local_weights(run.protocol.backbone_weights):
        return constructor(**(arguments | run.choice.arguments))


def execute(run: Run, folder: Path) -> dict[str, Any]:
    """Train and test a model.

    Args:
        run: What to run.
        folder: Folder for its files.

    Returns:
        Settings, metrics, times, memory, parameters and versions.
    """
    seed_everything(run.seed, workers=True)
    model = build_model(run)
    categories = {} if run.only_class is None else {"categories": [run.only_class]}
    datamodule = MultiClass(**(run.protocol.data | categories))
    clock = ModelClock()
    settings: dict[str, Any] = {
        "default_root_dir": folder,
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
    }
    engine = Engine(max_epochs=run.protocol.max_epochs, limit_val_batches=0, callbacks=[clock], **settings)
    start = time.perf_counter()
    engine.fit(model, datamodule=datamodule)
    fit_seconds = time.perf_counter() - start
    engine.test(model, datamodule=datamodule)
    results = model.evaluator.results
    test_seconds = time.perf_counter() - start - fit_seconds
    calibrated = None
    if run.choice.calibration:
        second = Engine(**settings)
        second.validate(model, datamodule=datamodule)
        second.test(model, datamodule=datamodule)
        calibrated = asdict(model.evaluator.results)
    return {
        "settings": run.settings,
        "classes": results.classes,
        "pooled": results.pooled,
        "calibrated": calibrated,
        "epochs": engine.trainer.current_epoch,
        "fit_seconds": fit_seconds,
        "test_seconds": test_seconds,
        "milliseconds_per_image": 1000 * clock.seconds / clock.images,
        "peak_memory_bytes": peak_memory(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": installed_versions(REPORTED_PACKAGES),
    }


def main(folder: Path) -> None:
    """Execute the run of a folder's :data:`SETTINGS_FILE`, and write its :data:`RECORD_FILE` there.

    Args:
        folder: Folder of the run.
    """
    run = Run.from_settings(json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")))
    write_json(execute(run, folder), folder / RECORD_FILE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
