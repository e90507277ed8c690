# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Benchmarks that begin with images: the feature cache, inference, and what grows with what."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from anomalib.models.image.cflow.torch_model import CflowModel
from lightning.pytorch import Callback
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize

from anomalib_hgad import Hgad, MultiClass
from anomalib_hgad.models.hgad.folding import fold
from anomalib_hgad.models.hgad.torch_model import HgadModel
from tests.benchmarks import measure
from tests.benchmarks.measure import device, median_seconds, seconds_of
from tests.helpers.engines import engine
from tests.helpers.light import TRAINED
from tests.helpers.trees import mvtec_class

CLASSES = ("bolt", "nut", "washer")
IMAGES_OF_CLASS = 8
BACKBONE_OF_CACHE: dict[str, Any] = {"backbone": "tf_efficientnet_b6", "levels": {"blocks.4": [1.0, 0.5, 0.25]}}
FLOWS_OF_CACHE = {
    "8 blocks, P 128": {"coupling_blocks": 8, "condition_dim": 128},
    "12 blocks, P 256": {"coupling_blocks": 12, "condition_dim": 256},
}
WORKERS = (0, 1, 2, 4, 8)
SIZES = (256, 512, 1024)


class EpochTimes(Callback):
    """Seconds of every epoch of a training."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self._start)


def cache() -> dict[str, Any]:
    """(c): an epoch from cached features against one from images; and how fast images are read."""
    ratios, medians = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in CLASSES:
            mvtec_class(Path(folder) / "data" / name, train=IMAGES_OF_CLASS, size=(1024, 1024))
        for flow, flow_arguments in FLOWS_OF_CACHE.items():
            epochs = {
                source: epoch_seconds(Path(folder), feature_cache=source == "cache", flow_arguments=flow_arguments)
                for source in ("images", "cache")
            }
            ratios[f"epoch, {flow}: images / cache"] = epochs["images"] / epochs["cache"]
            medians |= {f"epoch from {source}, {flow}, s": value for source, value in epochs.items()}
        reading = {workers: images_per_second(Path(folder) / "data", workers) for workers in WORKERS}
    count = len(CLASSES) * IMAGES_OF_CLASS
    return {
        "what": f"an epoch of {count} images, {BACKBONE_OF_CACHE['backbone']} at 256 px, from files of 1024 px",
        "ratios": ratios,
        "medians": medians
        | {f"reading 1024 px with {workers} workers, images/s": value for workers, value in reading.items()},
    }


def epoch_seconds(folder: Path, feature_cache: bool, flow_arguments: dict[str, int]) -> float:
    """Median seconds of an epoch after the first."""
    settings: dict[str, Any] = {"image_size": 256, "pre_trained": False, "seed": 0, "calibration_share": None}
    module = Hgad(**TRAINED | BACKBONE_OF_CACHE, **settings, flow_arguments=flow_arguments, feature_cache=feature_cache)
    datamodule = MultiClass(root=folder / "data", train_batch_size=8, num_workers=0)
    times = EpochTimes()
    run_settings = {"max_epochs": measure.REPEATS + 1, "limit_val_batches": 0, "accelerator": "auto", "devices": 1}
    engine(folder / "results", times, **run_settings).fit(module, datamodule=datamodule)
    return statistics.median(times.seconds[1:])


def images_per_second(root: Path, workers: int) -> float:
    """Reading and resizing from 1024 to 1024 pixels; workers that run already."""
    datamodule = MultiClass(root=root, train_augmentations=Resize((1024, 1024)))
    datamodule.setup()
    data = datamodule.train_data
    loader = DataLoader(
        data,
        8,
        num_workers=workers,
        collate_fn=data.collate_fn,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )
    for _ in loader:
        pass
    return len(data) / min(seconds_of(lambda: list(loader)) for _ in range(2))


def inference() -> dict[str, Any]:
    """(d): images per second of whole models without post-processing, against anomalib's Cflow."""
    layers = ["layer2", "layer3"]
    blocks: dict[str, Any] = {"coupling_blocks": 8, "clamp_alpha": 1.9}
    size = SIZES[0]
    ours = HgadModel(
        "resnet18",
        {layer: [1.0] for layer in layers},
        image_size=(size, size),
        pre_trained=False,
        num_classes=15,
        flow_arguments=blocks | {"condition_dim": 128},
        **TRAINED,
    )
    folded = fold(ours.to(device()))
    cflow = CflowModel("resnet18", layers, pre_trained=False, condition_vector=128, permute_soft=True, **blocks)
    cflow.to(device())
    ratios, medians = {}, {}
    for batch in (1, 8):
        images = torch.randn(batch, 3, size, size, device=device())
        with torch.no_grad():
            seconds = median_seconds(
                cflow=lambda images=images: cflow(images), ours=lambda images=images: folded(images)
            )
        ratios[f"images/s, batch {batch}: ours / Cflow"] = seconds["cflow"] / seconds["ours"]
        medians |= {f"images/s, batch {batch}, {name}": batch / value for name, value in seconds.items()}
    what = f"resnet18 layers 2 and 3, {size} px, 8 blocks, P 128, 15 classes, against anomalib's Cflow"
    return {"what": what, "ratios": ratios, "medians": medians}


def scaling() -> dict[str, Any]:
    """(e): inference time against the number of classes, of pixels and of images."""
    settings: dict[str, Any] = TRAINED | {
        "backbone": "resnet18",
        "levels": {"layer3": [1.0, 0.5, 0.25]},
        "pre_trained": False,
        "flow_arguments": {"coupling_blocks": 8, "condition_dim": 128},
    }
    medians = {}
    smallest = SIZES[0]
    images = torch.randn(8, 3, smallest, smallest, device=device())
    of_classes = {
        str(classes): fold(HgadModel(image_size=(smallest, smallest), num_classes=classes, **settings).to(device()))
        for classes in (1, 15, 40, 160)
    }
    with torch.no_grad():
        seconds = median_seconds(
            **{f"{classes} classes": lambda model=model: model(images) for classes, model in of_classes.items()}
        )
        medians |= {f"{name}, ms per image": 1000 * value / 8 for name, value in seconds.items()}
        sizes = {}
        for size in SIZES:
            model = fold(HgadModel(image_size=(size, size), num_classes=15, **settings).to(device()))
            image = torch.randn(2, 3, size, size, device=device())
            sizes |= median_seconds(**{str(size): lambda model=model, image=image: model(image)})
        medians |= {f"{size} px, ms per image": 1000 * value / 2 for size, value in sizes.items()}
        model = of_classes["15"]
        batches = {count: torch.randn(count, 3, smallest, smallest, device=device()) for count in (4, 8, 16, 32)}
        counts = median_seconds(
            **{str(count): lambda batch=batch: model(batch) for count, batch in batches.items()},
        )
        medians |= {f"{count} images, ms per image": 1000 * value / int(count) for count, value in counts.items()}
    per_pixel = {size: value / int(size) ** 2 for size, value in sizes.items()}
    return {
        "what": "inference, resnet18 layer 3 at three scales, 8 blocks, P 128",
        "ratios": {
            "time, 160 classes / 1": seconds["160 classes"] / seconds["1 classes"],
            f"time per pixel, {SIZES[-1]} px / {smallest} px": per_pixel[str(SIZES[-1])] / per_pixel[str(smallest)],
            "time per image, 32 / 4": counts["32"] / counts["4"] / 8,
        },
        "medians": medians,
    }
